//! `[webhooks]`: deliveries to others.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::unit;

/// How webhooks are delivered.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Webhooks {
    /// `webhooks.secrets_dir`: the folder whose files hold the secrets that sign deliveries, one
    /// file a name. Default: `$CREDENTIALS_DIRECTORY`, else none.
    pub secrets_dir: Option<PathBuf>,
    /// `webhooks.timeout`: longest time of one delivery, at most `fetch.timeout` and 100 s.
    /// Default 20 s.
    #[serde(with = "unit::duration")]
    pub timeout: Duration,
}

/// Well within the kind's own time limit, so that a slow endpoint is told as what it is.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(100);

impl Webhooks {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        check.positive("timeout", self.timeout);
        if self.timeout > LONGEST_TIMEOUT {
            check.fail(&["timeout"], "must be at most 100s");
        }
    }
}

impl Default for Webhooks {
    fn default() -> Self {
        Self {
            secrets_dir: None,
            timeout: Duration::from_secs(20),
        }
    }
}
