//! `[gates."PATTERN"]`: limits of gate keys.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Check;

/// The gates, by pattern: a key, or with `*` at its end the prefix of keys. Default: none, and a
/// key without a gate runs one job at a time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Gates(BTreeMap<String, Gate>);

impl Gates {
    /// Returns the gates in the order of their patterns.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Gate)> {
        self.0
            .iter()
            .map(|(pattern, gate)| (pattern.as_str(), gate))
    }
}

/// The limits of one gate; what is `None` is not limited.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Gate {
    /// `max_running`: most jobs of a key at once across all daemons, 1 to 1000000.
    pub max_running: Option<u32>,
    /// `rate_per_sec`: jobs of a key that start per second in the long run, 0.000001 to 100000.
    pub rate_per_sec: Option<f64>,
    /// `burst`: jobs that may start at once after a quiet time, 1 to 1000000. Default: the rate of
    /// one second, at least 1.
    pub burst: Option<u32>,
}

impl Gate {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        if let Some(max) = self.max_running {
            check.range("max_running", max, 1..=1_000_000);
        }
        if let Some(rate) = self.rate_per_sec {
            check.range("rate_per_sec", rate, 0.000_001..=100_000.0);
        }
        if let Some(burst) = self.burst {
            check.range("burst", burst, 1..=1_000_000);
            if self.rate_per_sec.is_none() {
                check.fail(&["burst"], "means nothing without rate_per_sec");
            }
        }
    }
}
