//! 2 of 5: rows become leases.
//!
//! One [`Claimer`] per queue: while seats are free it claims up to as many jobs
//! in one round trip, until a claim comes back short; then it sleeps until a
//! notification, the next due time or the poll interval, whichever is first.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{
    FromRow as _, PgConnection, Row,
    postgres::{PgRow, types::PgInterval},
    types::Json,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    execute::Claimed,
    floor::{FULL_LOOK_EVERY, Floor},
    job::{Lease, LeaseId},
    kind::Kind,
    lease::Leases,
    progress::{Place, Steps},
    rescue,
    rule::{self, LARGEST_FAIR_CLAIM, LIMITED_POLL, Rule},
    session::{Session, Sessions},
    slot::Slots,
    wake::Bell,
};
use crate::{
    db::Bounded,
    observe::{JobClaimed, Wake, WorkerSlots, WorkerWoken},
};

pub(super) const CLAIM: &str = include_str!("claim.sql");
const CLAIM_FAIR: &str = include_str!("claim_fair.sql");

/// The next time something of a queue falls due, in milliseconds from now, and the queue's rule.
pub(super) const NEXT_DUE: &str = "
    SELECT (extract(epoch FROM min(next.run_at) - clock_timestamp()) * 1000)::bigint AS due_ms,
           EXISTS (SELECT FROM ingestd.queues WHERE queue = $1 AND max_running IS NOT NULL)
             AS is_limited,
           EXISTS (SELECT FROM ingestd.queues WHERE queue = $1 AND fair) AS is_fair
    FROM (VALUES (0::smallint), (1), (2), (3)) AS p (priority), LATERAL (
      SELECT run_at FROM ingestd.jobs
      WHERE shard = 0 AND queue = $1 AND priority = p.priority AND state = 'queued'
        AND run_at > now()
      ORDER BY run_at LIMIT 1) AS next";

/// Longest pause after a claim that failed, however rarely this queue is polled.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Every so many claims the priorities are taken in reverse, so that nothing starves.
const REVERSE_EVERY: u64 = 8;

/// The kinds this binary knows, as the claim statement wants them.
#[derive(Debug)]
pub(super) struct KnownKinds {
    pub(super) names: Vec<&'static str>,
    /// Time limits in the order of the names.
    timeouts: Vec<PgInterval>,
    /// Queues of jobs that name none, in the order of the names.
    pub(super) queues: Vec<&'static str>,
}

