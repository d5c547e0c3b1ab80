//! `[queues.NAME]`: what differs for one queue.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::queue::CONCURRENCY;

/// The queues that differ, by name. Default: `import` and `system` run 2 jobs at once.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Queues(BTreeMap<String, QueueOverride>);

impl Queues {
    /// Returns what differs for a queue, if anything does.
    #[must_use]
    pub fn get(&self, queue: &str) -> Option<&QueueOverride> {
        self.0.get(queue)
    }

    /// Returns the queues that are named, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &QueueOverride)> {
        self.0.iter().map(|(name, queue)| (name.as_str(), queue))
    }
}

impl QueueOverride {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        if let Some(concurrency) = self.concurrency {
            check.range("concurrency", concurrency, CONCURRENCY);
        }
    }
}

impl Default for Queues {
    fn default() -> Self {
        let two = QueueOverride {
            concurrency: Some(2),
        };
        let names = ["import", "system"];
        Self(names.map(|name| (name.to_owned(), two.clone())).into())
    }
}

/// What differs for one queue.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueOverride {
    /// `queues.NAME.concurrency`: jobs of the queue that this daemon runs at once, 1 to 10000.
    /// Default: `queue.concurrency`.
    pub concurrency: Option<u16>,
}
