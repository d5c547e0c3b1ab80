//! `/metrics`: what Prometheus scrapes.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{extract::State, http::header::CONTENT_TYPE, response::IntoResponse};
use tokio::{sync::Mutex, time::timeout};

use super::{AppState, ready};
use crate::observe::{Exporter, gauge::Gauges};

/// How old what was read from the database may be.
const MAX_AGE: Duration = Duration::from_secs(5);

/// A read that took long, for a backlog of millions, is followed by a rest of this many times as
/// long: it counts rows, and must not become the load.
const REST: u32 = 20;

/// Longest that a scrape waits for the database; then it shows what was read before.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(3);

/// When the gauges were last read for a scrape. Scrapes wait for each other, so that however many
/// come the database is asked once.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    gauges: Gauges,
    fresh_until: Mutex<Option<Instant>>,
}

impl Scrape {
    async fn refresh(&self, app: &AppState) {
        let mut fresh_until = self.fresh_until.lock().await;
        let began = Instant::now();
        if fresh_until.is_some_and(|until| began < until) {
            return;
        }
        let read = timeout(DATABASE_TIMEOUT, self.gauges.refresh(&app.db)).await;
        match read {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a scrape shows old gauges"),
            Err(_) => tracing::debug!("a scrape shows old gauges: reading new ones took too long"),
        }
        ready::refresh(app).await;
        *fresh_until = Some(began + MAX_AGE.max(began.elapsed() * REST));
    }
}

/// `GET /metrics`: every series as text. Answers without the database too.
pub(super) async fn metrics(State(app): State<Arc<AppState>>) -> impl IntoResponse {
    app.scrape.refresh(&app).await;
    let text = Exporter::get().render();
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        text,
    )
}
