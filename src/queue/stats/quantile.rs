//! Run times estimated from buckets.

use super::book::BOUNDS_MS;

/// The last bucket has no bound; what is in it is shown as if it were this long, in milliseconds.
const LAST_BOUND_MS: f64 = 5_000_000.0;

/// Estimates the run time, in seconds, that the share `q` of attempts did not exceed; `None` where
/// there are none.
///
/// `q` is from 0 to 1. Between the bounds of a bucket it interpolates by the logarithm, since each
/// bound is ten times the last: it is off by a factor of 10 at worst, and by 2 as a rule.
#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate; counts past 2^53 do not occur"
)]
pub(super) fn quantile(buckets: &[i64], q: f64) -> Option<f64> {
    let total: i64 = buckets.iter().sum();
    if total <= 0 {
        return None;
    }
    let bounds = BOUNDS_MS.iter().map(|ms| *ms as f64).chain([LAST_BOUND_MS]);
    let rank = q.clamp(0.0, 1.0) * total as f64;
    let mut below = 0.0;
    for (n, upper) in buckets.iter().map(|n| *n as f64).zip(bounds) {
        if n > 0.0 && below + n >= rank {
            let lower = upper / 10.0;
            let share = ((rank - below) / n).clamp(0.0, 1.0);
            return Some(lower * (upper / lower).powf(share) / 1000.0);
        }
        below += n;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(buckets: [i64; 7], q: f64) -> f64 {
        quantile(&buckets, q).unwrap()
    }

    #[test]
    fn nothing_has_no_quantile() {
        assert_eq!(quantile(&[0; 7], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn an_estimate_is_within_its_bucket() {
        for (place, (lower, upper)) in [(0.0005, 0.005), (0.005, 0.05), (0.05, 0.5), (0.5, 5.0)]
            .into_iter()
            .enumerate()
        {
            let mut buckets = [0; 7];
            buckets[place] = 100;
            for q in [0.0, 0.01, 0.5, 0.95, 1.0] {
                let secs = estimate(buckets, q);
                assert!((lower..=upper * 1.000_001).contains(&secs), "{q}: {secs}");
            }
        }
    }

    #[test]
    fn the_slow_few_show_in_the_tail_only() {
        let buckets = [90, 0, 0, 10, 0, 0, 0];
        assert!(estimate(buckets, 0.5) < 0.005);
        let tail = estimate(buckets, 0.95);
        assert!((tail - 1.58).abs() < 0.01, "{tail}");
        assert!(estimate(buckets, 0.5) < tail && tail < estimate(buckets, 0.99));
    }
}
