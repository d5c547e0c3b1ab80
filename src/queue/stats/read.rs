//! The figures as people read them: per kind, and per minute.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor};

use super::quantile::quantile;

/// The most minutes that are read at once: a day.
pub const LONGEST_MINUTES: i32 = 1440;

/// Which figures; `None` is any.
#[derive(Debug, Clone, Copy)]
pub struct StatsFilter<'a> {
    /// Of this queue.
    pub queue: Option<&'a str>,
    /// Of this kind.
    pub kind: Option<&'a str>,
    /// Of so many minutes up to now, the one that has begun included: 1 to [`LONGEST_MINUTES`].
    pub minutes: i32,
}

/// What ended of one kind in one queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KindStats {
    /// The queue.
    pub queue: String,
    /// The kind.
    pub kind: String,
    /// What ended.
    #[serde(flatten)]
    pub figures: Figures,
    /// Attempts that ended per minute, over all minutes asked for.
    pub per_minute: f64,
}

/// What ended in one minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Minute {
    /// Its start.
    pub minute: DateTime<Utc>,
    /// What ended.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Attempts that ended, and how long they took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figures {
    /// All of them.
    pub attempts: i64,
    /// Those that did their work.
    pub success: i64,
    /// Those that failed and are tried again.
    pub retry: i64,
    /// Those whose job was given up.
    pub dead: i64,
    /// Those that somebody stopped.
    pub cancelled: i64,
    /// Those that asked for a later time.
    pub snoozed: i64,
    /// Those whose lease was gone.
    pub lost: i64,
    /// From due to claimed, in seconds, on average.
    pub mean_wait_seconds: f64,
    /// Run time, in seconds, on average.
    pub mean_seconds: f64,
    /// Run time that half of them did not exceed, in seconds, estimated from buckets.
    pub p50_seconds: Option<f64>,
    /// Run time that 95 % of them did not exceed, in seconds, estimated from buckets.
    pub p95_seconds: Option<f64>,
}

impl Figures {
    /// Returns how many ended in an error.
    #[must_use]
    pub const fn failed(&self) -> i64 {
        self.retry + self.dead
    }
}

#[derive(Debug, FromRow)]
struct Row {
    minute: DateTime<Utc>,
    queue: String,
    kind: String,
    success: i64,
    retry: i64,
    dead: i64,
    cancelled: i64,
    snoozed: i64,
    lost: i64,
    n_jobs: i64,
    duration_ms: i64,
    wait_ms: i64,
    buckets: Vec<i64>,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "averages for people; sums past 2^53 ms do not occur"
)]
impl From<&Row> for Figures {
    fn from(row: &Row) -> Self {
        let mean = |ms: i64| ms as f64 / 1000.0 / row.n_jobs.max(1) as f64;
        Self {
            attempts: row.n_jobs,
            success: row.success,
            retry: row.retry,
            dead: row.dead,
            cancelled: row.cancelled,
            snoozed: row.snoozed,
            lost: row.lost,
            mean_wait_seconds: mean(row.wait_ms),
            mean_seconds: mean(row.duration_ms),
            p50_seconds: quantile(&row.buckets, 0.5),
            p95_seconds: quantile(&row.buckets, 0.95),
        }
    }
}

/// Reads what ended by queue and kind.
///
/// Reads the sums of the minutes asked for, never the jobs.
///
/// # Errors
///
/// What Postgres says.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rate for people; counts past 2^53 do not occur"
)]
pub async fn by_kind(
    db: impl PgExecutor<'_>,
    filter: StatsFilter<'_>,
) -> sqlx::Result<Vec<KindStats>> {
    let rows = rows(db, filter, false).await?;
    let minutes = f64::from(filter.minutes.clamp(1, LONGEST_MINUTES));
    let stats = rows.into_iter().map(|row| KindStats {
        figures: Figures::from(&row),
        per_minute: row.n_jobs as f64 / minutes,
        queue: row.queue,
        kind: row.kind,
    });
    Ok(stats.collect())
}

/// Reads what ended minute by minute, oldest first; a minute in which nothing ended is left out.
///
/// # Errors
///
/// What Postgres says.
pub async fn by_minute(
    db: impl PgExecutor<'_>,
    filter: StatsFilter<'_>,
) -> sqlx::Result<Vec<Minute>> {
    let rows = rows(db, filter, true).await?;
    let minutes = rows.iter().map(|row| Minute {
        minute: row.minute,
        figures: Figures::from(row),
    });
    Ok(minutes.collect())
}

async fn rows(
    db: impl PgExecutor<'_>,
    filter: StatsFilter<'_>,
    by_minute: bool,
) -> sqlx::Result<Vec<Row>> {
    sqlx::query_as(include_str!("read.sql"))
        .bind(filter.minutes.clamp(1, LONGEST_MINUTES))
        .bind(filter.queue)
        .bind(filter.kind)
        .bind(by_minute)
        .fetch_all(db)
        .await
}
