//! The durable queue, in the order a job passes through it.

mod job;
mod kind;
mod retry;

pub use job::{DeadJob, Done, Job, JobContext, JobError, JobId, Lease, LeaseId};
pub use kind::Kind;
pub use retry::{Retry, delay};
