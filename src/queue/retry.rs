//! When to try again: exponential backoff with jitter. Pure.

use std::time::Duration;

/// How a kind's failed attempts are spread over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retry {
    /// Wait before the second attempt.
    pub first: Duration,
    /// Growth from one wait to the next; 2.0 doubles.
    pub factor: f64,
    /// Longest wait, before jitter.
    pub cap: Duration,
    /// Share of the wait, 0.0 to 1.0, that chance may take away, at most half of it in all.
    pub jitter: f64,
    /// Attempts in all, the first one included, before the job is dead.
    pub max_attempts: u16,
}

impl Retry {
    /// 5 s, doubling, capped at an hour, 12 attempts: about four and a half hours in all.
    pub const STANDARD: Self = Self {
        first: Duration::from_secs(5),
        factor: 2.0,
        cap: Duration::from_hours(1),
        jitter: 1.0,
        max_attempts: 12,
    };

    /// The same policy with another number of attempts.
    #[must_use]
    pub const fn attempts(self, max_attempts: u16) -> Self {
        Self {
            max_attempts,
            ..self
        }
    }
}

/// Returns how long to wait before the next attempt.
///
/// `attempt` counts from 1, the run that just failed. The wait grows by
/// [`Retry::factor`] from [`Retry::first`] and never exceeds [`Retry::cap`];
/// `chance`, from 0.0 to 1.0, times [`Retry::jitter`] takes away up to half of
/// it, so that jobs which failed together do not return together. With
/// [`Retry::STANDARD`] and no jitter: 5 s, 10 s, 20 s, 40 s, 80 s, 160 s, 320 s.
#[must_use]
pub fn delay(retry: &Retry, attempt: u16, chance: f64) -> Duration {
    let exponent = i32::from(attempt.max(1) - 1);
    let full =
        (retry.first.as_secs_f64() * retry.factor.powi(exponent)).min(retry.cap.as_secs_f64());
    let taken = chance.clamp(0.0, 1.0) * retry.jitter.clamp(0.0, 1.0) / 2.0;
    Duration::from_secs_f64(full * (1.0 - taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_five_seconds_to_the_cap() {
        let waits: Vec<u64> = (1..=12)
            .map(|n| delay(&Retry::STANDARD, n, 0.0).as_secs())
            .collect();
        assert_eq!(
            waits,
            [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
        );
    }

    #[test]
    fn jitter_takes_away_at_most_half() {
        assert_eq!(delay(&Retry::STANDARD, 1, 1.0), Duration::from_millis(2500));
        let calm = Retry {
            jitter: 0.0,
            ..Retry::STANDARD
        };
        assert_eq!(delay(&calm, 1, 1.0), Duration::from_secs(5));
    }

    #[test]
    fn never_overflows() {
        assert_eq!(delay(&Retry::STANDARD, u16::MAX, 0.0), Retry::STANDARD.cap);
        assert_eq!(delay(&Retry::STANDARD, 0, 0.0), Retry::STANDARD.first);
    }
}
