//! Schedules: a due tick becomes exactly one job, however many daemons run.
//!
//! A due row is locked with SKIP LOCKED; its ticks, their jobs and the new
//! `next_at` are one transaction. No daemon leads. Times are the database's;
//! the cron line is read in the schedule's own zone.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{Connection, PgConnection, Row, postgres::PgRow};
use tokio_util::sync::CancellationToken;

use super::{
    claim::KnownKinds,
    enqueue::{NewJob, enqueue_raw},
    kind::Kind,
    timetable::{BadTimetable, Missed, Timetable, split_ticks},
};
use crate::{
    db::{self, Bounded},
    observe::{EnqueueSource, JobEnqueued, ScheduleTicked, TickResult},
};

/// Longest sleep between looks at the table: how late a new schedule may be noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What to do about a tick while the job of an earlier one is unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Overlap {
    Allow,
    Skip,
    Queue,
}

/// Ticks older than this are missed, as far as `skip` is concerned.
const FRESH: Duration = Duration::from_mins(1);

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

/// What handling a due schedule came to.
struct Ticked {
    next_at: Option<DateTime<Utc>>,
    problem: Option<String>,
    n_enqueued: u64,
}

const DUE: &str = "
    SELECT name, cron, timezone, kind, args, queue, priority, missed, missed_max, overlap,
           jitter_ms, next_at, clock_timestamp() AS now
    FROM ingestd.schedules
    WHERE paused_at IS NULL AND next_at <= now()
      AND NOT (overlap = 'queue' AND EXISTS (
        SELECT FROM (SELECT job_id FROM ingestd.schedule_ticks
                     WHERE schedule = name AND job_id IS NOT NULL
                     ORDER BY tick_at DESC LIMIT 100) t
        JOIN ingestd.jobs j ON j.shard = 0 AND j.id = t.job_id))
    ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED";

/// Enqueues what is due until told to stop.
pub(super) async fn pump(db: Bounded, kinds: Arc<KnownKinds>, stop: CancellationToken) {
    // Stopped in the middle, a tick is rolled back and left to the next daemon.
    stop.run_until_cancelled(async {
        loop {
            let nap = round(&db, &kinds).await.unwrap_or_else(|error| {
                tracing::warn!(error = %error, "schedules wait for the database");
                LOOK_EVERY
            });
            tokio::time::sleep(nap).await;
        }
    })
    .await;
}

/// Handles everything due now and returns how long to sleep.
async fn round(db: &Bounded, kinds: &KnownKinds) -> sqlx::Result<Duration> {
    db.run(async |conn| prepare(conn).await).await?;
    while db.run(async |conn| tick(conn, kinds).await).await? {}
    let next = sqlx::query_scalar(
        "SELECT (extract(epoch FROM min(next_at) - clock_timestamp()) * 1000)::bigint
         FROM ingestd.schedules WHERE paused_at IS NULL AND next_at > now()",
    );
    let next_ms: Option<i64> = db.run(async |conn| next.fetch_one(conn).await).await?;
    let next = next_ms.map_or(LOOK_EVERY, |ms| {
        Duration::from_millis(u64::try_from(ms).unwrap_or(0).saturating_add(1))
    });
    Ok(next.min(LOOK_EVERY))
}

