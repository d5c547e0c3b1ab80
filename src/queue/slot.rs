//! The slots of one queue in this process, and how far its claims may run ahead of them.
//!
//! A job occupies a *slot* while its handler runs and a *seat* from its claim
//! until its outcome is on its way. There are as many seats as slots, and more
//! where recent attempts were so short that what is claimed ahead begins within
//! moments: a queue of short jobs is then claimed by the hundred and its slots
//! never wait for a round trip.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Most jobs one claim takes, and most that are claimed ahead.
const LARGEST_CLAIM: usize = 500;

/// How soon a job that is claimed ahead should begin, as recent attempts go.
const AHEAD: Duration = Duration::from_millis(50);

/// How long a claim waits for more seats while there is a backlog.
const GATHER: Duration = Duration::from_millis(1);

/// Weight of the newest attempt in the mean run time: one in so many.
const WEIGHT: u64 = 8;

/// The slots and seats of one queue.
#[derive(Debug)]
pub(super) struct Slots {
    n: usize,
    free: Arc<Semaphore>,
    n_seated: AtomicUsize,
    freed: Notify,
    /// Jobs may be claimed ahead.
    is_ahead: AtomicBool,
    /// Mean run time of recent attempts, in nanoseconds; 0 before the first.
    pace: AtomicU64,
}

/// Seats that a claim may fill, kept for it; those it does not fill are free again when dropped.
#[derive(Debug)]
pub(super) struct Room {
    slots: Arc<Slots>,
    n: usize,
}

impl Room {
    /// Returns how many seats are left in it.
    pub(super) const fn len(&self) -> usize {
        self.n
    }

    /// Seats a claimed job.
    pub(super) fn seat(&mut self) -> Seat {
        match self.n.checked_sub(1) {
            Some(left) => self.n = left,
            // More than was asked for: seated all the same, for it runs.
            None => drop(self.slots.n_seated.fetch_add(1, Ordering::AcqRel)),
        }
        Seat(Arc::clone(&self.slots))
    }

    /// Gives seats back until `most` are left.
    pub(super) fn shrink(&mut self, most: usize) {
        let n_less = self.n.saturating_sub(most);
        self.n -= n_less;
        self.slots.free(n_less);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.shrink(0);
    }
}

/// A job's seat, taken at its claim; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat(Arc<Slots>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.free(1);
    }
}

impl Seat {
    /// Waits for a slot, in the order of the calls.
    pub(super) async fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.free).acquire_owned().await.ok() // never closed, so always some
    }

    /// Takes a slot if one is free.
    pub(super) fn free_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.free).try_acquire_owned().ok()
    }

    /// Notes how long an attempt ran.
    pub(super) fn ran(&self, duration: Duration) {
        let newest = u64::try_from(duration.as_nanos())
            .unwrap_or(u64::MAX)
            .max(1);
        // Two at once may lose one of them; it is a mean.
        let mean = self.0.pace.load(Ordering::Relaxed);
        let mean = if mean == 0 {
            newest
        } else {
            mean - mean / WEIGHT + newest / WEIGHT
        };
        self.0.pace.store(mean.max(1), Ordering::Relaxed);
    }
}

impl Slots {
    pub(super) fn new(n: usize) -> Arc<Self> {
        Arc::new(Self {
            n,
            free: Arc::new(Semaphore::new(n)),
            n_seated: AtomicUsize::new(0),
            freed: Notify::new(),
            is_ahead: AtomicBool::new(true),
            pace: AtomicU64::new(0),
        })
    }

