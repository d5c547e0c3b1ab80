//! `[kinds.SYSTEM.VERB]`: what differs for one kind.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::unit;

/// The kinds that differ from what their code says, by system and verb. Default: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kinds(BTreeMap<String, BTreeMap<String, KindOverride>>);

impl Kinds {
    /// Returns what differs for a kind, named `system.verb`, if anything does.
    #[must_use]
    pub fn get(&self, kind: &str) -> Option<&KindOverride> {
        let (system, verb) = kind.split_once('.')?;
        self.0.get(system)?.get(verb)
    }

    /// Returns the kinds that are named, as `system.verb`, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (String, &KindOverride)> {
        self.0.iter().flat_map(|(system, verbs)| {
            let named = move |(verb, kind)| (format!("{system}.{verb}"), kind);
            verbs.iter().map(named)
        })
    }
}

/// What differs for one kind; what is `None` stays as the kind's code says.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KindOverride {
    /// `max_attempts`: attempts in all before the job is dead, 1 to 10000.
    pub max_attempts: Option<u16>,
    /// `timeout`: the longest one attempt may take.
    #[serde(with = "unit::optional_duration")]
    pub timeout: Option<Duration>,
    /// `retry_first`: wait before the second attempt.
    #[serde(with = "unit::optional_duration")]
    pub retry_first: Option<Duration>,
    /// `retry_factor`: growth from one wait to the next, 1.0 to 100.0.
    pub retry_factor: Option<f64>,
    /// `retry_cap`: longest wait.
    #[serde(with = "unit::optional_duration")]
    pub retry_cap: Option<Duration>,
    /// `retry_jitter`: share of the wait that chance may take away, 0.0 to 1.0.
    pub retry_jitter: Option<f64>,
}

impl KindOverride {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        if let Some(attempts) = self.max_attempts {
            check.range("max_attempts", attempts, 1..=10_000);
        }
        if let Some(timeout) = self.timeout {
            check.positive("timeout", timeout);
        }
        if let Some(factor) = self.retry_factor {
            check.range("retry_factor", factor, 1.0..=100.0);
        }
        if let Some(jitter) = self.retry_jitter {
            check.range("retry_jitter", jitter, 0.0..=1.0);
        }
        if let (Some(first), Some(cap)) = (self.retry_first, self.retry_cap)
            && first > cap
        {
            check.fail(
                &["retry_first", "retry_cap"],
                "must not be longer than retry_cap",
            );
        }
    }
}
