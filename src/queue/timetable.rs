//! When a schedule is due: a cron line in a time zone. Pure.

use std::str::FromStr;

use chrono::{DateTime, LocalResult, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use croner::{
    Cron, JobType,
    parser::{CronParser, Seconds},
};
use serde::Serialize;

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
            reason: error.to_string().trim_end_matches('.').to_owned(),
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

    /// Returns the next `n` due times after `after`, fewer where there are no more, with what the
    /// clocks do to them.
    #[must_use]
    pub fn due_times(&self, after: DateTime<Utc>, n: usize) -> Vec<DueTime> {
        let mut before = after;
        let mut times = Vec::new();
        while times.len() < n
            && let Some(utc) = self.next_after(before)
        {
            times.push(DueTime {
                utc,
                local: self.local(utc),
                job_due_at: utc,
                remark: self.remark(before, utc),
            });
            before = utc;
        }
        times
    }

    /// Returns a time as a clock in the zone shows it.
    fn local(&self, time: DateTime<Utc>) -> String {
        let local = time.with_timezone(&self.zone);
        local.format("%a %Y-%m-%d %H:%M:%S %Z").to_string()
    }

    /// Says what a change of the clocks does to a due time; `before` is the one before it.
    fn remark(&self, before: DateTime<Utc>, at: DateTime<Utc>) -> Option<String> {
        let local = at.with_timezone(&self.zone);
        let is_fixed = matches!(self.cron.determine_job_type(), JobType::FixedTime);
        if is_fixed && !self.cron.is_time_matching(&local).unwrap_or(true) {
            let text = "the clocks leave this time out that day: due right after";
            return Some(text.to_owned());
        }
        if let LocalResult::Ambiguous(first, _) =
            self.zone.from_local_datetime(&local.naive_local())
        {
            return Some(match (is_fixed, local == first) {
                (true, _) => "this time comes twice that day: due on the first".to_owned(),
                (false, true) => "the first of two such times that day".to_owned(),
                (false, false) => "the second of two such times that day".to_owned(),
            });
        }
        let offset = |at: DateTime<Utc>| {
            let offset = at.with_timezone(&self.zone).offset().fix();
            offset.local_minus_utc() / 60
        };
        let minutes = offset(at) - offset(before);
        let way = if minutes > 0 { "forward" } else { "back" };
        (minutes != 0).then(|| format!("after the clocks went {way} by {} min", minutes.abs()))
    }

    /// Says in words when it is due.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{} ({})", self.cron.describe(), self.zone)
    }
}

/// One time at which a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DueTime {
    /// The tick.
    pub utc: DateTime<Utc>,
    /// The same, as a clock in the schedule's zone shows it.
    pub local: String,
    /// When its job is due: later than the tick where the schedule has jitter.
    pub job_due_at: DateTime<Utc>,
    /// What a change of the clocks does to it.
    pub remark: Option<String>,
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
    fn a_shift_of_half_an_hour_is_minded_to_the_second() {
        // Lord Howe, 4 October 2026: 02:00 becomes 02:30; 5 April 2026: 02:00 becomes 01:30.
        let zone = "Australia/Lord_Howe";
        let gap = "2026-10-03T12:00:00Z";
        assert_eq!(next("15 2 * * *", zone, gap), at("2026-10-03T15:30:00Z"));
        assert_eq!(next("30 15 2 * * *", zone, gap), at("2026-10-03T15:30:00Z"));
        assert_eq!(next("45 2 * * *", zone, gap), at("2026-10-03T15:45:00Z"));
        let first = next("7 45 1 * * *", zone, "2026-04-04T10:00:00Z");
        assert_eq!(first, at("2026-04-04T14:45:07Z"));
        let second = next("7 45 1 * * *", zone, "2026-04-04T14:45:07Z");
        assert_eq!(
            second,
            at("2026-04-05T15:15:07Z"),
            "not on the second 01:45 of that day"
        );
    }

    #[test]
    fn short_intervals_go_on_evenly_through_every_change() {
        for (zone, change) in [
            ("Europe/Prague", "2026-03-29T01:00:00Z"),
            ("Europe/Prague", "2026-10-25T01:00:00Z"),
            ("America/New_York", "2026-03-08T07:00:00Z"),
            ("America/New_York", "2026-11-01T06:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
        ] {
            for (line, secs) in [("*/10 * * * * *", 10), ("*/15 * * * *", 900)] {
                let timetable = Timetable::parse(line, zone).unwrap();
                let start = at(change) - chrono::TimeDelta::hours(3);
                let n = usize::try_from(6 * 3600 / secs).unwrap();
                let times = timetable.due_times(start, n);
                let even = (1..).zip(&times);
                for (nth, time) in even {
                    let expected = start + chrono::TimeDelta::seconds(nth * secs);
                    assert_eq!(time.utc, expected, "{zone} {line}");
                }
            }
        }
    }

    #[test]
    fn what_the_clocks_do_is_remarked() {
        let remarks = |line: &str, zone: &str, after: &str| {
            let times = Timetable::parse(line, zone)
                .unwrap()
                .due_times(at(after), 2);
            times
                .into_iter()
                .map(|time| time.remark.unwrap_or_default())
                .collect::<Vec<_>>()
        };
        let gap = remarks("30 2 * * *", "Europe/Prague", "2026-03-28T12:00:00Z");
        assert!(
            gap[0].contains("leave this time out") && gap[1].is_empty(),
            "{gap:?}"
        );
        let twice = remarks("30 2 * * *", "Europe/Prague", "2026-10-24T12:00:00Z");
        assert!(twice[0].contains("comes twice"), "{twice:?}");
        assert!(twice[1].contains("back by 60 min"), "{twice:?}");
        let half = remarks("0 12 * * *", "Australia/Lord_Howe", "2026-10-03T03:00:00Z");
        assert!(
            half[0].contains("forward by 30 min") && half[1].is_empty(),
            "{half:?}"
        );
        let both = remarks("30 * * * *", "Europe/Prague", "2026-10-24T23:45:00Z");
        assert!(
            both[0].contains("the first of two") && both[1].contains("the second"),
            "{both:?}"
        );
        assert_eq!(
            remarks("0 3 * * *", "UTC", "2026-10-24T12:00:00Z"),
            ["", ""]
        );
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
}
