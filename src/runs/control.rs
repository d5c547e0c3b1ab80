//! What people do to runs: cancel, reset.

use sqlx::PgConnection;

use super::run::RunId;
use crate::queue::{self, NewJob};

/// Cancels an unfinished run and its jobs; what was committed stays.
///
/// A running handler learns of it at its next await or chunk. Returns `false`
/// where the run is final already or does not exist.
///
/// # Errors
///
/// What Postgres says.
pub async fn cancel(conn: &mut PgConnection, id: RunId) -> sqlx::Result<bool> {
    let cancelled = sqlx::query(
        "UPDATE ingestd.runs SET state = 'cancelled', finished_at = clock_timestamp()
         WHERE id = $1 AND state IN ('pending', 'running', 'paused')",
    )
    .bind(id)
    .execute(&mut *conn)
    .await?;
    if cancelled.rows_affected() == 0 {
        return Ok(false);
    }
    queue::control::cancel_run(conn, id.0).await?;
    Ok(true)
}

/// Puts a failed, cancelled or stuck batch run back to work from its cursor, with all retries before it.
///
/// Returns `false` where there is no such run, it completed, or it is no batch.
///
/// # Errors
///
/// What Postgres says.
pub async fn reset(conn: &mut PgConnection, id: RunId) -> sqlx::Result<bool> {
    let kind: Option<String> = sqlx::query_scalar(
        "UPDATE ingestd.runs SET state = 'pending', finished_at = NULL, error = NULL,
           error_detail = NULL, retry_count = 0
         WHERE id = $1 AND state <> 'completed' AND job_kind IS NOT NULL RETURNING job_kind",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(kind) = kind else { return Ok(false) };
    restart(conn, id, kind).await?;
    Ok(true)
}

/// Takes the lease of the run's job away, or enqueues a new one where it has none.
pub(super) async fn restart(conn: &mut PgConnection, id: RunId, kind: String) -> sqlx::Result<()> {
    if !queue::control::restart_run(&mut *conn, id.0).await? {
        let job = NewJob {
            kind,
            args: serde_json::json!({ "run_id": id }),
            unique_key: Some(format!("run:{id}")),
            run_id: Some(id.0),
            ..NewJob::default()
        };
        queue::enqueue_raw(conn, &job).await?;
    }
    Ok(())
}
