//! Making up for the ticks of a range: each that has no job yet gets one, exactly once.
//!
//! All of it is one transaction under the schedule's row lock, so that neither a daemon nor a
//! second backfill is in between; done again, it does only what is left. A tick that was missed,
//! left out or refused counts as one without a job.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

use super::{Definition, Overlap};
use crate::queue::{
    job::JobId,
    timetable::{BadTimetable, Timetable},
};

/// Most jobs of one backfill.
pub const MOST_JOBS: usize = 10_000;

/// Most ticks that a range may have.
pub const MOST_TICKS: usize = 100_000;

/// Most ticks that a report names.
const MOST_NAMED: usize = 1_000;

/// Longest distance between two jobs.
const LONGEST_SPACING: Duration = Duration::from_hours(24);

/// What is to be made up for.
#[derive(Debug, Clone)]
pub struct Range {
    /// From this tick on.
    pub from: DateTime<Utc>,
    /// Before this time; not in the future.
    pub to: DateTime<Utc>,
    /// At most this many jobs, the oldest first, 1 to [`MOST_JOBS`]; `None`: all, or none where
    /// they are more than that.
    pub limit: Option<usize>,
    /// How far apart the jobs are due, at most a day; zero: all at once.
    pub spacing: Duration,
    /// Instead of the schedule's priority.
    pub priority: Option<i16>,
    /// Also where the schedule does not allow its jobs to overlap, and for ticks of which it is no
    /// longer known what became of them.
    pub force: bool,
    /// Days that the record of ticks is kept for, `queue.retention_days`.
    pub retention_days: u16,
}

/// A tick that is left alone because it is a job already.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Skipped {
    /// The tick.
    pub at: DateTime<Utc>,
    /// `enqueued` or `backfilled`.
    pub result: String,
    /// Its job.
    pub job_id: JobId,
}

/// What a backfill does, or did.
#[derive(Debug, Clone, Serialize)]
pub struct Backfill {
    /// The ticks that become jobs, or became some; at most the first 1,000.
    pub ticks: Vec<DateTime<Utc>>,
    /// How many there are of them.
    pub n_jobs: usize,
    /// Ticks that are jobs already; at most the first 1,000.
    pub skipped: Vec<Skipped>,
    /// How many there are of them.
    pub n_skipped: usize,
    /// The first tick that the limit left for the next time.
    pub left_from: Option<DateTime<Utc>>,
    /// The new jobs' ids, at most the first 1,000; none of a plan.
    pub job_ids: Vec<JobId>,
}

