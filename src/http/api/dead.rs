//! Dead letters: list and group. Replaying one is `POST /jobs/{id}/retry`, many `POST /bulk`.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::json;

use super::super::{AppState, Caller, Cursor, Limit, Page, Problem, Query, TextCursor, Trouble};
use crate::queue::{
    JobId, Reason,
    dead::{self, DeadGroup, DeadLetter, GroupPlace},
    filter::{DeadFilter, Fingerprint},
};

/// The members of [`DeadFilter`], and the page. Not flattened: a query string is all text, and
/// numbers behind a flattened struct are not read from text.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Params {
    queue: Option<String>,
    kind: Option<String>,
    reason: Option<Reason>,
    fingerprint: Option<Fingerprint>,
    error: Option<String>,
    tenant: Option<String>,
    run_id: Option<i64>,
    died_after: Option<DateTime<Utc>>,
    died_before: Option<DateTime<Utc>>,
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
    Extension(caller): Extension<Caller>,
    Query(params): Query<Params>,
) -> Result<Json<Page<DeadLetter>>, Problem> {
    let filter = DeadFilter {
        queue: params.queue,
        kind: params.kind,
        reason: params.reason,
        fingerprint: params.fingerprint,
        error: params.error,
        tenant: params.tenant,
        run_id: params.run_id,
        died_after: params.died_after,
        died_before: params.died_before,
        replayed: params.replayed,
    };
    let before = params.cursor.map(|Cursor(id)| JobId(id));
    let (tenants, n_read) = (caller.tenants.list(), params.limit.n_read());
    let rows = dead::list_of(&app.db, &filter, tenants, before, n_read).await?;
    Ok(Json(Page::new(rows, params.limit, |letter| letter.id.0)))
}

/// Reads a place that a page gave.
fn read(place: &str) -> Result<GroupPlace, Problem> {
    let place = serde_json::from_str(place).ok();
    place
        .filter(GroupPlace::is_sound)
        .ok_or_else(|| Problem::new(Trouble::BadRequest).detail("cursor is none that a page gave"))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct GroupParams {
    kind: Option<String>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<TextCursor>,
}

/// `GET /dead/groups`: what failed alike, the largest group first.
pub(in crate::http) async fn groups(
    State(app): State<Arc<AppState>>,
    Query(params): Query<GroupParams>,
) -> Result<Json<Page<DeadGroup, TextCursor>>, Problem> {
    let after = params.cursor.map(|TextCursor(place)| read(&place));
    let after = after.transpose()?;
    let (kind, n_read) = (params.kind.as_deref(), params.limit.n_read());
    let groups = dead::groups_after(&app.db, kind, after.as_ref(), n_read).await?;
    let place = |group: &DeadGroup| TextCursor(json!(group.place()).to_string());
    Ok(Json(Page::by(groups, params.limit, place)))
}
