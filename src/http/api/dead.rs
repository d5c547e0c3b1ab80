//! Dead letters. Replaying one is `POST /jobs/{id}/retry`.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde::Deserialize;

use super::super::{AppState, Cursor, Limit, Page, Problem, Query};
use crate::queue::{
    JobId,
    read::{self, DeadLetter, JobFilter},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Params {
    queue: Option<String>,
    kind: Option<String>,
    /// Also those that were replayed.
    #[serde(default)]
    replayed: bool,
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// `GET /dead`: what was given up and not replayed, newest first.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Query(params): Query<Params>,
) -> Result<Json<Page<DeadLetter>>, Problem> {
    let filter = JobFilter {
        queue: params.queue.as_deref(),
        kind: params.kind.as_deref(),
        state: None,
    };
    let before = params.cursor.map(|Cursor(id)| JobId(id));
    let n_read = params.limit.n_read();
    let rows = read::dead_letters(&app.db, filter, params.replayed, before, n_read).await?;
    Ok(Json(Page::new(rows, params.limit, |letter| letter.id.0)))
}
