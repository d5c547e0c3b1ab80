//! Lost leases: jobs whose worker died, hung or fell silent go back or are quarantined.
//!
//! Any daemon does this for all. Two detectors find the dead: the database's
//! clock, and a heartbeat counter that stands still on this process's own
//! clock, for the day when the database's clock is set back.
//!
//! When a process dies, one of its jobs may have killed it and the others only
//! stood by. So the first crash sends all of them back at once. Those that are
//! there at a second one are *suspects*: they are held and let go one at a
//! time, and when a worker dies again, only its suspect is charged.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::Mutex;

use super::{
    batch,
    complete::{Grave, Reason, bury},
    gate,
    kind::Kind,
    lease::Leases,
    retry,
};
use crate::{
    db::{self, Bounded},
    observe::{ErrorKind, LeasesRescued, Rescue},
};

/// Jobs whose worker is gone, or which are past their deadline and grace ($1, in milliseconds);
/// page by page, each after the last id of the one before ($2).
/// Few rows ever run, so the whole partial index `jobs_running` is read. The ids are not compared
/// bare, or statistics of a smaller table would have the whole primary key read in their order.
pub(super) const LOST: &str = "
    SELECT j.id, j.lease_id, j.kind, j.queue, j.crashes, j.worker_id, j.cancel_requested,
           EXISTS (SELECT FROM ingestd.workers w WHERE w.id = j.worker_id AND w.ended_at IS NULL)
             AS alive,
           (SELECT max(n.crashes) FROM ingestd.jobs n
            WHERE n.shard = 0 AND n.worker_id = j.worker_id AND n.state = 'running')
             AS worst_left
    FROM ingestd.jobs j
    WHERE j.shard = 0 AND j.state = 'running'
      AND (NOT EXISTS (SELECT FROM ingestd.workers w
                       WHERE w.id = j.worker_id AND w.ended_at IS NULL)
           OR j.deadline_at + $1 * interval '1 millisecond' < clock_timestamp())
      AND j.id + 0 > $2
    ORDER BY j.id + 0 LIMIT 200 FOR UPDATE OF j SKIP LOCKED";

const BACK: &str = "
    WITH back AS (
      UPDATE ingestd.jobs
      SET state = CASE WHEN $6 >= 2 OR gate_key IS NOT NULL THEN 'held' ELSE 'queued' END,
          lease_id = NULL, worker_id = NULL, deadline_at = NULL,
          attempt = greatest(attempt - 1, 0), crashes = $6, last_error = $3,
          run_at = clock_timestamp() + $4 * interval '1 millisecond'
      WHERE shard = 0 AND id = $1 AND lease_id = $2
      RETURNING shard, id, kind, attempt, started_at)
    INSERT INTO ingestd.job_attempts
      (shard, job_id, kind, attempt, outcome, error_kind, error, worker_id, started_at)
    SELECT shard, id, kind, attempt + 1, 'crash', 'crash', $3, $5, started_at FROM back";

/// The suspects that may be let go, the longest waiting first, with their gate keys: one of each
/// gate, for its next would find it as full, and none while one is at large. Those of a paused
/// queue neither go nor keep others from going.
const CANDIDATES: &str = "
    WITH paused AS MATERIALIZED (
      SELECT coalesce(array_agg(queue), '{}') AS queues
      FROM ingestd.queues WHERE paused_at IS NOT NULL)
    SELECT id, gate_key FROM (
      SELECT DISTINCT ON (gate_key) id, gate_key, run_at FROM ingestd.jobs
      WHERE shard = 0 AND state = 'held' AND crashes >= 2 AND run_at <= now()
        AND queue <> ALL ((SELECT queues FROM paused)::text[])
      ORDER BY gate_key, run_at, id) AS first
    WHERE NOT EXISTS (
        SELECT FROM ingestd.jobs WHERE shard = 0 AND state = 'running' AND crashes >= 2)
      AND NOT EXISTS (
        SELECT FROM ingestd.jobs WHERE shard = 0 AND state = 'queued' AND crashes >= 2
          AND queue <> ALL ((SELECT queues FROM paused)::text[]))
    ORDER BY run_at LIMIT 100";

