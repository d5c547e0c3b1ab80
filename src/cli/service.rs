//! The daemon at work: queue, HTTP, metrics, watchdog; how they start and end together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure};
use crate::{
    config::{self, Config},
    daemon::Daemon,
    http::{self, AppState, Health},
    lifecycle::{Cause, Drained, Notifier, Recycler, Shutdown, Watchdog},
    observe::{Exporter, SlotsStuck},
    queue,
};

/// How long the queue may take, beyond its own soft and hard stop, to write what is concluded and
/// to hand back what is left.
const HAND_BACK: Duration = Duration::from_secs(12);

/// How often the database is asked for a sign of life, which feeds the watchdog.
const PULSE_EVERY: Duration = Duration::from_secs(5);

/// A running daemon with everything that belongs to it.
#[derive(Debug)]
pub(super) struct Service {
    /// Where HTTP is served.
    pub(super) address: SocketAddr,
    config: Arc<Config>,
    shutdown: Shutdown,
    notifier: Notifier,
}

impl Service {
    /// Starts everything; returns once work can be claimed and requests are served.
    pub(super) async fn start(
        config: Arc<Config>,
        shutdown: &Shutdown,
        notifier: &Notifier,
    ) -> Result<Self, Failure> {
        let _started = Exporter::get(); // asked for early: the first call sets the start time
        let listener = http::bind(&config.http).await.map_err(|error| {
            let failure = Failure::from(error);
            failure.hint("choose another: INGESTD_HTTP__LISTEN, or --listen of `ingestd dev`")
        })?;
        let address = listener.local_addr()?;
        let daemon = Daemon::start(Arc::clone(&config)).await?;
        let db = daemon.db.clone();
        let health = Health::new(daemon.liveness(), shutdown.soft().clone());
        let app = AppState::new(
            db.clone(),
            daemon.blobs.clone(),
            Arc::clone(&config),
            health,
        );
        shutdown.spawn("http", http::serve(app, listener, shutdown.soft().clone()));
        let ended = CancellationToken::new();
        let watchdog = Watchdog::default();
        shutdown.spawn(
            "watchdog",
            watchdog.clone().run(notifier.clone(), ended.clone()),
        );
        let pulse = pulse(db, daemon.stalled(), watchdog, ended.clone());
        shutdown.spawn("pulse", pulse);
        recycle(&config, shutdown, &daemon)?;
        shutdown.spawn("queue", stop(daemon, shutdown.clone(), ended));
        Ok(Self {
            address,
            config,
            shutdown: shutdown.clone(),
            notifier: notifier.clone(),
        })
    }

    /// Waits for the stop to begin and for everything to end.
    pub(super) async fn drained(self) -> Result<Exit, Failure> {
        self.shutdown.soft().cancelled().await;
        self.notifier.stopping();
        let [soft, hard] = time_to_end(&self.config.queue);
        let drained = self.shutdown.drain(soft, hard).await;
        match self.shutdown.cause() {
            Some(Cause::Failed(part)) => {
                let text = format!("{part} failed; the log has more");
                return Err(Failure::say(Exit::Software, text));
            }
            Some(Cause::Stuck) => {
                let text = "handlers block their threads past their deadlines; the log names them";
                return Err(Failure::say(Exit::Temporary, text).hint("start the daemon again"));
            }
            _ => {}
        }
        match drained {
            Drained::Clean | Drained::Hard => Ok(Exit::Ok),
            Drained::Abandoned(parts) => {
                let text = format!("did not end in time: {}", parts.join(", "));
                Err(Failure::say(Exit::Failed, text).hint("their jobs are taken over by others"))
            }
        }
    }
}

/// Must be called on the runtime whose threads are watched.
fn recycler(settings: &config::Queue) -> Recycler {
    Recycler {
        limit: settings.stuck_limit.into(),
        n_threads: tokio::runtime::Handle::current().metrics().num_workers(),
        // Whoever ended it sooner would cut off a drain that goes as it should.
        patience: time_to_end(settings).iter().sum(),
    }
}

/// Returns how long a drain may take: until the hard stop begins, and from then on.
fn time_to_end(queue: &config::Queue) -> [Duration; 2] {
    let hard = queue.hard_stop + HAND_BACK;
    [queue.soft_stop + hard, hard]
}

/// Stops the queue once the stop has begun; `ended` fires when nothing of it is left.
async fn stop(daemon: Daemon, shutdown: Shutdown, ended: CancellationToken) {
    shutdown.soft().cancelled().await;
    daemon.stop(shutdown.hard().clone()).await;
    ended.cancel();
}

/// Ends the process where handlers block more threads than it can spare.
fn recycle(config: &Config, shutdown: &Shutdown, daemon: &Daemon) -> std::io::Result<()> {
    let (settings, last_resort) = (&config.queue, daemon.last_resort());
    let recycler = recycler(settings);
    let (grace, mut told) = (settings.deadline_grace, None);
    let look = move || {
        let stuck = queue::stuck(grace);
        let n_stuck = stuck.len();
        if told.as_ref() != Some(&stuck) {
            let jobs = stuck.iter().map(|job| job.0).collect();
            SlotsStuck { jobs }.emit();
            told = Some(stuck);
        }
        n_stuck
    };
    let end = move || {
        match last_resort.hand_back() {
            Ok(n_jobs) => tracing::info!(n_jobs, "handed back, unburnt"),
            Err(error) => tracing::error!(%error, "could not hand jobs back; they will be rescued"),
        }
        std::process::exit(Exit::Temporary as i32);
    };
    recycler.start(shutdown.clone(), look, end)
}

/// Feeds the watchdog until `ended` fires: with round trips to the database, as long as every
/// claimer gets on.
async fn pulse(
    db: PgPool,
    stalled: impl Fn() -> Vec<Arc<str>>,
    watchdog: Watchdog,
    ended: CancellationToken,
) {
    let beats = async {
        loop {
            if let Err(error) = sqlx::query("SELECT 1").execute(&db).await {
                tracing::debug!(%error, "no pulse");
            }
            let stalled = stalled();
            if stalled.is_empty() {
                watchdog.feed(); // an error is an answer, too
            } else {
                tracing::error!(queues = ?stalled, "nothing is claimed any more; watchdog not fed");
            }
            tokio::time::sleep(PULSE_EVERY).await;
        }
    };
    ended.run_until_cancelled(beats).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_that_takes_all_its_time_is_not_cut_off() {
        for secs in [0, 1, 3600] {
            let settings = config::Queue {
                hard_stop: Duration::from_secs(secs),
                ..config::Queue::default()
            };
            let [soft, hard] = time_to_end(&settings);
            assert!(recycler(&settings).patience >= soft + hard, "{secs}");
        }
    }
}
