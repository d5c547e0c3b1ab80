//! The daemon at work: queue, HTTP, metrics, watchdog; how they start and end together.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Exit, Failure};
use crate::{
    config::Config,
    daemon::Daemon,
    http::{self, AppState, Health},
    lifecycle::{Cause, Drained, Notifier, Shutdown, Watchdog},
    observe::Exporter,
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
        let exporter = Exporter::get(); // asked for early: the first call sets the start time
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
        shutdown.spawn("metrics", exporter.run_upkeep(shutdown.soft().clone()));
        let ended = CancellationToken::new();
        let watchdog = Watchdog::default();
        shutdown.spawn(
            "watchdog",
            watchdog.clone().run(notifier.clone(), ended.clone()),
        );
        shutdown.spawn("pulse", pulse(db, watchdog, ended.clone()));
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
        let queue = &self.config.queue;
        let hard = queue.hard_stop + HAND_BACK;
        let drained = self.shutdown.drain(queue.soft_stop + hard, hard).await;
        if let Some(Cause::Failed(part)) = self.shutdown.cause() {
            return Err(Failure::say(
                Exit::Software,
                format!("{part} failed; the log has more"),
            ));
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

/// Stops the queue once the stop has begun; `ended` fires when nothing of it is left.
async fn stop(daemon: Daemon, shutdown: Shutdown, ended: CancellationToken) {
    shutdown.soft().cancelled().await;
    daemon.stop(shutdown.hard().clone()).await;
    ended.cancel();
}

/// Feeds the watchdog with round trips to the database until `ended` fires.
async fn pulse(db: PgPool, watchdog: Watchdog, ended: CancellationToken) {
    let beats = async {
        loop {
            if let Err(error) = sqlx::query("SELECT 1").execute(&db).await {
                tracing::debug!(%error, "no pulse");
            }
            watchdog.feed(); // an error is an answer, too
            tokio::time::sleep(PULSE_EVERY).await;
        }
    };
    ended.run_until_cancelled(beats).await;
}
