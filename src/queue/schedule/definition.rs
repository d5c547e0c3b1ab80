//! What a schedule says: when, what, and what about ticks that meet trouble. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{MAX_JITTER_MS, MAX_MISSED};
use crate::queue::timetable::{BadTimetable, Timetable};

/// Largest arguments of a schedule, as JSON text in bytes: every tick stores them again.
const MAX_ARGS_BYTES: usize = 65_536;

/// What to do about ticks that passed while no daemon ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Missed {
    /// Leave them out.
    Skip,
    /// Run once for all of them.
    #[default]
    Once,
    /// Make up for each, up to `missed_max`.
    All,
}

/// What to do about a tick while the job of an earlier one is unfinished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Overlap {
    /// Run another beside it.
    #[default]
    Allow,
    /// Leave the tick out.
    Skip,
    /// Wait until it has finished.
    Queue,
}

/// Everything about a schedule that its owner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Five fields, or six with seconds first.
    pub cron: String,
    /// IANA name of the zone the line is read in; `UTC` where nothing is said.
    #[serde(default = "utc")]
    pub timezone: String,
    /// The kind to enqueue.
    pub kind: String,
    /// Its arguments, at most 64 KiB as text.
    #[serde(default)]
    #[sqlx(json)]
    pub args: Map<String, Value>,
    /// Its queue, 1 to 63 characters; `None`: the kind's.
    #[serde(default)]
    pub queue: Option<String>,
    /// 0 urgent to 3 background; `None`: 1.
    #[serde(default)]
    pub priority: Option<i16>,
    /// What becomes of ticks that passed while no daemon ran.
    #[serde(default)]
    pub missed: Missed,
    /// Most ticks that [`Missed::All`] makes up for, 1 to 10000; the oldest are left out.
    #[serde(default = "hundred")]
    pub missed_max: i32,
    /// What becomes of a tick while the job of an earlier one is unfinished.
    #[serde(default)]
    pub overlap: Overlap,
    /// Each job is due up to this many milliseconds after its tick, 0 to a day.
    #[serde(default)]
    pub jitter_ms: i32,
    /// Owner of the schedule and of its jobs, 1 to 200 characters; `None`: it is the whole
    /// installation's, and its jobs name no owner.
    #[serde(default)]
    pub tenant: Option<String>,
}

fn utc() -> String {
    "UTC".to_owned()
}

const fn hundred() -> i32 {
    100
}

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The field's name.
    pub field: &'static str,
    /// What is wrong, in words that follow the name.
    pub why: String,
}

impl Definition {
    /// Describes a schedule with defaults for everything but these.
    #[must_use]
    pub fn new(cron: impl Into<String>, kind: impl Into<String>) -> Self {
        Self {
            cron: cron.into(),
            timezone: utc(),
            kind: kind.into(),
            args: Map::new(),
            queue: None,
            priority: None,
            missed: Missed::Once,
            missed_max: hundred(),
            overlap: Overlap::Allow,
            jitter_ms: 0,
            tenant: None,
        }
    }

    /// Checks everything that can be checked without a database.
    ///
    /// # Errors
    ///
    /// All that is wrong, at least one.
    pub fn check(&self) -> Result<Timetable, Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut demand = |is_fine: bool, field: &'static str, rule: &str| {
            if !is_fine {
                let why = rule.to_owned();
                wrong.push(Wrong { field, why });
            }
        };
        let chars = self.queue.as_ref().map_or(1, |queue| queue.chars().count());
        demand(
            (1..=63).contains(&chars),
            "queue",
            "must be 1 to 63 characters",
        );
        let chars = self
            .tenant
            .as_ref()
            .map_or(1, |tenant| tenant.chars().count());
        demand(
            (1..=200).contains(&chars),
            "tenant",
            "must be 1 to 200 characters",
        );
        let priority = self.priority.unwrap_or(1);
        demand(
            (0..=3).contains(&priority),
            "priority",
            "must be from 0 urgent to 3 background",
        );
        let is_fine = (1..=MAX_MISSED).contains(&self.missed_max);
        demand(is_fine, "missed_max", "must be from 1 to 10000");
        let is_fine = (0..=MAX_JITTER_MS).contains(&self.jitter_ms);
        demand(is_fine, "jitter_ms", "must be from 0 to 86400000, a day");
        let n_bytes = Value::from(self.args.clone()).to_string().len();
        demand(n_bytes <= MAX_ARGS_BYTES, "args", "must be at most 64 KiB");
        let timetable = Timetable::parse(&self.cron, &self.timezone).map_err(|error| {
            let field = match error {
                BadTimetable::Cron { .. } => "cron",
                BadTimetable::Zone(_) => "timezone",
            };
            let why = error.to_string();
            wrong.push(Wrong { field, why });
        });
        match timetable {
            Ok(timetable) if wrong.is_empty() => Ok(timetable),
            _ => Err(wrong),
        }
    }
}

/// Checks a schedule's name: 1 to 200 characters, none of them a control character.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), Wrong> {
    let is_fine = (1..=200).contains(&name.chars().count()) && !name.contains(char::is_control);
    if is_fine {
        return Ok(());
    }
    Err(Wrong {
        field: "name",
        why: "must be 1 to 200 characters, none of them a control character".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_told_at_once() {
        let wrong = Definition {
            timezone: "Mars/Base".to_owned(),
            queue: Some(String::new()),
            tenant: Some(String::new()),
            priority: Some(4),
            missed_max: 0,
            jitter_ms: -1,
            args: Map::from_iter([("a".to_owned(), "x".repeat(MAX_ARGS_BYTES).into())]),
            ..Definition::new("0 3 * * *", "system.noop")
        };
        let fields: Vec<_> = wrong.check().unwrap_err().iter().map(|w| w.field).collect();
        let expected = [
            "queue",
            "tenant",
            "priority",
            "missed_max",
            "jitter_ms",
            "args",
            "timezone",
        ];
        assert_eq!(fields, expected);
        let wrong = Definition::new("every day", "system.noop")
            .check()
            .unwrap_err();
        assert_eq!(wrong[0].field, "cron");
        assert!(Definition::new("0 3 * * *", "system.noop").check().is_ok());
    }

    #[test]
    fn names_have_a_length_and_no_line_breaks() {
        assert!(check_name("every night").is_ok());
        for wrong in ["", "a\nb", &"x".repeat(201)] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
