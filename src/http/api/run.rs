//! Runs of every system: list, show, pause, resume, cancel, reset.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::super::{
    AppState, Caller, Cursor, Limit, Page, Path, Problem, Query, Trouble, View, audit,
};
use crate::runs::{self, Run, RunId};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Params {
    system: Option<String>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// `GET /runs`: the newest first, of one system or of all.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<Params>,
) -> Result<Json<Value>, Problem> {
    let before = params.cursor.map(|Cursor(id)| RunId(id));
    let system = params.system.as_deref();
    let (tenants, n_read) = (caller.tenants.list(), params.limit.n_read());
    let rows = runs::list_of(&app.db, system, tenants, before, n_read).await?;
    let page = Page::new(rows, params.limit, |run| run.id.0);
    caller.seen(page).map(Json)
}

/// `GET /runs/{id}`.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let run = runs::get(&app.db, RunId(id)).await?;
    caller.seen(run.ok_or_else(|| no_run(id))?).map(Json)
}

/// `GET /runs/{id}/events`: the run as it changes.
pub(in crate::http) async fn events(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let run = runs::get(&app.db, RunId(id)).await?;
    let run = run.ok_or_else(|| no_run(id))?;
    let view: View = Box::new(move |run| {
        let shown = caller.seen(&*run).map(|run| run.to_string());
        Box::pin(std::future::ready(shown))
    });
    app.follow(run, &headers, view).await
}

/// `POST /runs/{id}/cancel`: it and its jobs stop; what was committed stays.
pub(in crate::http) async fn cancel(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Run>, Problem> {
    let mut tx = app.db.begin().await?;
    if !runs::cancel(&mut tx, RunId(id)).await? {
        return Err(impossible(&mut tx, id, "cancelled").await?);
    }
    let run = changed(&mut tx, &caller, "run.cancel", id).await?;
    tx.commit().await?;
    Ok(Json(run))
}

/// `POST /runs/{id}/pause`: what was committed stays, nothing more is done until it is resumed.
pub(in crate::http) async fn pause(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Run>, Problem> {
    let mut tx = app.db.begin().await?;
    if !runs::pause(&mut tx, RunId(id)).await? {
        return Err(impossible(&mut tx, id, "paused").await?);
    }
    let run = changed(&mut tx, &caller, "run.pause", id).await?;
    tx.commit().await?;
    Ok(Json(run))
}

/// `POST /runs/{id}/resume`: a paused run goes on from where it was.
pub(in crate::http) async fn resume(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Run>, Problem> {
    let mut tx = app.db.begin().await?;
    if !runs::resume(&mut tx, RunId(id)).await? {
        return Err(impossible(&mut tx, id, "resumed").await?);
    }
    let run = changed(&mut tx, &caller, "run.resume", id).await?;
    tx.commit().await?;
    Ok(Json(run))
}

/// `POST /runs/{id}/reset`: a failed, cancelled or stuck run goes on from where it was.
pub(in crate::http) async fn reset(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Run>, Problem> {
    let mut tx = app.db.begin().await?;
    if !runs::reset(&mut tx, RunId(id)).await? {
        return Err(impossible(&mut tx, id, "reset").await?);
    }
    let run = changed(&mut tx, &caller, "run.reset", id).await?;
    tx.commit().await?;
    Ok(Json(run))
}

/// Writes the audit log's line and returns the run as it is now.
async fn changed(
    tx: &mut PgConnection,
    caller: &Caller,
    action: &str,
    id: i64,
) -> Result<Run, Problem> {
    let run = runs::get(&mut *tx, RunId(id))
        .await?
        .ok_or_else(|| no_run(id))?;
    let detail = json!({ "system": run.system });
    let object = format!("run/{id}");
    audit::record(tx, caller, action, &object, Some(&run.tenant), Some(detail)).await?;
    Ok(run)
}

/// Says why a run could not be changed: it is not there, or its state is in the way.
async fn impossible(tx: &mut PgConnection, id: i64, wish: &str) -> Result<Problem, Problem> {
    let Some(run) = runs::get(tx, RunId(id)).await? else {
        return Ok(no_run(id));
    };
    let conflict = Problem::new(Trouble::Conflict).with("state", run.state);
    let why = match run.undone_by() {
        Some(by) => format!("this run cannot be {wish}: run {by} takes back what it did"),
        None => format!("this run cannot be {wish} now"),
    };
    Ok(conflict.detail(why))
}

pub(in crate::http) fn no_run(id: i64) -> Problem {
    Problem::new(Trouble::NotFound).detail(format!("no run {id}, or no longer"))
}