impl KnownKinds {
    pub(super) fn of<C>(kinds: &[Kind<C>]) -> Self {
        let timeout = |kind: &Kind<C>| PgInterval {
            months: 0,
            days: 0,
            microseconds: i64::try_from(kind.timeout.as_micros()).unwrap_or(i64::MAX / 2),
        };
        Self {
            names: kinds.iter().map(|kind| kind.name).collect(),
            timeouts: kinds.iter().map(timeout).collect(),
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
    pub(super) queue: Arc<str>,
    pub(super) db: Bounded,
    pub(super) kinds: Arc<KnownKinds>,
    pub(super) slots: Arc<Slots>,
    pub(super) floor: Floor,
    pub(super) rule: Rule,
    /// When the rule was last read.
    pub(super) rule_read: Instant,
    /// The tenant whose turn it last was, where tenants take turns.
    pub(super) last_tenant: String,
    pub(super) bell: Arc<Bell>,
    pub(super) session: Sessions,
    pub(super) leases: Leases,
    pub(super) claimed: mpsc::Sender<Claimed>,
    pub(super) stop: CancellationToken,
    pub(super) poll_interval: Duration,
    pub(super) trailing_poll: Duration,
    /// Says where it is, so that others see it get on.
    pub(super) steps: Steps,
}

impl Claimer {
    /// Claims until told to stop. A claim that was sent is waited for: dropped in the middle, it
    /// might commit after everything was handed back.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut turn = 0_u64;
        let mut reason = Wake::Poll;
        loop {
            self.steps.at(Place::Seat);
            let room = self.slots.room(reason == Wake::Drain);
            let Some(room) = stop.run_until_cancelled(room).await else {
                return;
            };
            self.steps.at(Place::Session);
            // Only now: the one before may have ended while all seats were taken.
            let Some(session) = stop.run_until_cancelled(self.session()).await else {
                return;
            };
            WorkerWoken {
                queue: &self.queue,
                reason,
            }
            .emit();
            turn += 1;
            let room = if self.rule.is_fair {
                room.min(LARGEST_FAIR_CLAIM)
            } else {
                room
            };
            self.steps.at(Place::Claim);
            let claim = self.claim(&session, room, turn.is_multiple_of(REVERSE_EVERY));
            match claim.await {
                Ok(got) if got == room => {
                    self.report_slots();
                    reason = Wake::Drain;
                }
                Ok(_) => match stop.run_until_cancelled(self.sleep(reason)).await {
                    Some(woken_by) => reason = woken_by,
                    None => return,
                },
                Err(error) => {
                    tracing::warn!(queue = %self.queue, error = %error, "cannot claim");
                    self.steps.at(Place::Database);
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
        let (n_slots, n_busy) = self.slots.count();
        let [slots, busy] = [n_slots, n_busy].map(|n| u32::try_from(n).unwrap_or(u32::MAX));
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

    /// Claims up to `room` jobs and hands them to execution; returns how many.
    async fn claim(
        &mut self,
        session: &Session,
        room: usize,
        reverse: bool,
    ) -> sqlx::Result<usize> {
        let order = if reverse { [3, 2, 1, 0] } else { [0, 1, 2, 3] };
        let is_full_look = self.bell.look.swap(false, Ordering::AcqRel);
        let began = Instant::now();
        let (rule, queue) = (self.rule, Arc::clone(&self.queue));
        let statement = if rule.is_fair { CLAIM_FAIR } else { CLAIM };
        let mut claim = sqlx::query(statement)
            .bind(&*queue)
            .bind(i64::try_from(room).unwrap_or(1))
            .bind(order)
            .bind(self.floor.of(order, is_full_look, began))
            .bind(session.worker_id)
            .bind(&self.kinds.names)
            .bind(&self.kinds.timeouts)
            .bind(rule.is_any());
        if rule.is_fair {
            claim = claim.bind(&self.last_tenant);
        }
        let claim = async |conn: &mut PgConnection| {
            if rule.is_any() {
                rule::locked(conn, &queue, async |tx| claim.fetch_all(tx).await).await
            } else {
                claim.fetch_all(conn).await
            }
        };
        let rows = self.db.run(claim).await?;
        JobClaimed {
            queue: &self.queue,
            n: rows.len(),
            duration: began.elapsed(),
        }
        .emit();
        let mut found = rows
            .iter()
            .map(|row| self.found(row))
            .collect::<sqlx::Result<Vec<_>>>()?;
        if rule.is_fair {
            self.take_turns(&rows, room).await?;
        }
        self.floor
            .raise(found.iter().map(|f| (f.lease.priority, f.run_at)));
        // The UPDATE returns rows as it meets them; start them as they were due.
        let turn = |priority: i16| order.iter().position(|p| *p == priority);
        found.sort_by_key(|f| (f.place, turn(f.lease.priority), f.run_at, f.lease.id));
        let n_claimed = found.len();
        for Found { lease, .. } in found {
            let cancel = session.cancel.child_token();
            self.leases.insert(lease.lease_id, cancel.clone());
            let claimed = Claimed {
                lease: Arc::new(lease),
                worker_id: session.worker_id,
                cancel,
                session: session.cancel.clone(),
                seat: self.slots.seat(),
            };
            if self.claimed.send(claimed).await.is_err() {
                break; // stopping: the rest is handed back with everything unfinished
            }
        }
        Ok(n_claimed)
    }

    /// Remembers whose turn it was, for the next claim to begin after.
    async fn take_turns(&mut self, rows: &[PgRow], room: usize) -> sqlx::Result<()> {
        // A claim that the queue's limit cut off is not short: the next one begins after it.
        let mut asked = i64::try_from(room).unwrap_or(i64::MAX);
        if let Some(row) = rows.first() {
            self.last_tenant = row.try_get("last_tenant")?;
            asked = row.try_get("n_open")?;
        }
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) < asked {
            let (queue, cursor) = (&*self.queue, &*self.last_tenant);
            let next = self
                .db
                .run(async |conn| rule::pass_over(conn, queue, cursor).await)
                .await;
            self.last_tenant = next.unwrap_or_default();
        }
        Ok(())
    }

    /// Sleeps until there may be work again and says what ended the sleep.
    async fn sleep(&mut self, woken_by: Wake) -> Wake {
        self.report_slots();
        self.steps.at(Place::Nap);
        let bell = Arc::clone(&self.bell);
        let wake = bell.rung.notified();
        // Whoever inserted while another transaction held the notification relies on this look.
        if matches!(woken_by, Wake::Notify | Wake::Drain) {
            // Under a stream of notifications a new rule would else never be learnt.
            if self.rule_read.elapsed() >= self.poll_interval {
                self.next_due().await;
            }
            return tokio::select! {
                () = wake => Wake::Notify,
                () = tokio::time::sleep(self.trailing_poll) => Wake::Timer,
            };
        }
        // What lies below the floor must not wait for a rare poll, nor room that others made.
        let longest = if self.rule.is_limited {
            self.poll_interval.min(LIMITED_POLL)
        } else if self.floor.was_full {
            self.poll_interval
        } else {
            self.poll_interval.min(FULL_LOOK_EVERY)
        };
        let due = self.next_due().await.unwrap_or(longest);
        let (nap, reason) = if due < longest {
            (due, Wake::Timer)
        } else {
            (longest, Wake::Poll)
        };
        tokio::select! {
            () = wake => Wake::Notify,
            () = tokio::time::sleep(nap) => reason,
        }
    }

    /// Returns how soon the next job falls due, and reads the queue's rule along with it.
    async fn next_due(&mut self) -> Option<Duration> {
        let next = sqlx::query(NEXT_DUE).bind(&*self.queue);
        let row = self.db.run(async |conn| next.fetch_one(conn).await).await;
        let row = row.ok()?;
        if let Ok(rule) = Rule::from_row(&row) {
            self.rule = rule;
            self.rule_read = Instant::now();
            self.slots.claim_ahead(!rule.is_limited);
            self.bell.limited.store(rule.is_limited, Ordering::Release);
        }
        let due: Option<i64> = row.try_get("due_ms").ok()?;
        // One that fell due meanwhile is due at once.
        due.map(|ms| u64::try_from(ms).unwrap_or(0))
            .map(Duration::from_millis)
    }
}

/// A claimed row.
struct Found {
    lease: Lease,
    run_at: DateTime<Utc>,
    /// Where tenants take turns, its place among what was claimed with it; else 0.
    place: i64,
}

impl Claimer {
    fn found(&self, row: &PgRow) -> sqlx::Result<Found> {
        let kind: &str = row.try_get("kind")?;
        let known = self.kinds.names.iter().find(|name| **name == kind);
        let Some(kind) = known.copied() else {
            return Err(sqlx::Error::Decode("claimed an unknown kind".into()));
        };
        let [run_at, created_at, started_at] = ["run_at", "created_at", "started_at"]
            .map(|column| row.try_get::<DateTime<Utc>, _>(column));
        let (run_at, started_at) = (run_at?, started_at?);
        let Json(args) = row.try_get("args")?;
        let lease = Lease {
            id: row.try_get("id")?,
            lease_id: LeaseId(row.try_get("lease_id")?),
            kind,
            queue: Arc::clone(&self.queue),
            priority: row.try_get("priority")?,
            args,
            attempt: row.try_get("attempt")?,
            crashes: row.try_get("crashes")?,
            max_attempts: row.try_get("max_attempts")?,
            run_id: row.try_get("run_id")?,
            tenant: row.try_get("tenant")?,
            gate_key: row.try_get("gate_key")?,
            waited_ms: (started_at - run_at).num_milliseconds(),
            age_ms: (started_at - created_at?).num_milliseconds(),
        };
        let place = if self.rule.is_fair {
            row.try_get("place")?
        } else {
            0
        };
        Ok(Found {
            lease,
            run_at,
            place,
        })
    }
}
