//! How often somebody may ask: a bucket a key, in this process's memory.
//!
//! Each daemon counts for itself, and forgets at a restart: a limit that every request had to
//! write to the database would cost more than what it protects.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Keys remembered at most; those with nothing used are forgotten first.
const MAX_KEYS: usize = 65_536;

/// The period of every limit.
pub const PERIOD: Duration = Duration::from_mins(1);

/// What became of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Requests a minute.
    pub limit: u32,
    /// Requests that may follow at once.
    pub remaining: u32,
    /// When one more may be sent, where none may now; else how long until all of it is back.
    pub wait: Duration,
    /// Whether this one may.
    pub is_within: bool,
}

/// A limit for each of many keys: so many a minute, all of them at once where they like.
///
/// Kept as the time at which a key's use is paid off (the virtual scheduling of GCRA): a use adds
/// a share of the period, and none may lie more than a period ahead.
#[derive(Debug)]
pub struct Limiter<K> {
    limit: u32,
    paid_at: Mutex<HashMap<K, Instant>>,
}

impl<K: Hash + Eq> Limiter<K> {
    /// Makes one; 0 is no limit.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self {
            limit,
            paid_at: Mutex::default(),
        }
    }

    /// Counts a request; `None` where there is no limit. One over the limit costs nothing.
    pub fn take(&self, key: K, now: Instant) -> Option<Budget> {
        self.look(key, now, true)
    }

    /// Says whether a request may be sent, without counting it.
    pub fn peek(&self, key: K, now: Instant) -> Option<Budget> {
        self.look(key, now, false)
    }

    fn look(&self, key: K, now: Instant, is_taken: bool) -> Option<Budget> {
        let share = PERIOD.checked_div(self.limit)?;
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let before = paid_at.get(&key).map_or(now, |at| (*at).max(now));
        let after = before + share;
        let ahead = after.duration_since(now);
        let is_within = ahead <= PERIOD;
        if is_within && is_taken {
            make_room(&mut paid_at, now);
            paid_at.insert(key, after);
        }
        let used = if is_within && is_taken { after } else { before };
        let free = PERIOD.saturating_sub(used.duration_since(now));
        let remaining = free.as_nanos() / share.as_nanos().max(1);
        Some(Budget {
            limit: self.limit,
            remaining: u32::try_from(remaining)
                .unwrap_or(self.limit)
                .min(self.limit),
            wait: if is_within {
                used.duration_since(now)
            } else {
                ahead.saturating_sub(PERIOD)
            },
            is_within,
        })
    }
}

/// Forgets who has nothing used, and where that is not enough everybody.
fn make_room<K: Hash + Eq>(paid_at: &mut HashMap<K, Instant>, now: Instant) {
    if paid_at.len() < MAX_KEYS {
        return;
    }
    paid_at.retain(|_, at| *at > now);
    if paid_at.len() >= MAX_KEYS {
        paid_at.clear();
    }
}

/// Returns what an address is counted under: of IPv6 the /64, which one customer has whole.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_a_minute_and_then_one_by_one() {
        let (limiter, now) = (Limiter::new(60), Instant::now());
        for left in (0..60).rev() {
            let budget = limiter.take("a", now).unwrap();
            assert!(budget.is_within);
            assert_eq!(budget.remaining, left);
        }
        let over = limiter.take("a", now).unwrap();
        assert!(!over.is_within && over.remaining == 0);
        assert_eq!(over.wait, Duration::from_secs(1));
        assert!(limiter.take("b", now).unwrap().is_within);
        let later = now + Duration::from_secs(1);
        assert!(limiter.peek("a", later).unwrap().is_within);
        assert!(limiter.take("a", later).unwrap().is_within);
        assert!(!limiter.take("a", later).unwrap().is_within);
        let rested = limiter.take("a", later + PERIOD).unwrap();
        assert_eq!(rested.remaining, 59);
    }

    #[test]
    fn no_limit_is_none() {
        assert_eq!(Limiter::new(0).take("a", Instant::now()), None);
    }

    #[test]
    fn keys_are_forgotten_in_the_end() {
        let (limiter, now) = (Limiter::new(1), Instant::now());
        for key in 0..=MAX_KEYS {
            limiter.take(key, now);
        }
        assert!(limiter.paid_at.lock().unwrap().len() <= MAX_KEYS);
    }

    #[test]
    fn an_address_of_ipv6_counts_with_its_neighbours() {
        let of = |text: &str| network(text.parse().unwrap()).to_string();
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(of("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(of("192.0.2.1"), "192.0.2.1");
    }
}
