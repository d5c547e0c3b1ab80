//! The daemon's own kinds: one to try things out with, one that acts on many, two that keep order.

pub mod bulk;
mod fault;
mod noop;
mod recover_runs;
mod sweep_blobs;

pub use bulk::Bulk;
pub use noop::{Noop, NoopOutcome};
pub use recover_runs::RecoverRuns;
pub use sweep_blobs::SweepBlobs;
