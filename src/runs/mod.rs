//! One model of progress for every system: a run is one multi-item piece of ingestion.
//!
//! Two shapes. A **batch** is one job that walks many items with a cursor: the
//! chunk's rows, the cursor, the counts and the heartbeat commit together
//! ([`advance`]), so a crash resumes at the last committed chunk. A **fan-out**
//! is one job per item: outcomes are noted with the item's own commit and
//! folded into the run's row, and whoever folds the last one closes the run
//! ([`fan_out`]).
//!
//! A run's state is written only here, and always with the expected state in
//! the WHERE: a run somebody cancelled or that failed cannot be advanced.

mod batch;
mod control;
mod driver;
pub mod fan_out;
mod run;
mod stale;

pub use batch::{Place, Progress, Unmoved, advance, begin, complete, fail};
pub use control::{Driver, cancel, pause, reset, resume};
pub use driver::{cancel_job, replay, replay_with, retry_job};
pub use run::{NewRun, Run, RunId, RunState, create, get, list, list_of};
pub use stale::{OnFailed, Recovered, recover_stale};
