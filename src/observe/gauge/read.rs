//! What the gauges are read from: one statement each for queues, workers and schedules.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{Acquire, FromRow, PgExecutor, PgPool, Postgres};

use crate::db;

/// The most rows that are counted of one state of one queue: a figure of this size says "at least".
pub const MOST_COUNTED: i64 = 10_001;

/// The statement behind [`queues`].
pub(crate) const DEPTH: &str = include_str!("queues.sql");

/// What is in one queue now. No count is above [`MOST_COUNTED`].
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct QueueDepth {
    /// The queue's name.
    pub queue: String,
    /// Nothing is claimed from it, because someone paused it.
    pub paused: bool,
    /// Most jobs of it that run at once across all daemons; `None`: no limit.
    pub max_running: Option<i32>,
    /// Its tenants take turns.
    pub fair: bool,
    /// Jobs due now.
    pub queued: i64,
    /// Jobs due later that were never tried, among the first [`MOST_COUNTED`] that are due later.
    pub scheduled: i64,
    /// Jobs due later that were tried before, among the same.
    pub retrying: i64,
    /// Jobs that wait for their gate.
    pub held: i64,
    /// Jobs under a lease.
    pub running: i64,
    /// Dead letters that nobody replayed.
    pub dead: i64,
    /// For how long the oldest due job has been due, in seconds; `None` where none is.
    pub oldest_ready_age_seconds: Option<f64>,
    /// For how long the oldest running attempt has run, in seconds; `None` where none does.
    pub oldest_running_age_seconds: Option<f64>,
}

/// Returns what is in each known queue, by name.
///
/// Known are the queues with a row of their own, those of registered kinds, and
/// those that hold anything. Counts by index and stops at [`MOST_COUNTED`], so that a backlog of
/// millions costs what one of ten thousand does: some 10 ms for a queue that is that full.
///
/// # Errors
///
/// Those of the database.
pub async fn queues<'a>(
    db: impl Acquire<'a, Database = Postgres>,
) -> sqlx::Result<Vec<QueueDepth>> {
    let mut tx = db.begin().await?;
    // Statistics of a table that was empty a moment ago would have it read from end to end.
    db::one_plan(&mut tx).await?;
    let depths = sqlx::query_as(DEPTH)
        .bind(MOST_COUNTED)
        .fetch_all(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(depths)
}

impl QueueDepth {
    /// A queue that is known and holds nothing.
    pub(super) fn empty(queue: String) -> Self {
        Self {
            queue,
            paused: false,
            max_running: None,
            fair: false,
            queued: 0,
            scheduled: 0,
            retrying: 0,
            held: 0,
            running: 0,
            dead: 0,
            oldest_ready_age_seconds: None,
            oldest_running_age_seconds: None,
        }
    }
}

/// A gate and what is behind it now.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct GateDepth {
    /// A key, or with `*` at its end the prefix of keys; `None`: the keys that no gate fits.
    pub pattern: Option<String>,
    /// Most jobs of a key admitted or running at once; `None`: no limit.
    pub max_running: Option<i32>,
    /// Jobs of a key that start per second in the long run; `None`: no limit.
    pub rate_per_sec: Option<f64>,
    /// Jobs that may start at once after a quiet time; `None`: the rate of one second.
    pub burst: Option<i32>,
    /// Who set it: `user` or `config`.
    pub origin: Option<String>,
    /// Since when it is paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// Keys that have unfinished jobs.
    pub keys: i64,
    /// Jobs that wait for it.
    pub held: i64,
    /// Jobs that have a slot and have not started.
    pub admitted: i64,
    /// Jobs that run.
    pub running: i64,
}

/// Returns the gates with what is behind each, at most 1,000, by pattern; last, where there are
/// such, what no gate fits. Counts the jobs that have a key.
///
/// # Errors
///
/// Those of the database.
pub async fn gates(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<GateDepth>> {
    gates_after(db, None, 1000).await
}

/// As [`gates`], at most `limit` from the pattern after `after` on.
///
/// # Errors
///
/// Those of the database.
pub async fn gates_after(
    db: impl PgExecutor<'_>,
    after: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<GateDepth>> {
    sqlx::query_as(include_str!("gates.sql"))
        .bind(after)
        .bind(limit)
        .fetch_all(db)
        .await
}

/// Daemons that claim from one queue.
#[derive(Debug, FromRow)]
pub(super) struct Workers {
    pub(super) queue: String,
    pub(super) live: i64,
    pub(super) stale: i64,
}

/// Counts the daemons per queue; stale after 30 s of silence.
pub(super) async fn workers(pool: &PgPool) -> sqlx::Result<Vec<Workers>> {
    sqlx::query_as(
        "SELECT q.queue,
                count(*) FILTER (WHERE w.heartbeat_at >= now() - interval '30 s') AS live,
                count(*) FILTER (WHERE w.heartbeat_at <  now() - interval '30 s') AS stale
         FROM ingestd.workers w CROSS JOIN LATERAL unnest(w.queues) AS q(queue)
         WHERE w.ended_at IS NULL
         GROUP BY q.queue",
    )
    .fetch_all(pool)
    .await
}

/// Times of one schedule, in seconds; `None` where one is unknown.
#[derive(Debug, FromRow)]
pub(super) struct Schedule {
    pub(super) name: String,
    pub(super) next_run: Option<f64>,
    pub(super) last_success: Option<f64>,
    pub(super) interval: Option<f64>,
}

/// Reads the times of each schedule that is not paused, in seconds since 1970.
pub(super) async fn schedules(pool: &PgPool) -> sqlx::Result<Vec<Schedule>> {
    sqlx::query_as(
        "SELECT s.name,
                extract(epoch FROM s.next_at)::float8 AS next_run,
                extract(epoch FROM coalesce(t.handled_at, s.created_at))::float8 AS last_success,
                extract(epoch FROM s.next_at - s.last_at)::float8 AS interval
         FROM ingestd.schedules s
         LEFT JOIN LATERAL (
           SELECT handled_at FROM ingestd.schedule_ticks
           WHERE schedule = s.name AND result = 'enqueued'
           ORDER BY tick_at DESC LIMIT 1) t ON true
         WHERE s.paused_at IS NULL AND NOT s.paused_in_config",
    )
    .fetch_all(pool)
    .await
}

/// What the search server was not told of, or would not take.
#[derive(Debug, FromRow)]
pub(super) struct Search {
    pub(super) noted: i64,
    pub(super) lag_seconds: f64,
    pub(super) retrying: i64,
    pub(super) kept: i64,
}

/// Reads what the search server was not told of; the first rows of two tables by their keys.
pub(super) async fn search(pool: &PgPool) -> sqlx::Result<Search> {
    sqlx::query_as(include_str!("search.sql"))
        .bind(MOST_COUNTED)
        .fetch_one(pool)
        .await
}