/// Why there is no backfill.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// No schedule of the name.
    #[error("there is no such schedule")]
    NotFound,
    /// `from` is not before `to`.
    #[error("from must be before to")]
    Backwards,
    /// The range reaches into the future.
    #[error("to must not be after now, {0}: what is to come comes by itself")]
    Future(DateTime<Utc>),
    /// Limit or distance are out of range.
    #[error("limit must be from 1 to 10000, and jobs at most a day apart")]
    OutOfRange,
    /// More ticks than one backfill looks at.
    #[error("more than 100000 ticks lie before {0}: make the range smaller")]
    TooLong(DateTime<Utc>),
    /// More jobs than one backfill makes.
    #[error(
        "{0} ticks have no job yet, at most 10000 may become jobs at once: with a limit the oldest \
         do, and the same again goes on after them"
    )]
    TooMany(usize),
    /// The jobs would overlap.
    #[error(
        "its jobs must not overlap, and those of a backfill are all due at once: space them, or \
         force it"
    )]
    Overlaps,
    /// What became of some ticks is no longer known.
    #[error(
        "what became of its ticks from {from} to {to} is no longer recorded (queue.retention_days): \
         begin later, or force it to enqueue them, maybe again"
    )]
    Forgotten {
        /// From this time.
        from: DateTime<Utc>,
        /// To this time.
        to: DateTime<Utc>,
    },
    /// Its line cannot be read.
    #[error(transparent)]
    Line(#[from] BadTimetable),
    /// What Postgres says.
    #[error(transparent)]
    Db(#[from] sqlx::Error),
}

#[derive(FromRow)]
struct Target {
    #[sqlx(flatten)]
    definition: Definition,
    created_at: DateTime<Utc>,
    now: DateTime<Utc>,
}

/// Says what [`backfill`] would do, in the same transaction or another.
///
/// # Errors
///
/// As of [`backfill`].
pub async fn plan(
    conn: &mut PgConnection,
    name: &str,
    range: &Range,
) -> Result<Backfill, BackfillError> {
    let target = lock(&mut *conn, name).await?;
    let (_, report) = find(conn, name, range, &target).await?;
    Ok(report)
}

/// Enqueues a job for every tick of the range that has none, in the caller's transaction, paused
/// or not; `next_at` stays. `actor` is named in the jobs' `meta`, beside `schedule`, `tick_at` and
/// `backfill: true`.
///
/// # Errors
///
/// [`BackfillError`] says why nothing was done. After [`BackfillError::Db`] roll back.
pub async fn backfill(
    conn: &mut PgConnection,
    name: &str,
    range: &Range,
    actor: &str,
) -> Result<Backfill, BackfillError> {
    let target = lock(&mut *conn, name).await?;
    let (ticks, mut report) = find(&mut *conn, name, range, &target).await?;
    let Definition {
        kind,
        args,
        queue,
        priority,
        tenant,
        ..
    } = &target.definition;
    let spacing_ms = i64::try_from(range.spacing.as_millis()).unwrap_or(0);
    let text: Vec<String> = ticks.iter().map(written).collect();
    let ids: Vec<JobId> = sqlx::query_scalar(include_str!("backfill.sql"))
        .bind(name)
        .bind(kind)
        .bind(sqlx::types::Json(args))
        .bind(queue)
        .bind(range.priority.or(*priority))
        .bind(&ticks)
        .bind(text)
        .bind(spacing_ms)
        .bind(actor)
        .bind(tenant)
        .fetch_all(conn)
        .await?;
    if ids.len() != ticks.len() {
        // Under the lock nobody can have handled one of them in between.
        return Err(sqlx::Error::RowNotFound.into());
    }
    report.job_ids = ids.into_iter().take(MOST_NAMED).collect();
    Ok(report)
}

/// Writes a tick as the daemon's ticks have it in `meta`.
fn written(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// Locks a schedule against its own ticks and other backfills.
async fn lock(conn: &mut PgConnection, name: &str) -> Result<Target, BackfillError> {
    let target = sqlx::query_as(
        "SELECT cron, timezone, kind, args, queue, priority, missed, missed_max, overlap, jitter_ms,
                tenant, created_at, clock_timestamp() AS now
         FROM ingestd.schedules WHERE name = $1 FOR UPDATE",
    )
    .bind(name)
    .fetch_optional(conn)
    .await?;
    target.ok_or(BackfillError::NotFound)
}

/// Finds the ticks to enqueue.
async fn find(
    conn: &mut PgConnection,
    name: &str,
    range: &Range,
    target: &Target,
) -> Result<(Vec<DateTime<Utc>>, Backfill), BackfillError> {
    refuse(range, target)?;
    let timetable = Timetable::parse(&target.definition.cron, &target.definition.timezone)?;
    let all = ticks(&timetable, range.from, range.to)?;
    let handled = with_jobs(conn, name, range).await?;
    let (skipped, mut open): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|at| handled.contains_key(at));
    let most = range.limit.unwrap_or(MOST_JOBS);
    let left_from = open.get(most).copied();
    if left_from.is_some() && range.limit.is_none() {
        return Err(BackfillError::TooMany(open.len()));
    }
    open.truncate(most);
    let n_skipped = skipped.len();
    let skipped = skipped.iter().filter_map(|at| handled.get(at).cloned());
    let report = Backfill {
        ticks: open.iter().take(MOST_NAMED).copied().collect(),
        n_jobs: open.len(),
        skipped: skipped.take(MOST_NAMED).collect(),
        n_skipped,
        left_from,
        job_ids: Vec::new(),
    };
    Ok((open, report))
}

fn refuse(range: &Range, target: &Target) -> Result<(), BackfillError> {
    if range.from >= range.to {
        return Err(BackfillError::Backwards);
    }
    if range.to > target.now {
        return Err(BackfillError::Future(target.now));
    }
    let is_limit = range
        .limit
        .is_none_or(|limit| (1..=MOST_JOBS).contains(&limit));
    if !is_limit || range.spacing > LONGEST_SPACING {
        return Err(BackfillError::OutOfRange);
    }
    if range.force {
        return Ok(());
    }
    if target.definition.overlap != Overlap::Allow && range.spacing.is_zero() {
        return Err(BackfillError::Overlaps);
    }
    // Before the schedule was made it had no ticks, and what backfills did is kept for good.
    let from = range.from.max(target.created_at);
    let to = range
        .to
        .min(target.now - TimeDelta::days(range.retention_days.into()));
    if from < to {
        return Err(BackfillError::Forgotten { from, to });
    }
    Ok(())
}

/// Returns every tick of a range, its beginning included and its end not.
fn ticks(
    timetable: &Timetable,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Vec<DateTime<Utc>>, BackfillError> {
    let mut ticks = Vec::new();
    // At the calendar's very beginning there is nothing before.
    let before = from.checked_sub_signed(TimeDelta::milliseconds(1));
    let mut before = before.unwrap_or(from);
    while let Some(at) = timetable.next_after(before)
        && at < to
    {
        if ticks.len() == MOST_TICKS {
            return Err(BackfillError::TooLong(at));
        }
        before = at;
        if at >= from {
            ticks.push(at);
        }
    }
    Ok(ticks)
}

/// Reads the ticks of a range that are jobs.
async fn with_jobs(
    conn: &mut PgConnection,
    name: &str,
    range: &Range,
) -> sqlx::Result<HashMap<DateTime<Utc>, Skipped>> {
    let handled: Vec<Skipped> = sqlx::query_as(
        "SELECT tick_at AS at, result, job_id FROM ingestd.schedule_ticks
         WHERE schedule = $1 AND tick_at >= $2 AND tick_at < $3 AND job_id IS NOT NULL",
    )
    .bind(name)
    .bind(range.from)
    .bind(range.to)
    .fetch_all(conn)
    .await?;
    Ok(handled.into_iter().map(|tick| (tick.at, tick)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn a_range_has_its_beginning_and_not_its_end() {
        let hourly = Timetable::parse("0 * * * *", "UTC").unwrap();
        let found = ticks(
            &hourly,
            at("2026-01-01T00:00:00Z"),
            at("2026-01-01T03:00:00Z"),
        )
        .unwrap();
        let expected = ["00", "01", "02"].map(|h| at(&format!("2026-01-01T{h}:00:00Z")));
        assert_eq!(found, expected);
        assert_eq!(written(&expected[1]), "2026-01-01T01:00:00Z");
    }

    #[test]
    fn a_range_may_begin_where_time_does() {
        let yearly = Timetable::parse("0 0 1 1 *", "UTC").unwrap();
        for from in [DateTime::<Utc>::MIN_UTC, at("0000-01-01T00:00:00Z")] {
            let found = ticks(&yearly, from, from + TimeDelta::days(800));
            assert!(found.is_ok_and(|ticks| ticks.len() <= 3), "{from:?}");
        }
    }

    #[test]
    fn a_range_has_a_bound() {
        let often = Timetable::parse("* * * * * *", "UTC").unwrap();
        let error = ticks(
            &often,
            at("2026-01-01T00:00:00Z"),
            at("2026-02-01T00:00:00Z"),
        );
        let said = error.unwrap_err().to_string();
        assert!(
            said.contains("100000") && said.contains("2026-01-02"),
            "{said}"
        );
    }
}
