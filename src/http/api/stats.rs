//! Figures per minute: what ended, and how long it took.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{AppState, Problem, Query, Trouble};
use crate::queue::stats::{self, LONGEST_MINUTES, StatsFilter};

/// What may be asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wanted {
    queue: Option<String>,
    kind: Option<String>,
    minutes: Option<i32>,
}

/// `GET /stats`: the sums by queue and kind, and the series of all of them minute by minute.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Query(wanted): Query<Wanted>,
) -> Result<axum::Json<Value>, Problem> {
    let minutes = wanted.minutes.unwrap_or(60);
    if !(1..=LONGEST_MINUTES).contains(&minutes) {
        let detail = format!("minutes is from 1 to {LONGEST_MINUTES}");
        return Err(Problem::new(Trouble::BadRequest).detail(detail));
    }
    let filter = StatsFilter {
        queue: wanted.queue.as_deref(),
        kind: wanted.kind.as_deref(),
        minutes,
    };
    let kinds = stats::by_kind(&app.db, filter).await?;
    let series = stats::by_minute(&app.db, filter).await?;
    Ok(axum::Json(
        json!({ "minutes": minutes, "kinds": kinds, "series": series }),
    ))
}
