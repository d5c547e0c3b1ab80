//! The leases this process holds: which there are, and who must be told when one is cancelled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::job::LeaseId;

/// The leases from their claim until their outcome is written; shared between claim, execution,
/// completion and heartbeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(Arc<Mutex<HashMap<i64, Attempt>>>);

/// Where the attempt under a lease stands.
#[derive(Debug)]
enum Attempt {
    /// It runs, and this token tells it to stop.
    Running(CancellationToken),
    /// It ended, and its outcome waits to be written.
    Ended,
}

impl Leases {
    /// Remembers a lease, whose attempt begins, until [`Leases::forget`].
    pub(super) fn insert(&self, lease: LeaseId, cancel: CancellationToken) {
        self.lock().insert(lease.0, Attempt::Running(cancel));
    }

    /// Notes that the attempt ended; its outcome is still to be written.
    pub(super) fn end(&self, lease: LeaseId) {
        if let Some(attempt) = self.lock().get_mut(&lease.0) {
            *attempt = Attempt::Ended;
        }
    }

    /// Forgets leases whose outcome is written, or was fenced.
    pub(super) fn forget(&self, leases: impl Iterator<Item = LeaseId>) {
        let mut held = self.lock();
        leases.for_each(|lease| drop(held.remove(&lease.0)));
    }

    /// Fires the tokens of those leases that are running here.
    pub(super) fn cancel(&self, leases: &[i64]) {
        let held = self.lock();
        for attempt in leases.iter().filter_map(|lease| held.get(lease)) {
            if let Attempt::Running(cancel) = attempt {
                cancel.cancel();
            }
        }
    }

    /// Returns the leases whose attempts run.
    pub(super) fn running(&self) -> Vec<i64> {
        let held = self.lock();
        let running = held
            .iter()
            .filter(|(_, attempt)| matches!(attempt, Attempt::Running(_)));
        running.map(|(lease, _)| *lease).collect()
    }

    /// Returns every lease that is held, be its attempt running or ended.
    pub(super) fn held(&self) -> Vec<i64> {
        self.lock().keys().copied().collect()
    }

    /// Says how many attempts are running.
    pub(super) fn count(&self) -> usize {
        self.lock()
            .values()
            .filter(|attempt| matches!(attempt, Attempt::Running(_)))
            .count()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Attempt>> {
        // Nothing panics while holding it; were it so, the map would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
