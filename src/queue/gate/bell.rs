//! How the keeper hears that a key may have room, or a job that may have a slot.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// Most keys that are remembered by name; past them the keeper looks at all.
const MOST_KEYS: usize = 10_000;

/// What the keeper was asked to look at.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// Keys, and whether others may have inserted for them without a word: see [`GateBell::ring`].
    pub(super) keys: HashMap<String, bool>,
    /// Whatever is held.
    pub(super) all: bool,
}

/// A bell that remembers what it was rung for.
#[derive(Debug, Clone, Default)]
pub(in crate::queue) struct GateBell(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    wanted: Mutex<Wanted>,
    bell: Notify,
}

impl GateBell {
    /// Asks for a look at a key, because a job of it ended here.
    pub(in crate::queue) fn freed(&self, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            self.ring(key, false);
        }
    }

    /// Asks for what a notification names: a key, or everything where it is empty.
    pub(in crate::queue) fn notified(&self, key: &str) {
        if key.is_empty() {
            self.ring_all();
        } else {
            self.ring(key.to_owned(), true);
        }
    }

    /// Asks for a look at everything that is held.
    pub(in crate::queue) fn ring_all(&self) {
        self.lock().all = true;
        self.0.bell.notify_one();
    }

    /// Asks for a look at a key; `again` asks for one more soon after, for whoever inserted while
    /// another transaction held the notification.
    pub(super) fn ring(&self, key: String, again: bool) {
        let mut wanted = self.lock();
        if wanted.keys.len() < MOST_KEYS {
            *wanted.keys.entry(key).or_default() |= again;
        } else {
            wanted.all = true;
        }
        drop(wanted);
        self.0.bell.notify_one();
    }

    /// Waits until somebody rings.
    pub(super) async fn rung(&self) {
        self.0.bell.notified().await;
    }

    /// Returns what it was rung for and forgets it.
    pub(super) fn take(&self) -> Wanted {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        // Nothing panics while holding it.
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
