//! Schedules: a due tick becomes exactly one job, however many daemons run.
//!
//! A due row is locked with SKIP LOCKED; its ticks, their jobs and the new
//! `next_at` are one transaction. No daemon leads. Times are the database's;
//! the cron line is read in the schedule's own zone.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use tokio_util::sync::CancellationToken;

use super::{
    enqueue::{NewJob, enqueue_raw},
    kind::Kind,
};
use crate::observe::{ScheduleTicked, TickResult};

/// Longest sleep between looks at the table: how late a new schedule may be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A cron line and the zone it is read in.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

/// Why a cron line or a zone is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadTimetable {
    /// The cron line does not parse.
    #[error("cron line {line:?}: {reason}; five fields, or six with seconds first")]
    Cron {
        /// The line as given.
        line: String,
        /// What the parser said.
        reason: String,
    },
    /// No such zone.
    #[error("time zone {0:?} is no IANA name such as Europe/Prague")]
    Zone(String),
}

impl Timetable {
    /// Parses a cron line of five fields, or six with seconds first, in an IANA time zone.
    ///
    /// # Errors
    ///
    /// [`BadTimetable`] says which of the two does not parse.
    pub fn parse(line: &str, zone: &str) -> Result<Self, BadTimetable> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(line).map_err(|error| BadTimetable::Cron {
            line: line.to_owned(),
            reason: error.to_string(),
        })?;
        let zone = Tz::from_str(zone).map_err(|_| BadTimetable::Zone(zone.to_owned()))?;
        Ok(Self { cron, zone })
    }

    /// Returns the first due time after `after`; `None` where there is none for decades.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&self.zone);
        self.cron.find_next_occurrence(&local, false).ok().map(|next| next.with_timezone(&Utc))
    }

    /// Says in words when it is due.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} ({})", self.cron.describe(), self.zone)
    }
}

/// What to do about ticks that fell due while no daemon ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missed {
    Skip,
    Once,
    All(usize),
}

/// What to do about a tick while the job of an earlier one is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlap {
    Allow,
    Skip,
    Queue,
}

/// The ticks up to now, oldest first, split by the policy into those to enqueue and those missed.
///
/// A tick counts as missed when a later one is due as well; with `Skip` also
/// when it is older than `fresh`.
fn split_ticks(
    mut due: Vec<DateTime<Utc>>,
    missed: Missed,
    now: DateTime<Utc>,
    fresh: Duration,
) -> (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) {
    let n_kept = match missed {
        Missed::All(most) => most,
        Missed::Once => 1,
        Missed::Skip => {
            let is_fresh = |at: &DateTime<Utc>| (now - *at).to_std().unwrap_or_default() <= fresh;
            usize::from(due.last().is_some_and(is_fresh))
        }
    };
    let kept = due.split_off(due.len().saturating_sub(n_kept));
    (kept, due)
}

/// Ticks older than this are missed, as far as `skip` is concerned.
const FRESH: Duration = Duration::from_secs(60);

/// Most ticks looked at in one round: a daemon that was away for a year catches up over a few.
const MOST_TICKS: usize = 10_000;

struct DueSchedule {
    name: String,
    timetable: Result<Timetable, BadTimetable>,
    new_job: NewJob,
    missed: Missed,
    overlap: Overlap,
    jitter_ms: i64,
    next_at: DateTime<Utc>,
    now: DateTime<Utc>,
}

const DUE: &str = "
    SELECT name, cron, timezone, kind, args, queue, priority, missed, missed_max, overlap,
           jitter_ms, next_at, clock_timestamp() AS now
    FROM ingestd.schedules
    WHERE paused_at IS NULL AND next_at <= now()
      AND NOT (overlap = 'queue' AND EXISTS (
        SELECT FROM ingestd.schedule_ticks t
        JOIN ingestd.jobs j ON j.shard = 0 AND j.id = t.job_id WHERE t.schedule = name))
    ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED";

