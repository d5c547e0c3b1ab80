//! The durable queue, in the order a job passes through it:
//!
//! 1. [`enqueue`] — arguments become a row;
//! 2. `claim` — rows become leases, when `claimer` says so;
//! 3. `execute` — a lease runs and has an outcome;
//! 4. `complete` — an outcome becomes one fenced state change;
//! 5. what happened is seen: in `observe`'s events, in the history, in the dead letters.
//!
//! Around them: [`engine`](Engine) builds and drains the parts, `session` is the
//! worker's heartbeat, `rescue` takes lost leases back, `schedule` enqueues what
//! is due by the clock, [`gate`] holds jobs back whose key is at its limit,
//! [`control`] is what people do.
//!
//! This module knows nothing of what the jobs do: it is handed a slice of kinds.

mod backend;
mod batch;
mod claim;
mod claimer;
#[cfg(test)]
mod claimer_tests;
mod complete;
mod connect;
pub mod control;
pub mod dead;
mod engine;
mod enqueue;
mod execute;
pub mod filter;
mod floor;
pub mod gate;
mod hot;
mod job;
mod kind;
mod lane;
mod layer;
mod lease;
mod maintain;
mod nobody;
mod progress;
pub mod read;
pub mod record;
mod rescue;
mod retry;
pub mod rule;
pub mod schedule;
mod served;
mod session;
mod skew;
mod slot;
pub mod stats;
mod stuck;
mod timetable;
mod wake;
pub mod watch;
pub mod why;

pub use complete::Reason;
pub use engine::{Engine, Running, register};
pub use enqueue::{Enqueued, KeyTaken, NewJob, enqueue, enqueue_new, enqueue_or_find, enqueue_raw};
pub use job::{DeadJob, Done, Job, JobContext, JobError, JobId, Lease, LeaseId};
pub use kind::{ByName, Kind};
pub use record::LogLevel;
pub use retry::{Retry, delay};
pub use stuck::{LastResort, stuck};
pub use timetable::{BadTimetable, DueTime, Timetable};
