//! What the daemon shows: events that write log line and metric together, and
//! gauges read from the database.
//!
//! A thing that happened is a struct in the past tense; its `emit` writes both.
//! Nothing else in the program names the metrics crates.

mod event;
mod exporter;
pub mod gauge;
mod json;
mod label;
pub mod log;
mod meter;
pub mod metric;
mod process;

pub use event::{
    BytesIngested, ClockCompared, EventStream, GateAdmitted, HorizonNamed, HorizonSeen, HttpServed,
    JobClaimed, JobDeduplicated, JobEnqueued, JobErrored, JobFinished, LeaseFenced, LeasesRescued,
    ListenerChanged, LiveTableSeen, LiveTableVacuumed, LogLinesLost, PartitionsSeen, PlanSeen,
    ReadinessChanged, RowsIngested, ScheduleTicked, SearchDocuments, SlotsStuck, WorkerSlots,
    WorkerWoken,
};
pub use exporter::Exporter;
pub use gauge::{GateDepth, QueueDepth};
pub use label::{
    Direction, EnqueueSource, ErrorKind, HorizonHolder, LineLoss, Outcome, Rescue, RowResult,
    SearchResult, TickResult, VacuumResult, Wake,
};
pub use meter::JobMeters;
