//! `[runs]`: stale runs.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::unit;

/// What happens to runs that stand still.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Runs {
    /// `runs.stale_after`: a running run without a heartbeat for this long is stale. Default 15 min.
    #[serde(with = "unit::duration")]
    pub stale_after: Duration,
    /// `runs.max_retries`: how often a stale run is started again before it has failed, 0 to 100.
    /// Default 3.
    pub max_retries: u16,
}

impl Runs {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        check.positive("stale_after", self.stale_after);
        check.range("max_retries", self.max_retries, 0..=100);
    }
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            stale_after: Duration::from_mins(15),
            max_retries: 3,
        }
    }
}
