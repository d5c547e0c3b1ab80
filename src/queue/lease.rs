//! The leases this process holds: which there are, and who must be told when one is cancelled.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::job::LeaseId;

/// The leases from their claim until their outcome is written; shared between claim, execution,
/// completion and heartbeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    attempts: HashMap<i64, Attempt>,
    /// Rows of `batch_leases`, and how many of their leases are held.
    batches: HashMap<i64, usize>,
    /// Those of which none is held any more, to be removed.
    ended: Vec<i64>,
}

/// A lease, and where the attempt under it stands.
#[derive(Debug)]
struct Attempt {
    /// The row of `batch_leases` that it was claimed with.
    batch_id: Option<i64>,
    /// It runs, and this token tells it to stop; `None` once it ended and waits to be written.
    running: Option<CancellationToken>,
}

impl Held {
    /// Removes a lease and returns its batch.
    fn remove(&mut self, lease: LeaseId) -> Option<i64> {
        self.attempts.remove(&lease.0)?.batch_id
    }
}

impl Leases {
    /// Remembers a lease, whose attempt begins, until [`Leases::forget`].
    pub(super) fn insert(&self, lease: LeaseId, batch_id: Option<i64>, cancel: CancellationToken) {
        let mut held = self.lock();
        if let Some(batch) = batch_id {
            *held.batches.entry(batch).or_default() += 1;
        }
        let attempt = Attempt {
            batch_id,
            running: Some(cancel),
        };
        held.attempts.insert(lease.0, attempt);
    }

    /// Notes that the attempt ended; its outcome is still to be written.
    pub(super) fn end(&self, lease: LeaseId) {
        if let Some(attempt) = self.lock().attempts.get_mut(&lease.0) {
            attempt.running = None;
        }
    }

    /// Forgets leases whose outcome is written, or was fenced.
    pub(super) fn forget(&self, leases: impl Iterator<Item = LeaseId>) {
        let mut held = self.lock();
        for lease in leases {
            let Some(batch) = held.remove(lease) else {
                continue;
            };
            let left = held.batches.get(&batch).map_or(0, |n| n - 1);
            if left > 0 {
                held.batches.insert(batch, left);
            } else if held.batches.remove(&batch).is_some() {
                held.ended.push(batch);
            }
        }
    }

    /// Forgets leases whose jobs are left to others, and with them that they were batches: what is
    /// left of those in the database is not this process's to remove.
    pub(super) fn abandon(&self, leases: impl Iterator<Item = LeaseId>) {
        let mut held = self.lock();
        for lease in leases {
            if let Some(batch) = held.remove(lease) {
                held.batches.remove(&batch);
            }
        }
    }

    /// Returns the batches of which no lease is held any more, once each.
    pub(super) fn take_ended(&self) -> Vec<i64> {
        std::mem::take(&mut self.lock().ended)
    }

    /// Has batches removed again by whoever comes next: it failed.
    pub(super) fn ended_still(&self, batches: Vec<i64>) {
        self.lock().ended.extend(batches);
    }

    /// Returns the batches in the database by this process's account.
    pub(super) fn batches(&self) -> HashSet<i64> {
        let held = self.lock();
        held.batches.keys().chain(&held.ended).copied().collect()
    }

    /// Forgets those of the batches that were looked at of which nothing is `left` in the database:
    /// their leases are held in the rows of their jobs.
    pub(super) fn settled(&self, looked_at: &[i64], left: &[i64]) {
        let mut held = self.lock();
        for batch in looked_at.iter().filter(|batch| !left.contains(batch)) {
            held.batches.remove(batch);
            held.ended.retain(|ended| ended != batch);
        }
    }

    /// Fires the tokens of those leases that are running here.
    pub(super) fn cancel(&self, leases: &[i64]) {
        let held = self.lock();
        for attempt in leases.iter().filter_map(|lease| held.attempts.get(lease)) {
            if let Some(cancel) = &attempt.running {
                cancel.cancel();
            }
        }
    }

    /// Returns the leases whose attempts run.
    pub(super) fn running(&self) -> Vec<i64> {
        let held = self.lock();
        let running = held.attempts.iter().filter(|(_, a)| a.running.is_some());
        running.map(|(lease, _)| *lease).collect()
    }

    /// Returns every lease that is held, be its attempt running or ended.
    pub(super) fn held(&self) -> Vec<i64> {
        self.lock().attempts.keys().copied().collect()
    }

    /// Says how many attempts are running.
    pub(super) fn count(&self) -> usize {
        let held = self.lock();
        held.attempts
            .values()
            .filter(|a| a.running.is_some())
            .count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        // Nothing panics while holding it; were it so, the maps would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two leases of batch 7, numbered 1 and 2.
    fn held() -> Leases {
        let leases = Leases::default();
        for lease in [1, 2] {
            leases.insert(LeaseId(lease), Some(7), CancellationToken::new());
        }
        leases
    }

    fn ids<const N: usize>(ids: [i64; N]) -> impl Iterator<Item = LeaseId> {
        ids.into_iter().map(LeaseId)
    }

    #[test]
    fn a_batch_ends_with_the_last_of_its_leases() {
        let leases = held();
        leases.forget(ids([1]));
        assert_eq!(leases.batches(), HashSet::from([7]));
        leases.forget(ids([2]));
        assert_eq!(leases.take_ended(), [7]);
        assert_eq!(leases.take_ended(), [0_i64; 0], "once");
        leases.ended_still(vec![7]);
        let still = HashSet::from([7]);
        assert_eq!(leases.batches(), still, "it could not be removed");
        leases.settled(&[7], &[]);
        assert_eq!(leases.take_ended(), [0_i64; 0], "the settler removed it");
    }

    #[test]
    fn a_batch_that_is_settled_is_not_looked_at_again() {
        let leases = held();
        leases.settled(&[7], &[7]);
        let left = HashSet::from([7]);
        assert_eq!(leases.batches(), left, "some of it was locked");
        leases.settled(&[7], &[]);
        leases.forget(ids([1, 2]));
        assert_eq!(leases.batches(), HashSet::new());
    }

    #[test]
    fn what_is_left_to_others_is_not_removed() {
        for left in [[1, 2], [2, 1]] {
            let leases = held();
            leases.abandon(ids([left[0]]));
            leases.forget(ids([left[1]]));
            assert_eq!(leases.batches(), HashSet::new(), "{left:?}");
        }
        let leases = held();
        leases.forget(ids([1]));
        leases.abandon(ids([2]));
        assert_eq!(leases.batches(), HashSet::new());
    }
}
