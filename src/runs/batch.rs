//! The batch shape: one job, many items, one cursor.

use serde_json::Value;
use sqlx::PgConnection;

use super::run::{Run, RunId};
use crate::queue::JobError;

/// What one chunk adds to a run.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Items done.
    pub ok: i64,
    /// Items refused.
    pub failed: i64,
    /// Items that needed nothing.
    pub skipped: i64,
    /// Where the run goes on after this chunk; `None` leaves it.
    pub cursor: Option<Value>,
    /// Items in all; `None` leaves it.
    pub items_total: Option<i64>,
    /// What it is doing; `None` leaves it.
    pub stage: Option<String>,
    /// Figures of the system's own, added key by key; `None` leaves them.
    pub details: Option<Value>,
}

/// Begins or goes on with a run; `None` where it is final or paused, and the job has nothing to do.
///
/// # Errors
///
/// What Postgres says.
pub async fn begin(conn: &mut PgConnection, id: RunId) -> sqlx::Result<Option<Run>> {
    sqlx::query_as(
        "UPDATE ingestd.runs SET state = 'running', heartbeat_at = now(),
                started_at = coalesce(started_at, now())
         WHERE id = $1 AND state IN ('pending', 'running') RETURNING *",
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// Adds a chunk's progress in the chunk's own transaction.
///
/// # Errors
///
/// [`JobError::Cancelled`] where the run is not running any more, because
/// somebody cancelled or paused it or it failed meanwhile: roll back and end
/// the job; else what Postgres says.
pub async fn advance(
    conn: &mut PgConnection,
    id: RunId,
    progress: &Progress,
) -> Result<(), JobError> {
    let advanced = sqlx::query(
        "UPDATE ingestd.runs SET heartbeat_at = clock_timestamp(),
           items_ok = items_ok + $2, items_failed = items_failed + $3,
           items_skipped = items_skipped + $4, cursor = coalesce($5, cursor),
           items_total = coalesce($6, items_total), stage = coalesce($7, stage),
           details = details || coalesce($8, '{}')
         WHERE id = $1 AND state = 'running'",
    )
    .bind(id)
    .bind(progress.ok)
    .bind(progress.failed)
    .bind(progress.skipped)
    .bind(&progress.cursor)
    .bind(progress.items_total)
    .bind(&progress.stage)
    .bind(&progress.details)
    .execute(conn)
    .await?;
    if advanced.rows_affected() == 1 {
        Ok(())
    } else {
        Err(JobError::Cancelled)
    }
}

/// Completes a running run in the transaction that completes its job.
///
/// # Errors
///
/// [`JobError::Cancelled`] where it is not running any more; else what Postgres says.
pub async fn complete(conn: &mut PgConnection, id: RunId) -> Result<(), JobError> {
    let completed = sqlx::query(
        "UPDATE ingestd.runs SET state = 'completed', finished_at = clock_timestamp(),
           heartbeat_at = clock_timestamp(), stage = NULL,
           items_total = coalesce(items_total, items_ok + items_failed + items_skipped)
         WHERE id = $1 AND state = 'running'",
    )
    .bind(id)
    .execute(conn)
    .await?;
    if completed.rows_affected() == 1 {
        Ok(())
    } else {
        Err(JobError::Cancelled)
    }
}

/// Fails an unfinished run; does nothing to one that is final already.
///
/// # Errors
///
/// What Postgres says.
pub async fn fail(conn: &mut PgConnection, id: RunId, error: &str) -> sqlx::Result<bool> {
    let failed = sqlx::query(
        "UPDATE ingestd.runs SET state = 'failed', finished_at = clock_timestamp(), error = $2
         WHERE id = $1 AND state IN ('pending', 'running', 'paused')",
    )
    .bind(id)
    .bind(error)
    .execute(conn)
    .await?;
    Ok(failed.rows_affected() == 1)
}