/// Lets a suspect without a gate go.
const RELEASE: &str = "
    UPDATE ingestd.jobs SET state = 'queued'
    WHERE shard = 0 AND id = (
      SELECT id FROM ingestd.jobs
      WHERE shard = 0 AND id = $1 AND state = 'held' AND crashes >= 2 FOR UPDATE SKIP LOCKED)
    RETURNING ingestd.hint('ingestd_look', queue)";

/// From this many crashes on a job is a suspect.
pub(super) const SUSPECT: i16 = 2;

#[derive(sqlx::FromRow)]
struct LostJob {
    id: i64,
    lease_id: i64,
    kind: String,
    queue: String,
    crashes: i16,
    worker_id: i64,
    cancel_requested: bool,
    /// Whether the worker still has a heartbeat; then the attempt ran past its deadline.
    alive: bool,
    /// The most crashes among the jobs that the same worker still has.
    worst_left: Option<i16>,
}

impl LostJob {
    /// Returns the crashes after this one: bystanders of a suspect are not charged.
    ///
    /// `worst` is the most crashes among all that the worker had.
    fn crashes_now(&self, worst: i16) -> i16 {
        let is_bystander = worst >= SUSPECT && self.crashes < worst;
        if is_bystander && !self.alive {
            self.crashes
        } else {
            self.crashes + 1
        }
    }
}

/// Finds lost leases and decides about them.
pub(super) struct Rescuer<C: 'static> {
    pub(super) db: Bounded,
    pub(super) kinds: Arc<[Kind<C>]>,
    pub(super) lost_after: Duration,
    pub(super) deadline_grace: Duration,
    pub(super) max_crashes: i16,
    /// Per worker the last counter seen and since when it stands still.
    pub(super) seen: Mutex<HashMap<i64, (i64, Instant)>>,
}

