//! The fan-out shape: one job per item, no coordinator.
//!
//! An item's outcome is a row of its own, written in the transaction that
//! completes the item's job ([`note`]). [`fold`] counts the new outcomes into
//! the run's row, many at a time, so that the row is never hot; whoever folds
//! the last one closes the run with a guarded UPDATE, so exactly one does.

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
      SELECT id FROM ingestd.runs WHERE id = $1 AND state = 'running' FOR NO KEY UPDATE SKIP LOCKED),
    folded AS (
      UPDATE ingestd.run_items i SET folded = true
      FROM mine WHERE i.run_id = mine.id AND NOT i.folded RETURNING i.outcome),
    counts AS (
      SELECT count(*) FILTER (WHERE outcome = 'ok') AS ok,
             count(*) FILTER (WHERE outcome = 'failed') AS failed,
             count(*) FILTER (WHERE outcome = 'skipped') AS skipped
      FROM folded)
    UPDATE ingestd.runs r
    SET items_ok = items_ok + c.ok, items_failed = items_failed + c.failed,
        items_skipped = items_skipped + c.skipped, heartbeat_at = clock_timestamp()
    FROM counts c, mine WHERE r.id = mine.id
    RETURNING c.ok + c.failed + c.skipped,
              r.items_ok + r.items_failed + r.items_skipped >= r.items_total";

const CLOSE: &str = "
    UPDATE ingestd.runs SET state = 'completed', finished_at = clock_timestamp(), stage = NULL
    WHERE id = $1 AND state = 'running' AND items_ok + items_failed + items_skipped >= items_total";

/// Begins a fan-out of `n_items` jobs, in the transaction that enqueues them.
///
/// Returns `false` where the run is final already. With no items it completes at once.
///
/// # Errors
///
/// What Postgres says.
pub async fn open(conn: &mut PgConnection, id: RunId, n_items: i64) -> sqlx::Result<bool> {
    let opened = sqlx::query(OPEN).bind(id).bind(n_items).execute(&mut *conn).await?;
    if n_items == 0 {
        sqlx::query(CLOSE).bind(id).execute(conn).await?;
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
/// Call it after the commit that noted an outcome. It waits for nobody: where
/// another worker is folding this run, that worker looks again after its commit
/// and so counts ours too. Returns whether this call closed the run.
///
/// # Errors
///
/// What Postgres says.
pub async fn fold(pool: &PgPool, id: RunId) -> sqlx::Result<bool> {
    loop {
        let folded: Option<(i64, Option<bool>)> =
            sqlx::query_as(FOLD).bind(id).fetch_optional(pool).await?;
        let Some((n_folded, all_done)) = folded else { return Ok(false) };
        if all_done == Some(true) {
            let closed = sqlx::query(CLOSE).bind(id).execute(pool).await?;
            return Ok(closed.rows_affected() == 1);
        }
        if n_folded == 0 {
            return Ok(false);
        }
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
