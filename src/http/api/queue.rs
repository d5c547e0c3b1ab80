//! Queues: what is in them, pause and resume.

use std::sync::Arc;

use axum::{Extension, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{
    self as http, AppState, ByName, Caller, Page, Path, Problem, Query, TextCursor, Trouble, audit,
};
use crate::{
    observe::{QueueDepth, gauge},
    queue::{control, read, rule},
};

/// `GET /queues`: depth by state, ages and pause of every known queue, by name.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Query(ask): Query<ByName>,
) -> Result<axum::Json<Page<QueueDepth, TextCursor>>, Problem> {
    let mut queues = gauge::queues(&app.db).await?;
    // Its own order, so that a cursor holds without the queue that it is of.
    queues.sort_by(|one, other| one.queue.cmp(&other.queue));
    if let Some(after) = ask.after() {
        queues.retain(|depth| depth.queue.as_str() > after);
    }
    let place = |depth: &QueueDepth| TextCursor(depth.queue.clone());
    Ok(axum::Json(Page::by(queues, ask.limit, place)))
}

/// `POST /queues/{queue}/pause`: nothing more is claimed from it. Again is no error.
pub(in crate::http) async fn pause(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(queue): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    known(read::is_queue(&mut *tx, &queue).await?, &queue)?;
    control::pause(&mut tx, &queue).await?;
    audit::record(&mut tx, &caller, "queue.pause", &object(&queue), None, None).await?;
    tx.commit().await?;
    Ok(axum::Json(json!({ "queue": queue, "paused": true })))
}

/// `POST /queues/{queue}/resume`: it goes on. Again is no error.
pub(in crate::http) async fn resume(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(queue): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    known(read::is_queue(&mut *tx, &queue).await?, &queue)?;
    if control::resume(&mut tx, &queue).await? {
        audit::record(
            &mut tx,
            &caller,
            "queue.resume",
            &object(&queue),
            None,
            None,
        )
        .await?;
    }
    tx.commit().await?;
    Ok(axum::Json(json!({ "queue": queue, "paused": false })))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct QueueLimit {
    max_running: Option<i32>,
}

/// `POST /queues/{queue}/limit`: how many of its jobs run at once across all daemons.
pub(in crate::http) async fn limit(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(queue): Path<String>,
    http::Json(limit): http::Json<QueueLimit>,
) -> Result<axum::Json<Value>, Problem> {
    if limit.max_running.is_some_and(|n| n < 1) {
        return Err(Problem::new(Trouble::Invalid).at("/max_running", "at least 1, or null"));
    }
    let mut tx = app.db.begin().await?;
    known(read::is_queue(&mut *tx, &queue).await?, &queue)?;
    rule::limit(&mut tx, &queue, limit.max_running).await?;
    let (object, detail) = (object(&queue), Some(json!(limit)));
    audit::record(&mut tx, &caller, "queue.limit", &object, None, detail).await?;
    tx.commit().await?;
    let answer = json!({ "queue": queue, "max_running": limit.max_running });
    Ok(axum::Json(answer))
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Turns {
    fair: bool,
}

/// `POST /queues/{queue}/fair`: whether its tenants take turns.
pub(in crate::http) async fn fair(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(queue): Path<String>,
    http::Json(turns): http::Json<Turns>,
) -> Result<axum::Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    known(read::is_queue(&mut *tx, &queue).await?, &queue)?;
    rule::set_fair(&mut tx, &queue, turns.fair).await?;
    let (object, detail) = (object(&queue), Some(json!(turns)));
    audit::record(&mut tx, &caller, "queue.fair", &object, None, detail).await?;
    tx.commit().await?;
    Ok(axum::Json(json!({ "queue": queue, "fair": turns.fair })))
}

/// A misspelt queue would be paused and nobody would notice.
fn known(is_known: bool, queue: &str) -> Result<(), Problem> {
    let unknown = || Problem::new(Trouble::NotFound).detail(format!("no queue {queue:?}"));
    if is_known { Ok(()) } else { Err(unknown()) }
}

fn object(queue: &str) -> String {
    format!("queue/{queue}")
}
