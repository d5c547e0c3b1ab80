//! `/api/v1`: what operators and programs do to queues, jobs and runs.
//!
//! Reads go to the pool; a change and its line in the audit log are one
//! transaction. One file per noun.

pub(super) mod bulk;
pub(super) mod dead;
pub(super) mod enqueue;
pub(super) mod gate;
pub(super) mod health;
pub(super) mod job;
pub(super) mod log;
mod made;
pub(super) mod queue;
pub(super) mod run;
pub(super) mod schedule;
pub(super) mod search;
pub(super) mod session;
pub(super) mod source;
pub(super) mod stats;
pub(super) mod token;
pub(super) mod webhook;
