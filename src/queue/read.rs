//! What people look at: jobs wherever they are, their failed attempts.
//!
//! Reads only, a page at a time, never a count of rows.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{FromRow, PgExecutor};

use super::{filter::Fingerprint, job::JobId};

/// Where a job stands. The first three are unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type, Serialize, Deserialize)]
#[sqlx(type_name = "text", rename_all = "lowercase")]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// To be claimed once its time has come.
    Queued,
    /// Waits for its gate.
    Held,
    /// Under a lease.
    Running,
    /// Ended well. Kept for the days of `queue.retention_days`.
    Completed,
    /// Stopped by a person. Kept as long.
    Cancelled,
    /// Given up. Kept until somebody replays or purges it.
    Dead,
}

/// A job as a list shows it.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct JobRow {
    /// Identifies the job.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub queue: String,
    /// Where it stands.
    pub state: JobState,
    /// 0 urgent to 3 background.
    pub priority: i16,
    /// Attempts started so far.
    pub attempt: i16,
    /// Attempts in all, where the job differs from its kind.
    pub max_attempts: Option<i16>,
    /// The run it is part of.
    pub run_id: Option<i64>,
    /// Owner of the data.
    pub tenant: Option<String>,
    /// Why the last attempt failed; in a list its first 1,000 characters.
    pub error: Option<String>,
    /// When it was inserted.
    pub created_at: DateTime<Utc>,
    /// Not before this time; `None` for dead letters.
    pub run_at: Option<DateTime<Utc>>,
    /// When the last attempt was claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A job with everything that is known of it.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct JobDetail {
    /// What a list shows as well.
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub row: JobRow,
    /// Its arguments; `None` for a finished one whose arguments were large.
    pub args: Option<Value>,
    /// At most one unfinished job per key.
    pub unique_key: Option<String>,
    /// The limit it counts against.
    pub gate_key: Option<String>,
    /// Who enqueued it, trace context, tags.
    pub meta: Option<Value>,
    /// Attempts in a row that ended without an outcome.
    pub crashes: i16,
    /// Somebody wants it to stop.
    pub cancel_requested: bool,
    /// Why it was given up: `exhausted`, `fatal`, `poison`.
    pub reason: Option<String>,
    /// The same for what failed alike; of a dead letter only.
    pub fingerprint: Option<Fingerprint>,
    /// The dead letter that it is a replay of, where that is known.
    pub replayed_from: Option<JobId>,
    /// The job that a replay made of it.
    pub replayed_to: Option<JobId>,
    /// What it returned, where its kind keeps that.
    pub output: Option<Value>,
}

/// An attempt that did not end in success.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct Attempt {
    /// Which attempt, from 1.
    pub attempt: i16,
    /// `retry`, `dead`, `crash` or `cancelled`.
    pub outcome: String,
    /// What went wrong, in one word.
    pub error_kind: String,
    /// The error with its causes.
    pub error: String,
    /// When it was claimed.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: DateTime<Utc>,
}

/// Which jobs to list; `None` is any.
#[derive(Debug, Clone, Copy, Default)]
pub struct JobFilter<'a> {
    /// In this lane.
    pub queue: Option<&'a str>,
    /// Of this kind.
    pub kind: Option<&'a str>,
    /// In this state.
    pub state: Option<JobState>,
    /// Of these owners; what names none is `default`'s.
    pub tenants: Option<&'a [String]>,
}

/// Before this id is every job.
const NEWEST: JobId = JobId(i64::MAX);

/// Reads the newest jobs with ids below `before`, newest first, at most `limit`.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: JobFilter<'_>,
    before: Option<JobId>,
    limit: i64,
) -> sqlx::Result<Vec<JobRow>> {
    sqlx::query_as(include_str!("list.sql"))
        .bind(filter.queue)
        .bind(filter.kind)
        .bind(filter.state)
        .bind(before.unwrap_or(NEWEST))
        .bind(limit)
        .bind(filter.tenants)
        .fetch_all(db)
        .await
}

/// Reads one job, be it live, finished or dead; `None` where there is none, or no longer.
///
/// # Errors
///
/// What Postgres says.
pub async fn find(db: impl PgExecutor<'_>, id: JobId) -> sqlx::Result<Option<JobDetail>> {
    let mut found: Option<JobDetail> = sqlx::query_as(include_str!("find.sql"))
        .bind(id)
        .fetch_optional(db)
        .await?;
    if let Some(args) = found.as_mut().and_then(|job| job.args.as_mut()) {
        hide_query(args);
    }
    Ok(found)
}

/// Leaves out the query of a URL that is argument `location`: there tokens and signatures stand.
fn hide_query(args: &mut Value) {
    let Some(Value::String(location)) = args.get_mut("location") else {
        return;
    };
    let is_url = |place: &str| {
        let (scheme, _) = place.split_once("://").unwrap_or_default();
        scheme.eq_ignore_ascii_case("https") || scheme.eq_ignore_ascii_case("http")
    };
    match location.split_once('?') {
        Some((place, _)) if is_url(place) => *location = format!("{place}?[redacted]"),
        _ => {}
    }
}

/// Reads the newest 100 failed attempts of a job, oldest first.
///
/// # Errors
///
/// What Postgres says.
pub async fn attempts(db: impl PgExecutor<'_>, id: JobId) -> sqlx::Result<Vec<Attempt>> {
    sqlx::query_as(
        "SELECT * FROM (
           SELECT attempt, outcome, error_kind, error, started_at, finished_at
           FROM ingestd.job_attempts WHERE job_id = $1 ORDER BY finished_at DESC LIMIT 100) newest
         ORDER BY finished_at",
    )
    .bind(id)
    .fetch_all(db)
    .await
}

/// Says whether a queue is known: it has a row, a kind, jobs that wait or dead letters.
///
/// Each is one look into an index.
///
/// # Errors
///
/// What Postgres says.
pub async fn is_queue(db: impl PgExecutor<'_>, queue: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM ingestd.queues WHERE queue = $1)
             OR EXISTS (SELECT FROM ingestd.job_kinds WHERE queue = $1)
             OR EXISTS (SELECT FROM ingestd.jobs
                        WHERE shard = 0 AND queue = $1 AND state = 'queued')
             OR EXISTS (SELECT FROM ingestd.dead_jobs
                        WHERE queue = $1 AND replayed_at IS NULL)",
    )
    .bind(queue)
    .fetch_one(db)
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::hide_query;

    #[test]
    fn the_query_of_a_location_is_not_shown() {
        for (stored, shown) in [
            (
                "https://x.test/a.csv?token=canary",
                "https://x.test/a.csv?[redacted]",
            ),
            ("HTTP://x.test/?canary", "HTTP://x.test/?[redacted]"),
            ("https://x.test/a.csv", "https://x.test/a.csv"),
            ("/in/what?.csv", "/in/what?.csv"),
        ] {
            let mut args = json!({ "location": stored, "n": 1 });
            hide_query(&mut args);
            assert_eq!(args, json!({ "location": shown, "n": 1 }));
        }
        let mut other = json!({ "url": "https://x.test/?shown" });
        hide_query(&mut other);
        assert_eq!(other["url"], "https://x.test/?shown");
    }
}
