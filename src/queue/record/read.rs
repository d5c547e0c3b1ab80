//! What people look at: steps, progress, log lines.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{FromRow, PgExecutor};

use super::{
    super::{
        job::JobId,
        read::{JobRow, JobState},
    },
    LogLevel,
};

/// A step that a job has done.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct StepRow {
    /// Its name.
    pub step: String,
    /// The attempt that did it.
    pub attempt: i16,
    /// When it was saved.
    pub finished_at: DateTime<Utc>,
    /// What it returned; `None` where that is larger than 1 KiB.
    pub result: Option<Value>,
}

/// How far a job's last attempt has come.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct ProgressRow {
    /// The job.
    #[serde(skip)]
    pub job_id: JobId,
    /// The attempt.
    pub attempt: i16,
    /// What is done, in units of the job's own.
    pub n_done: i64,
    /// What there is to do; `None`: not known.
    pub n_total: Option<i64>,
    /// What it is doing.
    pub note: Option<String>,
    /// When it was written.
    pub noted_at: DateTime<Utc>,
}

impl std::fmt::Display for ProgressRow {
    /// As people say it: `70/200 (35 %) reading page 7`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.n_total {
            Some(total) if total > 0 => {
                let percent = i128::from(self.n_done) * 100 / i128::from(total);
                write!(f, "{}/{total} ({percent} %)", self.n_done)?;
            }
            _ => write!(f, "{}", self.n_done)?,
        }
        match &self.note {
            Some(note) => write!(f, " {note}"),
            None => Ok(()),
        }
    }
}

/// A job as a list shows it, with how far it has come.
#[derive(Debug, Clone, Serialize)]
pub struct JobLine {
    /// The job.
    #[serde(flatten)]
    pub row: JobRow,
    /// How far it has come, where it runs and said so.
    pub progress: Option<ProgressRow>,
}

/// A log line of an attempt.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct LogLine {
    /// The attempt, from 1.
    pub attempt: i16,
    /// The lease it ran under; later ones are greater.
    pub lease_id: i64,
    /// Counts the lines of the lease from 1.
    pub line_no: i16,
    /// How much it matters.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// When it was said.
    pub logged_at: DateTime<Utc>,
}

/// A place between two log lines of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPlace {
    lease_id: i64,
    line_no: i16,
}

/// More than an attempt has lines.
const LINES: i64 = 2048;

impl LogPlace {
    /// Writes the place as one number.
    #[must_use]
    pub const fn as_number(self) -> i64 {
        self.lease_id.saturating_mul(LINES) + self.line_no as i64
    }

    /// Reads the place from what [`LogPlace::as_number`] returned; any number is some place.
    #[must_use]
    pub fn from_number(number: i64) -> Self {
        Self {
            lease_id: number.div_euclid(LINES),
            line_no: i16::try_from(number.rem_euclid(LINES)).unwrap_or(i16::MAX),
        }
    }
}

impl LogLine {
    /// Returns the place after this line.
    #[must_use]
    pub const fn place(&self) -> LogPlace {
        LogPlace {
            lease_id: self.lease_id,
            line_no: self.line_no,
        }
    }
}

/// Reads the steps that a job has done, in the order in which they were saved; at most 1,000.
///
/// # Errors
///
/// What Postgres says.
pub async fn steps(db: impl PgExecutor<'_>, id: JobId) -> sqlx::Result<Vec<StepRow>> {
    sqlx::query_as(
        "SELECT step, attempt, finished_at,
                CASE WHEN length(result::text) <= 1024 THEN result END AS result
         FROM ingestd.job_steps WHERE job_id = $1 AND shard = 0
         ORDER BY finished_at, step LIMIT 1000",
    )
    .bind(id)
    .fetch_all(db)
    .await
}

/// Reads how far jobs have come; those that never said are left out.
///
/// # Errors
///
/// What Postgres says.
pub async fn progress(
    db: impl PgExecutor<'_>,
    ids: &[JobId],
) -> sqlx::Result<HashMap<JobId, ProgressRow>> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows: Vec<ProgressRow> = sqlx::query_as(
        "SELECT job_id, attempt, n_done, n_total, note, noted_at
         FROM ingestd.job_progress WHERE job_id = ANY ($1) AND shard = 0",
    )
    .bind(ids.iter().map(|id| id.0).collect::<Vec<_>>())
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.job_id, row)).collect())
}

/// Adds to the running ones of a list how far they have come.
///
/// # Errors
///
/// What Postgres says.
pub async fn with_progress(
    db: impl PgExecutor<'_>,
    rows: Vec<JobRow>,
) -> sqlx::Result<Vec<JobLine>> {
    let running = rows.iter().filter(|row| row.state == JobState::Running);
    let running: Vec<JobId> = running.map(|row| row.id).collect();
    let mut progress = progress(db, &running).await?;
    let rows = rows.into_iter();
    Ok(rows
        .map(|row| JobLine {
            progress: progress.remove(&row.id),
            row,
        })
        .collect())
}

/// Reads log lines of a job after a place, oldest first, at most `limit`.
///
/// The lines of one attempt are in order and come in order. Those of a job that is retried follow
/// each other; [`LogPlace::default`] is before the first.
///
/// # Errors
///
/// What Postgres says.
pub async fn lines(
    db: impl PgExecutor<'_>,
    id: JobId,
    after: LogPlace,
    limit: i64,
) -> sqlx::Result<Vec<LogLine>> {
    sqlx::query_as(
        "SELECT attempt, lease_id, line_no, level, message, logged_at
         FROM ingestd.job_logs WHERE job_id = $1 AND (lease_id, line_no) > ($2, $3)
         ORDER BY lease_id, line_no LIMIT $4",
    )
    .bind(id)
    .bind(after.lease_id)
    .bind(after.line_no)
    .bind(limit)
    .fetch_all(db)
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_number_and_in_the_same_order() {
        let place = |lease_id, line_no| LogPlace { lease_id, line_no };
        let places = [place(0, 0), place(1, 1), place(1, 1001), place(2, 1)];
        assert!(places.is_sorted_by_key(|place| place.as_number()));
        for place in places {
            assert_eq!(LogPlace::from_number(place.as_number()), place);
        }
        assert_eq!(LogPlace::from_number(i64::MIN).line_no, 0);
    }

    #[test]
    fn progress_reads_well() {
        let mut row = ProgressRow {
            job_id: JobId(1),
            attempt: 1,
            n_done: 70,
            n_total: Some(200),
            note: Some("page 7".into()),
            noted_at: DateTime::default(),
        };
        assert_eq!(row.to_string(), "70/200 (35 %) page 7");
        row.n_total = Some(0);
        assert_eq!(row.to_string(), "70 page 7");
        (row.n_total, row.note) = (None, None);
        assert_eq!(row.to_string(), "70");
    }
}
