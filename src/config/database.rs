//! `[database]`: where Postgres is and how it is used.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{secret, unit};

/// What a database URL begins with.
const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// The connection to Postgres.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `database.url`: `postgres://user:password@host:port/name`, or `credential:NAME`. Secret; no
    /// default.
    #[serde(serialize_with = "secret::serialize_url")]
    pub url: Option<SecretString>,
    /// `database.url_file`: a file that holds the URL, instead of `url`. No default.
    pub url_file: Option<PathBuf>,
    /// `database.pooler`: what stands between the daemon and Postgres. Default `none`.
    pub pooler: Pooler,
    /// `database.max_connections`: connections the pool may open, 1 to 1000. Default 10.
    pub max_connections: u32,
    /// `database.acquire_timeout`: longest wait for a connection of the pool. Default 10 s.
    #[serde(with = "unit::duration")]
    pub acquire_timeout: Duration,
    /// `database.statement_timeout`: longest time one statement may take. Default 60 s.
    #[serde(with = "unit::duration")]
    pub statement_timeout: Duration,
}

/// What stands between the daemon and Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// Nothing that shows: a connection is a session until it is closed. So it is with a pooler in
    /// session mode, too.
    None,
    /// A pooler that lends a server for one transaction, as `PgBouncer` does with
    /// `pool_mode = transaction`. New jobs are then found by polling, whatever `queue.wake` says.
    Transaction,
}

impl Database {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        check.range("max_connections", self.max_connections, 1..=1000);
        check.positive("acquire_timeout", self.acquire_timeout);
        check.positive("statement_timeout", self.statement_timeout);
        let url = self.url.as_ref().map(ExposeSecret::expose_secret);
        if url.is_some_and(|url| !SCHEMES.iter().any(|scheme| url.starts_with(scheme))) {
            check.fail(&["url", "url_file"], "must begin with postgres://");
        }
    }
}

impl Default for Database {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            pooler: Pooler::None,
            max_connections: 10,
            acquire_timeout: Duration::from_secs(10),
            statement_timeout: Duration::from_mins(1),
        }
    }
}
