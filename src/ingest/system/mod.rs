//! The daemon's own kinds: one to try things out with, two that keep order.

mod noop;
mod recover_runs;
mod sweep_blobs;

pub use noop::{Noop, NoopOutcome};
pub use recover_runs::RecoverRuns;
pub use sweep_blobs::SweepBlobs;
