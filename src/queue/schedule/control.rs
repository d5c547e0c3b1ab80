//! What people do to schedules. Each runs in the caller's transaction, beside its audit entry.

use serde_json::json;
use sqlx::PgConnection;

use super::{Definition, Overlap, tick::unfinished};
use crate::queue::{
    enqueue::{NewJob, enqueue_raw},
    job::JobId,
};

/// What became of a change to what a schedule says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It is made.
    Made,
    /// Another schedule has the name; whose: `user`, `config`, `built_in`.
    Taken(String),
    /// There is no schedule of the name.
    NotFound,
    /// It is not a user's: `config`, `built_in`.
    Owned(String),
}

/// Refuses a kind that nobody registered, in the database's own words.
///
/// # Errors
///
/// A check violation whose hint names the near kinds; what else Postgres says.
pub async fn refuse_unknown(conn: &mut PgConnection, kind: &str) -> sqlx::Result<()> {
    sqlx::query(
        "SELECT ingestd.refuse_kind($1)
         WHERE NOT EXISTS (SELECT FROM ingestd.job_kinds WHERE kind = $1)",
    )
    .bind(kind)
    .execute(conn)
    .await?;
    Ok(())
}

/// Makes a user's schedule, paused or not; its first tick is the first after now.
///
/// # Errors
///
/// As [`refuse_unknown`]. Nothing else is checked: see [`Definition::check`].
pub async fn create(
    conn: &mut PgConnection,
    name: &str,
    definition: &Definition,
    is_paused: bool,
) -> sqlx::Result<Change> {
    refuse_unknown(&mut *conn, &definition.kind).await?;
    let made = sqlx::query(
        "INSERT INTO ingestd.schedules
           (name, cron, timezone, kind, args, queue, priority, missed, missed_max, overlap,
            jitter_ms, tenant, paused_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, CASE WHEN $13 THEN now() END)
         ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(&definition.cron)
    .bind(&definition.timezone)
    .bind(&definition.kind)
    .bind(sqlx::types::Json(&definition.args))
    .bind(&definition.queue)
    .bind(definition.priority)
    .bind(definition.missed)
    .bind(definition.missed_max)
    .bind(definition.overlap)
    .bind(definition.jitter_ms)
    .bind(&definition.tenant)
    .bind(is_paused)
    .execute(&mut *conn)
    .await?;
    if made.rows_affected() == 1 {
        return Ok(Change::Made);
    }
    Ok(origin(conn, name)
        .await?
        .map_or(Change::NotFound, Change::Taken))
}

/// Replaces what a user's schedule says; where line and zone stay, so does its next time.
///
/// # Errors
///
/// As [`create`].
pub async fn change(
    conn: &mut PgConnection,
    name: &str,
    definition: &Definition,
) -> sqlx::Result<Change> {
    refuse_unknown(&mut *conn, &definition.kind).await?;
    let changed = sqlx::query(
        "UPDATE ingestd.schedules
         SET cron = $2, timezone = $3, kind = $4, args = $5, queue = $6, priority = $7,
             missed = $8, missed_max = $9, overlap = $10, jitter_ms = $11, tenant = $12,
             updated_at = now(), last_error = NULL
         WHERE name = $1 AND origin = 'user'",
    )
    .bind(name)
    .bind(&definition.cron)
    .bind(&definition.timezone)
    .bind(&definition.kind)
    .bind(sqlx::types::Json(&definition.args))
    .bind(&definition.queue)
    .bind(definition.priority)
    .bind(definition.missed)
    .bind(definition.missed_max)
    .bind(definition.overlap)
    .bind(definition.jitter_ms)
    .bind(&definition.tenant)
    .execute(&mut *conn)
    .await?;
    outcome(conn, name, changed.rows_affected()).await
}

/// Removes a user's schedule for good; its jobs stay, and so does the record of its ticks for as
/// long as that is kept.
///
/// # Errors
///
/// What Postgres says.
pub async fn remove(conn: &mut PgConnection, name: &str) -> sqlx::Result<Change> {
    let removed = sqlx::query("DELETE FROM ingestd.schedules WHERE name = $1 AND origin = 'user'")
        .bind(name)
        .execute(&mut *conn)
        .await?;
    outcome(conn, name, removed.rows_affected()).await
}

async fn outcome(conn: &mut PgConnection, name: &str, n_rows: u64) -> sqlx::Result<Change> {
    if n_rows == 1 {
        return Ok(Change::Made);
    }
    Ok(origin(conn, name)
        .await?
        .map_or(Change::NotFound, Change::Owned))
}

async fn origin(conn: &mut PgConnection, name: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("SELECT origin FROM ingestd.schedules WHERE name = $1")
        .bind(name)
        .fetch_optional(conn)
        .await
}

/// What became of a pause or its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paused {
    /// It was not before.
    Changed,
    /// It was so already.
    AsBefore,
    /// No person pauses it, but the configuration does; whether this call ended a person's pause.
    InConfig(bool),
    /// There is no schedule of the name.
    NotFound,
}

