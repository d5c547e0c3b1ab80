//! Leases of a large claim in one row, until those of its jobs that last get rows of their own.
//!
//! A claim of many jobs writes one row of `ingestd.batch_leases` and leaves the rows of the jobs as
//! they are: most are finished a moment later, and a row that is not rewritten costs a third less.
//! What is not finished soon is *settled*: it becomes `running` in its own row, as after any other
//! claim, for all who look at it there. The worker does so after [`SETTLE_AFTER`]; whoever is to
//! change a job does so before, and a rescue does it for the dead.
//!
//! The fence is the same in both forms: a lease ends a job if the row names it, or names none and
//! no later one was taken from it (`last_lease_id`).

use std::{collections::HashSet, time::Duration};

use sqlx::{Connection, PgConnection, Postgres, Transaction, postgres::PgConnectOptions};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::{
    job::{JobId, Lease},
    lease::Leases,
    session::Sessions,
};

/// The pause between two looks; jobs are settled after one or two of them.
const SETTLE_AFTER: Duration = Duration::from_millis(100);

/// Every so many looks the database is asked for batches that this process does not know of.
const LOOK_EVERY: u32 = 50;

/// How often what is locked is looked at again, a second in all.
const MOST_LOOKS: u32 = 40;
const LOCKED_POLL: Duration = Duration::from_millis(25);

/// Settles what a worker claimed so long ago ($2, in milliseconds), or before the clock was set
/// back; of queue $3 alone where it is given.
const SETTLE_WORKER: &str = "
    SELECT ingestd.settle_batches(b.ids)
    FROM (SELECT array_agg(id) AS ids FROM ingestd.batch_leases
          WHERE worker_id = $1 AND ($3::text IS NULL OR queue = $3)
            AND (started_at <= clock_timestamp() - $2 * interval '1 millisecond'
                 OR started_at > clock_timestamp())) AS b
    WHERE b.ids IS NOT NULL";

/// Settles what a worker claimed by the database's account, but for the batches $2.
const SETTLE_UNKNOWN: &str = "
    SELECT ingestd.settle_batches(b.ids)
    FROM (SELECT array_agg(id) AS ids FROM ingestd.batch_leases
          WHERE worker_id = $1 AND id <> ALL ($2)) AS b
    WHERE b.ids IS NOT NULL";

/// Settles what the dead hold, and what is so far past its deadline ($1, in milliseconds) that its
/// worker must hang.
const SETTLE_LOST: &str = "
    SELECT ingestd.settle_batches(b.ids)
    FROM (SELECT array_agg(id) AS ids FROM ingestd.batch_leases l
          WHERE NOT EXISTS (SELECT FROM ingestd.workers w
                            WHERE w.id = l.worker_id AND w.ended_at IS NULL)
             OR l.started_at + l.time_limit + $1 * interval '1 millisecond' < clock_timestamp()) AS b
    WHERE b.ids IS NOT NULL";

/// Settles one job for its own attempt, in the attempt's transaction.
const SETTLE_OWN: &str = "
    UPDATE ingestd.jobs j
    SET state = 'running', lease_id = $2, worker_id = b.worker_id, attempt = j.attempt + 1,
        started_at = b.started_at, deadline_at = b.started_at + b.time_limit,
        cancel_requested = false
    FROM ingestd.batch_leases b
    WHERE b.id = $3 AND b.worker_id = $4 AND j.shard = 0 AND j.id = $1 AND j.state || '' = 'queued'
      AND coalesce(j.last_lease_id, 0) < $2";

/// Settles jobs and keeps everybody from claiming the others until the transaction ends.
pub(super) async fn settle(conn: &mut PgConnection, ids: &[i64]) -> sqlx::Result<()> {
    sqlx::query("SELECT ingestd.settle($1)")
        .bind(ids)
        .execute(conn)
        .await?;
    Ok(())
}

/// Begins a transaction in which somebody changes a job, which is settled first.
pub(super) async fn begin(
    conn: &mut PgConnection,
    id: JobId,
) -> sqlx::Result<Transaction<'_, Postgres>> {
    let mut tx = conn.begin().await?;
    settle(&mut tx, &[id.0]).await?;
    Ok(tx)
}

