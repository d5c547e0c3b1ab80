//! The private cluster: it answers, it survives, and it never outlives its user.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ingestd::{
    dev::{Cluster, ClusterError, Options},
    testing::{self, Database, Folder},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, getpgid},
};
use sqlx::{Connection, PgConnection};

use super::process::PATIENCE;

/// Names the data folder for [`holds_a_cluster_until_it_is_killed`].
const HELD: &str = "INGESTD_TEST_HELD_CLUSTER";

/// Waits until `done`, which something else brings about.
async fn until(what: &str, done: impl Fn() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn exists(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

fn socket_dir(url: &str) -> &Path {
    Path::new(url.rsplit_once("?host=").unwrap().1)
}

async fn count(url: &str, table: &str) -> i64 {
    let mut conn = PgConnection::connect(url).await.unwrap();
    let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    sqlx::query_scalar(statement)
        .fetch_one(&mut conn)
        .await
        .unwrap()
}

async fn insert_queue(url: &str, queue: &str) {
    let mut conn = PgConnection::connect(url).await.unwrap();
    sqlx::query("INSERT INTO ingestd.queues (queue) VALUES ($1)")
        .bind(queue)
        .execute(&mut conn)
        .await
        .unwrap();
}

#[tokio::test]
async fn two_databases_know_nothing_of_each_other() {
    let (one, two) = (Database::create().await, Database::create().await);
    insert_queue(one.url(), "only here").await;
    assert_eq!(count(one.url(), "ingestd.queues").await, 1);
    assert_eq!(count(two.url(), "ingestd.queues").await, 0);
}

#[tokio::test]
async fn a_dropped_database_is_gone_even_while_in_use() {
    let (stays, goes) = (Database::create().await, Database::create().await);
    let held = goes.pool().acquire().await.unwrap();
    let name: String = sqlx::query_scalar("SELECT current_database()::text")
        .fetch_one(goes.pool())
        .await
        .unwrap();
    drop(goes);
    drop(held);
    let exists: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(name)
            .fetch_one(stays.pool())
            .await
            .unwrap();
    assert!(!exists);
}

#[tokio::test]
async fn a_stopped_cluster_leaves_its_data_and_nothing_else() {
    let temp = Folder::make().unwrap();
    let options = Options {
        durable: false,
        ..Options::new(temp.path().join("state/pg"))
    };
    let cluster = Cluster::start(options.clone()).await.unwrap();
    let (url, pid) = (cluster.url("app"), cluster.pid().unwrap());
    assert_eq!(cluster.psql_line("app"), format!("psql '{url}'"));
    cluster.ensure_database("app").await.unwrap();
    cluster.ensure_database("app").await.unwrap();
    let mut conn = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE kept AS SELECT 1")
        .execute(&mut conn)
        .await
        .unwrap();
    cluster.stop().await.unwrap();
    assert!(!exists(pid));
    assert!(!socket_dir(&url).exists());

    let again = Cluster::start(options).await.unwrap();
    assert_eq!(again.url("app"), url);
    assert_eq!(count(&url, "kept").await, 1);
}

#[tokio::test]
async fn a_killed_server_comes_back_with_what_was_committed() {
    let mut cluster = testing::private_cluster().await;
    let (url, pid) = (cluster.database_url(), cluster.pid().unwrap());
    let pool = cluster.connect().await.unwrap();
    insert_queue(&url, "before the kill").await;

    cluster.kill9().await.unwrap();
    assert_eq!(cluster.pid(), None);
    let error = PgConnection::connect(&url).await.unwrap_err();
    assert!(ingestd::db::is_transient(&error), "{error:?}");

    cluster.restart().await.unwrap();
    assert_ne!(cluster.pid(), Some(pid));
    assert_eq!(cluster.database_url(), url);
    assert_eq!(count(&url, "ingestd.queues").await, 1);
    // The pool finds its connections broken and makes new ones.
    sqlx::query("SELECT 1").execute(&pool).await.unwrap();
}

#[tokio::test]
async fn a_restart_breaks_connections_and_keeps_the_data() {
    let mut cluster = testing::private_cluster().await;
    let url = cluster.database_url();
    insert_queue(&url, "before the restart").await;
    let mut conn = PgConnection::connect(&url).await.unwrap();
    cluster.restart().await.unwrap();
    let error = sqlx::query("SELECT 1")
        .execute(&mut conn)
        .await
        .unwrap_err();
    assert!(ingestd::db::is_transient(&error), "{error:?}");
    assert_eq!(count(&url, "ingestd.queues").await, 1);
}

#[tokio::test]
async fn a_second_cluster_on_the_same_data_is_refused() {
    let cluster = testing::private_cluster().await;
    let options = Options::new(cluster.data_dir());
    let error = Cluster::start(options).await.unwrap_err();
    let ClusterError::Busy { pid, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(Some(*pid), cluster.pid());
    assert!(
        error.to_string().contains(&cluster.url("ingestd")),
        "{error}"
    );
    assert_eq!(count(&cluster.database_url(), "ingestd.queues").await, 0);
}

#[tokio::test]
async fn the_pid_of_another_process_is_not_in_the_way() {
    let temp = Folder::make().unwrap();
    let options = Options {
        durable: false,
        ..Options::new(temp.path().join("pg"))
    };
    Cluster::start(options.clone())
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    // As a container leaves it that was killed and has now given the number to somebody else.
    let stale = format!(
        "{}\n{}\n1\n5432\n/nowhere\n\n  1 1\nready   \n",
        std::process::id(),
        options.data_dir.display()
    );
    std::fs::write(options.data_dir.join("postmaster.pid"), stale).unwrap();
    let cluster = Cluster::start(options).await.unwrap();
    assert_ne!(
        cluster.pid(),
        Some(i32::try_from(std::process::id()).unwrap())
    );
}

#[tokio::test]
async fn a_server_that_cannot_start_is_told_with_its_log() {
    let temp = Folder::make().unwrap();
    let options = Options {
        durable: false,
        ..Options::new(temp.path().join("pg"))
    };
    Cluster::start(options.clone())
        .await
        .unwrap()
        .stop()
        .await
        .unwrap();
    std::fs::write(options.data_dir.join("postgresql.conf"), "nonsense = 1\n").unwrap();
    let error = Cluster::start(options).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(r#"unrecognized configuration parameter "nonsense""#),
        "{text}"
    );
}

#[tokio::test]
async fn the_terminal_s_signals_do_not_reach_the_server() {
    let cluster = testing::private_cluster().await;
    let server = Pid::from_raw(cluster.pid().unwrap());
    assert_ne!(getpgid(Some(server)).unwrap(), getpgid(None).unwrap());
}

#[tokio::test]
async fn the_server_dies_with_its_killed_parent() {
    let temp = Folder::make().unwrap();
    let (mut parent, server, url) = spawn_parent(&temp.path().join("pg"));
    assert!(exists(server));
    parent.kill().unwrap(); // SIGKILL
    parent.wait().unwrap();
    until("the server outlives its killed parent", || !exists(server)).await;
    until("the socket's folder stays behind", || {
        !socket_dir(&url).exists()
    })
    .await;
}

#[tokio::test]
async fn a_killed_parent_s_data_can_be_used_at_once() {
    let temp = Folder::make().unwrap();
    let data_dir = temp.path().join("pg");
    let (mut parent, server, url) = spawn_parent(&data_dir);
    parent.kill().unwrap();
    parent.wait().unwrap();
    let options = Options {
        durable: false,
        ..Options::new(&data_dir)
    };
    let cluster = Cluster::start(options).await.unwrap();
    assert_ne!(cluster.pid(), Some(server));
    assert_eq!(cluster.url("postgres"), url);
    assert_eq!(count(&url, "pg_database").await, 3);
}

#[tokio::test]
async fn the_guardian_s_own_end_is_no_way_out() {
    let temp = Folder::make().unwrap();
    let (mut parent, server, _) = spawn_parent(&temp.path().join("pg"));
    // As systemd does when it stops the unit: everybody is told at once.
    let group = getpgid(Some(Pid::from_raw(server))).unwrap();
    kill(group, Signal::SIGTERM).unwrap();
    until("the server outlives its guardian", || !exists(server)).await;
    parent.kill().unwrap();
    parent.wait().unwrap();
}

/// Starts a process that runs a cluster in `data_dir`; returns it, the server's pid and its URL.
fn spawn_parent(data_dir: &Path) -> (Child, i32, String) {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "cluster::holds_a_cluster_until_it_is_killed"])
        .args(["--ignored", "--nocapture"])
        .env(HELD, data_dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(parent.stdout.take().unwrap());
    let line = output.lines().map(Result::unwrap).find_map(|line| {
        let (pid, url) = line.split_once("held: ")?.1.split_once(' ')?;
        Some((pid.parse().unwrap(), url.to_owned()))
    });
    let (pid, url) = line.unwrap();
    (parent, pid, url)
}

#[tokio::test]
#[ignore = "not a test: the process that other tests here start and kill"]
async fn holds_a_cluster_until_it_is_killed() {
    let Some(data_dir) = std::env::var_os(HELD) else {
        return;
    };
    let options = Options {
        durable: false,
        ..Options::new(data_dir)
    };
    let cluster = Cluster::start(options).await.unwrap();
    println!(
        "held: {} {}",
        cluster.pid().unwrap(),
        cluster.url("postgres")
    );
    std::future::pending::<()>().await;
}