/// Enqueues what is due until told to stop.
pub(super) async fn pump(pool: PgPool, stop: CancellationToken) {
    loop {
        let nap = match round(&pool).await {
            Ok(nap) => nap,
            Err(error) => {
                tracing::warn!(error = %error, "schedules wait for the database");
                LOOK_EVERY
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Handles everything due now and returns how long to sleep.
async fn round(pool: &PgPool) -> sqlx::Result<Duration> {
    prepare(pool).await?;
    while tick(pool).await? {}
    let next_ms: Option<i64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM min(next_at) - clock_timestamp()) * 1000)::bigint
         FROM ingestd.schedules WHERE paused_at IS NULL AND next_at > now()",
    )
    .fetch_one(pool)
    .await?;
    let next = next_ms.map_or(LOOK_EVERY, |ms| {
        Duration::from_millis(u64::try_from(ms).unwrap_or(0).saturating_add(1))
    });
    Ok(next.min(LOOK_EVERY))
}

/// Gives new and resumed schedules their first `next_at`; marks those whose line does not parse.
async fn prepare(pool: &PgPool) -> sqlx::Result<()> {
    let fresh: Vec<(String, String, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT name, cron, timezone, now() FROM ingestd.schedules
         WHERE next_at IS NULL AND paused_at IS NULL AND last_error IS NULL",
    )
    .fetch_all(pool)
    .await?;
    for (name, cron, timezone, now) in fresh {
        let (next_at, error) = match Timetable::parse(&cron, &timezone) {
            Ok(timetable) => (timetable.next_after(now), None),
            Err(error) => (None, Some(error.to_string())),
        };
        if let Some(error) = &error {
            tracing::error!(schedule = %name, error, "schedule cannot run");
        }
        sqlx::query(
            "UPDATE ingestd.schedules SET next_at = $2, last_error = $3
             WHERE name = $1 AND next_at IS NULL AND cron = $4 AND timezone = $5",
        )
        .bind(&name)
        .bind(next_at)
        .bind(error)
        .bind(&cron)
        .bind(&timezone)
        .execute(pool)
        .await?;
    }
    Ok(())
}

/// Handles one due schedule in one transaction; returns whether there was one.
async fn tick(pool: &PgPool) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    let Some(row) = sqlx::query(DUE).fetch_optional(&mut *tx).await? else { return Ok(false) };
    let due = due_schedule(&row)?;
    let (next_at, error) = match &due.timetable {
        Ok(timetable) => enqueue_ticks(&mut tx, &due, timetable).await?,
        Err(error) => (None, Some(error.to_string())),
    };
    sqlx::query(
        "UPDATE ingestd.schedules SET next_at = $2, last_error = $3, last_at = $4 WHERE name = $1",
    )
    .bind(&due.name)
    .bind(next_at)
    .bind(error)
    .bind(due.next_at)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(true)
}

fn due_schedule(row: &PgRow) -> sqlx::Result<DueSchedule> {
    let name: String = row.try_get("name")?;
    let missed: &str = row.try_get("missed")?;
    let most: i32 = row.try_get("missed_max")?;
    Ok(DueSchedule {
        timetable: Timetable::parse(row.try_get("cron")?, row.try_get("timezone")?),
        new_job: NewJob {
            kind: row.try_get("kind")?,
            args: row.try_get("args")?,
            queue: row.try_get("queue")?,
            priority: row.try_get("priority")?,
            ..NewJob::default()
        },
        missed: match missed {
            "skip" => Missed::Skip,
            "all" => Missed::All(usize::try_from(most).unwrap_or(1)),
            _ => Missed::Once,
        },
        overlap: match row.try_get("overlap")? {
            "skip" => Overlap::Skip,
            "queue" => Overlap::Queue,
            _ => Overlap::Allow,
        },
        jitter_ms: row.try_get::<i32, _>("jitter_ms")?.into(),
        next_at: row.try_get("next_at")?,
        now: row.try_get("now")?,
        name,
    })
}

/// Writes the ticks due up to now with their jobs; returns the next due time and any error.
async fn enqueue_ticks(
    tx: &mut PgConnection,
    due: &DueSchedule,
    timetable: &Timetable,
) -> sqlx::Result<(Option<DateTime<Utc>>, Option<String>)> {
    let mut ticks = vec![due.next_at];
    let mut next_at = timetable.next_after(due.next_at);
    while let Some(at) = next_at
        && at <= due.now
        && ticks.len() < MOST_TICKS
    {
        ticks.push(at);
        next_at = timetable.next_after(at);
    }
    let (mut kept, missed) = split_ticks(ticks, due.missed, due.now, FRESH);
    if due.overlap == Overlap::Queue && kept.len() > 1 {
        // One at a time: the others stay due until this one's job is finished.
        next_at = kept.drain(1..).next();
    }
    for at in missed {
        note_tick(&mut *tx, &due.name, at, "missed", None).await?;
        ScheduleTicked { schedule: &due.name, result: TickResult::Missed, error: None }.emit();
    }
    let mut problem = None;
    for at in kept {
        if let Some(error) = enqueue_tick(&mut *tx, due, at).await? {
            problem = Some(error);
        }
    }
    Ok((next_at, problem))
}

/// Enqueues one tick's job, or notes why not; returns the error that kept it from it.
async fn enqueue_tick(
    tx: &mut PgConnection,
    due: &DueSchedule,
    at: DateTime<Utc>,
) -> sqlx::Result<Option<String>> {
    if due.overlap == Overlap::Skip && unfinished(&mut *tx, &due.name).await? {
        note_tick(&mut *tx, &due.name, at, "overlap", None).await?;
        ScheduleTicked { schedule: &due.name, result: TickResult::Overlap, error: None }.emit();
        return Ok(None);
    }
    let mut job = due.new_job.clone();
    job.meta = Some(serde_json::json!({ "schedule": due.name, "tick_at": at, "source": "cron" }));
    if due.jitter_ms > 0 {
        let late = chrono::Duration::milliseconds(fastrand::i64(0..=due.jitter_ms));
        job.run_at = Some(due.now + late);
    }
    sqlx::query("SAVEPOINT tick").execute(&mut *tx).await?;
    match enqueue_raw(&mut *tx, &job).await {
        Ok(enqueued) => {
            let id = enqueued.id.map(|id| id.0);
            note_tick(&mut *tx, &due.name, at, "enqueued", id).await?;
            ScheduleTicked { schedule: &due.name, result: TickResult::Enqueued, error: None }.emit();
            Ok(None)
        }
        Err(sqlx::Error::Database(error)) => {
            let text = error.to_string();
            sqlx::query("ROLLBACK TO SAVEPOINT tick").execute(&mut *tx).await?;
            note_tick(&mut *tx, &due.name, at, "failed", None).await?;
            ScheduleTicked { schedule: &due.name, result: TickResult::Failed, error: Some(&text) }.emit();
            Ok(Some(text))
        }
        Err(error) => Err(error),
    }
}

