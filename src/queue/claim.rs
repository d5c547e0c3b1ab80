//! 2 of 5: rows become leases.
//!
//! One [`Claimer`] per queue: while slots are free it claims up to as many jobs
//! in one round trip, until a claim comes back short; then it sleeps until a
//! notification, the next due time or the poll interval, whichever is first.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Row, postgres::PgRow};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    execute::Claimed,
    job::{Lease, LeaseId},
    kind::Kind,
    lease::Leases,
    rescue,
    session::{Session, Sessions},
};
use crate::{
    db::Bounded,
    observe::{JobClaimed, Wake, WorkerSlots, WorkerWoken},
};

const CLAIM: &str = include_str!("claim.sql");

/// The next time something of a queue falls due, in milliseconds from now.
const NEXT_DUE: &str = "
    SELECT (extract(epoch FROM min(next.run_at) - clock_timestamp()) * 1000)::bigint
    FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
      SELECT run_at FROM ingestd.jobs
      WHERE shard = 0 AND queue = $1 AND priority = p.priority AND state = 'queued'
        AND run_at > now()
      ORDER BY run_at LIMIT 1) AS next";

/// How long a claim waits for more slots while there is a backlog.
const GATHER: Duration = Duration::from_millis(1);

/// Longest pause after a claim that failed, however rarely this queue is polled.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Most jobs one claim takes.
const LARGEST_CLAIM: usize = 500;

/// Every so many claims the priorities are taken in reverse, so that nothing starves.
const REVERSE_EVERY: u64 = 8;

/// The kinds this binary knows, as the claim statement wants them.
#[derive(Debug)]
pub(super) struct KnownKinds {
    pub(super) names: Vec<&'static str>,
    /// Time limits, in milliseconds, in the order of the names.
    pub(super) timeouts_ms: Vec<i64>,
    /// Queues of jobs that name none, in the order of the names.
    pub(super) queues: Vec<&'static str>,
}

impl KnownKinds {
    pub(super) fn of<C>(kinds: &[Kind<C>]) -> Self {
        let millis = |kind: &Kind<C>| i64::try_from(kind.timeout.as_millis());
        Self {
            names: kinds.iter().map(|kind| kind.name).collect(),
            timeouts_ms: kinds
                .iter()
                .map(|kind| millis(kind).unwrap_or(i64::MAX / 2))
                .collect(),
            queues: kinds.iter().map(|kind| kind.queue).collect(),
        }
    }

    /// Returns the queue of jobs of a kind that name none.
    pub(super) fn queue_of(&self, kind: &str) -> Option<&'static str> {
        let place = self.names.iter().position(|name| *name == kind)?;
        self.queues.get(place).copied()
    }
}

/// Claims the jobs of one queue.
pub(super) struct Claimer {
    pub(super) queue: String,
    pub(super) db: Bounded,
    pub(super) kinds: Arc<KnownKinds>,
    pub(super) slots: Arc<Semaphore>,
    /// How many there are in all.
    pub(super) n_slots: usize,
    pub(super) wake: Arc<Notify>,
    pub(super) session: Sessions,
    pub(super) leases: Leases,
    pub(super) claimed: mpsc::Sender<Claimed>,
    pub(super) stop: CancellationToken,
    pub(super) poll_interval: Duration,
    pub(super) trailing_poll: Duration,
}

