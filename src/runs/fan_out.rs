//! The fan-out shape: one job per item, no coordinator.
//!
//! An item's outcome is a row of its own, written in the transaction that
//! completes the item's job ([`note`]). [`fold`] counts the new outcomes into
//! the run's row, many at a time, so that the row is never hot; whoever folds
//! the last one closes the run in the same statement, so exactly one does.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use super::run::RunId;

/// What became of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemOutcome {
    /// Done.
    Ok,
    /// Refused, or given up by the queue.
    Failed,
    /// It needed nothing.
    Skipped,
}

impl ItemOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

const OPEN: &str = "
    UPDATE ingestd.runs SET state = 'running', items_total = $2, heartbeat_at = clock_timestamp(),
           started_at = coalesce(started_at, clock_timestamp())
    WHERE id = $1 AND state IN ('pending', 'running')";

const NOTE: &str = "
    INSERT INTO ingestd.run_items (run_id, item_key, outcome, error) VALUES ($1, $2, $3, $4)
    ON CONFLICT (run_id, item_key) DO NOTHING";

const FOLD: &str = "
    WITH mine AS (
      SELECT id, items_total, items_ok + items_failed + items_skipped AS done
      FROM ingestd.runs WHERE id = $1 AND state = 'running' FOR NO KEY UPDATE SKIP LOCKED),
    folded AS (
      UPDATE ingestd.run_items i SET folded = true
      FROM mine WHERE i.run_id = mine.id AND NOT i.folded RETURNING i.outcome),
    counts AS (
      SELECT count(*) FILTER (WHERE outcome = 'ok') AS ok,
             count(*) FILTER (WHERE outcome = 'failed') AS failed,
             count(*) FILTER (WHERE outcome = 'skipped') AS skipped
      FROM folded),
    sums AS (
      SELECT id, ok, failed, skipped,
             coalesce(done + ok + failed + skipped >= items_total, false) AS all_done
      FROM mine, counts)
    UPDATE ingestd.runs r
    SET items_ok = items_ok + s.ok, items_failed = items_failed + s.failed,
        items_skipped = items_skipped + s.skipped, heartbeat_at = clock_timestamp(),
        state = CASE WHEN s.all_done THEN 'completed' ELSE state END,
        finished_at = CASE WHEN s.all_done THEN clock_timestamp() END,
        stage = CASE WHEN s.all_done THEN NULL ELSE stage END
    FROM sums s WHERE r.id = s.id
    RETURNING r.state = 'completed'";

/// Whether outcomes of a running run wait to be counted.
const IS_LEFT: &str = "
    SELECT EXISTS (SELECT FROM ingestd.run_items WHERE run_id = $1 AND NOT folded)
       AND EXISTS (SELECT FROM ingestd.runs WHERE id = $1 AND state = 'running')";

const CLOSE_EMPTY: &str = "
    UPDATE ingestd.runs SET state = 'completed', finished_at = clock_timestamp(), stage = NULL
    WHERE id = $1 AND state = 'running' AND items_total = 0";

/// How long to wait for somebody else's fold before trying again.
const FOLD_WAIT: Duration = Duration::from_millis(5);

/// Begins a fan-out of `n_items` jobs, in the transaction that enqueues them.
///
/// Returns `false` where the run is final already. With no items it completes at once.
///
/// # Errors
///
/// What Postgres says.
pub async fn open(conn: &mut PgConnection, id: RunId, n_items: i64) -> sqlx::Result<bool> {
    let opened = sqlx::query(OPEN)
        .bind(id)
        .bind(n_items)
        .execute(&mut *conn)
        .await?;
    if n_items == 0 {
        sqlx::query(CLOSE_EMPTY).bind(id).execute(conn).await?;
    }
    Ok(opened.rows_affected() == 1)
}

/// Notes an item's outcome in the transaction that completes, or buries, its job.
///
/// The first outcome of an item stands; returns whether this was it.
///
/// # Errors
///
/// What Postgres says.
pub async fn note(
    conn: &mut PgConnection,
    id: RunId,
    item_key: &str,
    outcome: ItemOutcome,
    error: Option<&str>,
) -> sqlx::Result<bool> {
    let noted = sqlx::query(NOTE)
        .bind(id)
        .bind(item_key)
        .bind(outcome.as_str())
        .bind(error)
        .execute(conn)
        .await?;
    Ok(noted.rows_affected() == 1)
}

/// Counts the outcomes noted since the last fold and closes the run after the last one.
///
/// Call it after the commit that noted an outcome. Where another worker is
/// folding this run, that worker may have looked before our commit: then it
/// waits until one of the two has counted ours. Returns whether this call
/// closed the run.
///
/// # Errors
///
/// What Postgres says.
pub async fn fold(pool: &PgPool, id: RunId) -> sqlx::Result<bool> {
    loop {
        if let Some(closed) = sqlx::query_scalar(FOLD)
            .bind(id)
            .fetch_optional(pool)
            .await?
        {
            return Ok(closed);
        }
        let is_left: bool = sqlx::query_scalar(IS_LEFT).bind(id).fetch_one(pool).await?;
        if !is_left {
            return Ok(false);
        }
        tokio::time::sleep(FOLD_WAIT).await;
    }
}

/// Folds every running fan-out that has outcomes not counted yet: what a worker
/// left that died between its commit and its fold. Returns how many runs it closed.
///
/// # Errors
///
/// What Postgres says.
pub async fn fold_left_over(pool: &PgPool) -> sqlx::Result<usize> {
    let left: Vec<RunId> = sqlx::query_scalar(
        "SELECT DISTINCT i.run_id FROM ingestd.run_items i
         JOIN ingestd.runs r ON r.id = i.run_id AND r.state = 'running'
         WHERE NOT i.folded",
    )
    .fetch_all(pool)
    .await?;
    let mut n_closed = 0;
    for id in left {
        n_closed += usize::from(fold(pool, id).await?);
    }
    Ok(n_closed)
}
