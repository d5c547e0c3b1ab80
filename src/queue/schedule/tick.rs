//! The ticks of one due schedule: they, their jobs and the new `next_at` are one transaction.
//!
//! The row is locked with SKIP LOCKED, so that every tick is handled once however many daemons
//! look. Times are the database's; the line is read in the schedule's own zone.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Connection, FromRow, PgConnection};
use twox_hash::XxHash3_64;

use super::{
    Definition, Overlap,
    decide::{Decision, FRESH, MOST_JOBS, MOST_TICKS, decide},
};
use crate::{
    db,
    observe::{EnqueueSource, JobEnqueued, ScheduleTicked, TickResult},
    queue::{
        claim::KnownKinds,
        enqueue::{NewJob, enqueue_raw},
        job::JobId,
        timetable::Timetable,
    },
};

/// The first due schedule. One whose ticks wait for each other is not due while a job of its last
/// hundred ticks is unfinished.
const DUE: &str = "
    SELECT name, cron, timezone, kind, args, queue, priority, missed, missed_max, overlap,
           jitter_ms, tenant, next_at, clock_timestamp() AS now
    FROM ingestd.schedules
    WHERE paused_at IS NULL AND NOT paused_in_config AND next_at <= now()
      AND NOT (overlap = 'queue' AND EXISTS (
        SELECT FROM (SELECT job_id FROM ingestd.schedule_ticks
                     WHERE schedule = name AND job_id IS NOT NULL
                     ORDER BY tick_at DESC LIMIT 100) t
        JOIN ingestd.jobs j ON j.shard = 0 AND j.id = t.job_id))
    ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED";

const HANDLED: &str = "
    UPDATE ingestd.schedules SET next_at = $2, last_error = $3, last_at = $4 WHERE name = $1";

#[derive(FromRow)]
struct Due {
    name: String,
    #[sqlx(flatten)]
    definition: Definition,
    next_at: DateTime<Utc>,
    now: DateTime<Utc>,
}

/// What handling a due schedule came to.
struct Ticked {
    next_at: Option<DateTime<Utc>>,
    last_at: DateTime<Utc>,
    problem: Option<String>,
    n_enqueued: u64,
}

/// Handles one due schedule in one transaction; returns whether there was one.
pub(super) async fn tick(conn: &mut PgConnection, kinds: &KnownKinds) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let Some(due) = sqlx::query_as::<_, Due>(DUE)
        .fetch_optional(&mut *tx)
        .await?
    else {
        return Ok(false);
    };
    let Definition { cron, timezone, .. } = &due.definition;
    let ticked = match Timetable::parse(cron, timezone) {
        Ok(timetable) => enqueue_ticks(&mut tx, &due, &timetable).await?,
        Err(error) => Ticked {
            next_at: None,
            last_at: due.next_at,
            problem: Some(error.to_string()),
            n_enqueued: 0,
        },
    };
    sqlx::query(HANDLED)
        .bind(&due.name)
        .bind(ticked.next_at)
        .bind(ticked.problem)
        .bind(ticked.last_at)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let Definition { kind, queue, .. } = &due.definition;
    if let Some(queue) = queue.as_deref().or_else(|| kinds.queue_of(kind)) {
        JobEnqueued {
            queue,
            kind,
            source: EnqueueSource::Cron,
            n: ticked.n_enqueued,
        }
        .emit();
    }
    Ok(true)
}

/// Writes the ticks due up to now with their jobs.
async fn enqueue_ticks(
    tx: &mut PgConnection,
    due: &Due,
    timetable: &Timetable,
) -> sqlx::Result<Ticked> {
    let Decision {
        kept,
        missed,
        next_at,
    } = decide(
        timetable,
        &due.definition,
        due.next_at,
        due.now,
        MOST_TICKS,
        MOST_JOBS,
    );
    for _ in 0..note_ticks(&mut *tx, &due.name, &missed, TickResult::Missed).await? {
        told(due, TickResult::Missed, None);
    }
    let mut ticked = Ticked {
        next_at,
        last_at: kept
            .last()
            .or(missed.last())
            .copied()
            .unwrap_or(due.next_at),
        problem: None,
        n_enqueued: 0,
    };
    for at in kept {
        enqueue_tick(&mut *tx, due, at, &mut ticked).await?;
    }
    Ok(ticked)
}

