//! What people ask of a queue across all daemons: at most so many jobs at once, turns between
//! tenants.
//!
//! A claim of such a queue is a transaction that takes the queue's lock first and then counts what
//! runs, so that two daemons never count the same. A plain claim gets nothing from it; that is how
//! a claimer learns, which reads the rule whenever it has come back empty. A queue without a row in
//! `ingestd.queues` is asked nothing and pays nothing.

use std::time::Duration;

use sqlx::{Connection, FromRow, PgConnection};

use super::gate;

/// How often a claimer looks at a queue that is at its limit: what ends in other daemons it is not
/// told of.
pub(super) const LIMITED_POLL: Duration = Duration::from_millis(100);

/// Most jobs that one claim in turns takes.
pub(super) const LARGEST_FAIR_CLAIM: usize = 100;

const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended($1, 1229866839))";

/// The first tenant at which a look in turns that began after `$2` ended without seeing the last.
const LAST_LOOKED_AT: &str = "
    SELECT CASE WHEN EXISTS (
             SELECT FROM ingestd.queues q WHERE q.queue = $1 AND q.max_running <= (
               SELECT count(*) FROM ingestd.jobs
               WHERE shard = 0 AND state = 'running' AND queue = $1))
           THEN $2::text ELSE min(last.tenant) END
    FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
      WITH RECURSIVE after (tenant, n) AS (
        (SELECT tenant, 1 FROM ingestd.jobs
         WHERE shard = 0 AND queue = $1 AND priority = p.priority AND state = 'queued'
           AND tenant > $2 ORDER BY tenant LIMIT 1)
        UNION ALL
        SELECT (SELECT j.tenant FROM ingestd.jobs j
                WHERE j.shard = 0 AND j.queue = $1 AND j.priority = p.priority
                  AND j.state = 'queued' AND j.tenant > a.tenant ORDER BY j.tenant LIMIT 1),
               a.n + 1
        FROM after a WHERE a.tenant IS NOT NULL AND a.n < 64)
      SELECT tenant FROM after WHERE n = 64 AND tenant IS NOT NULL) AS last";

/// The rule of one queue, as its claimer last read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, FromRow)]
pub(super) struct Rule {
    /// There is a limit across daemons.
    pub(super) is_limited: bool,
    /// Tenants take turns.
    pub(super) is_fair: bool,
}

impl Rule {
    /// Says whether a claim needs the queue's lock.
    pub(super) const fn is_any(self) -> bool {
        self.is_limited || self.is_fair
    }
}

/// Runs `claim` in a transaction that holds the queue's lock.
///
/// Read committed, whatever the database has for default: the claim must see what the last holder
/// of the lock committed.
pub(super) async fn locked<T>(
    conn: &mut PgConnection,
    queue: &str,
    claim: impl AsyncFnOnce(&mut PgConnection) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let mut tx = conn.begin_with(gate::BEGIN).await?;
    sqlx::query(LOCK).bind(queue).execute(&mut *tx).await?;
    let claimed = claim(&mut tx).await?;
    tx.commit().await?;
    Ok(claimed)
}

/// Returns after which tenant the next look in turns begins where one after `cursor` came back
/// short: a look passes a bounded number of tenants, of whom all may have later jobs only. Where the
/// queue is at its limit that is after `cursor`: nobody had a turn.
pub(super) async fn pass_over(
    conn: &mut PgConnection,
    queue: &str,
    cursor: &str,
) -> sqlx::Result<String> {
    let last: Option<String> = sqlx::query_scalar(LAST_LOOKED_AT)
        .bind(queue)
        .bind(cursor)
        .fetch_one(conn)
        .await?;
    Ok(last.unwrap_or_default())
}

/// Limits how many jobs of a queue run at once across all daemons; `None` takes the limit away.
/// What runs above a new limit goes on.
///
/// # Errors
///
/// What Postgres says; a limit below 1.
pub async fn limit(conn: &mut PgConnection, queue: &str, most: Option<i32>) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO ingestd.queues (queue, max_running) VALUES ($1, $2)
         ON CONFLICT (queue) DO UPDATE SET max_running = excluded.max_running
         RETURNING ingestd.hint('ingestd_look', queue)",
    )
    .bind(queue)
    .bind(most)
    .execute(conn)
    .await?;
    Ok(())
}

/// Says whether the tenants of a queue take turns.
///
/// # Errors
///
/// What Postgres says.
pub async fn set_fair(conn: &mut PgConnection, queue: &str, is_fair: bool) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO ingestd.queues (queue, fair) VALUES ($1, $2)
         ON CONFLICT (queue) DO UPDATE SET fair = excluded.fair
         RETURNING ingestd.hint('ingestd_look', queue)",
    )
    .bind(queue)
    .bind(is_fair)
    .execute(conn)
    .await?;
    Ok(())
}
