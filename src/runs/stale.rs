//! Stale runs: no heartbeat for a while means nobody works on them any more.

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::{PgConnection, PgPool};

use super::{control::enqueue_driver, run::RunId};
use crate::queue::{self, KeyTaken, control::Restarted};

/// What one look for stale runs did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Runs that were started again.
    pub n_retried: usize,
    /// Runs that had used up their retries and failed.
    pub n_failed: usize,
}

const STALE: &str = "
    SELECT id, job_kind, retry_count FROM ingestd.runs
    WHERE finished_at IS NULL AND state = 'running'
      AND heartbeat_at < clock_timestamp() - $1 * interval '1 millisecond'
      AND NOT EXISTS (SELECT FROM ingestd.jobs j
                      WHERE j.shard = 0 AND j.run_id = runs.id
                        AND (job_kind IS NULL OR j.state <> 'running'))
    ORDER BY heartbeat_at LIMIT 1000";

const RETRY: &str = "
    UPDATE ingestd.runs SET state = 'pending', retry_count = retry_count + 1
    WHERE id = $1 AND state = 'running'
      AND heartbeat_at < clock_timestamp() - $2 * interval '1 millisecond'";

const CANCEL: &str = "
    UPDATE ingestd.runs SET state = 'cancelled', finished_at = clock_timestamp()
    WHERE id = $1 AND state = 'running'
      AND heartbeat_at < clock_timestamp() - $2 * interval '1 millisecond'";

const FAIL: &str = "
    UPDATE ingestd.runs SET state = 'failed', finished_at = clock_timestamp(), error = $3
    WHERE id = $1 AND state = 'running'
      AND heartbeat_at < clock_timestamp() - $2 * interval '1 millisecond'";

/// What follows in the transaction that fails a run, as a mail about it.
pub type OnFailed = for<'a> fn(&'a mut PgConnection, RunId) -> BoxFuture<'a, sqlx::Result<()>>;

/// Starts runs without a heartbeat for `stale_after` again, at most `max_retries` times each,
/// then fails them with a message, and with what `on_failed` does. Each in its own transaction.
///
/// A run whose driver waits, for its queue or at its gate, is not stale: it waits its turn.
/// A fan-out is stale only when none of its jobs is left: those that are will end, and their
/// retries may be further apart than `stale_after`. It has no driver to start again, so it fails.
///
/// # Errors
///
/// What Postgres says; what was recovered before stays so.
pub async fn recover_stale(
    pool: &PgPool,
    stale_after: Duration,
    max_retries: u16,
    on_failed: OnFailed,
) -> sqlx::Result<Recovered> {
    let stale_ms = i64::try_from(stale_after.as_millis()).unwrap_or(i64::MAX);
    let stale: Vec<(RunId, Option<String>, i16)> =
        sqlx::query_as(STALE).bind(stale_ms).fetch_all(pool).await?;
    let mut recovered = Recovered::default();
    for (id, kind, retries) in stale {
        let has_retries = u16::try_from(retries).unwrap_or(u16::MAX) < max_retries;
        let mut error = format!(
            "no progress for {}, after {retries} retries",
            humantime::format_duration(stale_after)
        );
        if let Some(kind) = kind.filter(|_| has_retries) {
            match retry(pool, id, kind, stale_ms).await {
                Ok(is_retried) => {
                    recovered.n_retried += usize::from(is_retried);
                    continue;
                }
                // Its kind may be gone for good; it must not keep the others from recovery.
                Err(sqlx::Error::Database(refused)) => error = refused.to_string(),
                Err(taken) if KeyTaken::from(&taken).is_some() => error = taken.to_string(),
                Err(away) => return Err(away),
            }
        }
        if give_up(pool, id, &error, stale_ms, on_failed).await? {
            recovered.n_failed += 1;
            tracing::error!(run_id = id.0, error, "stale run failed");
        }
    }
    Ok(recovered)
}

/// Takes the lease of the run's job away, or enqueues a new job; `false` where the run went on
/// meanwhile, and nothing was done, or where somebody had cancelled the job, and the run is
/// cancelled with it.
async fn retry(pool: &PgPool, id: RunId, kind: String, stale_ms: i64) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let restarted = queue::control::restart_run(&mut tx, id.0).await?;
    // Nobody asked for it to go on, and somebody for its job to end.
    let is_cancelled = restarted == Restarted::Cancelled;
    let retried = sqlx::query(if is_cancelled { CANCEL } else { RETRY })
        .bind(id)
        .bind(stale_ms)
        .execute(&mut *tx)
        .await?;
    if retried.rows_affected() == 0 {
        return Ok(false); // dropped, the transaction rolls back
    }
    if restarted == Restarted::NoJob {
        enqueue_driver(&mut tx, id, kind).await?;
    }
    tx.commit().await?;
    if is_cancelled {
        tracing::warn!(run_id = id.0, "stale run cancelled, as its job was");
        return Ok(false);
    }
    tracing::warn!(run_id = id.0, "stale run started again");
    Ok(true)
}

/// Fails the run and cancels its jobs; `false` where the run went on meanwhile.
async fn give_up(
    pool: &PgPool,
    id: RunId,
    error: &str,
    stale_ms: i64,
    on_failed: OnFailed,
) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    queue::control::cancel_run(&mut tx, id.0).await?;
    let failed = sqlx::query(FAIL)
        .bind(id)
        .bind(stale_ms)
        .bind(error)
        .execute(&mut *tx)
        .await?;
    if failed.rows_affected() == 0 {
        return Ok(false);
    }
    on_failed(&mut tx, id).await?;
    tx.commit().await?;
    Ok(true)
}
