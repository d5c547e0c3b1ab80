//! What every handler is lent.

use std::{fmt, sync::Arc};

use axum::{http::HeaderMap, response::Response};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::{Problem, View, admit::Door, live::Live, ready::LastAnswer, scrape::Scrape};
use crate::{blob, config::Config, runs::Run};

/// What the handlers work with; made once by the daemon.
#[derive(Debug)]
pub struct AppState {
    /// The jobs' connections.
    pub db: PgPool,
    /// Where uploads go.
    pub blobs: blob::Store,
    /// The configuration.
    pub config: Arc<Config>,
    /// How the daemon says that it is well.
    pub health: Health,
    pub(super) door: Door,
    pub(super) scrape: Scrape,
    pub(super) last_answer: LastAnswer,
    pub(super) live: Live,
}

impl AppState {
    /// Puts together what the handlers work with.
    #[must_use]
    pub fn new(db: PgPool, blobs: blob::Store, config: Arc<Config>, health: Health) -> Self {
        Self {
            door: Door::new(&config),
            live: Live::new(db.clone(), config.http.max_event_streams.into()),
            db,
            blobs,
            config,
            health,
            scrape: Scrape::default(),
            last_answer: LastAnswer::default(),
        }
    }

    /// Answers with what `view` shows of a run, as server-sent events, until the run has ended or
    /// the server stops. `run` is the run as it is now.
    ///
    /// # Errors
    ///
    /// 503 where as many streams are open as there may be; what `view` says.
    pub(crate) async fn follow(
        &self,
        run: Run,
        headers: &HeaderMap,
        view: View,
    ) -> Result<Response, Problem> {
        self.live.follow(run, headers, view).await
    }
}

/// How the daemon says that it is well, asked at every `/readyz`.
#[derive(Clone)]
pub struct Health {
    alive: Arc<dyn Fn() -> bool + Send + Sync>,
    draining: CancellationToken,
}

impl Health {
    /// `alive` says whether the worker has a heartbeat and may claim, without waiting;
    /// `draining` fires when the daemon takes no more work.
    pub fn new(
        alive: impl Fn() -> bool + Send + Sync + 'static,
        draining: CancellationToken,
    ) -> Self {
        Self {
            alive: Arc::new(alive),
            draining,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        (self.alive)()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (alive, draining) = (self.is_alive(), self.is_draining());
        f.debug_struct("Health")
            .field("alive", &alive)
            .field("draining", &draining)
            .finish()
    }
}
