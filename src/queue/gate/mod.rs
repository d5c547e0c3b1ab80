//! Gates: how many jobs with one key run at once across all daemons, and how fast they start.
//!
//! A job with a `gate_key` is inserted `held`. It is *admitted*, held becomes queued, when its
//! key's gate has room; from then on it is claimed like any other. Slots in use are counted from
//! rows, under a lock per key, and never kept in a counter, so that nothing leaks with a worker
//! that dies. Whatever takes a gated job back (a retry, a snooze, a rescue, a hand-back) holds it
//! again.
//!
//! `keeper` is the task that looks for keys with room, [`admit`](admit::admit) the one place where
//! a held job becomes a queued one, `bell` how the keeper hears of freed slots and new jobs,
//! [`define`] what people and the configuration do.

mod admit;
mod bell;
pub mod define;
mod keeper;

pub(super) use admit::{BEGIN, admit};
pub(super) use bell::GateBell;
pub(super) use keeper::Keeper;

/// Channel of held jobs and of changed gates; the payload is the key, empty for any.
pub(super) const CHANNEL: &str = "ingestd_gate";
