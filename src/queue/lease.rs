//! The leases this process holds: who must be told when one is cancelled.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::CancellationToken;

use super::job::LeaseId;

/// The cancellation tokens of running attempts by lease; shared between claim,
/// execution and heartbeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(Arc<Mutex<HashMap<i64, CancellationToken>>>);

impl Leases {
    /// Remembers a lease until [`Leases::remove`].
    pub(super) fn insert(&self, lease: LeaseId, cancel: CancellationToken) {
        self.lock().insert(lease.0, cancel);
    }

    /// Forgets a lease.
    pub(super) fn remove(&self, lease: LeaseId) {
        self.lock().remove(&lease.0);
    }

    /// Fires the tokens of those leases that are running here.
    pub(super) fn cancel(&self, leases: &[i64]) {
        let held = self.lock();
        for token in leases.iter().filter_map(|lease| held.get(lease)) {
            token.cancel();
        }
    }

    /// Says how many attempts are running.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, CancellationToken>> {
        // Nothing panics while holding it; were it so, the map would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
