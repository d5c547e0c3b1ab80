//! The live table: its dead rows and sizes, and a vacuum where nobody else sees to it.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{ConnectOptions as _, Connection as _, FromRow, PgExecutor, postgres::PgConnectOptions};

use super::Holder;
use crate::observe::{LiveTableSeen, LiveTableVacuumed, VacuumResult};

/// With so many dead rows a table that autovacuum leaves alone is vacuumed.
const MANY_DEAD: i64 = 20_000;
/// With so many dead rows autovacuum, which begins at 2,000, is behind.
const TOO_MANY_DEAD: i64 = 100_000;
/// How long the last vacuum may be ago where autovacuum is off, and where it is on.
const VACUUM_AGE: [f64; 2] = [60.0, 180.0];
/// The pause between two vacuums of this process: one that changes nothing is not tried on and on.
const PAUSE: Duration = Duration::from_mins(10);
/// Longest that a vacuum may take.
const VACUUM_LIMIT: Duration = Duration::from_mins(30);

/// What the statistics have about `ingestd.jobs`.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct LiveTable {
    /// Rows, as last estimated.
    pub live_rows: i64,
    /// Row versions that vacuum has not removed yet, as last estimated.
    pub dead_rows: i64,
    /// Size of the table with its large values, in bytes.
    pub table_bytes: i64,
    /// Size of its indexes, in bytes.
    pub index_bytes: i64,
    /// When it was last vacuumed.
    pub vacuumed_at: Option<DateTime<Utc>>,
    /// How long ago, in seconds.
    #[serde(skip)]
    pub vacuum_age_secs: Option<f64>,
    /// Somebody vacuums it now.
    pub in_vacuum: bool,
    /// Autovacuum may work on it.
    pub has_autovacuum: bool,
}

impl LiveTable {
    /// Says whether so many dead rows are there that somebody should look.
    #[must_use]
    pub const fn is_bloated(&self) -> bool {
        self.dead_rows >= TOO_MANY_DEAD
    }

    /// Says whether a vacuum is due that nobody else begins, and worth it: while a holder of the
    /// horizon is older than the last vacuum, another would find nothing that it may remove.
    fn wants_vacuum(&self, holders: &[Holder]) -> bool {
        let [off, on] = VACUUM_AGE;
        let (many, age) = if self.has_autovacuum {
            (TOO_MANY_DEAD, on)
        } else {
            (MANY_DEAD, off)
        };
        let last = self.vacuum_age_secs.unwrap_or(f64::INFINITY);
        let is_held = holders
            .iter()
            .any(|holder| holder.age_seconds.unwrap_or(0.0) > last);
        self.dead_rows >= many && last >= age && !self.in_vacuum && !is_held
    }
}

/// Reads the statistics: no scan, no wait.
///
/// # Errors
///
/// What Postgres says.
pub async fn live_table(db: impl PgExecutor<'_>) -> sqlx::Result<LiveTable> {
    sqlx::query_as(include_str!("table.sql"))
        .fetch_one(db)
        .await
}

/// Publishes what the statistics have.
pub(super) fn publish(table: &LiveTable) {
    LiveTableSeen {
        live_rows: table.live_rows,
        dead_rows: table.dead_rows,
        table_bytes: table.table_bytes,
        index_bytes: table.index_bytes,
        vacuumed_at: table.vacuumed_at.map(|at| at.timestamp()),
    }
    .emit();
}

/// Vacuums where it is due, on a connection of its own.
#[derive(Debug)]
pub(super) struct Vacuumer {
    pub(super) options: PgConnectOptions,
    pub(super) last: Option<Instant>,
}

impl Vacuumer {
    pub(super) async fn look(&mut self, table: &LiveTable, holders: &[Holder]) {
        let is_early = self.last.is_some_and(|last| last.elapsed() < PAUSE);
        if is_early || !table.wants_vacuum(holders) {
            return;
        }
        let began = Instant::now();
        self.last = Some(began);
        tracing::warn!(
            dead_rows = table.dead_rows,
            has_autovacuum = table.has_autovacuum,
            "autovacuum leaves ingestd.jobs alone or is behind; vacuuming it"
        );
        let vacuumed = tokio::time::timeout(VACUUM_LIMIT, self.vacuum()).await;
        let (result, error) = match vacuumed {
            Ok(Ok(())) => (VacuumResult::Done, None),
            Ok(Err(error)) => (VacuumResult::Failed, Some(error.to_string())),
            Err(_) => (VacuumResult::Failed, Some("it took too long".to_owned())),
        };
        LiveTableVacuumed {
            result,
            duration: began.elapsed(),
            error: error.as_deref(),
        }
        .emit();
    }

    /// Vacuums the live table, unless somebody else does: the table's own lock, which no two
    /// vacuums share, is the try-lock among daemons and autovacuum, and needs no session.
    async fn vacuum(&self) -> sqlx::Result<()> {
        // A statement of the queue may take a minute, a vacuum takes what it takes.
        let options = self.options.clone().options([("statement_timeout", "0")]);
        let mut conn = options.connect().await?;
        sqlx::query("VACUUM (SKIP_LOCKED, TRUNCATE false) ingestd.jobs")
            .execute(&mut conn)
            .await?;
        conn.close().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::HorizonHolder;

    fn table(dead_rows: i64, has_autovacuum: bool) -> LiveTable {
        LiveTable {
            live_rows: 10,
            dead_rows,
            table_bytes: 0,
            index_bytes: 0,
            vacuumed_at: None,
            vacuum_age_secs: Some(200.0),
            in_vacuum: false,
            has_autovacuum,
        }
    }

    fn held_for(secs: f64) -> [Holder; 1] {
        [Holder {
            holder: HorizonHolder::Transaction,
            pid: None,
            name: String::new(),
            owner: None,
            state: None,
            age_transactions: 1,
            age_seconds: Some(secs),
            since: None,
            query: None,
        }]
    }

    #[test]
    fn autovacuum_is_given_more_time_than_nobody() {
        assert!(table(20_000, false).wants_vacuum(&[]));
        assert!(!table(19_999, false).wants_vacuum(&[]));
        assert!(!table(99_999, true).wants_vacuum(&[]));
        assert!(table(100_000, true).wants_vacuum(&[]));
        let lately = |secs, has_autovacuum| LiveTable {
            vacuum_age_secs: Some(secs),
            ..table(200_000, has_autovacuum)
        };
        assert!(lately(61.0, false).wants_vacuum(&[]));
        assert!(!lately(59.0, false).wants_vacuum(&[]));
        assert!(!lately(61.0, true).wants_vacuum(&[]));
    }

    #[test]
    fn nobody_vacuums_twice_or_in_vain() {
        let full = table(200_000, false);
        assert!(
            full.wants_vacuum(&held_for(199.0)),
            "what died before it can go"
        );
        assert!(!full.wants_vacuum(&held_for(201.0)));
        let in_vacuum = LiveTable {
            in_vacuum: true,
            ..table(200_000, false)
        };
        assert!(!in_vacuum.wants_vacuum(&[]));
        let never = LiveTable {
            vacuum_age_secs: None,
            ..full
        };
        assert!(
            never.wants_vacuum(&held_for(10_000.0)),
            "never vacuumed: worth a try"
        );
    }
}