/// Settles all that a worker has claimed in batches, or what of it is of `queue`.
///
/// What somebody has locked is waited for, but not for ever: it stays in its batch then.
pub(super) async fn settle_worker(
    conn: &mut PgConnection,
    worker_id: i64,
    queue: Option<&str>,
) -> sqlx::Result<()> {
    for _ in 0..MOST_LOOKS {
        settle_older(&mut *conn, worker_id, Duration::ZERO, queue).await?;
        let is_left: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM ingestd.batch_leases
                            WHERE worker_id = $1 AND ($2::text IS NULL OR queue = $2))",
        )
        .bind(worker_id)
        .bind(queue)
        .fetch_one(&mut *conn)
        .await?;
        if !is_left {
            break;
        }
        tokio::time::sleep(LOCKED_POLL).await;
    }
    Ok(())
}

/// As [`settle_worker`], what was claimed at least so long ago and nobody has locked.
pub(super) async fn settle_older(
    conn: &mut PgConnection,
    worker_id: i64,
    age: Duration,
    queue: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(SETTLE_WORKER)
        .bind(worker_id)
        .bind(millis(age))
        .bind(queue)
        .execute(conn)
        .await?;
    Ok(())
}

/// Settles what nobody will settle any more, for a rescue to find it.
pub(super) async fn settle_lost(conn: &mut PgConnection, grace: Duration) -> sqlx::Result<()> {
    sqlx::query(SETTLE_LOST)
        .bind(millis(grace))
        .execute(conn)
        .await?;
    Ok(())
}

/// Settles an attempt's own job, where it was claimed in a batch and that is not yet done.
pub(super) async fn settle_own(conn: &mut PgConnection, lease: &Lease) -> sqlx::Result<()> {
    if let Some(batch) = lease.batch_id {
        sqlx::query(SETTLE_OWN)
            .bind(lease.id)
            .bind(lease.lease_id)
            .bind(batch)
            .bind(lease.worker_id)
            .execute(conn)
            .await?;
    }
    Ok(())
}

/// Settles what this process has claimed in batches and not finished in time.
///
/// It runs beside the heartbeat and has a connection of its own, as that has: handlers that block
/// every thread of theirs must not keep others from seeing that they run.
#[derive(Debug)]
pub(super) struct Settler {
    pub(super) options: PgConnectOptions,
    /// Longest wait for an answer.
    pub(super) limit: Duration,
    pub(super) leases: Leases,
    pub(super) session: Sessions,
    /// Fires when everything is finished or handed back.
    pub(super) finished: CancellationToken,
}

impl Settler {
    /// Looks every [`SETTLE_AFTER`] and settles what was there at the look before: by this process's
    /// clock, which nobody sets back.
    pub(super) async fn run(self) {
        let (mut conn, mut n_ticks, mut before) = (None, 0, HashSet::new());
        let mut ticks = tokio::time::interval(SETTLE_AFTER);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self
            .finished
            .run_until_cancelled(ticks.tick())
            .await
            .is_some()
        {
            n_ticks = (n_ticks + 1) % LOOK_EVERY;
            let open = self.leases.batches();
            let old: Vec<i64> = open.intersection(&before).copied().collect();
            // Now and then whatever this process believes: an answer may have been lost.
            let worker = self.session.borrow().as_ref().map(|life| life.worker_id);
            let worker = worker.filter(|_| n_ticks == 0);
            let known: Vec<i64> = open.iter().copied().collect();
            before = open;
            if old.is_empty() && worker.is_none() {
                continue;
            }
            let look = self.look(&mut conn, &old, worker, &known);
            let look = tokio::time::timeout(self.limit, look);
            match look.await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(left) => self.leases.settled(&old, &left),
                Err(error) => {
                    tracing::debug!(error = %error, "settling waits for the database");
                    conn = None;
                }
            }
        }
    }

    /// Settles batches, and what `worker` has, where it is given, beside those that are known; returns
    /// those of the batches that somebody has jobs of locked.
    async fn look(
        &self,
        conn: &mut Option<PgConnection>,
        old: &[i64],
        worker: Option<i64>,
        known: &[i64],
    ) -> sqlx::Result<Vec<i64>> {
        let conn = match conn {
            Some(conn) => conn,
            None => conn.insert(PgConnection::connect_with(&self.options).await?),
        };
        if let Some(worker) = worker {
            sqlx::query(SETTLE_UNKNOWN)
                .bind(worker)
                .bind(known)
                .execute(&mut *conn)
                .await?;
        }
        sqlx::query("SELECT ingestd.settle_batches($1)")
            .bind(old)
            .execute(&mut *conn)
            .await?;
        sqlx::query_scalar("SELECT id FROM ingestd.batch_leases WHERE id = ANY ($1)")
            .bind(old)
            .fetch_all(conn)
            .await
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