    /// Returns how many there are, and how many are taken.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.n, self.n.saturating_sub(self.free.available_permits()))
    }

    /// Says whether no seat is taken: no job is here, and none on its way.
    pub(super) fn is_idle(&self) -> bool {
        self.n_seated.load(Ordering::Acquire) == 0
    }

    /// Says whether jobs may be claimed ahead of the slots: not where what one daemon claims ahead
    /// another could run.
    pub(super) fn claim_ahead(&self, may: bool) {
        self.is_ahead.store(may, Ordering::Relaxed);
    }

    /// Waits for at least one free seat and keeps what a claim may fill.
    ///
    /// While there is a backlog it waits a moment for more of them, so that short jobs are claimed
    /// by the batch and not one by one as they end.
    pub(super) async fn room(self: &Arc<Self>, is_backlog: bool) -> Room {
        let room = self.wait_for(1).await;
        let enough = self.enough();
        if is_backlog && room < enough {
            drop(tokio::time::timeout(GATHER, self.wait_for(enough)).await);
        }
        self.keep()
    }

    /// Waits for room that is worth a claim beside another one.
    pub(super) async fn more_room(self: &Arc<Self>) -> Room {
        self.wait_for(self.enough()).await;
        self.keep()
    }

    fn enough(&self) -> usize {
        (self.n_seats() / 2).clamp(1, LARGEST_CLAIM)
    }

    /// Keeps the free seats, as many as a claim takes. One claimer per queue does so, and only it.
    fn keep(self: &Arc<Self>) -> Room {
        let n = self.n_free().clamp(1, LARGEST_CLAIM);
        self.n_seated.fetch_add(n, Ordering::AcqRel);
        let slots = Arc::clone(self);
        Room { slots, n }
    }

    fn free(&self, n: usize) {
        if n > 0 {
            self.n_seated.fetch_sub(n, Ordering::AcqRel);
            self.freed.notify_one();
        }
    }

    /// Waits until so many seats are free.
    async fn wait_for(&self, n: usize) -> usize {
        loop {
            let freed = self.freed.notified();
            let n_free = self.n_free();
            if n_free >= n {
                return n_free;
            }
            freed.await;
        }
    }

    fn n_free(&self) -> usize {
        let n_seated = self.n_seated.load(Ordering::Acquire);
        self.n_seats().saturating_sub(n_seated)
    }

    /// Returns how many seats there are, as recent attempts go.
    fn n_seats(&self) -> usize {
        if !self.is_ahead.load(Ordering::Relaxed) {
            return self.n;
        }
        let pace = self.pace.load(Ordering::Relaxed);
        let per_slot = u64::try_from(AHEAD.as_nanos())
            .unwrap_or(u64::MAX)
            .checked_div(pace)
            .unwrap_or(0);
        let ahead = usize::try_from(per_slot)
            .unwrap_or(LARGEST_CLAIM)
            .saturating_mul(self.n);
        self.n + ahead.min(LARGEST_CLAIM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_claimed_ahead_before_an_attempt_has_shown_its_length() {
        let slots = Slots::new(10);
        assert_eq!(slots.n_free(), 10);
    }

    #[test]
    fn short_attempts_open_seats_and_one_long_one_closes_them() {
        let slots = Slots::new(10);
        let seat = slots.keep().seat();
        seat.ran(Duration::from_millis(10));
        assert_eq!(slots.n_free(), 10 + 50 - 1, "five per slot within 50 ms");
        seat.ran(Duration::from_secs(10));
        assert_eq!(slots.n_free(), 9);
    }

    #[test]
    fn however_short_the_attempts_seats_have_an_end() {
        let slots = Slots::new(3);
        slots.keep().seat().ran(Duration::ZERO);
        assert_eq!(slots.n_free(), 3 + LARGEST_CLAIM);
    }

    #[tokio::test]
    async fn a_claim_waits_until_a_seat_is_free() {
        let slots = Slots::new(1);
        let seat = slots.keep().seat();
        let room = slots.room(false);
        let freed = async {
            tokio::task::yield_now().await;
            drop(seat);
        };
        assert_eq!(futures::join!(room, freed).0.len(), 1);
    }

    #[test]
    fn seats_kept_for_a_claim_are_free_again_where_it_does_not_fill_them() {
        let slots = Slots::new(10);
        let mut room = slots.keep();
        assert_eq!((room.len(), slots.n_free()), (10, 0));
        let seat = room.seat();
        room.shrink(5);
        assert_eq!((room.len(), slots.n_free()), (5, 4));
        drop(room);
        assert_eq!(slots.n_free(), 9);
        drop(seat);
        assert_eq!(slots.n_free(), 10);
    }
}
