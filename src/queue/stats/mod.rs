//! Figures per minute: what ended, how, and how long it took, summed up in `ingestd.job_stats`.
//!
//! Conclusions are added up in memory and written every few seconds, so that no page and no gauge
//! ever counts rows. While Postgres is away the sums are kept, up to a limit. They are figures for
//! people and not the ledger: what a process had not written when it was killed is missing, and
//! what it wrote without hearing the answer is there twice.

mod book;
mod quantile;
mod read;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{db::Bounded, observe::Outcome};
use book::{Book, Rows};

pub use read::{KindStats, LONGEST_MINUTES, Minute, StatsFilter, by_kind, by_minute};

/// How often the sums are written.
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// Longest that the last write may take, when the daemon stops.
const LAST_FLUSH: Duration = Duration::from_secs(2);
/// Sums whose times differ by less go together while they cannot be written.
const SLOT: Duration = Duration::from_secs(30);
/// Most sums kept while they cannot be written, at some 200 bytes each: the oldest go first.
const MOST_KEPT: usize = 20_000;

const FLUSH: &str = include_str!("flush.sql");

/// What ended since the last write, and when the first of it did. A clone adds to the same sums.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats(Arc<Mutex<Option<(Instant, Book)>>>);

impl Stats {
    /// Adds one attempt that ended just now.
    pub(super) fn add(
        &self,
        kind: &str,
        queue: &str,
        outcome: Outcome,
        duration: Duration,
        wait: Duration,
    ) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, book) = open.get_or_insert_with(|| (Instant::now(), Book::default()));
        book.add(kind, queue, outcome, duration, wait);
    }

    fn take(&self) -> Option<(Instant, Book)> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.take()
    }
}

/// Writes what is added to `stats` every few seconds, and a last time once `ended` fires.
pub(super) async fn keep(stats: Stats, db: Bounded, ended: CancellationToken) {
    let mut keeper = Keeper {
        stats,
        kept: VecDeque::new(),
        is_failing: false,
    };
    while ended
        .run_until_cancelled(tokio::time::sleep(FLUSH_EVERY))
        .await
        .is_some()
    {
        keeper.flush(&db).await;
    }
    let last = Bounded {
        limit: LAST_FLUSH,
        ..db
    };
    let flushed = tokio::time::timeout(LAST_FLUSH, keeper.flush(&last)).await;
    if flushed.is_err() || !keeper.kept.is_empty() {
        tracing::warn!("the figures of the last seconds could not be written");
    }
}

struct Keeper {
    stats: Stats,
    /// What could not be written so far, oldest first, with the time at which it began.
    kept: VecDeque<(Instant, Book)>,
    is_failing: bool,
}

impl Keeper {
    /// Writes everything; keeps it for the next time where it cannot be written.
    async fn flush(&mut self, db: &Bounded) {
        if let Some((at, book)) = self.stats.take() {
            self.keep(at, book);
        }
        if self.kept.is_empty() {
            return;
        }
        let rows = Rows::of(&self.kept, Instant::now());
        match db.run(async |conn| rows.write(conn).await).await {
            Ok(()) => {
                self.kept.clear();
                self.is_failing = false;
            }
            Err(error) if !self.is_failing => {
                tracing::warn!(error = %error, "figures wait for the database");
                self.is_failing = true;
            }
            Err(_) => {}
        }
    }

    /// Puts sums with those that wait, and gives up the oldest where they are too many.
    fn keep(&mut self, at: Instant, book: Book) {
        match self.kept.back_mut() {
            Some((since, last)) if at.saturating_duration_since(*since) < SLOT => {
                last.merge(&book);
            }
            _ => self.kept.push_back((at, book)),
        }
        while self.kept.len() > 1
            && self.kept.iter().map(|(_, book)| book.len()).sum::<usize>() > MOST_KEPT
        {
            self.kept.pop_front();
            tracing::warn!("the database is away for long: the oldest figures are dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn book(n_kinds: usize) -> Book {
        let mut book = Book::default();
        for n in 0..n_kinds {
            book.add(&format!("t.{n}"), "q", Outcome::Success, MS, MS);
        }
        book
    }

    fn keeper() -> Keeper {
        Keeper {
            stats: Stats::default(),
            kept: VecDeque::new(),
            is_failing: false,
        }
    }

    #[test]
    fn what_waits_goes_together_by_its_time() {
        let (mut keeper, now) = (keeper(), Instant::now());
        for secs in [0, 5, 29, 31, 40] {
            keeper.keep(now + Duration::from_secs(secs), book(2));
        }
        let counts = keeper.kept.iter().map(|(_, book)| book.n_jobs());
        assert_eq!(counts.collect::<Vec<_>>(), [6, 4]);
    }

    #[test]
    fn what_waits_for_too_long_is_given_up_oldest_first() {
        let (mut keeper, now) = (keeper(), Instant::now());
        keeper.keep(now, book(MOST_KEPT));
        keeper.keep(now + SLOT, book(1));
        assert_eq!(keeper.kept.len(), 1);
        assert_eq!(keeper.kept.front().unwrap().0, now + SLOT);
        keeper.keep(now + SLOT * 2, book(MOST_KEPT + 1));
        assert_eq!(keeper.kept.len(), 1, "the newest stays, whatever its size");
    }

    #[test]
    fn clones_add_to_the_same_sums() {
        let stats = Stats::default();
        for stats in [&stats, &stats.clone()] {
            stats.add("t.k", "q", Outcome::Dead, MS, MS);
        }
        assert_eq!(stats.take().unwrap().1.n_jobs(), 2);
        assert!(stats.take().is_none());
    }
}
