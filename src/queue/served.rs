//! What this process serves, as its heartbeat tells everybody who asks the database.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::slot::Slots;

/// The slots of each queue that this process serves.
#[derive(Debug, Clone, Default)]
pub(super) struct Served(Arc<Mutex<BTreeMap<String, Arc<Slots>>>>);

impl Served {
    /// Notes that a queue is served.
    pub(super) fn add(&self, queue: &str, slots: &Arc<Slots>) {
        self.lock().insert(queue.to_owned(), Arc::clone(slots));
    }

    /// Notes that a queue is not served any more.
    pub(super) fn remove(&self, queue: &str) {
        self.lock().remove(queue);
    }

    /// Returns per queue how many slots there are and how many are taken, as `ingestd.workers`
    /// has it.
    pub(super) fn told(&self) -> Value {
        let queues = self.lock();
        let told = queues.iter().map(|(queue, slots)| {
            let (n_slots, n_taken) = slots.count();
            (queue.clone(), Value::from(vec![n_slots, n_taken]))
        });
        Value::Object(told.collect())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Slots>>> {
        // Nothing panics while holding it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
