//! Whether the claimers get on: what the service manager's watchdog is fed by.
//!
//! A claimer that panicked, or that waits for what never comes, leaves a daemon
//! that looks alive and takes no jobs of its queue any more. Each says where it
//! is whenever it goes on, and a look from outside tells whether it may be
//! there for so long. A database that is away keeps nobody back: no restart
//! mends it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::slot::Slots;

/// Where a claimer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It waits for a free seat: as long as jobs run.
    Seat,
    /// It waits for the worker to have a life: as long as there is none.
    Session,
    /// It waits for the answer to a claim, which has a time limit.
    Claim,
    /// It waits for the database to be back.
    Database,
    /// It sleeps until the next look.
    Nap,
    /// It ended; right where the daemon stops.
    Ended,
}

/// How far the claimer of one queue is.
#[derive(Debug)]
pub(super) struct Progress {
    queue: Arc<str>,
    slots: Arc<Slots>,
    at: Mutex<(Place, Instant)>,
}

/// Says that the claimer ended when it is dropped, be it by a panic.
#[derive(Debug)]
pub(super) struct Steps(Arc<Progress>);

impl Steps {
    /// Says where the claimer is from now on.
    pub(super) fn at(&self, place: Place) {
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) = (place, Instant::now());
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.at(Place::Ended);
    }
}

impl Progress {
    /// Says whether the claimer is where it should not be any more.
    fn is_stalled(&self, is_alive: bool, limit: Duration, now: Instant) -> bool {
        let (place, since) = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long = now.saturating_duration_since(since) > limit;
        match place {
            Place::Ended => true,
            Place::Database => false,
            Place::Claim | Place::Nap => is_long,
            Place::Seat => is_long && is_alive && self.slots.count().1 == 0,
            Place::Session => is_long && is_alive,
        }
    }
}

/// The claimers of one engine.
#[derive(Debug, Clone)]
pub(super) struct Claims {
    all: Arc<Mutex<Vec<Arc<Progress>>>>,
    /// Longest that a claimer is in one place where it should not stay.
    limit: Duration,
}

impl Claims {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            all: Arc::default(),
            limit,
        }
    }

    /// Adds the claimer of a queue.
    pub(super) fn begin(&self, queue: &Arc<str>, slots: &Arc<Slots>) -> Steps {
        let progress = Arc::new(Progress {
            queue: Arc::clone(queue),
            slots: Arc::clone(slots),
            at: Mutex::new((Place::Session, Instant::now())),
        });
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&progress));
        Steps(progress)
    }

    /// Takes out the claimer of a queue that is not served any more: it ended as it should.
    pub(super) fn end(&self, queue: &str) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|progress| *progress.queue != *queue);
    }

    /// Returns the queues whose claimers do not get on; `is_alive` while the worker has a life.
    pub(super) fn stalled(&self, is_alive: bool) -> Vec<Arc<str>> {
        let (all, now) = (
            self.all.lock().unwrap_or_else(PoisonError::into_inner),
            Instant::now(),
        );
        let stalled = all
            .iter()
            .filter(|p| p.is_stalled(is_alive, self.limit, now));
        stalled.map(|p| Arc::clone(&p.queue)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn claimer() -> (Claims, Steps, Arc<Slots>) {
        let (claims, slots) = (Claims::new(LIMIT), Slots::new(1));
        let steps = claims.begin(&Arc::from("q"), &slots);
        (claims, steps, slots)
    }

    /// Says whether it counts as stalled right away, and past the limit.
    fn seen(steps: &Steps, place: Place, is_alive: bool) -> (bool, bool) {
        steps.at(place);
        let now = Instant::now();
        let at = |now| steps.0.is_stalled(is_alive, LIMIT, now);
        (at(now), at(now + LIMIT * 2))
    }

    #[test]
    fn nobody_may_wait_for_ever_for_what_comes_within_a_time() {
        let (_, steps, _) = claimer();
        assert_eq!(seen(&steps, Place::Claim, true), (false, true));
        assert_eq!(seen(&steps, Place::Nap, true), (false, true));
    }

    #[test]
    fn a_database_that_is_away_is_no_reason() {
        let (_, steps, _) = claimer();
        assert_eq!(seen(&steps, Place::Database, false), (false, false));
        assert_eq!(seen(&steps, Place::Session, false), (false, false));
        assert_eq!(seen(&steps, Place::Session, true), (false, true));
    }

    #[tokio::test]
    async fn a_full_house_is_no_reason_and_an_empty_one_is() {
        let (_, steps, slots) = claimer();
        assert_eq!(seen(&steps, Place::Seat, true), (false, true));
        let seat = slots.room(false).await.seat();
        let slot = seat.slot().await;
        assert_eq!(seen(&steps, Place::Seat, true), (false, false));
        drop(slot);
    }

    #[test]
    fn a_claimer_that_died_is_missed_at_once() {
        let (claims, steps, _) = claimer();
        assert!(claims.stalled(true).is_empty());
        let died = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _steps = steps;
            panic!("on purpose");
        }));
        assert!(died.is_err());
        assert_eq!(claims.stalled(true), [Arc::from("q")]);
    }
}
