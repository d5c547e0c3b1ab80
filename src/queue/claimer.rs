//! When to claim: one [`Claimer`] per queue.
//!
//! While seats are free it claims up to as many jobs in one round trip, and beside that a second
//! time where there is a backlog, so that the database works on the next claim while this process
//! hands on the last. Once a claim comes back short it sleeps until a notification, the next due
//! time or the poll interval, whichever is first.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use sqlx::{FromRow as _, Row};
use tokio::{
    sync::mpsc,
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    claim::{Claim, Found, KnownKinds, Landed},
    execute::Claimed,
    floor::{FULL_LOOK_EVERY, Floor},
    lease::Leases,
    nobody::Nobody,
    progress::{Place, Steps},
    rescue,
    rule::{LARGEST_FAIR_CLAIM, LIMITED_POLL, Rule},
    session::{Session, Sessions},
    slot::{Room, Slots},
    wake::Bell,
};
use crate::{
    db::Bounded,
    observe::{JobClaimed, Wake, WorkerSlots, WorkerWoken},
};

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

/// Most claims of one queue that are on their way at once.
const MOST_AT_ONCE: usize = 2;

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
    /// There, where jobs without a tenant are looked for.
    pub(super) nobody: Nobody,
    /// From how many jobs on a claim under a backlog leases them in a batch; 0 never, 1 always.
    pub(super) worth_a_batch: usize,
    /// Claims sent so far.
    pub(super) turn: u64,
    /// For whom claims were sent whose answer was lost.
    pub(super) unheard: Vec<Arc<Session>>,
    pub(super) bell: Arc<Bell>,
    pub(super) session: Sessions,
    pub(super) leases: Leases,
    pub(super) claimed: mpsc::Sender<Vec<Claimed>>,
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
        let mut flights = JoinSet::new();
        let (mut reason, mut is_short) = (Wake::Poll, false);
        // Without anybody to run what it claims it ends, and is missed.
        while !stop.is_cancelled() && !self.claimed.is_closed() {
            let place = if flights.is_empty() {
                Place::Seat
            } else {
                Place::Claim
            };
            self.steps.at(place);
            let may_ask = !is_short && self.may_ask(reason, flights.len());
            tokio::select! {
                () = stop.cancelled() => {}
                claim = self.next(reason, flights.len()), if may_ask => {
                    flights.spawn(claim.run());
                }
                Some(landed) = flights.join_next() => {
                    is_short = !self.land(landed).await;
                    if !is_short {
                        reason = Wake::Drain;
                    }
                }
            }
            if !flights.is_empty() {
                continue; // the last to land decides, and is the last that may claim unheard
            }
            if !self.unheard.is_empty() {
                self.steps.at(Place::Database);
                stop.run_until_cancelled(self.hand_back_unheard()).await;
                (reason, is_short) = (Wake::Poll, false);
            } else if is_short
                && let Some(woken_by) = stop.run_until_cancelled(self.sleep(reason)).await
            {
                (reason, is_short) = (woken_by, false);
            }
        }
        while let Some(landed) = flights.join_next().await {
            self.land(landed).await;
        }
    }

    /// Says whether a claim may be sent beside those on their way.
    fn may_ask(&self, reason: Wake, n_flights: usize) -> bool {
        // Those with a rule count what runs, or begin where the last one ended.
        let may_two = reason == Wake::Drain && !self.rule.is_any();
        self.unheard.is_empty() && n_flights < if may_two { MOST_AT_ONCE } else { 1 }
    }

    /// Waits for room and a session, and returns the next claim.
    async fn next(&mut self, reason: Wake, n_flights: usize) -> Claim {
        let mut room = if n_flights > 0 {
            self.slots.more_room().await
        } else {
            self.slots.room(reason == Wake::Drain).await
        };
        if self.rule.is_fair {
            room.shrink(LARGEST_FAIR_CLAIM);
        }
        if n_flights == 0 {
            self.steps.at(Place::Session);
        }
        // Only now: the one before may have ended while all seats were taken.
        let session = self.session().await;
        WorkerWoken {
            queue: &self.queue,
            reason,
        }
        .emit();
        self.turn += 1;
        let is_reverse = self.turn.is_multiple_of(REVERSE_EVERY);
        let order = if is_reverse {
            [3, 2, 1, 0]
        } else {
            [0, 1, 2, 3]
        };
        // After a nap there will be few: one is what is waited for.
        let n_expected = if reason == Wake::Drain { room.len() } else { 1 };
        let is_batch = (1..=n_expected).contains(&self.worth_a_batch) && !self.rule.is_any();
        let is_full_look = self.bell.look.swap(false, Ordering::AcqRel);
        Claim {
            queue: Arc::clone(&self.queue),
            db: self.db.clone(),
            kinds: Arc::clone(&self.kinds),
            rule: self.rule,
            session,
            room,
            order,
            floors: self.floor.of(order, is_full_look, Instant::now()),
            batches_since: self.floor.batches,
            last_tenant: self.last_tenant.clone(),
            nobody: self.nobody,
            looks_for_nobodys: is_reverse,
            is_batch,
            n_open: 0,
        }
    }

    /// Hands on what a claim brought; returns whether there may be more.
    async fn land(&mut self, landed: Result<Landed, JoinError>) -> bool {
        let (queue, session) = (&self.queue, self.session.borrow().clone());
        let landed = match landed {
            Ok(landed) => landed,
            Err(error) => {
                tracing::error!(%queue, error = %error, "claim broke off");
                self.unheard.extend(session);
                return true;
            }
        };
        match landed.found {
            Ok(found) => {
                JobClaimed {
                    queue,
                    n: found.len(),
                    duration: landed.duration,
                }
                .emit();
                (self.last_tenant, self.nobody) = (landed.last_tenant, landed.nobody);
                let newest = found.iter().map(|f| (f.lease.priority, f.run_at));
                self.floor.raise(newest);
                self.floor.batches = landed.batches_since;
                self.hand_on(found, &landed.session, landed.room).await;
                if landed.is_full {
                    self.report_slots();
                }
                landed.is_full
            }
            Err(error) => {
                tracing::warn!(%queue, error = %error, "cannot claim");
                self.unheard.push(landed.session);
                true
            }
        }
    }

    async fn hand_on(&self, found: Vec<Found>, session: &Session, mut room: Room) {
        let claimed = found.into_iter().map(|Found { lease, .. }| {
            let cancel = session.cancel.child_token();
            self.leases
                .insert(lease.lease_id, lease.batch_id, cancel.clone());
            Claimed {
                lease: Arc::new(lease),
                worker_id: session.worker_id,
                cancel,
                session: session.cancel.clone(),
                seat: room.seat(),
            }
        });
        let claimed: Vec<_> = claimed.collect();
        drop(room);
        if claimed.is_empty() {
            return;
        }
        if let Err(mpsc::error::SendError(claimed)) = self.claimed.send(claimed).await {
            // Nobody holds them, so they are found and handed back.
            let leases = claimed.iter().map(|claimed| claimed.lease.lease_id);
            self.leases.abandon(leases);
        }
    }

    /// Hands back what claims got whose answer was lost: they may have been committed.
    ///
    /// No claim of this worker from this queue is on its way, so what runs there without anybody
    /// here knowing is such a job. Tries until the database is back; nothing can be claimed
    /// before that either.
    async fn hand_back_unheard(&mut self) {
        while let Some(session) = self.unheard.last() {
            tokio::time::sleep(self.poll_interval.min(LONGEST_PAUSE)).await;
            let (worker, held) = (session.worker_id, self.leases.held());
            match rescue::hand_back_unheard(&self.db, worker, &self.queue, &held).await {
                Ok(n_jobs) => {
                    self.unheard.retain(|session| session.worker_id != worker);
                    if n_jobs > 0 {
                        tracing::info!(queue = %self.queue, n_jobs, "handed back, claimed without an answer");
                    }
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