/// Gives new and resumed schedules their first `next_at`; marks those whose line does not parse.
async fn prepare(conn: &mut PgConnection) -> sqlx::Result<()> {
    let fresh: Vec<(String, String, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT name, cron, timezone, now() FROM ingestd.schedules
         WHERE next_at IS NULL AND paused_at IS NULL AND last_error IS NULL",
    )
    .fetch_all(&mut *conn)
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
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Handles one due schedule in one transaction; returns whether there was one.
async fn tick(conn: &mut PgConnection, kinds: &KnownKinds) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    let Some(row) = sqlx::query(DUE).fetch_optional(&mut *tx).await? else {
        return Ok(false);
    };
    let due = due_schedule(&row)?;
    let ticked = match &due.timetable {
        Ok(timetable) => enqueue_ticks(&mut tx, &due, timetable).await?,
        Err(error) => Ticked {
            next_at: None,
            problem: Some(error.to_string()),
            n_enqueued: 0,
        },
    };
    sqlx::query(
        "UPDATE ingestd.schedules SET next_at = $2, last_error = $3, last_at = $4 WHERE name = $1",
    )
    .bind(&due.name)
    .bind(ticked.next_at)
    .bind(ticked.problem)
    .bind(due.next_at)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    let kind = due.new_job.kind.as_str();
    if let Some(queue) = due
        .new_job
        .queue
        .as_deref()
        .or_else(|| kinds.queue_of(kind))
    {
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

/// Writes the ticks due up to now with their jobs.
async fn enqueue_ticks(
    tx: &mut PgConnection,
    due: &DueSchedule,
    timetable: &Timetable,
) -> sqlx::Result<Ticked> {
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
    if next_at.is_some_and(|at| at <= due.now) && !missed.is_empty() {
        // More are due than one round looks at: which of them are the last shows in the next.
        next_at = kept.drain(..).next().or(next_at);
    }
    if due.overlap == Overlap::Queue && kept.len() > 1 {
        // One at a time: the others stay due until this one's job is finished.
        next_at = kept.drain(1..).next();
    }
    for _ in 0..note_ticks(&mut *tx, &due.name, &missed, "missed", None).await? {
        ScheduleTicked {
            schedule: &due.name,
            result: TickResult::Missed,
            error: None,
        }
        .emit();
    }
    let mut ticked = Ticked {
        next_at,
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
    due: &DueSchedule,
    at: DateTime<Utc>,
    ticked: &mut Ticked,
) -> sqlx::Result<()> {
    if due.overlap == Overlap::Skip && unfinished(&mut *tx, &due.name).await? {
        if note_ticks(&mut *tx, &due.name, &[at], "overlap", None).await? > 0 {
            ScheduleTicked {
                schedule: &due.name,
                result: TickResult::Overlap,
                error: None,
            }
            .emit();
        }
        return Ok(());
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
            if note_ticks(&mut *tx, &due.name, &[at], "enqueued", id).await? == 0 {
                sqlx::query("ROLLBACK TO SAVEPOINT tick")
                    .execute(&mut *tx)
                    .await?;
                return Ok(());
            }
            ScheduleTicked {
                schedule: &due.name,
                result: TickResult::Enqueued,
                error: None,
            }
            .emit();
            ticked.n_enqueued += 1;
            Ok(())
        }
        Err(error) if db::is_refusal(&error) => {
            let text = error
                .as_database_error()
                .map_or_else(|| error.to_string(), ToString::to_string);
            sqlx::query("ROLLBACK TO SAVEPOINT tick")
                .execute(&mut *tx)
                .await?;
            note_ticks(&mut *tx, &due.name, &[at], "failed", None).await?;
            ScheduleTicked {
                schedule: &due.name,
                result: TickResult::Failed,
                error: Some(&text),
            }
            .emit();
            ticked.problem = Some(text);
            Ok(())
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

/// Notes ticks as handled; returns how many were not before.
async fn note_ticks(
    tx: &mut PgConnection,
    name: &str,
    ticks: &[DateTime<Utc>],
    result: &str,
    job_id: Option<i64>,
) -> sqlx::Result<u64> {
    let noted = sqlx::query(
        "INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id)
         SELECT $1, at, $3, $4 FROM unnest($2::timestamptz[]) at
         ON CONFLICT (schedule, tick_at) DO NOTHING",
    )
    .bind(name)
    .bind(ticks)
    .bind(result)
    .bind(job_id)
    .execute(tx)
    .await?;
    Ok(noted.rows_affected())
}

/// Writes the schedules that kinds bring along; a changed line gets a new next time.
pub(super) async fn sync_built_in<C: 'static>(
    conn: &mut PgConnection,
    kinds: &[Kind<C>],
) -> sqlx::Result<()> {
    for kind in kinds {
        let Some(cron) = kind.schedule else { continue };
        sqlx::query(
            "INSERT INTO ingestd.schedules AS s (name, cron, kind, overlap, origin)
             VALUES ($1, $2, $1, 'skip', 'built_in')
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
