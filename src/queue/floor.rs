//! Where a claim begins to look: what was due before that is claimed already.
//!
//! A finished job leaves its entries in `jobs_ready` until a vacuum takes them,
//! and a vacuum takes none while anybody holds a snapshot. A claim would walk
//! over all of them; with a floor under `run_at` it begins where the last one
//! ended. The floor is a little below that, for transactions that commit late,
//! and once a second a claim goes without, for those that commit later still
//! and for whatever was put back with an old `run_at`.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};

/// How far below the newest claimed job the floor lies.
const MARGIN: TimeDelta = TimeDelta::seconds(5);

/// How often a claim goes without a floor.
pub(super) const FULL_LOOK_EVERY: Duration = Duration::from_secs(1);

/// The floors of one queue, by priority.
#[derive(Debug, Default)]
pub(super) struct Floor {
    by_priority: [Option<DateTime<Utc>>; 4],
    /// The same for `batch_leases`: those below are gone.
    pub(super) batches: i64,
    last_full_look: Option<Instant>,
    /// Whether the last claim looked at everything that was due.
    pub(super) was_full: bool,
}

impl Floor {
    /// Returns the floors of the priorities in `order` for a claim at `now`; none for a full look,
    /// which is one by `wish`, or because the last one is a second old.
    pub(super) fn of(
        &mut self,
        order: [i16; 4],
        wish: bool,
        now: Instant,
    ) -> [Option<DateTime<Utc>>; 4] {
        let is_fresh = |last: Instant| now.saturating_duration_since(last) < FULL_LOOK_EVERY;
        self.was_full = wish || !self.last_full_look.is_some_and(is_fresh);
        if self.was_full {
            self.last_full_look = Some(now);
            self.batches = 0;
            return [None; 4];
        }
        order.map(|priority| self.get(priority).copied().flatten())
    }

    /// Moves the floors to just below the newest of the claimed jobs, given as priority and
    /// `run_at`: up as a rule, and down where a full look found older ones, be it that the
    /// database's clock was set back.
    pub(super) fn raise(&mut self, claimed: impl Iterator<Item = (i16, DateTime<Utc>)>) {
        let mut newest = [None; 4];
        for (priority, run_at) in claimed {
            let place = usize::try_from(priority).ok();
            if let Some(newest) = place.and_then(|place| newest.get_mut(place)) {
                *newest = (*newest).max(Some(run_at));
            }
        }
        for (floor, newest) in self.by_priority.iter_mut().zip(newest) {
            *floor = newest.map(|run_at| run_at - MARGIN).or(*floor);
        }
    }

    fn get(&self, priority: i16) -> Option<&Option<DateTime<Utc>>> {
        self.by_priority.get(usize::try_from(priority).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: [i16; 4] = [0, 1, 2, 3];

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(second)
    }

    #[test]
    fn a_claim_begins_a_little_before_where_the_last_one_ended() {
        let (mut floor, now) = (Floor::default(), Instant::now());
        assert_eq!(
            floor.of(ORDER, false, now),
            [None; 4],
            "the first look is full"
        );
        floor.raise([(1, at(100)), (1, at(90)), (3, at(50))].into_iter());
        let floors = [None, Some(at(95)), None, Some(at(45))];
        assert_eq!(floor.of(ORDER, false, now), floors);
        let reversed = [Some(at(45)), None, Some(at(95)), None];
        assert_eq!(floor.of([3, 2, 1, 0], false, now), reversed);
    }

    #[test]
    fn once_a_second_and_by_wish_a_look_is_full() {
        let (mut floor, now) = (Floor::default(), Instant::now());
        floor.of(ORDER, false, now);
        floor.raise([(0, at(100))].into_iter());
        assert_eq!(floor.of(ORDER, true, now), [None; 4]);
        let later = now + FULL_LOOK_EVERY;
        assert_eq!(floor.of(ORDER, false, later), [None; 4]);
        assert_ne!(floor.of(ORDER, false, later), [None; 4]);
    }

    #[test]
    fn a_full_look_is_at_all_batches() {
        let (mut floor, now) = (Floor::default(), Instant::now());
        floor.of(ORDER, false, now);
        floor.batches = 7;
        floor.of(ORDER, false, now);
        assert_eq!(floor.batches, 7);
        floor.of(ORDER, false, now + FULL_LOOK_EVERY);
        assert_eq!(floor.batches, 0);
    }

    #[test]
    fn a_clock_set_back_takes_the_floor_along() {
        let (mut floor, now) = (Floor::default(), Instant::now());
        floor.of(ORDER, false, now);
        floor.raise([(0, at(10_000))].into_iter());
        floor.raise([(0, at(100))].into_iter()); // found by a full look
        assert_eq!(floor.of(ORDER, false, now)[0], Some(at(95)));
    }
}
