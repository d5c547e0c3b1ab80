//! What people do to jobs and queues: cancel, run now, put off, change priority, pause, resume.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{batch, job::JobId};

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was waiting and will not run.
    Done,
    /// It is running; its handler was told to stop.
    Requested,
    /// There is no unfinished job of that id.
    NotFound,
}

const CANCEL_WAITING: &str = "
    WITH gone AS (
      DELETE FROM ingestd.jobs WHERE shard = 0 AND id = $1 AND state <> 'running' RETURNING *)
    INSERT INTO ingestd.job_history
      (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, created_at, run_at,
       started_at)
    SELECT shard, id, kind, queue, 'cancelled', priority, attempt,
           CASE WHEN pg_column_size(args) <= 1024 THEN args END, run_id, tenant, created_at,
           run_at, started_at
    FROM gone RETURNING id,
      -- It may have had a slot of its gate.
      (SELECT max(pg_notify('ingestd_gate', gate_key)::text) FROM gone
       WHERE state = 'queued' AND gate_key IS NOT NULL AND pg_notification_queue_usage() < 0.5)";

const CANCEL_RUNNING: &str = "
    UPDATE ingestd.jobs SET cancel_requested = true
    WHERE shard = 0 AND id = $1 AND state = 'running'
    RETURNING ingestd.hint('ingestd_cancel', lease_id::text)";

/// Cancels a job: at once where it waits, by telling its handler where it runs.
///
/// # Errors
///
/// What Postgres says.
pub async fn cancel(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Cancelled> {
    // From here on it neither starts nor ends.
    let mut tx = batch::begin(conn, id).await?;
    let waiting: Option<i64> = sqlx::query_scalar(CANCEL_WAITING)
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
    let running = sqlx::query(CANCEL_RUNNING)
        .bind(id)
        .fetch_optional(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(match (waiting, running) {
        (Some(_), _) => Cancelled::Done,
        (_, Some(_)) => Cancelled::Requested,
        _ => Cancelled::NotFound,
    })
}

/// Cancels every unfinished job of a run; returns how many were waiting and how many run.
///
/// # Errors
///
/// What Postgres says.
pub async fn cancel_run(conn: &mut PgConnection, run_id: i64) -> sqlx::Result<(u64, u64)> {
    let ids: Vec<JobId> = sqlx::query_scalar(
        "SELECT id FROM ingestd.jobs WHERE shard = 0 AND run_id = $1 ORDER BY id",
    )
    .bind(run_id)
    .fetch_all(&mut *conn)
    .await?;
    let (mut waiting, mut running) = (0, 0);
    for id in ids {
        match cancel(&mut *conn, id).await? {
            Cancelled::Done => waiting += 1,
            Cancelled::Requested => running += 1,
            Cancelled::NotFound => {}
        }
    }
    Ok((waiting, running))
}

/// What became of the job of a run that was to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restarted {
    /// It goes on: with a new lease where it ran, as it is where it waits.
    GoesOn,
    /// It ran and somebody had cancelled it: it is cancelled now, and nothing goes on.
    Cancelled,
    /// There was none.
    NoJob,
}

const RESTART: &str = "
    WITH back AS (
      UPDATE ingestd.jobs
      SET state = CASE WHEN gate_key IS NULL THEN 'queued' ELSE 'held' END,
          lease_id = NULL, worker_id = NULL, deadline_at = NULL,
          run_at = now(), last_error = 'the run made no progress; its lease was taken away'
      WHERE shard = 0 AND run_id = $1 AND state = 'running' AND NOT cancel_requested
      RETURNING id)
    SELECT (SELECT count(*) FROM back)
         + (SELECT count(*) FROM ingestd.jobs
            WHERE shard = 0 AND run_id = $1 AND state <> 'running')";

/// Takes the lease of a run's job away, so that another worker goes on with it.
///
/// For runs that stopped making progress. A job that waits already goes on as it is. One whose
/// cancellation was asked for is cancelled: back in the queue, its next claim would forget that.
///
/// # Errors
///
/// What Postgres says.
pub async fn restart_run(conn: &mut PgConnection, run_id: i64) -> sqlx::Result<Restarted> {
    let n_jobs: i64 = sqlx::query_scalar(RESTART)
        .bind(run_id)
        .fetch_one(&mut *conn)
        .await?;
    // A statement of its own: it sees what somebody cancelled while the first one waited.
    let cancelled: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT id, lease_id FROM ingestd.jobs
         WHERE shard = 0 AND run_id = $1 AND state = 'running' AND cancel_requested ORDER BY id",
    )
    .bind(run_id)
    .fetch_all(&mut *conn)
    .await?;
    let mut n_cancelled = 0;
    for (id, lease_id) in cancelled {
        n_cancelled += u64::from(finish_cancelled(&mut *conn, id, lease_id).await?);
    }
    Ok(match (n_jobs, n_cancelled) {
        (1.., _) => Restarted::GoesOn,
        (_, 1..) => Restarted::Cancelled,
        _ => Restarted::NoJob,
    })
}

