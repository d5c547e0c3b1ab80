//! The daemon as people run it, in a process of its own, and files handed to it.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{FromRow, PgPool};

use super::{
    measure::{Cost, Phase},
    rig::{self, Rig},
};

/// Longest that a daemon may take to start, or an import to end.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long a daemon is left alone before its memory counts as that of an idle one.
const IDLE: Duration = Duration::from_secs(2);

/// A running `ingestd run`; ended when dropped.
pub(crate) struct Daemon {
    child: Child,
    address: String,
    client: reqwest::Client,
    pool: PgPool,
}

/// What an import took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Imported {
    /// Seconds of the run itself; processor, WAL and memory of upload and inspection, too.
    pub(crate) cost: Cost,
    /// From the upload's first byte to its answer: the file is stored and was looked at.
    pub(crate) accepted_secs: f64,
    /// From there to the first committed rows.
    pub(crate) first_rows_secs: f64,
    /// Rows that are in the catalog as the file has them.
    pub(crate) n_ok: u32,
}

/// How far a run is.
#[derive(FromRow)]
struct Run {
    state: String,
    n_ok: i64,
    n_done: i64,
    seconds: Option<f64>,
}

impl Daemon {
    /// Starts a daemon on an empty folder and waits until it is idle.
    pub(crate) async fn start(rig: &Rig) -> anyhow::Result<Self> {
        Self::start_with(rig, &[]).await
    }

    /// As [`Daemon::start`], with settings beside the defaults.
    pub(crate) async fn start_with(rig: &Rig, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        drop(listener);
        let storage = rig.home().join(format!("storage-{}", fastrand::u32(..)));
        fs::create_dir_all(&storage)?;
        let child = Command::new(env!("CARGO_BIN_EXE_ingestd"))
            .arg("run")
            .env("DATABASE_URL", rig.url())
            .env("INGESTD_HTTP__LISTEN", &address)
            .env("INGESTD_STORAGE__DIR", &storage)
            .env("INGESTD_LOG__FORMAT", "text")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(storage.join("log"))?)
            .spawn()?;
        let daemon = Self {
            child,
            address,
            client: reqwest::Client::new(),
            pool: rig.pool.clone(),
        };
        let (began, url) = (Instant::now(), daemon.url("/readyz"));
        loop {
            let answer = daemon.client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                break;
            }
            anyhow::ensure!(began.elapsed() < PATIENCE, "the daemon does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(IDLE).await;
        Ok(daemon)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the memory it holds, in MB.
    pub(crate) fn memory_mb(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("it has ended")?.parse::<f64>()? * 1024.0 / 1e6)
    }

    /// Imports a workbook.
    pub(crate) async fn import(&self, file: &Path) -> anyhow::Result<Imported> {
        let mut conn = self.pool.acquire().await?;
        rig::checkpoint(&mut conn).await?;
        let phase = Phase::of(&self.child.id().to_string(), &mut conn).await?;
        let uploading = Instant::now();
        let id = self.upload(file).await?;
        let accepted_secs = uploading.elapsed().as_secs_f64();
        let accepted = Instant::now();
        let mut first_rows_secs = None;
        let run = loop {
            let run = self.look(id).await?;
            if run.n_done > 0 && first_rows_secs.is_none() {
                first_rows_secs = Some(accepted.elapsed().as_secs_f64());
            }
            if run.state == "completed" {
                break run;
            }
            let goes_on = matches!(run.state.as_str(), "pending" | "running");
            anyhow::ensure!(
                goes_on && accepted.elapsed() < PATIENCE,
                "run {id} is {}",
                run.state
            );
            let pause = if first_rows_secs.is_some() { 20 } else { 2 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        };
        let cost = Cost {
            seconds: run.seconds.context("it has no end")?,
            ..phase.end(&mut conn).await?
        };
        Ok(Imported {
            cost,
            accepted_secs,
            first_rows_secs: first_rows_secs.context("it has no rows")?,
            n_ok: u32::try_from(run.n_ok)?,
        })
    }

    async fn upload(&self, file: &Path) -> anyhow::Result<i64> {
        let part = reqwest::multipart::Part::file(file).await?;
        let form = reqwest::multipart::Form::new().part("file", part);
        let url = self.url("/api/v1/import/products");
        let answer = self.client.post(url).multipart(form).send().await?;
        let said: serde_json::Value = answer.json().await?;
        let id = said.pointer("/data/jobId");
        let id = id.and_then(serde_json::Value::as_i64);
        id.with_context(|| format!("the upload was answered {said}"))
    }

    async fn look(&self, id: i64) -> sqlx::Result<Run> {
        const LOOK: &str = "SELECT state, items_ok + items_skipped AS n_ok,
                items_ok + items_skipped + items_failed AS n_done,
                extract(epoch FROM finished_at - started_at)::float8 AS seconds
            FROM ingestd.runs WHERE id = $1";
        sqlx::query_as(LOOK).bind(id).fetch_one(&self.pool).await
    }

    /// Asks the daemon to stop and waits until it has.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGTERM,
        )?;
        let status = self.child.wait()?;
        anyhow::ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill()); // it may have ended
        drop(self.child.wait());
    }
}
