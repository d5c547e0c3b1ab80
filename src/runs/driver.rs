//! A batch run and the job that drives it stand and fall together, whichever of the two a person takes.

use serde_json::Value;
use sqlx::PgConnection;

use super::run::RunId;
use crate::queue::{
    JobId,
    control::{self, Cancelled, Retried},
    dead::{self, Begin},
};

/// Cancels a job, and with the job that drives a batch run the run.
///
/// Otherwise the run would be found stale and driven on by a new job, or wait for ever.
///
/// # Errors
///
/// What Postgres says.
pub async fn cancel_job(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Cancelled> {
    let driven: Option<RunId> = sqlx::query_scalar(
        "SELECT r.id FROM ingestd.jobs j
         JOIN ingestd.runs r ON r.id = j.run_id AND r.job_kind = j.kind
         WHERE j.shard = 0 AND j.id = $1",
    )
    .bind(id)
    .fetch_optional(&mut *conn)
    .await?;
    let cancelled = control::cancel(&mut *conn, id).await?;
    if let Some(run) = driven
        && cancelled != Cancelled::NotFound
    {
        sqlx::query(
            "UPDATE ingestd.runs SET state = 'cancelled', finished_at = clock_timestamp()
             WHERE id = $1 AND state IN ('pending', 'running', 'paused')",
        )
        .bind(run)
        .execute(conn)
        .await?;
    }
    Ok(cancelled)
}

/// Tries a job again: a waiting one becomes due, a dead letter is replayed by [`replay`].
///
/// # Errors
///
/// What Postgres says.
pub async fn retry_job(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Retried> {
    if control::run_now(&mut *conn, id).await? {
        return Ok(Retried::DueNow);
    }
    let new = replay(conn, id).await?;
    Ok(new.map_or(Retried::NotFound, Retried::Replayed))
}

/// Replays a dead letter, and with one that drove a batch run opens the failed run again.
///
/// Otherwise the new job would find its run failed, and have nothing to do.
///
/// # Errors
///
/// What Postgres says.
pub async fn replay(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Option<JobId>> {
    replay_with(conn, id, None, Begin::default()).await
}

/// As [`replay`], with other arguments where `args`, a JSON object of at most 256 KiB, are given,
/// and to begin where the caller says; see [`dead::replay_with`].
///
/// # Errors
///
/// What Postgres says: no object, or too large.
pub async fn replay_with(
    conn: &mut PgConnection,
    id: JobId,
    args: Option<&Value>,
    begin: Begin,
) -> sqlx::Result<Option<JobId>> {
    let new = dead::replay_with(&mut *conn, id, args, begin).await?;
    open_again(conn, new).await?;
    Ok(new)
}

/// Opens the failed run that a job drives.
async fn open_again(conn: &mut PgConnection, driver: Option<JobId>) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ingestd.runs r SET state = 'pending', finished_at = NULL, error = NULL,
           error_detail = NULL, retry_count = 0
         FROM ingestd.jobs j
         WHERE j.shard = 0 AND j.id = $1 AND r.id = j.run_id AND r.job_kind = j.kind
           AND r.state = 'failed'",
    )
    .bind(driver)
    .execute(conn)
    .await?;
    Ok(())
}
