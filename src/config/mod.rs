//! Configuration: one file per section, each with its struct, defaults and validation.
//!
//! A *key* is the dotted name of one setting (`queue.lost_after`). The file
//! `config/default.toml` names and explains every key; a test keeps the two equal.

mod auth;
mod check;
mod credential;
mod database;
mod env;
mod error;
mod excerpt;
mod fetch;
mod file;
mod gates;
mod http;
mod kinds;
mod load;
mod log;
mod mail;
mod near;
mod origin;
mod product_import;
mod queue;
mod queues;
mod runs;
mod schedules;
mod schema;
mod search;
mod secret;
mod setting;
mod sources;
mod storage;
mod unit;
mod webhooks;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use check::Check;

pub use auth::Auth;
pub use database::{Database, Pooler};
pub use error::{ConfigError, Mistake};
pub use fetch::Fetch;
pub use gates::{Gate, Gates};
pub use http::Http;
pub use kinds::{KindOverride, Kinds};
pub use load::{Loaded, Sources};
pub use log::{Log, LogFormat};
pub use mail::{Mail, MailSecurity};
pub(crate) use near::nearest;
pub use origin::{Origin, Origins};
pub use product_import::{FIELDS, ProductImport, SameFile};
pub use queue::{Queue, Wake};
pub use queues::{QueueOverride, Queues};
pub use runs::Runs;
pub use schedules::{ScheduleEntry, Schedules};
pub use schema::is_secret;
pub use search::{SEARCH_FIELDS, Search};
pub use sources::{ImportSources, SourceEntry};
pub use storage::Storage;
pub use webhooks::Webhooks;

/// Everything an operator can set.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[auth]`: who may call the HTTP interface.
    pub auth: Auth,
    /// `[database]`: where Postgres is and how it is used.
    pub database: Database,
    /// `[fetch]`: requests to other servers.
    pub fetch: Fetch,
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
    /// `[schedules.NAME]`: cron lines.
    pub schedules: Schedules,
    /// `[gates."PATTERN"]`: limits of gate keys.
    pub gates: Gates,
    /// `[storage]`: where uploads are kept.
    pub storage: Storage,
    /// `[runs]`: stale runs.
    pub runs: Runs,
    /// `[product_import]`: the limits of product files.
    pub product_import: ProductImport,
    /// `[sources]`: where imports may come from, and sources.
    pub sources: ImportSources,
    /// `[webhooks]`: deliveries to others.
    pub webhooks: Webhooks,
    /// `[mail]`: mail to people.
    pub mail: Mail,
    /// `[search]`: the search server that is told of products.
    pub search: Search,
}

impl Config {
    /// Returns how many jobs of `queue` one daemon runs at once.
    #[must_use]
    pub fn concurrency(&self, queue: &str) -> u16 {
        let named = self.queues.get(queue).and_then(|queue| queue.concurrency);
        named.unwrap_or(self.queue.concurrency)
    }

    /// Loads the configuration; a stronger layer wins key by key.
    ///
    /// From weak to strong: defaults, the file, `conf.d/*.toml` beside it in the order of their
    /// names, `DATABASE_URL`, `INGESTD_SECTION__KEY`, flags. Secrets are read from their files and
    /// credentials, so that the result stands for itself.
    ///
    /// # Errors
    ///
    /// Every unreadable file, unknown key and wrong value of all layers; where there are none of
    /// these, everything that validation refuses.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        load::load(sources)
    }

    /// Returns every key with its value as it may be shown: secrets redacted, `null` where a key
    /// without a default is not set.
    ///
    /// # Errors
    ///
    /// A path that is not UTF-8.
    pub fn entries(&self) -> Result<BTreeMap<String, serde_json::Value>, ConfigError> {
        Ok(schema::entries(self)?)
    }

    /// Finds what is wrong; `kinds` are those that a schedule may name, none: any.
    fn validate(&self, origins: &Origins, kinds: &[&str]) -> Vec<Mistake> {
        let mut check = Check::new(origins);
        self.auth.validate(check.section("auth"));
        self.database.validate(check.section("database"));
        self.fetch.validate(check.section("fetch"));
        self.http.validate(check.section("http"));
        self.log.validate(check.section("log"));
        self.queue.validate(check.section("queue"));
        for (name, queue) in self.queues.iter() {
            queue.validate(check.section(schema::dotted(&["queues", name])));
        }
        for (kind, differing) in self.kinds.iter() {
            differing.validate(check.section(format!("kinds.{kind}")));
        }
        for (name, schedule) in self.schedules.iter() {
            let section = schema::dotted(&["schedules", name]);
            schedule.validate(name, kinds, check.section(section));
        }
        for (pattern, gate) in self.gates.iter() {
            gate.validate(check.section(schema::dotted(&["gates", pattern])));
        }
        self.runs.validate(check.section("runs"));
        self.product_import
            .validate(check.section("product_import"));
        self.sources.validate(check.section("sources"));
        for (name, source) in self.sources.iter() {
            let section = check.section(schema::dotted(&["sources", name]));
            self.sources
                .validate_entry(name, source, &self.fetch, section);
        }
        self.webhooks.validate(check.section("webhooks"));
        self.mail.validate(check.section("mail"));
        self.search.validate(check.section("search"));
        check.mistakes
    }
}

#[cfg(test)]
mod tests;
