//! The search sync: how far it is, and what makes it go on.

use std::sync::Arc;

use axum::{Extension, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{AppState, Caller, Cursor, Limit, Page, Problem, Query, Trouble, audit};
use crate::{
    notify::search::{self, Failure, Rebuild, Status, SyncSearch},
    queue::{self, Job},
};

/// Where a page of failures begins, and how long it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Ask {
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// `GET /search`.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
) -> Result<axum::Json<Status>, Problem> {
    let status = search::status(&app.db, &app.config.search).await?;
    Ok(axum::Json(status))
}

/// `GET /search/failures`.
pub(in crate::http) async fn failures(
    State(app): State<Arc<AppState>>,
    Query(ask): Query<Ask>,
) -> Result<axum::Json<Page<Failure>>, Problem> {
    let after = ask.cursor.map(|cursor| cursor.0);
    let collection = &app.config.search.collection;
    let rows = search::failures(&app.db, collection, after, ask.limit.n_read()).await?;
    Ok(axum::Json(Page::new(rows, ask.limit, |row| row.product_id)))
}

/// `POST /search/sync`: 202 and the job, be it one that does it already.
pub(in crate::http) async fn sync(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    enqueue(&app, &caller, &SyncSearch::default(), "search.sync").await
}

/// `POST /search/rebuild`: 202 and the job, be it one that does it already.
pub(in crate::http) async fn rebuild(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    enqueue(&app, &caller, &Rebuild {}, "search.rebuild").await
}

async fn enqueue<J: Job>(
    app: &AppState,
    caller: &Caller,
    job: &J,
    action: &str,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    demand_server(app)?;
    let mut tx = app.db.begin().await?;
    let enqueued = queue::enqueue(&mut tx, job).await?;
    let said = json!({ "job": enqueued.id, "inserted": enqueued.inserted });
    note(&mut tx, app, caller, action, said.clone()).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(said)))
}

/// `POST /search/retry`: 202, how many products are due again, and the job that sends them.
pub(in crate::http) async fn retry(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    demand_server(&app)?;
    let mut tx = app.db.begin().await?;
    let n = search::retry(&mut tx, &app.config.search.collection).await?;
    let job = queue::enqueue(&mut tx, &SyncSearch::default()).await?.id;
    let said = json!({ "n": n, "job": job });
    note(&mut tx, &app, &caller, "search.retry", said.clone()).await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(said)))
}

/// Refuses to begin what would end at once.
fn demand_server(app: &AppState) -> Result<(), Problem> {
    if app.config.search.is_on() {
        return Ok(());
    }
    let detail = "no search server is configured: set search.url and search.api_key_file";
    Err(Problem::new(Trouble::Conflict).detail(detail))
}

async fn note(
    tx: &mut sqlx::PgConnection,
    app: &AppState,
    caller: &Caller,
    action: &str,
    detail: Value,
) -> sqlx::Result<()> {
    let object = format!("search/{}", app.config.search.collection);
    audit::record(tx, caller, action, &object, None, Some(detail)).await
}
