//! Stale runs: no heartbeat for a while means nobody works on them any more.

use std::time::Duration;

use sqlx::PgPool;

use super::{control::restart, run::RunId};

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
    ORDER BY heartbeat_at LIMIT 1 FOR UPDATE SKIP LOCKED";

const RETRY: &str = "
    UPDATE ingestd.runs SET state = 'pending', retry_count = retry_count + 1 WHERE id = $1";

const FAIL: &str = "
    UPDATE ingestd.runs SET state = 'failed', finished_at = clock_timestamp(), error = $2
    WHERE id = $1";

/// Starts runs without a heartbeat for `stale_after` again, at most `max_retries` times each,
/// then fails them with a message. Each in its own transaction.
///
/// # Errors
///
/// What Postgres says; what was recovered before stays so.
pub async fn recover_stale(
    pool: &PgPool,
    stale_after: Duration,
    max_retries: u16,
) -> sqlx::Result<Recovered> {
    let stale_ms = i64::try_from(stale_after.as_millis()).unwrap_or(i64::MAX);
    let mut recovered = Recovered::default();
    loop {
        let mut tx = pool.begin().await?;
        let stale: Option<(RunId, Option<String>, i16)> =
            sqlx::query_as(STALE).bind(stale_ms).fetch_optional(&mut *tx).await?;
        let Some((id, kind, retries)) = stale else { return Ok(recovered) };
        match kind {
            Some(kind) if u16::try_from(retries).unwrap_or(u16::MAX) < max_retries => {
                sqlx::query(RETRY).bind(id).execute(&mut *tx).await?;
                restart(&mut tx, id, kind).await?;
                recovered.n_retried += 1;
                tracing::warn!(run_id = id.0, "stale run started again");
            }
            _ => {
                let silence = humantime::format_duration(stale_after);
                let error = format!("no progress for {silence}, after {retries} retries");
                sqlx::query(FAIL).bind(id).bind(&error).execute(&mut *tx).await?;
                crate::queue::control::cancel_run(&mut tx, id.0).await?;
                recovered.n_failed += 1;
                tracing::error!(run_id = id.0, error, "stale run failed");
            }
        }
        tx.commit().await?;
    }
}
