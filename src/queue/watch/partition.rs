//! How far ahead the partitions of the history reach.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{Days, NaiveDate};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor};

/// The partitions of one table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Partitions {
    /// The partitioned table, in schema `ingestd`.
    pub table: String,
    /// Days after today that have their partition, without a gap; -1 where today has none.
    pub ahead_days: i64,
}

#[derive(Debug, FromRow)]
struct Found {
    parent: String,
    day: Option<NaiveDate>,
    today: NaiveDate,
}

/// Reads how far ahead each table's partitions reach.
///
/// # Errors
///
/// What Postgres says.
pub async fn partitions(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Partitions>> {
    let days: Vec<Found> = sqlx::query_as(
        "SELECT d.parent, (now() AT TIME ZONE 'UTC')::date AS today,
                CASE WHEN c.relname ~ '_[0-9]{8}$' THEN to_date(right(c.relname, 8), 'YYYYMMDD') END
                  AS day
         FROM ingestd.daily_tables() d
         JOIN pg_inherits i ON i.inhparent = format('ingestd.%I', d.parent)::regclass
         JOIN pg_class c ON c.oid = i.inhrelid
         ORDER BY d.parent",
    )
    .fetch_all(db)
    .await?;
    Ok(ahead(days))
}

fn ahead(days: Vec<Found>) -> Vec<Partitions> {
    let mut tables: BTreeMap<String, (NaiveDate, BTreeSet<NaiveDate>)> = BTreeMap::new();
    for Found { parent, day, today } in days {
        let (_, found) = tables.entry(parent).or_insert((today, BTreeSet::new()));
        found.extend(day);
    }
    let count = |(table, (today, days)): (String, (NaiveDate, BTreeSet<NaiveDate>))| {
        let from_today = (0..).map_while(|n| today.checked_add_days(Days::new(n)));
        let n_days = from_today.take_while(|day| days.contains(day)).count();
        Partitions {
            table,
            ahead_days: i64::try_from(n_days).unwrap_or(i64::MAX) - 1,
        }
    };
    tables.into_iter().map(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_ends_what_is_ahead() {
        let today = NaiveDate::from_ymd_opt(2026, 2, 27).unwrap();
        let day = |parent: &str, n: Option<u64>| Found {
            parent: parent.to_owned(),
            day: n.map(|n| today + Days::new(n)),
            today,
        };
        let found = ahead(vec![
            day("a", None),
            day("a", Some(0)),
            day("a", Some(1)),
            day("a", Some(3)),
            day("b", None),
            day("b", Some(1)),
            day("c", Some(0)),
        ]);
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.table.as_str(), p.ahead_days))
            .collect();
        assert_eq!(found, [("a", 1), ("b", -1), ("c", 0)]);
    }
}
