//! When a schedule is due: a cron line in a time zone, and what missed ticks come to. Pure.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};

/// A cron line and the zone it is read in.
#[derive(Debug, Clone)]
pub struct Timetable {
    cron: Cron,
    zone: Tz,
}

/// Why a cron line or a zone is refused.
#[derive(Debug, thiserror::Error)]
pub enum BadTimetable {
    /// The cron line does not parse.
    #[error("cron line {line:?}: {reason}; five fields, or six with seconds first")]
    Cron {
        /// The line as given.
        line: String,
        /// What the parser said.
        reason: String,
    },
    /// No such zone.
    #[error("time zone {0:?} is no IANA name such as Europe/Prague")]
    Zone(String),
}

impl Timetable {
    /// Parses a cron line of five fields, or six with seconds first, in an IANA time zone.
    ///
    /// # Errors
    ///
    /// [`BadTimetable`] says which of the two does not parse.
    pub fn parse(line: &str, zone: &str) -> Result<Self, BadTimetable> {
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(line).map_err(|error| BadTimetable::Cron {
            line: line.to_owned(),
            reason: error.to_string(),
        })?;
        let zone = Tz::from_str(zone).map_err(|_| BadTimetable::Zone(zone.to_owned()))?;
        Ok(Self { cron, zone })
    }

    /// Returns the first due time after `after`; `None` where there is none for decades.
    #[must_use]
    pub fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let local = after.with_timezone(&self.zone);
        self.cron
            .find_next_occurrence(&local, false)
            .ok()
            .map(|next| next.with_timezone(&Utc))
    }

    /// Returns the zone that the line is read in.
    #[must_use]
    pub const fn zone(&self) -> Tz {
        self.zone
    }

    /// Says in words when it is due.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} ({})", self.cron.describe(), self.zone)
    }
}

/// What to do about ticks that fell due while no daemon ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missed {
    Skip,
    Once,
    All(usize),
}

/// The ticks up to now, oldest first, split by the policy into those to enqueue and those missed.
///
/// A tick counts as missed when a later one is due as well; with `Skip` also
/// when it is older than `fresh`.
pub(super) fn split_ticks(
    mut due: Vec<DateTime<Utc>>,
    missed: Missed,
    now: DateTime<Utc>,
    fresh: Duration,
) -> (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) {
    let n_kept = match missed {
        Missed::All(most) => most,
        Missed::Once => 1,
        Missed::Skip => {
            let is_fresh = |at: &DateTime<Utc>| (now - *at).to_std().unwrap_or_default() <= fresh;
            usize::from(due.last().is_some_and(is_fresh))
        }
    };
    let kept = due.split_off(due.len().saturating_sub(n_kept));
    (kept, due)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next(line: &str, zone: &str, after: &str) -> DateTime<Utc> {
        Timetable::parse(line, zone)
            .unwrap()
            .next_after(at(after))
            .unwrap()
    }

    #[test]
    fn a_time_that_does_not_exist_fires_right_after() {
        // Prague, 29 March 2026: 02:00 becomes 03:00.
        let due = next("30 2 * * *", "Europe/Prague", "2026-03-28T12:00:00Z");
        assert_eq!(due, at("2026-03-29T01:00:00Z"));
    }

    #[test]
    fn a_time_that_occurs_twice_fires_once_on_the_first() {
        // Prague, 25 October 2026: 03:00 becomes 02:00.
        let first = next("30 2 * * *", "Europe/Prague", "2026-10-24T12:00:00Z");
        assert_eq!(first, at("2026-10-25T00:30:00Z"));
        let second = Timetable::parse("30 2 * * *", "Europe/Prague")
            .unwrap()
            .next_after(first);
        assert_eq!(second, Some(at("2026-10-26T01:30:00Z")));
    }

    #[test]
    fn seconds_are_optional() {
        let after = "2026-01-01T00:00:00Z";
        assert_eq!(
            next("*/5 * * * * *", "UTC", after),
            at("2026-01-01T00:00:05Z")
        );
        assert_eq!(
            next("*/5 * * * *", "UTC", after),
            at("2026-01-01T00:05:00Z")
        );
    }

    #[test]
    fn mistakes_name_the_line_or_the_zone() {
        let cron = Timetable::parse("61 * * * *", "UTC").unwrap_err();
        assert!(cron.to_string().contains("61 * * * *"), "{cron}");
        let zone = Timetable::parse("* * * * *", "Mars/Base").unwrap_err();
        assert!(zone.to_string().contains("Mars/Base"), "{zone}");
    }

    #[test]
    fn missed_ticks_follow_the_policy() {
        let now = at("2026-01-01T00:05:30Z");
        let due: Vec<_> = (1..=5)
            .map(|m| at(&format!("2026-01-01T00:0{m}:00Z")))
            .collect();
        let split = |missed| {
            let (kept, missed) = split_ticks(due.clone(), missed, now, Duration::from_mins(1));
            (kept.len(), missed.len())
        };
        assert_eq!(split(Missed::Once), (1, 4));
        assert_eq!(split(Missed::All(3)), (3, 2));
        assert_eq!(split(Missed::All(100)), (5, 0));
        assert_eq!(split(Missed::Skip), (1, 4));
        let late = now + chrono::Duration::hours(1);
        assert_eq!(
            split_ticks(due, Missed::Skip, late, Duration::from_mins(1))
                .0
                .len(),
            0
        );
    }
}
