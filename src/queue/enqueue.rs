//! 1 of 5: arguments become a row.
//!
//! A plain `INSERT INTO ingestd.jobs (kind) VALUES (…)` is the interface; this is
//! the same for Rust, inside a transaction of the caller's if it has one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::job::{Job, JobId};
use crate::observe::JobDeduplicated;

/// A job to be: the columns a caller may set. Only `kind` is required.
#[derive(Debug, Clone, Default)]
pub struct NewJob {
    /// The kind's stored name.
    pub kind: String,
    /// A JSON object of at most 256 KiB; null stands for `{}`.
    pub args: Value,
    /// The lane; `None`: the kind's.
    pub queue: Option<String>,
    /// 0 urgent to 3 background; `None`: 1.
    pub priority: Option<i16>,
    /// Not before this time; `None`: at once.
    pub run_at: Option<DateTime<Utc>>,
    /// Attempts in all; `None`: the kind's.
    pub max_attempts: Option<i16>,
    /// At most one unfinished job per key.
    pub unique_key: Option<String>,
    /// Makes the key good for one job, finished or not, in each period of this length; `None`:
    /// while one is unfinished.
    ///
    /// Whole seconds, 1 s to 366 days. Periods are counted on the database's clock from
    /// Monday, 2001-01-01 00:00 UTC, so that hours, days and weeks begin where people expect it;
    /// the one that counts is that of the transaction's start. The stored key is then
    /// `KEY@START/SECONDS`, of at most 1,024 characters.
    pub unique_for: Option<Duration>,
    /// The limit it counts against.
    pub gate_key: Option<String>,
    /// The run it is part of.
    pub run_id: Option<i64>,
    /// Owner of the data.
    pub tenant: Option<String>,
    /// Who enqueued it, trace context, tags.
    pub meta: Option<Value>,
}

impl NewJob {
    /// Describes a typed job with its kind's defaults.
    ///
    /// # Errors
    ///
    /// Arguments that serde cannot write as JSON.
    pub fn of<J: Job>(job: &J) -> serde_json::Result<Self> {
        Ok(Self {
            kind: J::KIND.to_owned(),
            args: serde_json::to_value(job)?,
            queue: Some(J::QUEUE.to_owned()),
            unique_key: job.unique_key(),
            unique_for: job.unique_for(),
            gate_key: job.gate_key(),
            ..Self::default()
        })
    }
}

/// What an enqueue did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job inserted, or the one that has the unique key already, unfinished or enqueued in
    /// the same period; `None` where an unfinished one finished in the meantime.
    pub id: Option<JobId>,
    /// Whether this call inserted it.
    pub inserted: bool,
}

const ENQUEUE: &str = "
    SELECT job_id, inserted FROM ingestd.enqueue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11,
      $12 * interval '1 millisecond')";

/// Inserts a typed job in the connection's transaction.
///
/// # Errors
///
/// What Postgres says: an unknown kind, arguments over 256 KiB, a lost connection.
pub async fn enqueue<J: Job>(conn: &mut PgConnection, job: &J) -> sqlx::Result<Enqueued> {
    let new = NewJob::of(job).map_err(|error| sqlx::Error::Encode(error.into()))?;
    enqueue_or_find(conn, &new).await
}

/// Another job has the unique key that a new one needs.
#[derive(Debug, thiserror::Error)]
#[error(
    "another job has the unique key {key} that a new job of {kind} needs; cancel that job \
     (`ingestd jobs ls`), then ask again"
)]
pub struct KeyTaken {
    key: String,
    kind: String,
    /// The job that has it; `None` where it finished in the meantime.
    pub job: Option<JobId>,
}

impl KeyTaken {
    fn of(new: &NewJob, job: Option<JobId>) -> sqlx::Error {
        let key = new.unique_key.clone().unwrap_or_default();
        let kind = new.kind.clone();
        sqlx::Error::Encode(Box::new(Self { key, kind, job }))
    }

    /// Returns it where it is what an enqueue failed with.
    #[must_use]
    pub fn from(error: &sqlx::Error) -> Option<&Self> {
        match error {
            sqlx::Error::Encode(cause) => cause.downcast_ref(),
            _ => None,
        }
    }
}

/// Inserts a job that cannot be there yet, as the one that drives a new run.
///
/// # Errors
///
/// As [`enqueue_raw`]; [`KeyTaken`] where its unique key is taken: without the job, what it is for
/// would never happen.
pub async fn enqueue_new(conn: &mut PgConnection, job: &NewJob) -> sqlx::Result<JobId> {
    match enqueue_raw(conn, job).await? {
        Enqueued {
            id: Some(id),
            inserted: true,
        } => Ok(id),
        Enqueued { id, .. } => Err(KeyTaken::of(job, id)),
    }
}

/// Inserts a job, or finds one of its kind that has its unique key.
///
/// # Errors
///
/// As [`enqueue_raw`]; [`KeyTaken`] where one of another kind has the key, which does not do the
/// work of this one.
pub async fn enqueue_or_find(conn: &mut PgConnection, job: &NewJob) -> sqlx::Result<Enqueued> {
    let enqueued = enqueue_raw(&mut *conn, job).await?;
    if enqueued.inserted {
        return Ok(enqueued);
    }
    let is_other: Option<bool> =
        sqlx::query_scalar("SELECT kind <> $2 FROM ingestd.jobs WHERE shard = 0 AND id = $1")
            .bind(enqueued.id)
            .bind(&job.kind)
            .fetch_optional(conn)
            .await?;
    match is_other {
        Some(true) => Err(KeyTaken::of(job, enqueued.id)),
        _ => Ok(enqueued),
    }
}

/// Inserts a job by its kind's name in the connection's transaction.
///
/// # Errors
///
/// As [`enqueue`]; a period that is too short, too long or not in whole seconds, or has no key.
pub async fn enqueue_raw(conn: &mut PgConnection, job: &NewJob) -> sqlx::Result<Enqueued> {
    let args = if job.args.is_null() {
        None
    } else {
        Some(&job.args)
    };
    let unique_for_ms = job.unique_for.map(|period| {
        // Too long in any case: the database says so.
        i64::try_from(period.as_millis()).unwrap_or(i64::MAX / 1_000_000)
    });
    let (id, inserted): (Option<JobId>, bool) = sqlx::query_as(ENQUEUE)
        .bind(&job.kind)
        .bind(args)
        .bind(&job.queue)
        .bind(job.priority)
        .bind(job.run_at)
        .bind(job.max_attempts)
        .bind(&job.unique_key)
        .bind(&job.tenant)
        .bind(&job.meta)
        .bind(&job.gate_key)
        .bind(job.run_id)
        .bind(unique_for_ms)
        .fetch_one(&mut *conn)
        .await?;
    if !inserted {
        report_found(conn, job, id).await?;
    }
    Ok(Enqueued { id, inserted })
}

/// Counts a job that was not inserted: it was found to be there, whatever becomes of the caller's
/// transaction. A kind that nobody registered makes no label.
async fn report_found(
    conn: &mut PgConnection,
    job: &NewJob,
    found: Option<JobId>,
) -> sqlx::Result<()> {
    let queue: Option<String> =
        sqlx::query_scalar("SELECT coalesce($2, queue) FROM ingestd.job_kinds WHERE kind = $1")
            .bind(&job.kind)
            .bind(&job.queue)
            .fetch_optional(conn)
            .await?;
    if let Some(queue) = queue {
        JobDeduplicated {
            queue: &queue,
            kind: &job.kind,
            job: found.map(|JobId(id)| id),
        }
        .emit();
    }
    Ok(())
}
