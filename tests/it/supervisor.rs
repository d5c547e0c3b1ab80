//! Keeps a daemon running, as a service manager would, and remembers how it ended.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{process::until, queue_rig::Rig};

/// One daemon, started again whenever it is looked at and gone; killed when dropped.
pub(crate) struct Supervisor {
    child: Child,
    start: Box<dyn Fn() -> Child + Send>,
    log: PathBuf,
    /// How the earlier ones ended.
    pub(crate) exits: Vec<ExitStatus>,
}

impl Supervisor {
    /// Starts a daemon with these settings; `limits` is shell that runs before it in its process.
    ///
    /// Its timings are short where that matters after a crash.
    pub(crate) async fn start(
        rig: &Rig,
        storage: &TempDir,
        limits: &str,
        settings: &[(&str, &str)],
    ) -> Self {
        let (url, folder) = (rig.url().to_owned(), storage.path().to_owned());
        let log = folder.join("supervised.log");
        let (written, script) = (
            log.clone(),
            format!("ulimit -c 0; {limits} exec \"$0\" run"),
        );
        let settings: Vec<(String, String)> = settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let start = move || {
            let log = std::fs::File::options()
                .create(true)
                .append(true)
                .open(&written);
            Command::new("/bin/sh")
                .args(["-c", &script, env!("CARGO_BIN_EXE_ingestd")])
                .env("DATABASE_URL", &url)
                .env("INGESTD_HTTP__LISTEN", "127.0.0.1:0")
                .env("INGESTD_STORAGE__DIR", &folder)
                .env("INGESTD_LOG__FORMAT", "text")
                .env("INGESTD_QUEUE__RESCUE_INTERVAL", "1s")
                .env("INGESTD_KINDS__SYSTEM__NOOP__RETRY_FIRST", "100ms")
                .envs(settings.iter().map(|(name, value)| (name, value)))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log.unwrap())
                .spawn()
                .unwrap()
        };
        let supervisor = Self {
            child: start(),
            start: Box::new(start),
            log,
            exits: Vec::new(),
        };
        rig.until("EXISTS (SELECT FROM ingestd.job_kinds WHERE kind = 'system.noop')")
            .await;
        supervisor
    }

    /// Starts it again where it is gone.
    pub(crate) fn look(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            self.exits.push(status);
            self.child = (self.start)();
        }
    }

    /// Keeps it running until the database says that `condition`, an SQL expression, is true.
    pub(crate) async fn keep_until(&mut self, rig: &Rig, condition: &str) {
        let query = format!("SELECT {condition}");
        let this = std::cell::RefCell::new(self);
        until(condition, || async {
            this.borrow_mut().look();
            tokio::time::sleep(Duration::from_millis(20)).await;
            rig.ask::<bool>(&query).await
        })
        .await;
    }

    /// Returns what all of them logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = format!("--- the daemons' log ---\n{}\n", self.log());
            drop(std::io::stderr().write_all(text.as_bytes()));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
