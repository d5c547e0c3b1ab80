//! Queues: what is in them, pause and resume.

use std::sync::Arc;

use axum::{Extension, extract::State};
use serde_json::{Value, json};

use super::super::{AppState, Caller, Path, Problem, Trouble, audit};
use crate::{
    observe::{QueueDepth, gauge},
    queue::{control, read},
};

/// `GET /queues`: depth by state, ages and pause of every known queue, by name.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
) -> Result<axum::Json<Value>, Problem> {
    let queues: Vec<QueueDepth> = gauge::queues(&app.db).await?;
    Ok(axum::Json(json!({ "items": queues })))
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

/// A misspelt queue would be paused and nobody would notice.
fn known(is_known: bool, queue: &str) -> Result<(), Problem> {
    let unknown = || Problem::new(Trouble::NotFound).detail(format!("no queue {queue:?}"));
    if is_known { Ok(()) } else { Err(unknown()) }
}

fn object(queue: &str) -> String {
    format!("queue/{queue}")
}
