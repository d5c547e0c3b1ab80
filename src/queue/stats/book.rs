//! The sums in memory, and the rows they become.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use sqlx::PgConnection;

use crate::observe::Outcome;

/// Upper bounds of the run times that `job_stats.buckets` counts, in milliseconds; the last
/// bucket has none.
pub(super) const BOUNDS_MS: [u64; N_BUCKETS - 1] = [5, 50, 500, 5_000, 50_000, 500_000];
/// As many as `job_stats.buckets` has.
pub(super) const N_BUCKETS: usize = 7;

/// The sums of one kind, queue and outcome.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sums {
    n_jobs: i64,
    duration: Duration,
    wait: Duration,
    buckets: [i64; N_BUCKETS],
}

impl Sums {
    fn add(&mut self, duration: Duration, wait: Duration) {
        self.n_jobs += 1;
        self.duration = self.duration.saturating_add(duration);
        self.wait = self.wait.saturating_add(wait);
        let place = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < duration);
        if let Some(bucket) = self.buckets.get_mut(place) {
            *bucket += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.n_jobs += other.n_jobs;
        self.duration = self.duration.saturating_add(other.duration);
        self.wait = self.wait.saturating_add(other.wait);
        for (mine, theirs) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += theirs;
        }
    }
}

/// Sums per outcome, in the order of [`Outcome::ALL`].
type ByOutcome = [Sums; Outcome::ALL.len()];

/// Sums by kind, queue and outcome; found by `&str`, without an allocation.
#[derive(Debug, Default)]
pub(super) struct Book(HashMap<String, HashMap<String, ByOutcome>>);

impl Book {
    pub(super) fn add(
        &mut self,
        kind: &str,
        queue: &str,
        outcome: Outcome,
        duration: Duration,
        wait: Duration,
    ) {
        let found = self
            .0
            .get_mut(kind)
            .and_then(|queues| queues.get_mut(queue));
        let by_outcome = match found {
            Some(by_outcome) => by_outcome,
            None => self.entry(kind, queue),
        };
        if let Some(sums) = by_outcome.get_mut(outcome as usize) {
            sums.add(duration, wait);
        }
    }

    fn entry(&mut self, kind: &str, queue: &str) -> &mut ByOutcome {
        let queues = self.0.entry(kind.to_owned()).or_default();
        queues.entry(queue.to_owned()).or_default()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (kind, queues) in &other.0 {
            for (queue, theirs) in queues {
                let mine = self.entry(kind, queue);
                mine.iter_mut()
                    .zip(theirs)
                    .for_each(|(mine, theirs)| mine.merge(theirs));
            }
        }
    }

    /// Returns every kind, queue and outcome that anything ended with.
    fn iter(&self) -> impl Iterator<Item = (&str, &str, Outcome, &Sums)> {
        self.0.iter().flat_map(|(kind, queues)| {
            queues.iter().flat_map(move |(queue, sums)| {
                let sums = Outcome::ALL
                    .iter()
                    .zip(sums)
                    .filter(|(_, sums)| sums.n_jobs > 0);
                sums.map(move |(outcome, sums)| (kind.as_str(), queue.as_str(), *outcome, sums))
            })
        })
    }

    /// Returns how many rows it will become.
    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }

    #[cfg(test)]
    pub(super) fn n_jobs(&self) -> i64 {
        self.iter().map(|(.., sums)| sums.n_jobs).sum()
    }
}

/// Books as the columns that the statement wants.
#[derive(Debug, Default)]
pub(super) struct Rows<'a> {
    ages_ms: Vec<i64>,
    kinds: Vec<&'a str>,
    queues: Vec<&'a str>,
    outcomes: Vec<&'static str>,
    n_jobs: Vec<i64>,
    durations_ms: Vec<i64>,
    waits_ms: Vec<i64>,
    /// [`N_BUCKETS`] for each row.
    buckets: Vec<i64>,
}

impl<'a> Rows<'a> {
    pub(super) fn of(books: &'a VecDeque<(Instant, Book)>, now: Instant) -> Self {
        let mut rows = Self::default();
        for (at, book) in books {
            let age = millis(now.saturating_duration_since(*at));
            for (kind, queue, outcome, sums) in book.iter() {
                rows.ages_ms.push(age);
                rows.kinds.push(kind);
                rows.queues.push(queue);
                rows.outcomes.push(outcome.as_str());
                rows.n_jobs.push(sums.n_jobs);
                rows.durations_ms.push(millis(sums.duration));
                rows.waits_ms.push(millis(sums.wait));
                rows.buckets.extend(sums.buckets);
            }
        }
        rows
    }

    /// Adds the rows to those that are there, in one statement.
    pub(super) async fn write(&self, conn: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::query(super::FLUSH)
            .bind(&self.ages_ms)
            .bind(&self.kinds)
            .bind(&self.queues)
            .bind(&self.outcomes)
            .bind(&self.n_jobs)
            .bind(&self.durations_ms)
            .bind(&self.waits_ms)
            .bind(&self.buckets)
            .execute(conn)
            .await?;
        Ok(())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_times_are_counted_up_to_each_bound() {
        let mut book = Book::default();
        for ms in [0, 5, 6, 50, 501, 5_000, 49_000, 500_000, 500_001] {
            book.add(
                "t.k",
                "q",
                Outcome::Retry,
                Duration::from_millis(ms),
                Duration::ZERO,
            );
        }
        book.add(
            "t.k",
            "q",
            Outcome::Retry,
            Duration::from_micros(5_001),
            Duration::ZERO,
        );
        let all: Vec<_> = book.iter().collect();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].3.buckets, [2, 3, 0, 2, 1, 1, 1]);
        assert_eq!(all[0].3.n_jobs, 10);
    }

    #[test]
    fn rows_tell_their_age() {
        let (mut book, now) = (Book::default(), Instant::now());
        let (duration, wait) = (Duration::from_millis(40), Duration::from_millis(7));
        for outcome in [Outcome::Success, Outcome::Success, Outcome::Lost] {
            book.add("t.k", "q", outcome, duration, wait);
        }
        let books = VecDeque::from([(now, book)]);
        let rows = Rows::of(&books, now + Duration::from_secs(3));
        assert_eq!(rows.ages_ms, [3_000; 2]);
        assert_eq!(rows.outcomes, ["success", "lost"]);
        assert_eq!((rows.n_jobs, rows.durations_ms), (vec![2, 1], vec![80, 40]));
        assert_eq!((rows.waits_ms, rows.buckets.len()), (vec![14, 7], 14));
    }

    #[test]
    fn merged_sums_are_the_sums_of_both() {
        let books = [["a", "b"], ["b", "c"]].map(|kinds| {
            let mut book = Book::default();
            for kind in kinds {
                book.add(
                    kind,
                    "q",
                    Outcome::Dead,
                    Duration::from_millis(3),
                    Duration::ZERO,
                );
            }
            book
        });
        let [mut all, other] = books;
        all.merge(&other);
        assert_eq!((all.len(), all.n_jobs()), (3, 4));
        assert_eq!(all.entry("b", "q")[Outcome::Dead as usize].buckets[0], 2);
    }
}
