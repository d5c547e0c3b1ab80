//! The xmin horizon: who keeps vacuum from removing dead rows, by which every claim gets slower.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor};

use super::literal::without_literals;
use crate::observe::{HorizonHolder, HorizonNamed, HorizonSeen};

/// A holder of this age begins to hurt: a busy table has a million dead rows by then.
const LONG: Duration = Duration::from_mins(5);
/// A holder that is this many transactions behind hurts too, once it is no longer just passing.
const MANY_TRANSACTIONS: i64 = 1_000_000;
/// Younger than this nobody is named.
const PASSING: Duration = Duration::from_secs(30);
/// The most of a statement that is shown, in characters.
const MOST_QUERY: usize = 200;

/// Who holds the horizon.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct Holder {
    /// What it is.
    #[sqlx(try_from = "String")]
    pub holder: HorizonHolder,
    /// Its server process, where it has one.
    pub pid: Option<i32>,
    /// The application's, the prepared transaction's or the slot's name.
    pub name: String,
    /// The database user.
    pub owner: Option<String>,
    /// What it does: `active`, `idle in transaction`, `prepared`, `inactive`; `None` where this
    /// user may not see it.
    pub state: Option<String>,
    /// How many transactions began since.
    #[sqlx(rename = "transactions")]
    pub age_transactions: i64,
    /// For how long, in seconds; `None` where Postgres does not know or does not tell.
    #[sqlx(rename = "secs")]
    pub age_seconds: Option<f64>,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// The first 200 characters of its last statement, without comments and with `?` for each
    /// literal: what people select is nobody's business.
    pub query: Option<String>,
}

impl Holder {
    /// Says whether it has been there for long enough to be looked after.
    #[must_use]
    pub fn hurts(&self) -> bool {
        let secs = self.age_seconds.unwrap_or(0.0);
        secs >= LONG.as_secs_f64()
            || (self.age_transactions >= MANY_TRANSACTIONS && secs >= PASSING.as_secs_f64())
    }

    /// Describes it in one line, but for its statement.
    #[must_use]
    pub fn describe(&self) -> String {
        let pid = self
            .pid
            .map(|pid| format!(" pid {pid}"))
            .unwrap_or_default();
        let name = Some(self.name.as_str()).filter(|name| !name.is_empty());
        let name = name.map(|name| format!(" \"{name}\"")).unwrap_or_default();
        let owner = self
            .owner
            .as_ref()
            .map(|owner| format!(" of {owner}"))
            .unwrap_or_default();
        let state = self
            .state
            .as_ref()
            .map(|state| format!(", {state}"))
            .unwrap_or_default();
        let what = self.holder.as_str().replace('_', " ");
        format!("{what}{pid}{name}{owner}{state}")
    }

    /// Says what ends it.
    #[must_use]
    pub fn remedy(&self) -> String {
        let quoted = self.name.replace('\'', "''");
        match (self.holder, self.pid) {
            (HorizonHolder::Transaction, Some(pid)) => {
                format!("SELECT pg_terminate_backend({pid}), if nobody needs it")
            }
            (HorizonHolder::Transaction, None) => "end the transaction".to_owned(),
            (HorizonHolder::Prepared, _) => {
                format!("COMMIT PREPARED '{quoted}' or ROLLBACK PREPARED '{quoted}'")
            }
            (HorizonHolder::ReplicationSlot, _) => format!(
                "see what its standby runs; if it is gone: SELECT pg_drop_replication_slot('{quoted}')"
            ),
            (HorizonHolder::Standby, _) => {
                "end the long query on the standby, or set its hot_standby_feedback off".to_owned()
            }
        }
    }
}

