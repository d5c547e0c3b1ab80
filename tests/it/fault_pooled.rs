//! PgBouncer in transaction mode, and the daemon is told of it: all of it works, by polling, on a few
//! servers, and others who use the pooler meet nothing of it.

use std::{cell::RefCell, process::Command, time::Duration};

use ingestd::{config, db};
use secrecy::SecretString;
use sqlx::{Connection as _, PgConnection, Row as _};
use tempfile::TempDir;

use crate::{
    import,
    pooler::Pooler,
    process::Daemon,
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, stop},
};

const TOLD: (&str, &str) = ("INGESTD_DATABASE__POOLER", "transaction");

fn database(url: &str) -> config::Database {
    config::Database {
        url: Some(SecretString::from(url)),
        pooler: config::Pooler::Transaction,
        ..config::Database::default()
    }
}

/// Somebody else who uses the pooler, one statement at a time.
struct Other {
    conn: PgConnection,
}

impl Other {
    async fn connect(url: &str) -> Self {
        Self {
            conn: PgConnection::connect(url).await.unwrap(),
        }
    }

    /// Asserts that the server it gets is as Postgres was set up.
    async fn is_untouched(&mut self) {
        let ask = "SELECT concat_ws(' ', current_setting('enable_seqscan'),
                     current_setting('plan_cache_mode'), current_setting('statement_timeout'),
                     (SELECT count(*) FROM pg_prepared_statements))";
        let rows = sqlx::raw_sql(ask).fetch_all(&mut self.conn).await.unwrap();
        assert_eq!(rows[0].get::<String, _>(0), "on auto 0 0");
    }
}

