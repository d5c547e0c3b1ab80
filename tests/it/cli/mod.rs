//! The binary from outside: what it says, its exit codes, and a daemon in a process of its own.

mod bulk;
mod change;
mod command;
mod daemon;
mod dev;
mod gate;
mod health;
mod import;
mod job;
mod mapping;
mod schedule;
mod search;
mod source;
mod stats;
mod token;
mod usage;
mod webhook;

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use ingestd::testing::Database;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use super::process::{PATIENCE, Place};

/// A folder, a database, and commands that know no other world.
struct World {
    db: Database,
    dir: tempfile::TempDir,
    place: Place,
}

/// What a command said and how it ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl World {
    /// Makes a world whose database knows the kinds.
    async fn create() -> Self {
        let world = Self::without_kinds().await;
        world.run("migrate").ok();
        world
    }

    async fn without_kinds() -> Self {
        Self {
            db: Database::create().await,
            dir: tempfile::tempdir().unwrap(),
            place: Place::reserve(),
        }
    }

    fn command(&self, line: &str) -> Command {
        let mut command = command(self.dir.path(), line);
        command
            .env("DATABASE_URL", self.db.url())
            .env("INGESTD_HTTP__LISTEN", self.place.address.to_string());
        command
    }

    /// Runs a command of plain words.
    fn run(&self, line: &str) -> Ran {
        ran(&mut self.command(line))
    }

    /// Runs a command of plain words with one more argument.
    fn run_with(&self, line: &str, argument: &str) -> Ran {
        ran(self.command(line).arg(argument))
    }

    async fn count(&self, what: &str) -> i64 {
        let statement = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {what}"));
        sqlx::query_scalar(statement)
            .fetch_one(self.db.pool())
            .await
            .unwrap()
    }

    /// Says whether the audit log has an action of this user on an object.
    async fn audited(&self, action: &str, object: &str) -> bool {
        sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM ingestd.audit_log
                            WHERE action = $1 AND object = $2 AND actor LIKE 'cli:%')",
        )
        .bind(action)
        .bind(object)
        .fetch_one(self.db.pool())
        .await
        .unwrap()
    }

    /// Starts a daemon and waits until it works.
    async fn daemon(&self) -> Daemon {
        let mut command = self.command("run");
        let log = std::fs::File::create(self.dir.path().join("daemon.log")).unwrap();
        command
            .env("INGESTD_QUEUE__SOFT_STOP", "2s")
            .stdout(Stdio::null())
            .stderr(log);
        let daemon = Daemon(command.spawn().unwrap());
        self.until_worker().await;
        daemon
    }

    /// Waits until a daemon that logs to `daemon.log` has registered its worker.
    async fn until_worker(&self) {
        let begun = Instant::now();
        while self.count("ingestd.workers WHERE ended_at IS NULL").await == 0 {
            let log = std::fs::read_to_string(self.dir.path().join("daemon.log")).unwrap();
            assert!(begun.elapsed() < PATIENCE, "no worker: {log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A daemon's process, killed where the test does not stop it.
struct Daemon(Child);

impl Daemon {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    /// Returns its exit code if it has ended; -1 where a signal ended it.
    fn ended(&mut self) -> Option<i32> {
        self.0
            .try_wait()
            .unwrap()
            .map(|status| status.code().unwrap_or(-1))
    }

    /// Stops it with SIGTERM and returns its exit code.
    fn stop(mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.0.wait().unwrap().code().unwrap() // it ends by itself, not by the signal
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Makes a command of plain words that sees nothing of this process's environment.
fn command(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ingestd"));
    command
        .args(line.split_whitespace())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", dir)
        .env("INGESTD_STORAGE__DIR", dir.join("storage"))
        .stdin(Stdio::null());
    command
}

fn ran(command: &mut Command) -> Ran {
    let output = command.output().unwrap();
    Ran {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

impl Ran {
    /// Asserts that it went well; returns stdout.
    fn ok(self) -> String {
        self.code(0).out
    }

    fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            !self.err.contains("panicked at") && !self.err.contains("backtrace"),
            "{self:?}"
        );
        self
    }

    /// Asserts that stderr says something.
    fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in {}", self.err);
        self
    }

    fn json(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }
}