/// Reads who holds the horizon of this database, the worst first, at most 20.
///
/// # Errors
///
/// What Postgres says.
pub async fn holders(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Holder>> {
    let mut holders: Vec<Holder> = sqlx::query_as(include_str!("horizon.sql"))
        .fetch_all(db)
        .await?;
    for holder in &mut holders {
        let query = holder.query.take();
        holder.query = query.map(|query| without_literals(&query, MOST_QUERY));
    }
    Ok(holders)
}

/// Publishes the horizon's age and names each holder once, when it begins to hurt.
#[derive(Debug, Default)]
pub(super) struct Horizon {
    /// Holders without a time of their own, and since when they stand still here.
    still: HashMap<(HorizonHolder, String), Still>,
    /// The last holder of each sort that was named, until it is gone.
    named: HashMap<HorizonHolder, Identity>,
}

type Identity = (Option<i32>, String, Option<DateTime<Utc>>);

#[derive(Debug)]
struct Still {
    transactions: i64,
    since: Instant,
}

impl Horizon {
    /// Takes note of what was read at `now`.
    pub(super) fn note(&mut self, holders: &mut [Holder], now: Instant) {
        self.fill_times(holders, now);
        for &holder in HorizonHolder::ALL {
            // They are sorted: the first of a sort is its worst.
            let worst = holders.iter().find(|found| found.holder == holder);
            HorizonSeen {
                holder,
                transactions: worst.map_or(0, |worst| worst.age_transactions),
                seconds: worst.and_then(|worst| worst.age_seconds).unwrap_or(0.0),
            }
            .emit();
            self.name(holder, worst.filter(|worst| worst.hurts()));
        }
    }

    /// A slot or a standby that holds the same horizon as before gets older; one that moved on,
    /// and so is fewer transactions behind than it would be, begins anew.
    fn fill_times(&mut self, holders: &mut [Holder], now: Instant) {
        let mut still = HashMap::new();
        for holder in holders.iter_mut().filter(|holder| holder.since.is_none()) {
            let key = (holder.holder, holder.name.clone());
            let before = self.still.remove(&key);
            let since = match before {
                Some(before) if before.transactions <= holder.age_transactions => before.since,
                _ => now,
            };
            let age = now.saturating_duration_since(since);
            holder.age_seconds = Some(age.as_secs_f64());
            let transactions = holder.age_transactions;
            still.insert(
                key,
                Still {
                    transactions,
                    since,
                },
            );
        }
        self.still = still;
    }

    /// Logs a holder that hurts, once; and once that nobody does any more.
    fn name(&mut self, holder: HorizonHolder, worst: Option<&Holder>) {
        let Some(worst) = worst else {
            if self.named.remove(&holder).is_some() {
                tracing::info!(
                    holder = holder.as_str(),
                    "nothing holds the vacuum horizon back any more"
                );
            }
            return;
        };
        let identity = (worst.pid, worst.name.clone(), worst.since);
        if self.named.insert(holder, identity.clone()).as_ref() != Some(&identity) {
            HorizonNamed {
                holder,
                who: &worst.describe(),
                transactions: worst.age_transactions,
                seconds: worst.age_seconds.unwrap_or(0.0),
                remedy: &worst.remedy(),
            }
            .emit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(secs: Option<f64>, transactions: i64) -> Holder {
        Holder {
            holder: HorizonHolder::Transaction,
            pid: Some(7),
            name: "psql".into(),
            owner: Some("ann".into()),
            state: Some("idle in transaction".into()),
            age_transactions: transactions,
            age_seconds: secs,
            since: secs.map(|_| DateTime::UNIX_EPOCH),
            query: None,
        }
    }

    fn slot(transactions: i64) -> Holder {
        Holder {
            holder: HorizonHolder::ReplicationSlot,
            name: "s'1".into(),
            pid: None,
            owner: None,
            ..holder(None, transactions)
        }
    }

    #[test]
    fn only_the_old_hurt() {
        assert!(!holder(Some(299.0), 10).hurts());
        assert!(holder(Some(300.0), 0).hurts());
        assert!(!holder(Some(29.0), 5_000_000).hurts());
        assert!(holder(Some(30.0), 1_000_000).hurts());
        assert!(
            !holder(None, 5_000_000).hurts(),
            "not before its time is known"
        );
    }

    #[test]
    fn a_holder_says_who_it_is_and_what_ends_it() {
        let found = holder(Some(1.0), 1);
        assert_eq!(
            found.describe(),
            "transaction pid 7 \"psql\" of ann, idle in transaction"
        );
        assert!(found.remedy().contains("pg_terminate_backend(7)"));
        assert!(
            slot(1)
                .remedy()
                .ends_with("pg_drop_replication_slot('s''1')")
        );
    }

    #[test]
    fn a_slot_that_stands_still_gets_older_and_one_that_moves_does_not() {
        let (mut horizon, begun) = (Horizon::default(), Instant::now());
        let age_at = |horizon: &mut Horizon, secs, transactions| {
            let mut holders = [slot(transactions)];
            horizon.fill_times(&mut holders, begun + Duration::from_secs(secs));
            holders[0].age_seconds.unwrap()
        };
        assert!(age_at(&mut horizon, 0, 10) < 0.1);
        assert!(age_at(&mut horizon, 60, 400) > 59.0);
        assert!(age_at(&mut horizon, 90, 50) < 0.1, "it moved on");
        assert!(age_at(&mut horizon, 100, 50) > 9.0);
        horizon.fill_times(&mut [], begun);
        assert!(age_at(&mut horizon, 200, 60) < 0.1, "it was gone");
    }

    #[test]
    fn a_holder_is_named_once() {
        let mut horizon = Horizon::default();
        let mut note = |holders: &mut [Holder]| {
            horizon.note(holders, Instant::now());
            horizon.named.len()
        };
        assert_eq!(note(&mut [holder(Some(10.0), 1)]), 0);
        assert_eq!(note(&mut [holder(Some(301.0), 9), slot(3)]), 1);
        assert_eq!(note(&mut [holder(Some(302.0), 10)]), 1);
        assert_eq!(note(&mut []), 0);
    }
}