impl<C: Send + Sync + 'static> Rescuer<C> {
    /// Looks once; returns how many jobs it took back or buried.
    pub(super) async fn rescue(&self) -> sqlx::Result<usize> {
        self.db
            .run(async |conn| self.give_up_workers(conn).await)
            .await?;
        self.db
            .run(async |conn| batch::settle_lost(conn, self.deadline_grace).await)
            .await?;
        let (mut n_rescued, mut last) = (0, Some(0));
        let mut worst = HashMap::new();
        while let Some(after) = last {
            let n;
            (n, last) = self
                .db
                .run(async |conn| self.rescue_page(conn, after, &mut worst).await)
                .await?;
            n_rescued += n;
        }
        self.release().await?;
        Ok(n_rescued)
    }

    /// Lets the next suspect go where none is at large.
    pub(super) async fn release(&self) -> sqlx::Result<()> {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.name).collect();
        self.db.run(async |conn| release(conn, &kinds).await).await
    }

    /// Hands back what this process's worker runs by the database's account only.
    pub(super) async fn rescue_strays(&self, worker: i64, leases: &Leases) {
        // What a claim brings may be on its way to the leases for two statements' time.
        match hand_back_strays(&self.db, worker, leases, self.lost_after * 3).await {
            Ok(0) => {}
            Ok(n_jobs) => tracing::warn!(
                worker,
                n_jobs,
                "handed back jobs that only the database runs here, as after a failover that lost \
                 their ends"
            ),
            Err(error) => tracing::warn!(error = %error, "rescue waits for the database"),
        }
    }

    /// Ends the life of workers that neither detector hears any more.
    async fn give_up_workers(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        let live: Vec<(i64, i64, bool)> = sqlx::query_as(
            "SELECT id, beat, heartbeat_at < clock_timestamp() - $1 * interval '1 millisecond'
             FROM ingestd.workers WHERE ended_at IS NULL",
        )
        .bind(millis(self.lost_after))
        .fetch_all(&mut *conn)
        .await?;
        let silent = self.silent(&live, Instant::now()).await;
        if silent.is_empty() {
            return Ok(());
        }
        let (ids, beats): (Vec<i64>, Vec<i64>) = silent.into_iter().unzip();
        let lost: Vec<i64> = sqlx::query_scalar(
            "UPDATE ingestd.workers w SET ended_at = now(), end_reason = 'lost'
             FROM unnest($1::bigint[], $2::bigint[]) AS s (id, beat)
             WHERE w.id = s.id AND w.beat = s.beat AND w.ended_at IS NULL RETURNING w.id",
        )
        .bind(&ids)
        .bind(&beats)
        .fetch_all(&mut *conn)
        .await?;
        for worker in lost {
            tracing::warn!(worker, "worker lost: no heartbeat; its jobs are rescued");
        }
        Ok(())
    }

    /// Picks the silent ones among the live, with the counter at which they fell silent.
    async fn silent(&self, live: &[(i64, i64, bool)], now: Instant) -> Vec<(i64, i64)> {
        let mut seen = self.seen.lock().await;
        seen.retain(|id, _| live.iter().any(|worker| worker.0 == *id));
        let mut silent = Vec::new();
        for &(id, beat, overdue) in live {
            let known = seen.entry(id).or_insert((beat, now));
            if known.0 != beat {
                *known = (beat, now);
            }
            let still = now.saturating_duration_since(known.1) > self.lost_after * 3 / 2;
            if overdue || still {
                silent.push((id, beat));
            }
        }
        silent
    }

    /// Decides about one page of lost jobs; returns how many it rescued, and the page's last id.
    ///
    /// Some stay, because nobody here knows their kind or they cannot be buried: the next page
    /// begins after them, so that they hide nobody else.
    async fn rescue_page(
        &self,
        conn: &mut PgConnection,
        after: i64,
        worst: &mut HashMap<i64, i16>,
    ) -> sqlx::Result<(usize, Option<i64>)> {
        let mut tx = conn.begin().await?;
        let lost: Vec<LostJob> = sqlx::query_as(LOST)
            .bind(millis(self.deadline_grace))
            .bind(after)
            .fetch_all(&mut *tx)
            .await?;
        let mut n_rescued = 0;
        for job in &lost {
            // As the first page saw it: later ones no longer see whom it took away.
            let left = job.worst_left.unwrap_or(job.crashes);
            let worst = *worst.entry(job.worker_id).or_insert(left);
            n_rescued += usize::from(self.decide(&mut tx, job, worst).await?);
        }
        tx.commit().await?;
        Ok((n_rescued, lost.last().map(|job| job.id)))
    }

    /// Sends one lost job back, cancels it, or quarantines it; returns whether it did.
    async fn decide(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        job: &LostJob,
        worst: i16,
    ) -> sqlx::Result<bool> {
        let known = self.kinds.iter().find(|kind| kind.name == job.kind);
        let worker = job.worker_id;
        let error = if job.alive {
            format!("worker {worker} hung: the attempt ran past its deadline")
        } else {
            format!("worker {worker} died or fell silent during the attempt")
        };
        if job.cancel_requested {
            super::control::finish_cancelled(tx, job.id, job.lease_id).await?;
            return Ok(true);
        }
        let crashes = job.crashes_now(worst);
        if crashes >= self.max_crashes && crashes > job.crashes {
            if known.is_none() {
                return Ok(false); // a daemon that knows the kind will bury it properly
            }
            let error = format!("killed its worker {crashes} times in a row; last: {error}");
            let grave = Grave {
                reason: Reason::Poison,
                error: &error,
                error_kind: ErrorKind::Crash,
                ended: false,
            };
            // A kind that cannot bury its dead must not keep the others from being rescued.
            let mut burial = tx.begin().await?;
            match bury(&mut burial, &self.kinds, job.id, job.lease_id, &grave).await {
                Ok(_) => burial.commit().await?,
                Err(error) if db::is_transient(&error) => return Err(error),
                Err(error) => {
                    burial.rollback().await?;
                    tracing::error!(job = job.id, error = %error, "cannot bury; tried again");
                    return Ok(false);
                }
            }
            LeasesRescued {
                queue: &job.queue,
                action: Rescue::Dead,
                n: 1,
            }
            .emit();
            return Ok(true);
        }
        // The first crash is most likely the worker's own doing: no wait. Later ones wait.
        let delay = match (known, u16::try_from(job.crashes)) {
            (Some(kind), Ok(before)) if before > 0 && crashes > job.crashes => {
                retry::delay(&kind.retry, before, fastrand::f64())
            }
            _ => Duration::ZERO,
        };
        sqlx::query(BACK)
            .bind(job.id)
            .bind(job.lease_id)
            .bind(&error)
            .bind(millis(delay))
            .bind(worker)
            .bind(crashes)
            .execute(&mut **tx)
            .await?;
        LeasesRescued {
            queue: &job.queue,
            action: Rescue::Retry,
            n: 1,
        }
        .emit();
        Ok(true)
    }
}

