//! Events of the watch over the database.

use std::time::Duration;

use tracing::{debug, error, info, warn};

use crate::observe::exporter::Exporter;
use crate::observe::label::{HorizonHolder, VacuumResult};
use crate::observe::metric;

/// The worst holder of the xmin horizon of its sort was looked at.
#[derive(Debug)]
pub struct HorizonSeen {
    /// Its sort.
    pub holder: HorizonHolder,
    /// How many transactions began since; 0 where there is none.
    pub transactions: i64,
    /// For how long, in seconds; 0 where there is none.
    pub seconds: f64,
}

impl HorizonSeen {
    /// Publishes both ages.
    pub fn emit(self) {
        let label = [self.holder.as_str()];
        let transactions = Exporter::get().gauge(&metric::HORIZON_AGE_TRANSACTIONS, &label);
        transactions.set(float(self.transactions));
        let seconds = Exporter::get().gauge(&metric::HORIZON_AGE_SECONDS, &label);
        seconds.set(self.seconds);
    }
}

/// A holder of the xmin horizon begins to hurt.
#[derive(Debug)]
pub struct HorizonNamed<'a> {
    /// Its sort.
    pub holder: HorizonHolder,
    /// Who it is, without its statement.
    pub who: &'a str,
    /// How many transactions began since.
    pub transactions: i64,
    /// For how long, in seconds.
    pub seconds: f64,
    /// What ends it.
    pub remedy: &'a str,
}

impl HorizonNamed<'_> {
    /// Logs the holder.
    pub fn emit(self) {
        let Self {
            holder,
            who,
            transactions,
            seconds,
            remedy,
        } = self;
        warn!(
            holder = holder.as_str(),
            who, transactions, seconds, remedy, "dead rows cannot be removed, claims get slower"
        );
    }
}

/// The live table's statistics were read.
#[derive(Debug)]
pub struct LiveTableSeen {
    /// Rows, as estimated.
    pub live_rows: i64,
    /// Row versions to be vacuumed, as estimated.
    pub dead_rows: i64,
    /// Bytes of the table.
    pub table_bytes: i64,
    /// Bytes of its indexes.
    pub index_bytes: i64,
    /// When it was last vacuumed, in seconds since 1970.
    pub vacuumed_at: Option<i64>,
}

impl LiveTableSeen {
    /// Publishes them.
    pub fn emit(self) {
        let exporter = Exporter::get();
        for (state, n) in [("live", self.live_rows), ("dead", self.dead_rows)] {
            exporter
                .gauge(&metric::JOBS_TABLE_ROWS, &[state])
                .set(float(n));
        }
        for (part, n) in [("table", self.table_bytes), ("indexes", self.index_bytes)] {
            exporter
                .gauge(&metric::JOBS_TABLE_BYTES, &[part])
                .set(float(n));
        }
        let vacuumed_at = self.vacuumed_at.map_or(f64::NAN, float);
        exporter
            .gauge(&metric::JOBS_TABLE_VACUUM, &[])
            .set(vacuumed_at);
    }
}

/// The daemon vacuumed the live table, because autovacuum did not.
#[derive(Debug)]
pub struct LiveTableVacuumed<'a> {
    /// What came of it.
    pub result: VacuumResult,
    /// How long it took.
    pub duration: Duration,
    /// Why it failed.
    pub error: Option<&'a str>,
}

impl LiveTableVacuumed<'_> {
    /// Counts and logs it.
    pub fn emit(self) {
        let Self {
            result,
            duration,
            error,
        } = self;
        let counter = Exporter::get().counter(&metric::JOBS_TABLE_VACUUMS, &[result.as_str()]);
        counter.increment(1);
        let duration_ms = duration.as_millis();
        match result {
            VacuumResult::Done => info!(duration_ms, "ingestd.jobs vacuumed"),
            VacuumResult::Failed => warn!(duration_ms, error, "ingestd.jobs could not be vacuumed"),
        }
    }
}

/// The partitions of the history were looked at.
#[derive(Debug)]
pub struct PartitionsSeen {
    /// Days after today that have their partition in every table; `None` where there is no table.
    pub ahead_days: Option<i64>,
}

impl PartitionsSeen {
    /// Publishes how far they reach.
    pub fn emit(self) {
        let ahead = Exporter::get().gauge(&metric::PARTITIONS_AHEAD, &[]);
        ahead.set(self.ahead_days.map_or(f64::NAN, float));
    }
}

/// The plan of a hot statement was looked at.
#[derive(Debug)]
pub struct PlanSeen<'a> {
    /// The statement's name.
    pub statement: &'a str,
    /// What is wrong with its plan.
    pub faults: &'a [String],
}

impl PlanSeen<'_> {
    /// Publishes whether anything is wrong, and logs what.
    pub fn emit(self) {
        let Self { statement, faults } = self;
        let degraded = Exporter::get().gauge(&metric::PLAN_DEGRADED, &[statement]);
        degraded.set(f64::from(u8::from(!faults.is_empty())));
        if faults.is_empty() {
            debug!(statement, "plan is as it should be");
        } else {
            error!(statement, faults = %faults.join("; "), "plan has degraded, the queue gets slow");
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a double; values past 2^53 do not occur"
)]
fn float(n: i64) -> f64 {
    n as f64
}
