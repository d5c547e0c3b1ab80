//! `[log]`: what is logged and how.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::check::Check;

/// Logging.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `log.format`: how a line looks. Default `auto`.
    pub format: LogFormat,
    /// `log.filter`: directives as of `tracing_subscriber::EnvFilter`, comma-separated. Default
    /// `info,sqlx=warn,apalis_core=warn`.
    pub filter: String,
}

impl Log {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        if let Err(error) = EnvFilter::builder().parse(&self.filter) {
            check.fail(&["filter"], &format!("is not a filter: {error}"));
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Auto,
            filter: "info,sqlx=warn,apalis_core=warn".to_owned(),
        }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `journald` under systemd, `text` on a terminal, `json` otherwise.
    Auto,
    /// For people, with colour on a terminal.
    Text,
    /// One JSON object a line.
    Json,
    /// Straight to the journal, fields kept apart.
    Journald,
}
