//! What people and the configuration do to gates: set, remove, pause, resume.
//!
//! People win: the configuration writes the gates that it names when a daemon starts, and takes
//! away those that an earlier one named, but leaves alone every gate that a person set. Of daemons
//! with different configurations, the one that started last counts.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use crate::config;

/// Longest pattern, in characters.
pub const LONGEST_PATTERN: usize = 1024;
/// What a rate may be, in jobs per second.
pub const RATES: RangeInclusive<f64> = 0.000_001..=100_000.0;
/// What a number of jobs may be.
const COUNTS: RangeInclusive<i32> = 1..=1_000_000;

/// The limits of a gate; what is `None` is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most jobs of a key admitted or running at once, at least 1.
    pub max_running: Option<i32>,
    /// Jobs of a key that start per second in the long run, 0.000001 to 100000.
    pub rate_per_sec: Option<f64>,
    /// Jobs that may start at once after a quiet time, 1 to 1000000; `None`: the rate of one
    /// second. Only beside a rate.
    pub burst: Option<i32>,
}

impl Limits {
    /// Returns which field is not allowed, as a JSON pointer, and what would be.
    #[must_use]
    pub fn mistake(&self) -> Option<(&'static str, &'static str)> {
        if self.max_running.is_some_and(|n| !COUNTS.contains(&n)) {
            return Some(("/max_running", "1 to 1000000"));
        }
        if self.rate_per_sec.is_some_and(|rate| !RATES.contains(&rate)) {
            return Some(("/rate_per_sec", "0.000001 to 100000"));
        }
        if self.burst.is_some_and(|n| !COUNTS.contains(&n)) {
            return Some(("/burst", "1 to 1000000"));
        }
        let is_alone = self.burst.is_some() && self.rate_per_sec.is_none();
        is_alone.then_some(("/burst", "only beside rate_per_sec"))
    }
}

/// Tells every keeper that more may be admitted now.
const WAKE: &str = "SELECT pg_notify('ingestd_gate', '') WHERE pg_notification_queue_usage() < 0.5";

/// Sets the limits of a pattern: a key, or with `*` at its end the prefix of keys. A gate that the
/// configuration named is the person's from then on; a paused one stays paused.
///
/// # Errors
///
/// What Postgres says: a pattern that is empty or longer than 1024 characters, a limit out of range.
pub async fn set(conn: &mut PgConnection, pattern: &str, limits: &Limits) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO ingestd.gates (pattern, max_running, rate_per_sec, burst)
         VALUES ($1, $2, $3, $4)
         ON CONFLICT (pattern) DO UPDATE SET max_running = excluded.max_running,
           rate_per_sec = excluded.rate_per_sec, burst = excluded.burst, origin = 'user',
           updated_at = now()",
    )
    .bind(pattern)
    .bind(limits.max_running)
    .bind(limits.rate_per_sec)
    .bind(limits.burst)
    .execute(&mut *conn)
    .await?;
    wake(conn).await
}

/// Removes a gate, paused or not: its keys fall to the next pattern that fits them, or to one job
/// at a time. Returns whether there was one. One that the configuration names is back at the next
/// start.
///
/// # Errors
///
/// What Postgres says.
pub async fn remove(conn: &mut PgConnection, pattern: &str) -> sqlx::Result<bool> {
    let gone = sqlx::query("DELETE FROM ingestd.gates WHERE pattern = $1")
        .bind(pattern)
        .execute(&mut *conn)
        .await?;
    wake(conn).await?;
    Ok(gone.rows_affected() == 1)
}

/// Pauses a gate: no job of its keys starts until it is resumed; what runs goes on.
///
/// A pattern without a gate gets one, with the limits that held for it until now. What was
/// admitted and has not started is held again; returns how many jobs.
///
/// # Errors
///
/// What Postgres says.
pub async fn pause(conn: &mut PgConnection, pattern: &str) -> sqlx::Result<u64> {
    sqlx::query(
        "INSERT INTO ingestd.gates (pattern, max_running, rate_per_sec, burst, paused_at)
         SELECT $1, g.max_running, g.rate_per_sec, CASE WHEN g.rate_per_sec > 0 THEN g.burst END, now()
         FROM ingestd.gate_of($1) g
         ON CONFLICT (pattern) DO UPDATE SET paused_at = coalesce(ingestd.gates.paused_at, now())",
    )
    .bind(pattern)
    .execute(&mut *conn)
    .await?;
    // Few rows are admitted at any time: all of jobs_gated is read.
    let held = sqlx::query(
        "UPDATE ingestd.jobs SET state = 'held'
         WHERE shard = 0 AND gate_key IS NOT NULL AND state <> 'held' AND state = 'queued'
           AND (SELECT g.pattern FROM ingestd.gate_of(gate_key) g) = $1",
    )
    .bind(pattern)
    .execute(conn)
    .await?;
    Ok(held.rows_affected())
}

/// Lets a paused gate go on; returns whether it was paused.
///
/// # Errors
///
/// What Postgres says.
pub async fn resume(conn: &mut PgConnection, pattern: &str) -> sqlx::Result<bool> {
    let resumed = sqlx::query(
        "UPDATE ingestd.gates SET paused_at = NULL WHERE pattern = $1 AND paused_at IS NOT NULL",
    )
    .bind(pattern)
    .execute(&mut *conn)
    .await?;
    wake(conn).await?;
    Ok(resumed.rows_affected() == 1)
}

/// Writes the gates of the configuration; see the module for who wins. One that somebody paused
/// stays, be it configured or not.
///
/// # Errors
///
/// What Postgres says.
pub async fn sync(conn: &mut PgConnection, gates: &config::Gates) -> sqlx::Result<()> {
    let patterns: Vec<&str> = gates.iter().map(|(pattern, _)| pattern).collect();
    sqlx::query(
        "DELETE FROM ingestd.gates
         WHERE origin = 'config' AND paused_at IS NULL AND pattern <> ALL ($1)",
    )
    .bind(&patterns)
    .execute(&mut *conn)
    .await?;
    for (pattern, gate) in gates.iter() {
        let int = |n: Option<u32>| n.map(|n| i32::try_from(n).unwrap_or(i32::MAX));
        sqlx::query(
            "INSERT INTO ingestd.gates AS g (pattern, max_running, rate_per_sec, burst, origin)
             VALUES ($1, $2, $3, $4, 'config')
             ON CONFLICT (pattern) DO UPDATE SET max_running = excluded.max_running,
               rate_per_sec = excluded.rate_per_sec, burst = excluded.burst, updated_at = now()
             WHERE g.origin = 'config'
               AND (g.max_running, g.rate_per_sec, g.burst)
                 IS DISTINCT FROM (excluded.max_running, excluded.rate_per_sec, excluded.burst)",
        )
        .bind(pattern)
        .bind(int(gate.max_running))
        .bind(gate.rate_per_sec)
        .bind(int(gate.burst))
        .execute(&mut *conn)
        .await?;
    }
    wake(conn).await
}

async fn wake(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query(WAKE).execute(conn).await?;
    Ok(())
}
