//! Gates: what waits behind them, set, remove, pause, resume.

use std::sync::Arc;

use axum::{Extension, extract::State};
use serde_json::{Value, json};

use super::super::{
    self as http, AppState, ByName, Caller, Page, Path, Problem, Query, TextCursor, Trouble, audit,
};
use crate::{
    observe::gauge::{self, GateDepth},
    queue::gate::define::{self, Limits},
};

/// `GET /gates`: their limits and what is behind them, by pattern; last, with a null pattern, what
/// no gate fits.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Query(ask): Query<ByName>,
) -> Result<axum::Json<Page<GateDepth, TextCursor>>, Problem> {
    let gates = gauge::gates_after(&app.db, ask.after(), ask.limit.n_read()).await?;
    // What has no pattern is the last.
    let place = |gate: &GateDepth| TextCursor(gate.pattern.clone().unwrap_or_default());
    Ok(axum::Json(Page::by(gates, ask.limit, place)))
}

/// `PUT /gates/{pattern}`: its limits from now on; what is left out is not limited.
pub(in crate::http) async fn set(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(pattern): Path<String>,
    http::Json(limits): http::Json<Limits>,
) -> Result<axum::Json<Value>, Problem> {
    check(&pattern)?;
    if let Some((pointer, why)) = limits.mistake() {
        return Err(Problem::new(Trouble::Invalid).at(pointer, why));
    }
    let mut tx = app.db.begin().await?;
    define::set(&mut tx, &pattern, &limits).await?;
    let detail = Some(json!(limits));
    audit::record(
        &mut tx,
        &caller,
        "gate.set",
        &object(&pattern),
        None,
        detail,
    )
    .await?;
    tx.commit().await?;
    Ok(axum::Json(json!({ "pattern": pattern, "limits": limits })))
}

/// `DELETE /gates/{pattern}`: its keys fall to the next pattern, or to one job at a time.
pub(in crate::http) async fn remove(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(pattern): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    if !define::remove(&mut tx, &pattern).await? {
        return Err(Problem::new(Trouble::NotFound).detail(format!("no gate {pattern:?}")));
    }
    audit::record(
        &mut tx,
        &caller,
        "gate.remove",
        &object(&pattern),
        None,
        None,
    )
    .await?;
    tx.commit().await?;
    Ok(axum::Json(json!({ "pattern": pattern, "removed": true })))
}

/// `POST /gates/{pattern}/pause`: no job of its keys starts. Again is no error.
pub(in crate::http) async fn pause(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(pattern): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    check(&pattern)?;
    let mut tx = app.db.begin().await?;
    let n_held = define::pause(&mut tx, &pattern).await?;
    audit::record(
        &mut tx,
        &caller,
        "gate.pause",
        &object(&pattern),
        None,
        None,
    )
    .await?;
    tx.commit().await?;
    let answer = json!({ "pattern": pattern, "paused": true, "held_again": n_held });
    Ok(axum::Json(answer))
}

/// `POST /gates/{pattern}/resume`: it goes on. Again is no error.
pub(in crate::http) async fn resume(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(pattern): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    let resumed = define::resume(&mut tx, &pattern).await?;
    if resumed {
        audit::record(
            &mut tx,
            &caller,
            "gate.resume",
            &object(&pattern),
            None,
            None,
        )
        .await?;
    }
    tx.commit().await?;
    let answer = json!({ "pattern": pattern, "paused": false, "resumed": resumed });
    Ok(axum::Json(answer))
}

fn check(pattern: &str) -> Result<(), Problem> {
    if (1..=define::LONGEST_PATTERN).contains(&pattern.chars().count()) {
        return Ok(());
    }
    let why = format!("a pattern has 1 to {} characters", define::LONGEST_PATTERN);
    Err(Problem::new(Trouble::Invalid).detail(why))
}

fn object(pattern: &str) -> String {
    format!("gate/{pattern}")
}