/// Enqueues one tick's job, or notes why not. Leaves a tick that was handled before, because
/// somebody, or a clock, set the schedule back.
async fn enqueue_tick(
    tx: &mut PgConnection,
    due: &Due,
    at: DateTime<Utc>,
    ticked: &mut Ticked,
) -> sqlx::Result<()> {
    if due.definition.overlap == Overlap::Skip && unfinished(&mut *tx, &due.name).await?.is_some() {
        if note_ticks(&mut *tx, &due.name, &[at], TickResult::Overlap).await? > 0 {
            told(due, TickResult::Overlap, None);
        }
        return Ok(());
    }
    let mut job = new_job(&due.name, &due.definition, at);
    job.run_at = run_at(&due.name, &due.definition, at, due.now);
    sqlx::query("SAVEPOINT tick").execute(&mut *tx).await?;
    let enqueued = match enqueue_raw(&mut *tx, &job).await {
        Ok(enqueued) => note_tick(&mut *tx, &due.name, at, Ok(enqueued.id)).await?,
        Err(error) if db::is_refusal(&error) => {
            let text = error
                .as_database_error()
                .map_or_else(|| error.to_string(), ToString::to_string);
            roll_back(&mut *tx).await?;
            if note_tick(&mut *tx, &due.name, at, Err(&text)).await? {
                told(due, TickResult::Failed, Some(&text));
            }
            ticked.problem = Some(text);
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    if enqueued {
        // Kept until the commit, thousands of them would fill the server's table of locks.
        sqlx::query("RELEASE SAVEPOINT tick")
            .execute(&mut *tx)
            .await?;
        told(due, TickResult::Enqueued, None);
        ticked.n_enqueued += 1;
        return Ok(());
    }
    roll_back(tx).await
}

async fn roll_back(tx: &mut PgConnection) -> sqlx::Result<()> {
    for statement in ["ROLLBACK TO SAVEPOINT tick", "RELEASE SAVEPOINT tick"] {
        sqlx::query(statement).execute(&mut *tx).await?;
    }
    Ok(())
}

fn told(due: &Due, result: TickResult, error: Option<&str>) {
    let schedule = due.name.as_str();
    ScheduleTicked {
        schedule,
        result,
        error,
    }
    .emit();
}

/// Describes the job of a tick.
pub(super) fn new_job(name: &str, definition: &Definition, at: DateTime<Utc>) -> NewJob {
    NewJob {
        kind: definition.kind.clone(),
        args: definition.args.clone().into(),
        queue: definition.queue.clone(),
        priority: definition.priority,
        tenant: definition.tenant.clone(),
        meta: Some(json!({ "schedule": name, "tick_at": at, "source": "cron" })),
        ..NewJob::default()
    }
}

/// Returns when a tick's job is due; `None`: at once.
///
/// That is within `jitter_ms` of the tick, or, where the tick is made up for late, of now, so that
/// schedules which waited together do not start together.
fn run_at(
    name: &str,
    definition: &Definition,
    at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let is_late = now - at > TimeDelta::from_std(FRESH).unwrap_or_default();
    let due = if is_late { now } else { at } + delay(name, definition.jitter_ms, at);
    (due > now).then_some(due)
}

/// Returns how long after a tick its job is due, from 0 to `jitter_ms`: drawn from the name and
/// the tick, so that whoever asks gets the same.
pub(super) fn delay(name: &str, jitter_ms: i32, at: DateTime<Utc>) -> TimeDelta {
    let range = u64::try_from(jitter_ms).unwrap_or(0) + 1;
    let drawn =
        XxHash3_64::oneshot_with_seed(at.timestamp_millis().cast_unsigned(), name.as_bytes());
    TimeDelta::milliseconds(i64::try_from(drawn % range).unwrap_or(0))
}

/// Returns an unfinished job of the schedule's last hundred ticks, those by hand included.
pub(super) async fn unfinished(conn: &mut PgConnection, name: &str) -> sqlx::Result<Option<JobId>> {
    sqlx::query_scalar(
        "SELECT t.job_id FROM (
           SELECT job_id FROM ingestd.schedule_ticks
           WHERE schedule = $1 AND job_id IS NOT NULL
           ORDER BY tick_at DESC LIMIT 100) t
         JOIN ingestd.jobs j ON j.shard = 0 AND j.id = t.job_id
         LIMIT 1",
    )
    .bind(name)
    .fetch_optional(conn)
    .await
}

/// Notes ticks as handled without a job; returns how many were not before.
async fn note_ticks(
    tx: &mut PgConnection,
    name: &str,
    ticks: &[DateTime<Utc>],
    result: TickResult,
) -> sqlx::Result<u64> {
    let noted = sqlx::query(
        "INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result)
         SELECT $1, at, $3 FROM unnest($2::timestamptz[]) at
         ON CONFLICT (schedule, tick_at) DO NOTHING",
    )
    .bind(name)
    .bind(ticks)
    .bind(result.as_str())
    .execute(tx)
    .await?;
    Ok(noted.rows_affected())
}

/// Notes a tick with its job, or why it has none; returns whether it was not before.
async fn note_tick(
    tx: &mut PgConnection,
    name: &str,
    at: DateTime<Utc>,
    job: Result<Option<JobId>, &str>,
) -> sqlx::Result<bool> {
    let result = match job {
        Ok(_) => TickResult::Enqueued,
        Err(_) => TickResult::Failed,
    };
    let noted = sqlx::query(
        "INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id, error)
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (schedule, tick_at) DO NOTHING",
    )
    .bind(name)
    .bind(at)
    .bind(result.as_str())
    .bind(job.ok().flatten())
    .bind(job.err())
    .execute(tx)
    .await?;
    Ok(noted.rows_affected() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bounds_and_is_the_same_for_everybody() {
        let tick: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let at = |n: i64| tick + TimeDelta::minutes(n);
        let delays: Vec<_> = (0..1000).map(|n| delay("night", 1000, at(n))).collect();
        assert!(
            delays
                .iter()
                .all(|d| (0..=1000).contains(&d.num_milliseconds()))
        );
        let spread = delays.iter().max().unwrap().num_milliseconds()
            - delays.iter().min().unwrap().num_milliseconds();
        assert!(spread > 900, "{spread}");
        assert_eq!(delays[7], delay("night", 1000, at(7)));
        assert_ne!(
            delays,
            (0..1000)
                .map(|n| delay("day", 1000, at(n)))
                .collect::<Vec<_>>()
        );
        assert_eq!(delay("night", 0, at(7)), TimeDelta::zero());
    }

    #[test]
    fn a_job_is_due_within_the_jitter_of_its_tick() {
        let tick: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let jittered = Definition {
            jitter_ms: 30_000,
            ..Definition::new("* * * * *", "t.k")
        };
        let delay = delay("night", 30_000, tick);
        let at = |now| run_at("night", &jittered, tick, now);
        assert_eq!(at(tick), Some(tick + delay), "{delay}");
        assert_eq!(
            at(tick + delay),
            None,
            "late by less than the jitter: at once"
        );
        let late = tick + TimeDelta::hours(8);
        assert_eq!(at(late), Some(late + delay), "made up for: spread from now");
        let plain = Definition::new("* * * * *", "t.k");
        assert_eq!(run_at("night", &plain, tick, tick), None);
    }
}
