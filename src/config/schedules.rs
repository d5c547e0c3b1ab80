//! `[schedules.NAME]`: cron lines that come with the daemon.
//!
//! A user's schedule of the same name wins over the configuration's, and that over a built-in one;
//! see [`crate::queue::schedule`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::check::Check;
use super::near::nearest;
use super::unit;
use crate::queue::schedule::{Definition, Missed, Overlap, check_name};

/// The schedules of the configuration, by name. Default: none.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Schedules(BTreeMap<String, ScheduleEntry>);

impl Schedules {
    /// Returns the schedules in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &ScheduleEntry)> {
        self.0.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// Returns what is to stand in the database: names, definitions, whether they are paused.
    #[must_use]
    pub fn wanted(&self) -> Vec<(String, Definition, bool)> {
        self.iter()
            .map(|(name, entry)| (name.to_owned(), entry.definition(), entry.paused))
            .collect()
    }

    /// Says whether there is a schedule of a name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// One schedule; `kind` and `cron` must be given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ScheduleEntry {
    /// `kind`: the kind of the jobs. No default.
    pub kind: Option<String>,
    /// `cron`: when it is due, five fields, or six with seconds first. No default.
    pub cron: Option<String>,
    /// `timezone`: IANA name of the zone that the line is read in. Default `UTC`.
    pub timezone: String,
    /// `args`: the jobs' arguments, a table of at most 64 KiB. Default: none.
    pub args: Option<Map<String, Value>>,
    /// `queue`: the jobs' queue. Default: the kind's.
    pub queue: Option<String>,
    /// `priority`: 0 urgent, 1 normal, 2 low, 3 background. Default 1.
    pub priority: i16,
    /// `missed`: what becomes of ticks that passed while no daemon ran. Default `once`.
    pub missed: Missed,
    /// `missed_max`: most ticks that `missed = "all"` makes up for, 1 to 10000. Default 100.
    pub missed_max: i32,
    /// `overlap`: what becomes of a tick while an earlier one's job is unfinished. Default `allow`.
    pub overlap: Overlap,
    /// `jitter`: each job is due up to this much after its tick, at most a day. Default 0 s.
    #[serde(with = "unit::duration")]
    pub jitter: Duration,
    /// `tenant`: owner of the schedule and of its jobs, 1 to 200 characters. Default: it is the whole
    /// installation's, and its jobs name no owner.
    pub tenant: Option<String>,
    /// `paused`: whether its ticks pass without a job. Default no.
    pub paused: bool,
}

impl Default for ScheduleEntry {
    fn default() -> Self {
        let Definition {
            timezone,
            missed,
            missed_max,
            overlap,
            ..
        } = Definition::new("", "");
        Self {
            kind: None,
            cron: None,
            timezone,
            args: None,
            queue: None,
            priority: 1,
            missed,
            missed_max,
            overlap,
            jitter: Duration::ZERO,
            tenant: None,
            paused: false,
        }
    }
}

impl ScheduleEntry {
    /// Returns what the schedule says; what is missing is empty.
    #[must_use]
    pub fn definition(&self) -> Definition {
        Definition {
            timezone: self.timezone.clone(),
            args: self.args.clone().unwrap_or_default(),
            queue: self.queue.clone(),
            priority: Some(self.priority),
            missed: self.missed,
            missed_max: self.missed_max,
            overlap: self.overlap,
            tenant: self.tenant.clone(),
            jitter_ms: i32::try_from(self.jitter.as_millis()).unwrap_or(i32::MAX),
            ..Definition::new(
                self.cron.clone().unwrap_or_default(),
                self.kind.clone().unwrap_or_default(),
            )
        }
    }

    pub(super) fn validate(&self, name: &str, kinds: &[&str], check: &mut Check<'_>) {
        if let Err(wrong) = check_name(name) {
            check.fail(
                &["kind"],
                &format!("is of a schedule whose name {}", wrong.why),
            );
        }
        match &self.kind {
            None => check.missing("kind"),
            Some(kind) if !kinds.is_empty() && !kinds.contains(&kind.as_str()) => {
                let near = nearest(kind, kinds.iter().copied());
                let near = near.map(|near| format!("; did you mean \"{near}\"?"));
                let near = near.unwrap_or_default();
                check.fail(
                    &["kind"],
                    &format!("is \"{kind}\", which this binary has not{near}"),
                );
            }
            Some(_) => {}
        }
        if self.cron.is_none() {
            check.missing("cron");
        }
        for wrong in self.definition().check().err().unwrap_or_default() {
            match wrong.field {
                "cron" if self.cron.is_none() => {}
                "jitter_ms" => check.fail(&["jitter"], "must be at most a day"),
                "cron" | "timezone" => {
                    check.fail(&[wrong.field], &format!("is no good: {}", wrong.why));
                }
                field => check.fail(&[field], &wrong.why),
            }
        }
    }
}