/// What became of a request to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retried {
    /// It was waiting for a later time and is due now.
    DueNow,
    /// It was a dead letter and is a new job now.
    Replayed(JobId),
    /// There is nothing to try again under that id.
    NotFound,
}

/// Makes a waiting job due now; returns whether there was one. A held one still waits for its turn,
/// and one that is due already keeps its place.
///
/// # Errors
///
/// What Postgres says.
pub async fn run_now(conn: &mut PgConnection, id: JobId) -> sqlx::Result<bool> {
    let mut tx = batch::begin(conn, id).await?;
    let due: Option<String> = sqlx::query_scalar(
        "UPDATE ingestd.jobs SET run_at = least(run_at, now())
         WHERE shard = 0 AND id = $1 AND state IN ('queued', 'held')
         RETURNING CASE WHEN state = 'queued' THEN ingestd.hint('ingestd_look', queue)
                        ELSE ingestd.hint('ingestd_gate', coalesce(gate_key, '')) END",
    )
    .bind(id)
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(due.is_some())
}

/// What a person changes about a job; `None` leaves it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// 0 urgent to 3 background; of a running job it is that of its next attempt.
    pub priority: Option<i16>,
    /// Not before this time; only of a job that waits.
    pub run_at: Option<DateTime<Utc>>,
}

/// Changes an unfinished job; returns whether it did.
///
/// It does not where there is no unfinished job of that id, or where it runs and a `run_at` is
/// given. The workers of the job's queue look again, so that a job which is due now is taken up.
///
/// # Errors
///
/// What Postgres says; a priority out of its range.
pub async fn change(conn: &mut PgConnection, id: JobId, change: &Change) -> sqlx::Result<bool> {
    let mut tx = batch::begin(conn, id).await?;
    let changed = sqlx::query(
        "UPDATE ingestd.jobs
         SET priority = coalesce($2, priority), run_at = coalesce($3, run_at)
         WHERE shard = 0 AND id = $1 AND ($3::timestamptz IS NULL OR state <> 'running')
         RETURNING CASE WHEN state = 'held' THEN ingestd.hint('ingestd_gate', coalesce(gate_key, ''))
                        ELSE ingestd.hint('ingestd_look', queue) END",
    )
    .bind(id)
    .bind(change.priority)
    .bind(change.run_at)
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(changed.is_some())
}

/// Puts a waiting job off by `delay`, counted from when it would run: from now where it is due.
///
/// Returns when it runs instead; `None` where no job of that id waits.
///
/// # Errors
///
/// What Postgres says.
pub async fn snooze(
    conn: &mut PgConnection,
    id: JobId,
    delay: Duration,
) -> sqlx::Result<Option<DateTime<Utc>>> {
    let mut tx = batch::begin(conn, id).await?;
    let run_at = sqlx::query_scalar(
        "UPDATE ingestd.jobs
         SET run_at = greatest(run_at, clock_timestamp()) + $2 * interval '1 millisecond'
         WHERE shard = 0 AND id = $1 AND state <> 'running' RETURNING run_at",
    )
    .bind(id)
    .bind(i64::try_from(delay.min(MAX_SNOOZE).as_millis()).unwrap_or(i64::MAX))
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(run_at)
}

/// The longest a job is put off at once, ten years of 366 days.
pub const MAX_SNOOZE: Duration = Duration::from_hours(24 * 366 * 10);

/// Pauses a queue: nothing is claimed from it until it is resumed; what runs goes on.
///
/// # Errors
///
/// What Postgres says; a name that is empty or longer than 63 characters.
pub async fn pause(conn: &mut PgConnection, queue: &str) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO ingestd.queues (queue, paused_at) VALUES ($1, now())
         ON CONFLICT (queue) DO UPDATE SET paused_at = coalesce(ingestd.queues.paused_at, now())",
    )
    .bind(queue)
    .execute(conn)
    .await?;
    Ok(())
}

/// Lets a paused queue go on; returns whether it was paused.
///
/// # Errors
///
/// What Postgres says.
pub async fn resume(conn: &mut PgConnection, queue: &str) -> sqlx::Result<bool> {
    let resumed: Option<String> = sqlx::query_scalar(
        "UPDATE ingestd.queues SET paused_at = NULL WHERE queue = $1 AND paused_at IS NOT NULL
         RETURNING ingestd.hint('ingestd_look', queue)",
    )
    .bind(queue)
    .fetch_optional(conn)
    .await?;
    Ok(resumed.is_some())
}

/// Ends a running job whose cancellation was asked for and whose worker is gone; returns whether
/// the lease was still held.
pub(super) async fn finish_cancelled(
    conn: &mut PgConnection,
    id: i64,
    lease_id: i64,
) -> sqlx::Result<bool> {
    let gone: Option<i64> = sqlx::query_scalar(include_str!("finish.sql"))
        .bind([id])
        .bind([lease_id])
        .bind("cancelled")
        .bind(None::<Vec<serde_json::Value>>) // no output
        .bind([0_i64; 0]) // it is running in its row
        .bind([0_i64; 0])
        .bind(None::<i64>)
        .fetch_optional(conn)
        .await?;
    Ok(gone.is_some())
}
