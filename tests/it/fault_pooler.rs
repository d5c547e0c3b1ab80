//! PgBouncer between the daemon and Postgres: in session mode all of it works, in transaction mode
//! the daemon says what is wrong.

use std::{
    cell::RefCell,
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use ingestd::{config, db};
use nix::unistd::{Uid, User};
use secrecy::SecretString;
use sqlx::{ConnectOptions, postgres::PgConnectOptions};
use tempfile::TempDir;

use crate::{
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, run, stop, until, until_true},
};

/// A running PgBouncer on a socket of its own; killed when dropped.
struct Pooler {
    folder: TempDir,
    child: Child,
}

impl Pooler {
    /// Starts one before the server of `url`, and waits until it takes connections.
    async fn start(url: &str, mode: &str) -> Self {
        let server: PgConnectOptions = url.parse().unwrap();
        let folder = TempDir::new().unwrap();
        let place = folder.path().display();
        let configuration = format!(
            "[databases]\n* = host={host} port={port} user={user}\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = 5432\nunix_socket_dir = {place}\n\
             auth_type = any\npool_mode = {mode}\ndefault_pool_size = 60\n\
             logfile = {place}/log\n\
             ignore_startup_parameters = extra_float_digits, options\n",
            host = server.get_socket().unwrap().display(),
            port = server.get_port(),
            user = server.get_username(),
        );
        let file = folder.path().join("pgbouncer.ini");
        fs::write(&file, configuration).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let installed = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let Some(program) = installed.iter().find(|path| Path::new(path).is_file()) else {
            panic!("PgBouncer is missing: sudo apt-get install pgbouncer");
        };
        let mut command = Command::new(program);
        command.arg("--quiet").arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if Uid::effective().is_root() {
            // It refuses root, as Postgres does.
            let user = User::from_name("postgres").unwrap().unwrap();
            let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
            chown(folder.path(), Some(uid), Some(gid)).unwrap();
            command.uid(uid).gid(gid);
        }
        let pooler = Self {
            child: command.stderr(Stdio::null()).spawn().unwrap(),
            folder,
        };
        let socket = pooler.folder.path().join(".s.PGSQL.5432");
        until_true("PgBouncer is ready", || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        })
        .await;
        pooler
    }

    /// Returns the URL of the same database through the pooler.
    fn url(&self, direct: &str) -> String {
        let options: PgConnectOptions = direct.parse().unwrap();
        let through = options.socket(self.folder.path()).port(5432);
        through.to_url_lossy().to_string()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
async fn in_session_mode_the_ledger_is_whole_and_sessions_are_set() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let pooler = Pooler::start(rig.url(), "session").await;
    let url = pooler.url(rig.url());
    for setup in [
        Setup::of([ledger::job()]).slots("default", 8),
        Setup::of([ledger::job()]).slots("default", 8).polling(),
    ] {
        let engine = setup.start(&url).await;
        run(
            &observer,
            "DROP TABLE IF EXISTS ledger, cursors; TRUNCATE ingestd.job_history",
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
    let pooler = Pooler::start(rig.url(), "session").await;
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
    let pooler = Pooler::start(rig.url(), "transaction").await;
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