/// Says whether the job of an earlier tick is still unfinished.
async fn unfinished(tx: &mut PgConnection, name: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (
           SELECT FROM (SELECT job_id FROM ingestd.schedule_ticks
                        WHERE schedule = $1 AND job_id IS NOT NULL
                        ORDER BY tick_at DESC LIMIT 100) t
           JOIN ingestd.jobs j ON j.shard = 0 AND j.id = t.job_id)",
    )
    .bind(name)
    .fetch_one(tx)
    .await
}

async fn note_tick(
    tx: &mut PgConnection,
    name: &str,
    at: DateTime<Utc>,
    result: &str,
    job_id: Option<i64>,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id)
         VALUES ($1, $2, $3, $4)",
    )
    .bind(name)
    .bind(at)
    .bind(result)
    .bind(job_id)
    .execute(tx)
    .await?;
    Ok(())
}

/// Writes the schedules that kinds bring along; a changed line gets a new next time.
pub(super) async fn sync_built_in<C: 'static>(
    conn: &mut PgConnection,
    kinds: &[Kind<C>],
) -> sqlx::Result<()> {
    for kind in kinds {
        let Some(cron) = kind.schedule else { continue };
        sqlx::query(
            "INSERT INTO ingestd.schedules AS s (name, cron, kind, origin)
             VALUES ($1, $2, $1, 'built_in')
             ON CONFLICT (name) DO UPDATE
             SET cron = excluded.cron, next_at = NULL, last_error = NULL, updated_at = now()
             WHERE s.origin = 'built_in' AND s.cron <> excluded.cron",
        )
        .bind(kind.name)
        .bind(cron)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next(line: &str, zone: &str, after: &str) -> DateTime<Utc> {
        Timetable::parse(line, zone).unwrap().next_after(at(after)).unwrap()
    }

    #[test]
    fn a_time_that_does_not_exist_fires_right_after() {
        // Prague, 29 March 2026: 02:00 becomes 03:00.
        let due = next("30 2 * * *", "Europe/Prague", "2026-03-28T12:00:00Z");
        assert_eq!(due, at("2026-03-29T01:00:00Z"));
    }

    #[test]
    fn a_time_that_occurs_twice_fires_once_on_the_first() {
        // Prague, 25 October 2026: 03:00 becomes 02:00.
        let first = next("30 2 * * *", "Europe/Prague", "2026-10-24T12:00:00Z");
        assert_eq!(first, at("2026-10-25T00:30:00Z"));
        let second = Timetable::parse("30 2 * * *", "Europe/Prague").unwrap().next_after(first);
        assert_eq!(second, Some(at("2026-10-26T01:30:00Z")));
    }

    #[test]
    fn seconds_are_optional() {
        let after = "2026-01-01T00:00:00Z";
        assert_eq!(next("*/5 * * * * *", "UTC", after), at("2026-01-01T00:00:05Z"));
        assert_eq!(next("*/5 * * * *", "UTC", after), at("2026-01-01T00:05:00Z"));
    }

    #[test]
    fn mistakes_name_the_line_or_the_zone() {
        let cron = Timetable::parse("61 * * * *", "UTC").unwrap_err();
        assert!(cron.to_string().contains("61 * * * *"), "{cron}");
        let zone = Timetable::parse("* * * * *", "Mars/Base").unwrap_err();
        assert!(zone.to_string().contains("Mars/Base"), "{zone}");
    }

    #[test]
    fn missed_ticks_follow_the_policy() {
        let now = at("2026-01-01T00:05:30Z");
        let due: Vec<_> = (1..=5).map(|m| at(&format!("2026-01-01T00:0{m}:00Z"))).collect();
        let split = |missed| {
            let (kept, missed) = split_ticks(due.clone(), missed, now, FRESH);
            (kept.len(), missed.len())
        };
        assert_eq!(split(Missed::Once), (1, 4));
        assert_eq!(split(Missed::All(3)), (3, 2));
        assert_eq!(split(Missed::All(100)), (5, 0));
        assert_eq!(split(Missed::Skip), (1, 4));
        let late = now + chrono::Duration::hours(1);
        assert_eq!(split_ticks(due, Missed::Skip, late, FRESH).0.len(), 0);
    }
}
