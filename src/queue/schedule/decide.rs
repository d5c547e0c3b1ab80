//! Which of the ticks that are due become jobs. Pure.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::{Definition, MAX_MISSED, Missed, Overlap};
use crate::queue::timetable::Timetable;

/// Ticks older than this are missed, as far as `skip` is concerned.
pub(super) const FRESH: Duration = Duration::from_mins(1);

/// Most ticks looked at in one round: a daemon that was away for a year catches up over a few. More
/// than may be made up for, so that a round can tell which are left out.
pub(super) const MOST_TICKS: usize = 2 * MAX_MISSED as usize;

/// Most jobs that one round makes: it is one transaction, and must end well within the time that a
/// statement of the queue may take. The rest stay due for the next.
pub(super) const MOST_JOBS: usize = 500;

/// What is to become of due ticks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Decision {
    /// These become jobs, oldest first.
    pub(super) kept: Vec<DateTime<Utc>>,
    /// These pass without one.
    pub(super) missed: Vec<DateTime<Utc>>,
    /// The first tick that nothing is said about, due or not.
    pub(super) next_at: Option<DateTime<Utc>>,
}

/// Decides about the ticks from `next_at` up to `now`, at most `most_ticks` of them, which is more
/// than the definition makes up for. What is due beyond that is for the next decision, and so is
/// what would become more than `most_jobs` jobs.
pub(super) fn decide(
    timetable: &Timetable,
    definition: &Definition,
    next_at: DateTime<Utc>,
    now: DateTime<Utc>,
    most_ticks: usize,
    most_jobs: usize,
) -> Decision {
    let mut ticks = vec![next_at];
    let mut next_at = timetable.next_after(next_at);
    while let Some(at) = next_at
        && at <= now
        && ticks.len() < most_ticks
    {
        ticks.push(at);
        next_at = timetable.next_after(at);
    }
    let most = usize::try_from(definition.missed_max.min(MAX_MISSED)).unwrap_or(1);
    let (mut kept, missed) = split_ticks(ticks, definition.missed, most, now, FRESH);
    if next_at.is_some_and(|at| at <= now) && !missed.is_empty() {
        // More are due than one round looks at: which of them are the last shows in the next.
        next_at = kept.drain(..).next().or(next_at);
    }
    if definition.overlap == Overlap::Queue && kept.len() > 1 {
        // One at a time: the others stay due until this one's job is finished.
        next_at = kept.drain(1..).next();
    }
    if kept.len() > most_jobs {
        next_at = kept.drain(most_jobs..).next();
    }
    Decision {
        kept,
        missed,
        next_at,
    }
}

/// The ticks up to now, oldest first, split by the policy into those to enqueue and those missed.
///
/// A tick counts as missed when a later one is due as well; with `Skip` also
/// when it is older than `fresh`. `most` is what `All` keeps.
fn split_ticks(
    mut due: Vec<DateTime<Utc>>,
    missed: Missed,
    most: usize,
    now: DateTime<Utc>,
    fresh: Duration,
) -> (Vec<DateTime<Utc>>, Vec<DateTime<Utc>>) {
    let n_kept = match missed {
        Missed::All => most,
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
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn missed_ticks_follow_the_policy() {
        let now = at("2026-01-01T00:05:30Z");
        let due: Vec<_> = (1..=5)
            .map(|m| at(&format!("2026-01-01T00:0{m}:00Z")))
            .collect();
        let split = |missed, most| {
            let fresh = Duration::from_mins(1);
            let (kept, missed) = split_ticks(due.clone(), missed, most, now, fresh);
            (kept.len(), missed.len())
        };
        assert_eq!(split(Missed::Once, 100), (1, 4));
        assert_eq!(split(Missed::All, 3), (3, 2));
        assert_eq!(split(Missed::All, 100), (5, 0));
        assert_eq!(split(Missed::Skip, 100), (1, 4));
        let late = now + chrono::Duration::hours(1);
        let (kept, _) = split_ticks(due, Missed::Skip, 100, late, Duration::from_mins(1));
        assert!(kept.is_empty());
    }

    fn definition() -> impl Strategy<Value = Definition> {
        let crons = prop::sample::select(vec![
            "*/7 * * * * *",
            "* * * * *",
            "0 15,45 * * * *",
            "30 2 * * *",
        ]);
        let zones = prop::sample::select(vec!["UTC", "Europe/Prague", "Australia/Lord_Howe"]);
        let missed = prop::sample::select(vec![Missed::Skip, Missed::Once, Missed::All]);
        let overlap = prop::sample::select(vec![Overlap::Allow, Overlap::Queue]);
        (crons, zones, missed, 1..20_i32, overlap).prop_map(
            |(cron, zone, missed, missed_max, overlap)| Definition {
                timezone: zone.to_owned(),
                missed,
                missed_max,
                overlap,
                ..Definition::new(cron, "t.kind")
            },
        )
    }

    /// Times that a daemon is away, in seconds, from a blink to a few hours; and whether the
    /// transaction that handles what is due then is rolled back at first.
    fn outages() -> impl Strategy<Value = Vec<(i64, bool)>> {
        let away = prop_oneof![1..120_i64, 1..5_000_i64, 1..20_000_i64];
        prop::collection::vec((away, any::<bool>()), 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// However long the daemons are away and however often one dies: every tick is handled
        /// once, and as many become jobs as the policy says, the newest.
        #[test]
        fn no_tick_is_lost_or_doubled(
            definition in definition(),
            outages in outages(),
            start in 1_790_000_000_i64..1_800_000_000,
        ) {
            let timetable = definition.check().unwrap();
            let start = DateTime::from_timestamp(start, 0).unwrap();
            let (mut now, mut next_at) = (start, timetable.next_after(start).unwrap());
            let mut handled = Vec::new();
            for (away, mut dies) in outages {
                now += chrono::TimeDelta::seconds(away);
                let mut batch = Vec::new();
                while next_at <= now {
                    let decision = decide(&timetable, &definition, next_at, now, 40, 7);
                    if std::mem::take(&mut dies) {
                        continue; // rolled back: nothing of it stays
                    }
                    prop_assert!(definition.overlap == Overlap::Allow || decision.kept.len() <= 1);
                    prop_assert!(decision.kept.len() <= 7);
                    batch.extend(decision.missed.into_iter().map(|at| (at, false)));
                    batch.extend(decision.kept.into_iter().map(|at| (at, true)));
                    next_at = decision.next_at.unwrap();
                }
                let most = usize::try_from(definition.missed_max).unwrap();
                let newest = batch.last().map(|(at, _)| now - *at);
                let n_expected = match definition.missed {
                    Missed::All => most.min(batch.len()),
                    Missed::Once => batch.len().min(1),
                    Missed::Skip => usize::from(newest.is_some_and(|n| n.num_seconds() <= 60)),
                };
                let n_jobs = batch.iter().filter(|(_, is_job)| *is_job).count();
                prop_assert_eq!(n_jobs, n_expected);
                prop_assert!(batch.iter().rev().take(n_jobs).all(|(_, is_job)| *is_job));
                handled.extend(batch.into_iter().map(|(at, _)| at));
            }
            let first = timetable.next_after(start);
            let all = std::iter::successors(first, |at| timetable.next_after(*at));
            let all: Vec<_> = all.take_while(|at| *at <= now).collect();
            prop_assert_eq!(handled, all);
        }
    }
}