/// Pauses a schedule in the name of a person: its ticks pass without a job until a person lets it
/// go on, whatever daemons and their configurations do.
///
/// # Errors
///
/// What Postgres says.
pub async fn pause(conn: &mut PgConnection, name: &str) -> sqlx::Result<Paused> {
    let paused = sqlx::query(
        "UPDATE ingestd.schedules SET paused_at = now() WHERE name = $1 AND paused_at IS NULL",
    )
    .bind(name)
    .execute(&mut *conn)
    .await?;
    if paused.rows_affected() == 1 {
        return Ok(Paused::Changed);
    }
    let found = origin(conn, name).await?;
    Ok(found.map_or(Paused::NotFound, |_| Paused::AsBefore))
}

/// Ends a person's pause. The schedule goes on with its first tick after now: what passed is not
/// made up for; [`super::backfill`] does that.
///
/// # Errors
///
/// What Postgres says.
pub async fn resume(conn: &mut PgConnection, name: &str) -> sqlx::Result<Paused> {
    let resumed = sqlx::query(
        "UPDATE ingestd.schedules SET paused_at = NULL, next_at = NULL, last_error = NULL
         WHERE name = $1 AND paused_at IS NOT NULL",
    )
    .bind(name)
    .execute(&mut *conn)
    .await?;
    let changed = resumed.rows_affected() == 1;
    let in_config: Option<bool> =
        sqlx::query_scalar("SELECT paused_in_config FROM ingestd.schedules WHERE name = $1")
            .bind(name)
            .fetch_optional(conn)
            .await?;
    Ok(match (changed, in_config) {
        (_, None) => Paused::NotFound,
        (_, Some(true)) => Paused::InConfig(changed),
        (true, Some(false)) => Paused::Changed,
        (false, Some(false)) => Paused::AsBefore,
    })
}

/// What became of a wish to run a schedule's job now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNow {
    /// This job was enqueued.
    Enqueued(JobId),
    /// This job of an earlier tick is unfinished, and the schedule does not allow two.
    Overlaps(JobId),
    /// There is no schedule of the name.
    NotFound,
}

/// Enqueues one job of a schedule now, beside its ticks: `next_at` stays, paused or not.
///
/// Where the schedule does not allow its jobs to overlap, an unfinished one is in the way unless
/// `force`; and the new one is in the way of the next ticks like that of a tick. The job's `meta`
/// names the schedule and `actor`.
///
/// # Errors
///
/// As of an enqueue.
pub async fn run_now(
    conn: &mut PgConnection,
    name: &str,
    actor: &str,
    force: bool,
) -> sqlx::Result<RunNow> {
    // The row's lock keeps the ticks out: they look for unfinished jobs, too.
    let definition: Option<Definition> = sqlx::query_as(
        "SELECT cron, timezone, kind, args, queue, priority, missed, missed_max, overlap, jitter_ms,
                tenant
         FROM ingestd.schedules WHERE name = $1 FOR UPDATE",
    )
    .bind(name)
    .fetch_optional(&mut *conn)
    .await?;
    let Some(definition) = definition else {
        return Ok(RunNow::NotFound);
    };
    if definition.overlap != Overlap::Allow
        && !force
        && let Some(job) = unfinished(&mut *conn, name).await?
    {
        return Ok(RunNow::Overlaps(job));
    }
    let job = NewJob {
        kind: definition.kind,
        args: definition.args.into(),
        queue: definition.queue,
        priority: definition.priority,
        tenant: definition.tenant,
        meta: Some(json!({ "schedule": name, "by_hand": true, "enqueued_by": actor })),
        ..NewJob::default()
    };
    let enqueued = enqueue_raw(&mut *conn, &job).await?;
    // Without a unique key every enqueue inserts.
    let id = enqueued.id.ok_or(sqlx::Error::RowNotFound)?;
    sqlx::query(
        "INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id)
         VALUES ($1, clock_timestamp(), 'by_hand', $2)",
    )
    .bind(name)
    .bind(id)
    .execute(conn)
    .await?;
    Ok(RunNow::Enqueued(id))
}
