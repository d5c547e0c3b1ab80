//! `system.noop`: does nothing, in every way a job can.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::fault;
use crate::{
    ingest::Context,
    queue::{Done, Job, JobContext, JobError, LogLevel},
};

/// For trying things out and for measuring.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Noop {
    /// How long to sleep first, in milliseconds, at most ten minutes; with steps, in each of them.
    pub sleep_ms: u64,
    /// How many steps to take, at most 1,000. A later attempt skips those that are done.
    #[serde(skip_serializing_if = "is_zero")]
    pub steps: u16,
    /// What to log, if anything; with steps, in each of them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub log: String,
    /// What to return, if anything; the history keeps it.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// How to end.
    pub outcome: NoopOutcome,
    /// Anything, to give the job a size.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub payload: Value,
}

/// How a `system.noop` ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoopOutcome {
    /// It completes.
    #[default]
    Ok,
    /// It fails and is tried again.
    Retry,
    /// It fails for good.
    Fatal,
    /// It panics.
    Panic,
    /// It ends the whole process at once, as a crash would.
    Exit,
    /// It uses up its stack, of which the process dies.
    Overflow,
    /// It takes memory, at most 4 GiB, until the process dies of what it may not have.
    Memory,
    /// It never ends and never gives its thread back.
    Spin,
}

impl Job for Noop {
    const KIND: &'static str = "system.noop";
    const TIMEOUT: Duration = Duration::from_mins(11);
    const KEEP_OUTPUT: bool = true;
    type Context = Context;

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        if self.steps == 0 {
            work(&self, ctx).await?;
        }
        for n in 1..=self.steps.min(1000) {
            let step = async || work(&self, ctx).await.map(|()| n);
            ctx.step(&format!("step {n}"), step).await?;
            ctx.progress(n.into(), u64::from(self.steps), "");
        }
        match self.outcome {
            NoopOutcome::Ok if self.output.is_null() => Ok(Done::new()),
            NoopOutcome::Ok => Done::with_output(&self.output),
            NoopOutcome::Retry => Err(anyhow::anyhow!("asked to retry").into()),
            NoopOutcome::Fatal => Err(JobError::Fatal(anyhow::anyhow!("asked to fail for good"))),
            NoopOutcome::Panic => std::panic::panic_any("asked to panic"),
            NoopOutcome::Exit => std::process::exit(70),
            NoopOutcome::Overflow => Err(fault::overflow_stack()),
            NoopOutcome::Memory => Err(fault::take_memory()),
            NoopOutcome::Spin => fault::spin(),
        }
    }
}

/// Says what it is asked to say, and sleeps.
async fn work(job: &Noop, ctx: &JobContext<Context>) -> Result<(), JobError> {
    if !job.log.is_empty() {
        ctx.log(LogLevel::Info, job.log.clone());
    }
    if job.sleep_ms == 0 {
        return Ok(());
    }
    let nap = Duration::from_millis(job.sleep_ms.min(600_000));
    tokio::select! {
        () = tokio::time::sleep(nap) => Ok(()),
        () = ctx.cancelled().cancelled() => Err(JobError::Cancelled),
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
const fn is_zero(n: &u16) -> bool {
    *n == 0
}