impl Claimer {
    /// Claims until told to stop. A claim that was sent is waited for: dropped in the middle, it
    /// might commit after everything was handed back.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut turn = 0_u64;
        let mut reason = Wake::Poll;
        loop {
            let Some(Some(slots)) = stop.run_until_cancelled(self.free_slots(reason)).await else {
                return;
            };
            // Only now: the one before may have ended while all slots were taken.
            let Some(session) = stop.run_until_cancelled(self.session()).await else {
                return;
            };
            WorkerWoken {
                queue: &self.queue,
                reason,
            }
            .emit();
            turn += 1;
            let asked = slots.len();
            match self
                .claim(&session, slots, turn.is_multiple_of(REVERSE_EVERY))
                .await
            {
                Ok(got) if got == asked => {
                    self.report_slots();
                    reason = Wake::Drain;
                }
                Ok(_) => match stop.run_until_cancelled(self.sleep(reason)).await {
                    Some(woken_by) => reason = woken_by,
                    None => return,
                },
                Err(error) => {
                    tracing::warn!(queue = %self.queue, error = %error, "cannot claim");
                    let unheard = self.hand_back_unheard(&session);
                    if stop.run_until_cancelled(unheard).await.is_none() {
                        return;
                    }
                    reason = Wake::Poll;
                }
            }
        }
    }

    /// Hands back what a claim got whose answer was lost: it may have been committed.
    ///
    /// Nobody else claims for this worker from this queue, so what runs there without anybody
    /// here knowing is such a job. Tries until the database is back; nothing can be claimed
    /// before that either.
    async fn hand_back_unheard(&self, session: &Session) {
        loop {
            tokio::time::sleep(self.poll_interval.min(LONGEST_PAUSE)).await;
            let (worker, held) = (session.worker_id, self.leases.held());
            match rescue::hand_back_unheard(&self.db, worker, &self.queue, &held).await {
                Ok(0) => return,
                Ok(n_jobs) => {
                    tracing::info!(queue = %self.queue, n_jobs, "handed back, claimed without an answer");
                    return;
                }
                Err(error) => {
                    tracing::warn!(queue = %self.queue, error = %error, "claims wait for the database");
                }
            }
        }
    }

    fn report_slots(&self) {
        let n_busy = self.n_slots.saturating_sub(self.slots.available_permits());
        let [slots, busy] = [self.n_slots, n_busy].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        WorkerSlots {
            queue: &self.queue,
            slots,
            busy,
        }
        .emit();
    }

    /// Waits for a session: without a heartbeat nothing may be claimed.
    async fn session(&mut self) -> Arc<Session> {
        loop {
            if let Some(session) = self.session.borrow_and_update().clone() {
                return session;
            }
            if self.session.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for at least one free slot and takes all that are free; `None` once closed.
    ///
    /// While there is a backlog it waits a moment for half of them, so that short jobs are
    /// claimed by the batch and not one by one as they end.
    async fn free_slots(&self, reason: Wake) -> Option<Vec<OwnedSemaphorePermit>> {
        let mut slots = vec![Arc::clone(&self.slots).acquire_owned().await.ok()?];
        if reason == Wake::Drain && self.slots.available_permits() < self.n_slots / 2 {
            let half = u32::try_from(self.n_slots / 2).unwrap_or(u32::MAX);
            drop(tokio::time::timeout(GATHER, self.slots.acquire_many(half)).await);
        }
        while slots.len() < LARGEST_CLAIM
            && let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned()
        {
            slots.push(slot);
        }
        Some(slots)
    }

    /// Claims one job per slot at most and hands them to execution; returns how many.
    async fn claim(
        &self,
        session: &Session,
        slots: Vec<OwnedSemaphorePermit>,
        reverse: bool,
    ) -> sqlx::Result<usize> {
        let order: [i16; 4] = if reverse { [3, 2, 1, 0] } else { [0, 1, 2, 3] };
        let [first, second, third, fourth] = order;
        let began = Instant::now();
        let claim = sqlx::query(CLAIM)
            .bind(&self.queue)
            .bind(i64::try_from(slots.len()).unwrap_or(1))
            .bind(first)
            .bind(second)
            .bind(third)
            .bind(fourth)
            .bind(session.worker_id)
            .bind(&self.kinds.names)
            .bind(&self.kinds.timeouts_ms);
        let mut rows = self
            .db
            .run(async |conn| claim.fetch_all(conn).await)
            .await?;
        JobClaimed {
            queue: &self.queue,
            n: rows.len(),
            duration: began.elapsed(),
        }
        .emit();
        // The UPDATE returns rows as it meets them; start them as they were due.
        rows.sort_by_key(|row| {
            let priority: i16 = row.get("priority");
            let turn = order.iter().position(|p| *p == priority);
            (
                turn,
                std::cmp::Reverse(row.get::<i64, _>("waited_ms")),
                row.get::<i64, _>("id"),
            )
        });
        let n_claimed = rows.len();
        for (row, slot) in rows.iter().zip(slots) {
            let lease = Arc::new(lease(row)?);
            let cancel = session.cancel.child_token();
            self.leases.insert(lease.lease_id, cancel.clone());
            let (worker_id, session) = (session.worker_id, session.cancel.clone());
            let claimed = Claimed {
                lease,
                worker_id,
                cancel,
                session,
                slot,
            };
            if self.claimed.send(claimed).await.is_err() {
                break; // stopping: the rest is handed back with everything unfinished
            }
        }
        Ok(n_claimed)
    }

    /// Sleeps until there may be work again and says what ended the sleep.
    async fn sleep(&self, woken_by: Wake) -> Wake {
        self.report_slots();
        let wake = self.wake.notified();
        // Whoever inserted while another transaction held the notification relies on this look.
        if matches!(woken_by, Wake::Notify | Wake::Drain) {
            return tokio::select! {
                () = wake => Wake::Notify,
                () = tokio::time::sleep(self.trailing_poll) => Wake::Timer,
            };
        }
        let due = self.next_due().await.unwrap_or(self.poll_interval);
        let (nap, reason) = if due < self.poll_interval {
            (due, Wake::Timer)
        } else {
            (self.poll_interval, Wake::Poll)
        };
        tokio::select! {
            () = wake => Wake::Notify,
            () = tokio::time::sleep(nap) => reason,
        }
    }

    async fn next_due(&self) -> Option<Duration> {
        let next = sqlx::query_scalar(NEXT_DUE).bind(&self.queue);
        let next: Result<Option<i64>, _> =
            self.db.run(async |conn| next.fetch_one(conn).await).await;
        next.ok()
            .flatten()
            .and_then(|ms| u64::try_from(ms).ok())
            .map(Duration::from_millis)
    }
}

fn lease(row: &PgRow) -> sqlx::Result<Lease> {
    Ok(Lease {
        id: row.try_get("id")?,
        lease_id: LeaseId(row.try_get("lease_id")?),
        kind: row.try_get("kind")?,
        queue: row.try_get("queue")?,
        priority: row.try_get("priority")?,
        args: row.try_get("args")?,
        attempt: row.try_get("attempt")?,
        crashes: row.try_get("crashes")?,
        max_attempts: row.try_get("max_attempts")?,
        run_id: row.try_get("run_id")?,
        tenant: row.try_get("tenant")?,
        waited_ms: row.try_get("waited_ms")?,
        age_ms: row.try_get("age_ms")?,
    })
}
