//! How far this machine's clock is from the database's, which alone decides.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::observe::ClockCompared;

/// Clocks that differ by more than this confuse whoever compares logs.
const MOST: TimeDelta = TimeDelta::seconds(5);

/// Compares the clocks at each heartbeat.
#[derive(Debug, Default)]
pub(super) struct Skew {
    is_large: bool,
}

impl Skew {
    /// Compares the time that the database answered with this machine's now; they were
    /// `round_trip` apart at most.
    pub(super) fn look(&mut self, theirs: DateTime<Utc>, round_trip: Duration) {
        #[expect(
            clippy::disallowed_methods,
            reason = "this machine's clock is what is examined"
        )]
        let ours = Utc::now();
        self.compare(ours, theirs, round_trip).emit();
    }

    /// A difference that the round trip explains, of an answer that was long on its way, is none.
    fn compare(
        &mut self,
        ours: DateTime<Utc>,
        theirs: DateTime<Utc>,
        round_trip: Duration,
    ) -> ClockCompared {
        let half = TimeDelta::from_std(round_trip / 2).unwrap_or_default();
        let skew = ours - theirs - half;
        let is_large = skew.abs() > MOST + half;
        let news = (is_large != self.is_large).then_some(is_large);
        self.is_large = is_large;
        ClockCompared {
            skew_seconds: skew.as_seconds_f64(),
            news,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_difference_is_news_once_and_again_when_it_is_gone() {
        let mut skew = Skew::default();
        let theirs = DateTime::UNIX_EPOCH;
        let mut news = |seconds, round_trip| {
            let ours = theirs + TimeDelta::seconds(seconds);
            let round_trip = Duration::from_secs(round_trip);
            skew.compare(ours, theirs, round_trip).news
        };
        assert_eq!(news(5, 0), None);
        assert_eq!(news(-6, 0), Some(true));
        assert_eq!(news(3600, 0), None);
        assert_eq!(news(0, 0), Some(false));
        assert_eq!(news(9, 10), None, "the answer was long on its way");
    }

    #[test]
    fn the_middle_of_the_round_trip_is_compared() {
        let theirs = DateTime::UNIX_EPOCH;
        let ours = theirs + TimeDelta::seconds(2);
        let found = Skew::default().compare(ours, theirs, Duration::from_secs(2));
        assert!((found.skew_seconds - 1.0).abs() < 1e-9);
    }
}