#[tokio::test]
async fn the_ledger_is_whole_and_nobody_else_meets_a_setting() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let pooler = Pooler::start(rig.url(), "transaction", 3).await;
    let url = pooler.url(rig.url());
    let setup = Setup::of([ledger::job()]).slots("default", 8).pooled();
    let (first, second) = (setup.start(&url).await, setup.start(&url).await);
    let others = async {
        let mut others = [Other::connect(&url).await, Other::connect(&url).await];
        loop {
            for other in &mut others {
                other.is_untouched().await;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let worked = async {
        ledger::enqueue(&observer, 300).await;
        ledger::check(&observer, 300, "through PgBouncer in transaction mode").await;
    };
    tokio::select! {
        () = worked => {}
        () = others => {}
    }
    stop(first).await;
    stop(second).await;
}

#[tokio::test]
async fn sessions_the_pooler_loses_come_back() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let pooler = Pooler::start(rig.url(), "transaction", 3).await;
    let setup = Setup::of([ledger::job()]).slots("default", 8).pooled();
    let engine = setup.start(&pooler.url(rig.url())).await;
    ledger::enqueue(&observer, 150).await;
    for n in [30, 100, 200] {
        let some = format!("(SELECT count(*) >= {n} FROM ledger)");
        crate::queue_rig::until(&observer, &some).await;
        crate::queue_rig::run(
            &observer,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name = 'ingestd'",
        )
        .await;
    }
    ledger::check(&observer, 150, "PgBouncer's servers cut").await;
    stop(engine).await;
}

#[tokio::test]
async fn a_transaction_has_the_settings_of_the_session_there_is_not() {
    let rig = Rig::new().await;
    let pooler = Pooler::start(rig.url(), "transaction", 2).await;
    let url = pooler.url(rig.url());
    let pool = db::connect_queue(&database(&url)).await.unwrap();
    let mut other = Other::connect(&url).await;
    for (name, value) in [
        ("enable_seqscan", "off"),
        ("plan_cache_mode", "force_generic_plan"),
        ("statement_timeout", "1min"),
        ("idle_in_transaction_session_timeout", "30s"),
    ] {
        let ask = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
        assert_eq!(ask.fetch_one(&pool).await.unwrap(), value, "{name} alone");
        other.is_untouched().await;
        let mut tx = pool.begin().await.unwrap();
        let ask = sqlx::query_scalar::<_, String>("SELECT current_setting($1)").bind(name);
        let within = ask.fetch_one(&mut *tx).await.unwrap();
        assert_eq!(within, value, "{name} in a transaction");
        tx.commit().await.unwrap();
        other.is_untouched().await;
    }
    // An error leaves the account of the statements right.
    for _ in 0..3 {
        let divided = sqlx::query_scalar::<_, i32>("SELECT 1 / $1").bind(0);
        let error = divided.fetch_one(&pool).await.unwrap_err();
        assert!(error.to_string().contains("division by zero"), "{error}");
        let divided = sqlx::query_scalar::<_, i32>("SELECT 1 / $1").bind(1);
        assert_eq!(divided.fetch_one(&pool).await.unwrap(), 1);
    }
    pool.close().await;
    // Also where the statement is a transaction by itself.
    let hurried = config::Database {
        statement_timeout: Duration::from_millis(50),
        ..database(&url)
    };
    let pool = db::connect(&hurried).await.unwrap();
    let slept = sqlx::query("SELECT pg_sleep(600)").execute(&pool).await;
    let error = slept.unwrap_err();
    assert!(error.to_string().contains("statement timeout"), "{error}");
    pool.close().await;
}

#[tokio::test]
async fn two_daemons_do_all_they_do() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    rig.sql("DROP SCHEMA ingestd CASCADE; DROP SCHEMA catalog CASCADE")
        .await;
    let pooler = Pooler::start(rig.url(), "transaction", 4).await;
    let url = pooler.url(rig.url());
    let listen = RefCell::new("127.0.0.1:0".to_owned());
    let command = |line: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ingestd"));
        command.args(line).env("DATABASE_URL", &url);
        command.env("INGESTD_STORAGE__DIR", storage.path());
        command.env("INGESTD_HTTP__LISTEN", &*listen.borrow());
        command.envs([TOLD]);
        let said = command.output().unwrap();
        assert!(said.status.success(), "{line:?}: {said:?}");
        String::from_utf8(said.stdout).unwrap()
    };
    assert!(command(&["migrate"]).contains("applied: 0001"));
    assert!(command(&["migrate"]).contains("the database is current"));

    let mut first = Daemon::start(&url, storage.path(), &[TOLD]).await;
    let mut second = Daemon::start(&url, storage.path(), &[TOLD]).await;
    *listen.borrow_mut() = first.url("").replace("http://", "");
    command(&["schedules", "add", "often", "* * * * * *", "system.noop"]);
    let file = import::accepted(&first, "products.csv", import::csv(2500)).await;
    let done = import::finished(&second, file).await;
    assert_eq!(done["status"], "completed", "{done}");
    import::assert_exactly(rig.pool(), 2500).await;
    rig.until("(SELECT count(*) >= 3 FROM ingestd.job_history WHERE kind = 'system.noop')")
        .await;

    let long = r#"{"steps": 1000, "sleep_ms": 600000}"#;
    let said = command(&["enqueue", "system.noop", long, "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let id = said["id"].as_i64().unwrap();
    let is =
        |state: &str| format!("SELECT FROM ingestd.jobs WHERE id = {id} AND state = '{state}'");
    rig.until(&format!("EXISTS ({})", is("running"))).await;
    command(&["jobs", "cancel", &id.to_string()]);
    rig.until(&format!(
        "EXISTS (SELECT FROM ingestd.job_history WHERE id = {id} AND state = 'cancelled')"
    ))
    .await;

    let found: serde_json::Value = serde_json::from_str(&command(&["doctor", "--json"])).unwrap();
    for check in ["live table", "partitions", "plans"] {
        let findings = found.as_array().unwrap();
        let finding = findings.iter().find(|finding| finding["check"] == check);
        assert_eq!(finding.unwrap()["status"], "ok", "{found}");
    }
    assert!(first.terminate().success());
    assert!(second.terminate().success());
}
