//! 1 of 5: arguments become a row.
//!
//! A plain `INSERT INTO ingestd.jobs (kind) VALUES (…)` is the interface; this is
//! the same for Rust, inside a transaction of the caller's if it has one.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::PgConnection;

use super::job::{Job, JobId};

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
            gate_key: job.gate_key(),
            ..Self::default()
        })
    }
}

/// What an enqueue did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job inserted, or the unfinished one that has the unique key already;
    /// `None` where that one finished in the meantime.
    pub id: Option<JobId>,
    /// Whether this call inserted it.
    pub inserted: bool,
}

/// Inserts a typed job in the connection's transaction.
///
/// # Errors
///
/// What Postgres says: an unknown kind, arguments over 256 KiB, a lost connection.
pub async fn enqueue<J: Job>(conn: &mut PgConnection, job: &J) -> sqlx::Result<Enqueued> {
    let new = NewJob::of(job).map_err(|error| sqlx::Error::Encode(error.into()))?;
    enqueue_raw(conn, &new).await
}

/// Inserts a job by its kind's name in the connection's transaction.
///
/// # Errors
///
/// As [`enqueue`].
pub async fn enqueue_raw(conn: &mut PgConnection, job: &NewJob) -> sqlx::Result<Enqueued> {
    let args = if job.args.is_null() {
        None
    } else {
        Some(&job.args)
    };
    let (id, inserted): (Option<JobId>, bool) = sqlx::query_as(
        "SELECT job_id, inserted FROM ingestd.enqueue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
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
    .fetch_one(conn)
    .await?;
    Ok(Enqueued { id, inserted })
}
