//! The daemon's own kinds: one to try things out with, one that looks after runs.

mod noop;
mod recover_runs;

pub use noop::{Noop, NoopOutcome};
pub use recover_runs::RecoverRuns;
