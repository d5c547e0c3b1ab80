//! What a job's attempts said.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};

use super::{
    super::{AppState, Cursor, Limit, Path, Problem, Query},
    job::no_job,
};
use crate::queue::{
    JobId,
    read::{self, JobState},
    record::{self, LogLine, LogPlace},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Params {
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// Log lines, oldest first.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Lines {
    items: Vec<LogLine>,
    /// Where later lines begin, be they there or not; null before the first.
    next_cursor: Option<Cursor>,
    /// No attempt is to come: once a page is empty, there will be no more lines.
    ended: bool,
}

/// `GET /jobs/{id}/logs`: also of a job that runs, to be asked again from the cursor on.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Path(id): Path<i64>,
    Query(params): Query<Params>,
) -> Result<Json<Lines>, Problem> {
    // First the state: what was said before the job ended is not missed.
    let job = read::find(&app.db, JobId(id)).await?;
    let state = job.map(|job| job.row.state);
    let is_unfinished = matches!(
        state,
        Some(JobState::Queued | JobState::Held | JobState::Running)
    );
    let after = params
        .cursor
        .map_or_else(LogPlace::default, |Cursor(n)| LogPlace::from_number(n));
    let items = record::lines(&app.db, JobId(id), after, params.limit.n_items()).await?;
    if state.is_none() && items.is_empty() && params.cursor.is_none() {
        return Err(no_job(id));
    }
    let last = items.last().map(|line| Cursor(line.place().as_number()));
    Ok(Json(Lines {
        items,
        next_cursor: last.or(params.cursor),
        ended: !is_unfinished,
    }))
}
