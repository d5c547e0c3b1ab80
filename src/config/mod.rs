//! Configuration: one file per section, each with its struct, defaults and validation.
//!
//! A *key* is the dotted name of one setting (`queue.lost_after`). The file
//! `config/default.toml` names and explains every key; a test keeps the two equal.

mod database;
mod http;
mod kinds;
mod log;
mod product_import;
mod queue;
mod queues;
mod runs;
mod secret;
mod storage;
mod unit;

use serde::{Deserialize, Serialize};

pub use database::Database;
pub use http::Http;
pub use kinds::{KindOverride, Kinds};
pub use log::{Log, LogFormat};
pub use product_import::ProductImport;
pub use queue::{Queue, Wake};
pub use queues::{QueueOverride, Queues};
pub use runs::Runs;
pub use storage::Storage;

/// Everything an operator can set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[database]`: where Postgres is and how it is used.
    pub database: Database,
    /// `[http]`: the admin API, the pages and the uploads.
    pub http: Http,
    /// `[log]`: what is logged and how.
    pub log: Log,
    /// `[queue]`: claiming, leases, rescue, stopping.
    pub queue: Queue,
    /// `[queues.NAME]`: what differs for one queue.
    pub queues: Queues,
    /// `[kinds.SYSTEM.VERB]`: what differs for one kind.
    pub kinds: Kinds,
    /// `[storage]`: where uploads are kept.
    pub storage: Storage,
    /// `[runs]`: stale runs.
    pub runs: Runs,
    /// `[product_import]`: the limits of product files.
    pub product_import: ProductImport,
}

impl Config {
    /// Returns how many jobs of `queue` one daemon runs at once.
    #[must_use]
    pub fn concurrency(&self, queue: &str) -> u16 {
        let named = self.queues.get(queue).and_then(|queue| queue.concurrency);
        named.unwrap_or(self.queue.concurrency)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_are_not_named_have_the_general_concurrency() {
        let config = Config::default();
        assert_eq!(config.concurrency("import"), 2);
        assert_eq!(config.concurrency("default"), 10);
    }
}
