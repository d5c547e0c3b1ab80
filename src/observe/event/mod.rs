//! What can happen, one struct each; `emit` writes its log line and its metrics together.
//!
//! Levels: WARN where a person may have to act, INFO for a state that changed,
//! DEBUG for the ordinary course of work. Ids go into the line, never into a label.

mod daemon;
mod ingest;
mod job;
mod queue;
mod watch;

pub use daemon::{
    ClockCompared, EventStream, HttpServed, ListenerChanged, ReadinessChanged, SlotsStuck,
};
pub use ingest::{BytesIngested, RowsIngested, SearchDocuments};
pub use job::{JobDeduplicated, JobEnqueued, JobErrored, JobFinished, LogLinesLost};
pub use queue::{
    GateAdmitted, JobClaimed, LeaseFenced, LeasesRescued, ScheduleTicked, WorkerSlots, WorkerWoken,
};
pub use watch::{
    HorizonNamed, HorizonSeen, LiveTableSeen, LiveTableVacuumed, PartitionsSeen, PlanSeen,
};
