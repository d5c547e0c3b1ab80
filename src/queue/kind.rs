//! [`Kind`]: a [`Job`] with its type erased, so that a registry is one plain slice.

use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::PgConnection;

use super::job::{DeadJob, Done, Job, JobContext, JobError};
use super::retry::Retry;

/// One entry of the registry: everything the queue needs to run jobs of a kind.
pub struct Kind<C: 'static> {
    /// The stored name, `system.verb`.
    pub name: &'static str,
    /// The queue of jobs that name none.
    pub queue: &'static str,
    /// Backoff and attempts.
    pub retry: Retry,
    /// The longest one attempt may take.
    pub timeout: Duration,
    /// A cron line that enqueues the kind with default arguments.
    pub schedule: Option<&'static str>,
    /// Who may enqueue it by its name.
    pub by_name: ByName,
    /// Whether the history keeps what its jobs return.
    pub keep_output: bool,
    pub(super) run: fn(JobContext<C>) -> BoxFuture<'static, Result<Done, JobError>>,
    pub(super) on_dead:
        for<'a> fn(&'a mut PgConnection, &'a DeadJob) -> BoxFuture<'a, sqlx::Result<()>>,
}

/// Who may enqueue a kind by its name over HTTP, schedule it there, or give a dead letter of it other
/// arguments. In SQL, and on the daemon's own command line, the database's roles decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByName {
    /// Whoever may enqueue, those bound to tenants among them: the arguments name nothing that
    /// could be another tenant's.
    Anybody,
    /// Callers of all tenants only.
    AllTenants,
    /// Nobody: what makes its jobs decides more than their arguments say, as owner, key, gate or
    /// run. The text says where to ask instead.
    Nobody(&'static str),
}

impl<C> Clone for Kind<C> {
    fn clone(&self) -> Self {
        *self
    }
}

// Derived, it would ask `C: Copy`, though no `C` is stored.
impl<C> Copy for Kind<C> {}

impl<C> std::fmt::Debug for Kind<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kind")
            .field("name", &self.name)
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl<C: Send + Sync + 'static> Kind<C> {
    /// Erases the type of a job.
    #[must_use]
    pub const fn of<J: Job<Context = C>>() -> Self {
        Self {
            name: J::KIND,
            queue: J::QUEUE,
            retry: J::RETRY,
            timeout: J::TIMEOUT,
            schedule: J::SCHEDULE,
            by_name: J::BY_NAME,
            keep_output: J::KEEP_OUTPUT,
            run: run::<J>,
            on_dead: |conn, dead| Box::pin(J::on_dead(conn, dead)),
        }
    }
}

fn run<J: Job>(ctx: JobContext<J::Context>) -> BoxFuture<'static, Result<Done, JobError>> {
    Box::pin(async move {
        let job: J = serde_json::from_str(ctx.lease().args.get()).map_err(|error| {
            JobError::fatal(BadArgs {
                kind: J::KIND,
                error,
            })
        })?;
        job.run(&ctx).await
    })
}

/// The stored arguments do not fit the kind: no later attempt can succeed.
#[derive(Debug, thiserror::Error)]
#[error("args do not fit kind {kind}: {error}")]
pub(super) struct BadArgs {
    kind: &'static str,
    error: serde_json::Error,
}
