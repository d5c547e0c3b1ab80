//! What is known about schedules: their rows, in words, what comes and what became of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, PgExecutor};

use super::{
    Definition, Overlap,
    tick::{delay, unfinished},
};
use crate::queue::{
    job::JobId,
    timetable::{DueTime, Timetable},
};

/// A schedule as the database has it.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct ScheduleRow {
    /// Identifies it.
    pub name: String,
    /// What its owner says.
    #[sqlx(flatten)]
    #[serde(flatten)]
    pub definition: Definition,
    /// Who owns it: `user`, `config`, `built_in`.
    pub origin: String,
    /// The set of daemons whose configuration it is of.
    pub config_set: Option<String>,
    /// The set whose configuration has one of this name, which is not in force.
    pub shadows_set: Option<String>,
    /// Since when a person pauses it.
    pub paused_at: Option<DateTime<Utc>>,
    /// Whether the configuration pauses it.
    pub paused_in_config: bool,
    /// The next due time.
    pub next_at: Option<DateTime<Utc>>,
    /// The last tick handled.
    pub last_at: Option<DateTime<Utc>>,
    /// Why its last tick could not be enqueued, or why its line cannot be read.
    pub last_error: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When what it says last changed.
    pub updated_at: DateTime<Utc>,
}

impl ScheduleRow {
    /// Says whether its ticks pass without a job.
    #[must_use]
    pub const fn is_paused(&self) -> bool {
        self.paused_at.is_some() || self.paused_in_config
    }

    /// Says in words when it is due, or what is wrong with its line.
    #[must_use]
    pub fn describe(&self) -> String {
        match Timetable::parse(&self.definition.cron, &self.definition.timezone) {
            Ok(timetable) => timetable.describe(),
            Err(error) => error.to_string(),
        }
    }
}

const SELECT: &str = "
    SELECT name, cron, timezone, kind, args, queue, priority, missed, missed_max, overlap, jitter_ms,
           tenant, origin, config_set, shadows_set, paused_at, paused_in_config, next_at, last_at,
           last_error, created_at, updated_at
    FROM ingestd.schedules
    WHERE ($1::text IS NULL OR name = $1) AND ($2::text IS NULL OR name > $2)
      AND ($3::text[] IS NULL OR tenant = ANY ($3))
    ORDER BY name LIMIT $4";

/// Most schedules that [`list`] reads.
pub const MOST: i64 = 1000;

/// Reads all schedules by name, at most 1,000.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<ScheduleRow>> {
    page(db, None, None, MOST).await
}

/// Reads schedules by name from the one after `after` on, at most `limit`, of these tenants only,
/// where some are named; then those of the whole installation are not among them.
///
/// # Errors
///
/// What Postgres says.
pub async fn page(
    db: impl PgExecutor<'_>,
    tenants: Option<&[String]>,
    after: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<ScheduleRow>> {
    sqlx::query_as(SELECT)
        .bind(None::<&str>)
        .bind(after)
        .bind(tenants)
        .bind(limit)
        .fetch_all(db)
        .await
}

/// Reads one schedule.
///
/// # Errors
///
/// What Postgres says.
pub async fn find(db: impl PgExecutor<'_>, name: &str) -> sqlx::Result<Option<ScheduleRow>> {
    sqlx::query_as(SELECT)
        .bind(name)
        .bind(None::<&str>)
        .bind(None::<&[String]>)
        .bind(1_i64)
        .fetch_optional(db)
        .await
}

/// Locks one schedule against its ticks and other changes until the transaction ends, and reads it.
///
/// # Errors
///
/// What Postgres says.
pub async fn lock(conn: &mut PgConnection, name: &str) -> sqlx::Result<Option<ScheduleRow>> {
    sqlx::query("SELECT FROM ingestd.schedules WHERE name = $1 FOR UPDATE")
        .bind(name)
        .fetch_optional(&mut *conn)
        .await?;
    find(conn, name).await
}

/// What became of a tick, and of its job.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct Tick {
    /// The due time; of `by_hand`, when somebody asked for the job.
    pub at: DateTime<Utc>,
    /// `enqueued`, `missed`, `overlap`, `failed`, `backfilled`, `by_hand`.
    pub result: String,
    /// The job it became.
    pub job_id: Option<JobId>,
    /// Where that job is: `queued`, `held`, `running`, `completed`, `cancelled`, `dead`; `None`
    /// where it is no longer known.
    pub job_state: Option<String>,
    /// Why the job could not be inserted, died or last failed; the first 1,000 characters.
    pub error: Option<String>,
}

