//! Schedules: cron lines in rows, each due tick one job.
//!
//! * `pump` finds what is due, `decide` says which of the ticks become jobs, `tick` makes these in
//!   one transaction;
//! * `sync` brings in the schedules of the configuration and of the kinds;
//! * [`control`] is what people do: make, change, remove, pause, resume, run now;
//! * [`backfill`] makes up for the ticks of a range;
//! * [`explain`] says when a schedule is due and what became of its ticks.
//!
//! # Who wins
//!
//! A user's schedule before one of the configuration, that before a built-in one. A row belongs to
//! its origin and only its owner changes what it says:
//!
//! | there is | then comes | so |
//! | --- | --- | --- |
//! | a user's | the configuration's | the user's stays; the daemon warns, `schedules ls` says so |
//! | the configuration's | a user's | refused: it is changed in the file |
//! | a built-in one | the configuration's | the configuration's takes its place; gone from the file, the built-in one is back |
//! | the configuration's, of another set | the configuration's | the first stays; the daemon warns |
//!
//! The rows of a set (`queue.schedule_set`) equal the file of the daemon of that set that started
//! last. A pause by a person belongs to people: nothing but a person ends it.

pub mod backfill;
pub mod control;
mod decide;
mod definition;
pub mod explain;
mod pump;
mod sync;
mod tick;

pub use definition::{Definition, Missed, Overlap, Wrong, check_name};
pub(super) use pump::pump;
pub(super) use sync::sync_built_in;
pub use sync::{Synced, sync};

/// Longest jitter: a day.
pub const MAX_JITTER_MS: i32 = 86_400_000;

/// Most missed ticks that a schedule may make up for.
pub const MAX_MISSED: i32 = 10_000;
