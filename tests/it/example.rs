//! The examples do what they say.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
};

use ingestd::{
    dev::Binaries,
    testing::{Database, Folder},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::process::{Daemon, until};

/// A program of `examples/`, ended when dropped.
struct Example(Child);

impl Example {
    /// Builds it where that was not done, and starts it.
    fn start(name: &str, database_url: &str) -> Self {
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--locked", "--example", name])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        // What cargo tells a test is not what it tells a build, which would begin anew over it.
        let kept = ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_NET_OFFLINE"];
        for (variable, _) in std::env::vars() {
            if variable.starts_with("CARGO") && !kept.contains(&variable.as_str()) {
                cargo.env_remove(variable);
            }
        }
        let built = cargo.status().unwrap();
        assert!(built.success(), "example {name} does not build");
        let ingestd = Path::new(env!("CARGO_BIN_EXE_ingestd"));
        let program = ingestd.with_file_name("examples").join(name);
        let started = Command::new(program)
            .env("DATABASE_URL", database_url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self(started.unwrap())
    }

    fn interrupt(&mut self) -> std::process::ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn the_worker_enqueues_in_its_transaction_and_completes_in_another() {
    let db = Database::create().await;
    sqlx::query(
        "CREATE TABLE users (id bigint GENERATED ALWAYS AS IDENTITY, name text NOT NULL,
                             welcomed_at timestamptz)",
    )
    .execute(db.pool())
    .await
    .unwrap();
    let mut example = Example::start("worker", db.url());
    until(
        "the user is welcomed and the job in the history",
        || async {
            let (is_welcomed, n_done): (bool, i64) = sqlx::query_as(
                "SELECT EXISTS (SELECT FROM users WHERE welcomed_at IS NOT NULL),
                    (SELECT count(*) FROM ingestd.job_history
                     WHERE kind = 'user.welcome' AND state = 'completed')",
            )
            .fetch_one(db.pool())
            .await
            .unwrap();
            assert!(!is_welcomed || n_done == 1, "work and completion are one");
            is_welcomed
        },
    )
    .await;
    assert!(example.interrupt().success());
    let reason: String = sqlx::query_scalar("SELECT end_reason FROM ingestd.workers")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(reason, "stopped");
}

#[tokio::test]
async fn the_sql_session_does_what_it_says() {
    let (db, folder) = (Database::create().await, Folder::make().unwrap());
    let _daemon = Daemon::start(db.url(), folder.path(), &[]).await;
    let psql = Binaries::find().unwrap().postgres().with_file_name("psql");
    let session = Command::new(psql)
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-f", "examples/session.sql"])
        .arg(db.url())
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&session.stdout);
    let complaint = String::from_utf8_lossy(&session.stderr);
    assert!(session.status.success(), "{complaint}\n{said}");
    for line in [
        " cancelled",
        " | completed |       1 | {\"payload\": \"hello\"}",
        " asked to fail for good",
        "| dead.retry | job/",
        "| job.cancel | job/",
    ] {
        assert!(said.contains(line), "no {line:?} in\n{said}");
    }
    until("the replayed job is done", || async {
        let replayed: Option<String> = sqlx::query_scalar(
            "SELECT h.state FROM ingestd.dead_jobs d
             JOIN ingestd.job_history h ON h.id = d.replayed_to",
        )
        .fetch_optional(db.pool())
        .await
        .unwrap();
        replayed.as_deref() == Some("completed")
    })
    .await;
}