/// Lets a suspect go, one with a gate only where that has room. One daemon at a time: two would
/// each let one go.
async fn release(conn: &mut PgConnection, kinds: &[&'static str]) -> sqlx::Result<()> {
    // Each statement must see what the last holder of a lock committed.
    let mut tx = conn.begin_with(gate::BEGIN).await?;
    let mine: bool = sqlx::query_scalar(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('ingestd.suspects', 0))",
    )
    .fetch_one(&mut *tx)
    .await?;
    if !mine {
        return Ok(());
    }
    let candidates: Vec<(i64, Option<String>)> =
        sqlx::query_as(CANDIDATES).fetch_all(&mut *tx).await?;
    for (id, gate_key) in candidates {
        let is_free = match gate_key {
            None => {
                let release = sqlx::query(RELEASE).bind(id).fetch_optional(&mut *tx);
                release.await?.is_some()
            }
            Some(key) => {
                let found = gate::admit(&mut tx, kinds, &[key], 1, true).await?;
                found.values().any(|found| !found.admitted.is_empty())
            }
        };
        if is_free {
            break;
        }
    }
    tx.commit().await
}

/// Hands back what worker $1 runs in queue $2 (null: in all), but for the leases $3. What somebody
/// cancelled is left to [`CANCELLED`]. Of one queue it is what never began: that keeps the slot and
/// the token that its gate admitted it with.
const HAND_BACK: &str = "
    UPDATE ingestd.jobs
    SET state = CASE WHEN gate_key IS NULL THEN 'queued'
          WHEN $2 IS NOT NULL AND NOT (SELECT g.paused FROM ingestd.gate_of(gate_key) g)
          THEN 'queued' ELSE 'held' END,
        lease_id = NULL, worker_id = NULL, deadline_at = NULL,
        attempt = greatest(attempt - 1, 0)
    WHERE shard = 0 AND worker_id = $1 AND state = 'running' AND NOT cancel_requested
      AND ($2::text IS NULL OR queue = $2) AND lease_id <> ALL ($3)";

/// What of the same is cancelled, also while the statement before this one waited for its lock.
const CANCELLED: &str = "
    SELECT id, lease_id FROM ingestd.jobs
    WHERE shard = 0 AND worker_id = $1 AND state = 'running' AND cancel_requested
      AND ($2::text IS NULL OR queue = $2) AND lease_id <> ALL ($3) ORDER BY id";

/// Hands back what a stopping worker did not finish: at once, and not as an attempt.
///
/// What somebody cancelled meanwhile is cancelled: back in the queue it would run again. Returns
/// how many jobs went back.
pub(super) async fn hand_back(pool: &PgPool, worker_id: i64) -> sqlx::Result<u64> {
    let mut conn = pool.acquire().await?;
    let (n_back, _) = hand_back_but(&mut conn, worker_id, None, &[]).await?;
    Ok(n_back)
}

