//! PgBouncer between the daemon and Postgres, where the daemon is not told of it: in session mode all
//! of it works, in transaction mode the daemon says what is wrong.

use std::{
    cell::RefCell,
    process::{Child, Command, Stdio},
};

use ingestd::{config, db};
use secrecy::SecretString;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};

use crate::{
    pooler::Pooler,
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, run, stop, until, until_true},
};

#[tokio::test]
async fn in_session_mode_the_ledger_is_whole_and_sessions_are_set() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let pooler = Pooler::start(rig.url(), "session", 60).await;
    let url = pooler.url(rig.url());
    for setup in [
        Setup::of([ledger::job()]).slots("default", 8),
        Setup::of([ledger::job()]).slots("default", 8).polling(),
    ] {
        let engine = setup.start(&url).await;
        run(
            &observer,
            "DROP TABLE IF EXISTS ledger, cursors, stops; TRUNCATE ingestd.job_history",
        )
        .await;
        ledger::enqueue(&observer, 100).await;
        ledger::check(&observer, 100, "through PgBouncer").await;
        stop(engine).await;
    }
    // What goes with the startup packet does not pass; it is set again.
    let database = config::Database {
        url: Some(SecretString::from(url.as_str())),
        ..config::Database::default()
    };
    let pool = db::connect_queue(&database).await.unwrap();
    for (name, value) in [
        ("enable_seqscan", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("statement_timeout", "1min"),
        ("idle_in_transaction_session_timeout", "30s"),
    ] {
        let found: String = sqlx::query_scalar("SELECT current_setting($1)")
            .bind(name)
            .fetch_one(&pool)
            .await
            .unwrap();
        assert_eq!(found, value, "{name}");
    }
    pool.close().await;
}

#[tokio::test]
async fn sessions_the_pooler_loses_come_back() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let pooler = Pooler::start(rig.url(), "session", 60).await;
    let url = pooler.url(rig.url());
    let setup = Setup::of([ledger::job()]).slots("default", 8);
    let engine = setup.start(&url).await;
    ledger::enqueue(&observer, 150).await;
    for n in [30, 100, 200] {
        until(&observer, &format!("(SELECT count(*) >= {n} FROM ledger)")).await;
        run(
            &observer,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'ingestd'",
        )
        .await;
    }
    ledger::check(&observer, 150, "PgBouncer's sessions cut").await;
    until_true("it lives", || engine.is_alive()).await;
    stop(engine).await;
}

#[tokio::test]
async fn in_transaction_mode_the_daemon_says_what_is_wrong() {
    let rig = Rig::new().await;
    let pooler = Pooler::start(rig.url(), "transaction", 60).await;
    let url = pooler.url(rig.url());
    // Somebody else's statement of the same name is there already.
    let options: PgConnectOptions = url.parse().unwrap();
    let mut other = options.connect().await.unwrap();
    let one: i32 = sqlx::query_scalar("SELECT 1")
        .fetch_one(&mut other)
        .await
        .unwrap();
    assert_eq!(one, 1);
    let daemon = RefCell::new(run_daemon(&url));
    until_true("it gave up", || {
        daemon.borrow_mut().try_wait().unwrap().is_some()
    })
    .await;
    let ended = daemon.into_inner().wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success(), "{said}");
    assert!(said.contains("set database.pooler"), "{said}");
}

fn run_daemon(url: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ingestd"))
        .arg("run")
        .env("DATABASE_URL", url)
        .env("INGESTD_HTTP__LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}