/// Everything about one schedule.
#[derive(Debug, Clone, Serialize)]
pub struct Explained {
    /// Its row.
    #[serde(flatten)]
    pub schedule: ScheduleRow,
    /// When it is due, in words, or what is wrong with its line.
    pub description: String,
    /// The next due times; while it is paused, those that will pass without a job.
    pub upcoming: Vec<DueTime>,
    /// A due time that has come and is not handled: it waits for an earlier job, or for a daemon.
    pub overdue_since: Option<DateTime<Utc>>,
    /// The newest ticks, newest first, at most ten.
    pub last_ticks: Vec<Tick>,
    /// The newest of these with an error.
    pub last_failure: Option<Tick>,
    /// An unfinished job of a recent tick.
    pub unfinished_job: Option<JobId>,
    /// What would become of a tick now.
    pub if_due_now: String,
}

/// Explains a schedule with its next `n` due times; `None` where there is none of the name.
///
/// # Errors
///
/// What Postgres says.
pub async fn explain(
    conn: &mut PgConnection,
    name: &str,
    n: usize,
) -> sqlx::Result<Option<Explained>> {
    let Some(schedule) = find(&mut *conn, name).await? else {
        return Ok(None);
    };
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(&mut *conn)
        .await?;
    let last_ticks: Vec<Tick> = sqlx::query_as(include_str!("last_ticks.sql"))
        .bind(name)
        .fetch_all(&mut *conn)
        .await?;
    let unfinished_job = unfinished(conn, name).await?;
    let definition = &schedule.definition;
    let upcoming = match Timetable::parse(&definition.cron, &definition.timezone) {
        Ok(timetable) => due_times(&timetable, &schedule, now, n),
        Err(_) => Vec::new(),
    };
    let is_overdue = |at: &DateTime<Utc>| *at <= now && !schedule.is_paused();
    Ok(Some(Explained {
        description: schedule.describe(),
        upcoming,
        overdue_since: schedule.next_at.filter(is_overdue),
        last_failure: last_ticks.iter().find(|tick| tick.error.is_some()).cloned(),
        last_ticks,
        unfinished_job,
        if_due_now: if_due_now(&schedule, unfinished_job),
        schedule,
    }))
}

/// Returns the next `n` due times with those of their jobs.
#[must_use]
pub fn due_times(
    timetable: &Timetable,
    schedule: &ScheduleRow,
    now: DateTime<Utc>,
    n: usize,
) -> Vec<DueTime> {
    let mut times = timetable.due_times(now, n);
    for time in &mut times {
        time.job_due_at += delay(&schedule.name, schedule.definition.jitter_ms, time.utc);
    }
    times
}

fn if_due_now(schedule: &ScheduleRow, unfinished: Option<JobId>) -> String {
    match (
        schedule.is_paused(),
        schedule.definition.overlap,
        unfinished,
    ) {
        (true, ..) => "it would pass without a job: the schedule is paused".to_owned(),
        (false, Overlap::Skip, Some(job)) => {
            format!("it would be left out: job {job} of an earlier tick is unfinished")
        }
        (false, Overlap::Queue, Some(job)) => {
            format!("it would wait until job {job} of an earlier tick has finished")
        }
        (false, Overlap::Allow, Some(job)) => {
            format!("it would become a job, beside the unfinished job {job}")
        }
        (false, _, None) => "it would become a job".to_owned(),
    }
}