/// Ends a worker's life and hands back, as it was, what it runs within its deadline. Its other jobs
/// are left to be rescued: they are what the process dies of, and are charged with it. So is one that
/// somebody has locked: an attempt whose thread does not turn any more would be waited for in vain.
///
/// Returns how many jobs went back.
pub(super) async fn hand_back_in_time(
    conn: &mut PgConnection,
    worker_id: i64,
) -> sqlx::Result<u64> {
    let mut tx = conn.begin().await?;
    sqlx::query(
        "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'lost'
         WHERE id = $1 AND ended_at IS NULL",
    )
    .bind(worker_id)
    .execute(&mut *tx)
    .await?;
    batch::settle_worker(&mut tx, worker_id, None).await?;
    let back = sqlx::query(
        "UPDATE ingestd.jobs
         SET state = CASE WHEN gate_key IS NULL THEN 'queued' ELSE 'held' END,
             lease_id = NULL, worker_id = NULL, deadline_at = NULL,
             attempt = greatest(attempt - 1, 0)
         WHERE shard = 0 AND id = ANY (ARRAY(
           SELECT id FROM ingestd.jobs
           WHERE shard = 0 AND worker_id = $1 AND state = 'running' AND NOT cancel_requested
             AND deadline_at > clock_timestamp() FOR UPDATE SKIP LOCKED))",
    )
    .bind(worker_id)
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(back.rows_affected())
}

/// Hands back what a worker runs in a queue according to the database, but for the leases that it
/// holds; returns how many jobs. They were claimed by a statement whose answer was lost; one that
/// somebody cancelled since is cancelled.
pub(super) async fn hand_back_unheard(
    db: &Bounded,
    worker_id: i64,
    queue: &str,
    held: &[i64],
) -> sqlx::Result<u64> {
    let handed = db.run(async |conn| hand_back_but(conn, worker_id, Some(queue), held).await);
    let (n_back, n_cancelled) = handed.await?;
    Ok(n_back + n_cancelled)
}

/// Returns how many jobs went back and how many were cancelled instead. Cut off in the middle it
/// may be repeated.
async fn hand_back_but(
    conn: &mut PgConnection,
    worker_id: i64,
    queue: Option<&str>,
    held: &[i64],
) -> sqlx::Result<(u64, u64)> {
    batch::settle_worker(&mut *conn, worker_id, queue).await?;
    let back = sqlx::query(HAND_BACK)
        .bind(worker_id)
        .bind(queue)
        .bind(held)
        .execute(&mut *conn)
        .await?;
    let cancelled: Vec<(i64, i64)> = sqlx::query_as(CANCELLED)
        .bind(worker_id)
        .bind(queue)
        .bind(held)
        .fetch_all(&mut *conn)
        .await?;
    let mut n_cancelled = 0;
    for (id, lease_id) in cancelled {
        let finished = super::control::finish_cancelled(&mut *conn, id, lease_id).await?;
        n_cancelled += u64::from(finished);
    }
    Ok((back.rows_affected(), n_cancelled))
}

/// Hands back what a worker runs according to the database, has not claimed just now and knows
/// nothing of; returns how many jobs.
///
/// A standby that took over may not have had the ends of jobs that this worker saw committed: there
/// they run on, under a worker that is alive, and nobody else would look before their deadlines.
pub(super) async fn hand_back_strays(
    db: &Bounded,
    worker_id: i64,
    leases: &Leases,
    older_than: Duration,
) -> sqlx::Result<u64> {
    const STRAYS: &str = "UPDATE ingestd.jobs
         SET state = CASE WHEN gate_key IS NULL THEN 'queued' ELSE 'held' END,
             lease_id = NULL, worker_id = NULL, deadline_at = NULL,
             attempt = greatest(attempt - 1, 0)
         WHERE shard = 0 AND worker_id = $1 AND state = 'running' AND NOT cancel_requested
           AND lease_id <> ALL ($2)
           AND started_at < clock_timestamp() - $3 * interval '1 millisecond'";
    let back = db.run(async |conn| {
        batch::settle_older(&mut *conn, worker_id, older_than, None).await?;
        let hand_back = sqlx::query(STRAYS)
            .bind(worker_id)
            .bind(leases.held()) // now, and not before a connection was free
            .bind(millis(older_than));
        hand_back.execute(conn).await
    });
    Ok(back.await?.rows_affected())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
