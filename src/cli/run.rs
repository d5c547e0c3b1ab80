//! `ingestd run`: the daemon.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

use super::{Exit, Failure, service::Service, session};
use crate::{
    config::{Config, Sources},
    db,
    lifecycle::{Notifier, Shutdown, watch_signals},
};

/// The longest pause between two tries to reach the database.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs the daemon: migrates the database, works on jobs, keeps schedules, serves HTTP.
///
/// SIGTERM and Ctrl-C stop it cleanly: nothing more is claimed, running jobs may finish for 20 s
/// and are handed back 10 s later (keys `soft_stop` and `hard_stop` of `queue`); a second signal
/// does not wait.
/// SIGHUP checks the configuration; changes take effect at the next start.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  DATABASE_URL=postgres://ingestd@db/ingestd ingestd run
  ingestd run --config /etc/ingestd/ingestd.toml --wait 5m
  INGESTD_HTTP__LISTEN=127.0.0.1:9000 ingestd run")]
pub(super) struct RunArgs {
    /// How long to wait at the start for a database that cannot be reached.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    wait: Duration,
}

pub(super) async fn run(args: &RunArgs, config: Config, sources: Sources) -> Result<Exit, Failure> {
    let config = Arc::new(config);
    let (shutdown, notifier) = (Shutdown::new(), Notifier::from_env());
    watch_signals(&shutdown, notifier.clone(), move || check_again(&sources))?;
    let starting = async {
        notifier.status("waiting for the database");
        reach_database(&config, args.wait).await?;
        Service::start(Arc::clone(&config), &shutdown, &notifier).await
    };
    let service = tokio::select! {
        service = starting => service?,
        () = shutdown.soft().cancelled() => return Ok(Exit::Ok),
    };
    notifier.status(&format!("at work, HTTP on {}", service.address));
    notifier.ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    let exit = service.drained().await?;
    tracing::info!("stopped");
    Ok(exit)
}

/// Tries to reach the database until `wait` is over; only what may pass by itself is tried again.
async fn reach_database(config: &Config, wait: Duration) -> Result<(), Failure> {
    let options = session::options(config)?;
    let place = session::place(&options);
    let (began, mut pause, mut told) =
        (Instant::now(), Duration::from_millis(250), None::<Instant>);
    loop {
        let connected = session::within(config.database.acquire_timeout, &options).await;
        let Err(error) = connected else {
            return Ok(());
        };
        if !db::is_transient(&error) || began.elapsed() + pause > wait {
            let failed: Result<(), _> = Err(error);
            return Ok(failed.with_context(|| format!("cannot reach the database at {place}"))?);
        }
        if told.is_none_or(|told| told.elapsed() > Duration::from_secs(10)) {
            told = Some(Instant::now());
            let left_secs = wait.saturating_sub(began.elapsed()).as_secs();
            tracing::warn!(%error, database = place, left_secs, "waiting for the database");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Says whether the daemon would start with the configuration as it is now.
fn check_again(sources: &Sources) {
    match Config::load(sources) {
        Ok(_) => {
            tracing::info!("the configuration is right; changes take effect at the next start");
        }
        Err(error) => tracing::error!(%error, "the configuration is wrong; the old one stays"),
    }
}
