//! What people do to runs: cancel, pause, resume, reset.
//!
//! Jobs first, then the run: a chunk's transaction locks its job by the fence
//! and then advances the run, and whoever locks both must do so in that order.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;

use super::run::RunId;
use crate::queue::{self, NewJob, control::Restarted};

/// How the job that drives a batch run is enqueued: member `driver` of the run's params, where it
/// has one, so that a run that is resumed or reset waits where it waited at first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Driver {
    /// The limit it counts against.
    pub gate_key: Option<String>,
    /// 0 urgent to 3 background; `None`: 1.
    pub priority: Option<i16>,
}

/// Cancels an unfinished run and its jobs; what was committed stays.
///
/// A running handler learns of it at its next await or chunk. Returns `false`
/// where the run is final already or does not exist.
///
/// # Errors
///
/// What Postgres says.
pub async fn cancel(conn: &mut PgConnection, id: RunId) -> sqlx::Result<bool> {
    let is_final: Option<bool> =
        sqlx::query_scalar("SELECT finished_at IS NOT NULL FROM ingestd.runs WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
    if is_final != Some(false) {
        return Ok(false);
    }
    queue::control::cancel_run(&mut *conn, id.0).await?;
    let cancelled = sqlx::query(
        "UPDATE ingestd.runs SET state = 'cancelled', finished_at = clock_timestamp()
         WHERE id = $1 AND state IN ('pending', 'running', 'paused')",
    )
    .bind(id)
    .execute(conn)
    .await?;
    Ok(cancelled.rows_affected() == 1)
}

/// Pauses an unfinished batch run; what was committed stays.
///
/// Its handler learns of it at its next chunk, which is undone, and its job ends. Returns `false`
/// where there is no such run, it is final or paused already, or it is no batch.
///
/// # Errors
///
/// What Postgres says.
pub async fn pause(conn: &mut PgConnection, id: RunId) -> sqlx::Result<bool> {
    let paused = sqlx::query(
        "UPDATE ingestd.runs SET state = 'paused'
         WHERE id = $1 AND state IN ('pending', 'running') AND job_kind IS NOT NULL",
    )
    .bind(id)
    .execute(conn)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Lets a paused run go on from its cursor.
///
/// Returns `false` where the run is not paused; then nothing may be committed. A job of the run
/// that has not noticed the pause yet loses its lease, so that exactly one goes on; one that
/// somebody cancelled ends so, and another job goes on in its place.
///
/// # Errors
///
/// What Postgres says.
pub async fn resume(conn: &mut PgConnection, id: RunId) -> sqlx::Result<bool> {
    let is_paused: Option<bool> =
        sqlx::query_scalar("SELECT state = 'paused' FROM ingestd.runs WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
    if is_paused != Some(true) {
        return Ok(false);
    }
    let restarted = queue::control::restart_run(&mut *conn, id.0).await?;
    let kind: Option<String> = sqlx::query_scalar(
        "UPDATE ingestd.runs SET state = 'pending'
         WHERE id = $1 AND state = 'paused' RETURNING job_kind",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await?
    .flatten();
    let Some(kind) = kind else { return Ok(false) };
    if restarted != Restarted::GoesOn {
        enqueue_driver(conn, id, kind).await?;
    }
    Ok(true)
}

/// Puts a failed, cancelled or stuck batch run back to work from its cursor, with all retries before it.
///
/// A job of the run that was cancelled and has not noticed yet ends cancelled, and another job goes
/// on. Returns `false` where there is no such run, it completed, its work was taken back
/// ([`Run::undone_by`](super::Run::undone_by)), or it is no batch.
///
/// # Errors
///
/// What Postgres says.
pub async fn reset(conn: &mut PgConnection, id: RunId) -> sqlx::Result<bool> {
    // Read before anything is done: the jobs of a fan-out are none of ours.
    let is_batch: Option<bool> = sqlx::query_scalar(
        "SELECT job_kind IS NOT NULL FROM ingestd.runs
         WHERE id = $1 AND state <> 'completed' AND NOT details ? 'undone_by'",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await?;
    if is_batch != Some(true) {
        return Ok(false);
    }
    let restarted = queue::control::restart_run(&mut *conn, id.0).await?;
    let kind: Option<String> = sqlx::query_scalar(
        "UPDATE ingestd.runs SET state = 'pending', finished_at = NULL, error = NULL,
           error_detail = NULL, retry_count = 0
         WHERE id = $1 AND state <> 'completed' AND NOT details ? 'undone_by'
           AND job_kind IS NOT NULL RETURNING job_kind",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(kind) = kind else { return Ok(false) };
    if restarted != Restarted::GoesOn {
        enqueue_driver(conn, id, kind).await?;
    }
    Ok(true)
}

/// Enqueues the job that drives a batch run.
pub(super) async fn enqueue_driver(
    conn: &mut PgConnection,
    id: RunId,
    kind: String,
) -> sqlx::Result<()> {
    let run: Option<(String, Option<Value>)> =
        sqlx::query_as("SELECT tenant, params -> 'driver' FROM ingestd.runs WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *conn)
            .await?;
    let (tenant, driver) = run.unzip();
    let driver = driver.flatten().map(serde_json::from_value::<Driver>);
    // params are each system's own: what is no driver says nothing of one
    let driver = driver.and_then(Result::ok).unwrap_or_default();
    let job = NewJob {
        kind,
        tenant,
        gate_key: driver.gate_key,
        priority: driver.priority,
        args: serde_json::json!({ "run_id": id }),
        unique_key: Some(format!("run:{id}")),
        run_id: Some(id.0),
        ..NewJob::default()
    };
    // One of its kind that is there already, from a reset at the same time, drives it as well.
    queue::enqueue_or_find(conn, &job).await?;
    Ok(())
}
