//! The tower layers around a handler: its span, its time limit, its guard against panics.

use std::{
    any::Any,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::Service;
use tracing::Instrument;

use super::{
    job::{Done, JobContext, JobError},
    kind::Kind,
    stuck::Watched,
};

/// How long a handler may go on after its token fired before its future is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// One execution of a job, as the layers pass it inwards.
pub(super) struct Attempt<C: 'static> {
    pub(super) kind: Kind<C>,
    pub(super) ctx: JobContext<C>,
}

/// The attempt took longer than its kind allows.
#[derive(Debug, thiserror::Error)]
#[error("timed out after {}", humantime::format_duration(*.0))]
pub(super) struct TimedOut(Duration);

/// The handler panicked.
#[derive(Debug, thiserror::Error)]
#[error("panicked: {0}")]
pub(super) struct Panicked(String);

type Running = BoxFuture<'static, Result<Done, JobError>>;

/// Stacks the layers: span outermost, then limit, then guard, then the handler.
pub(super) fn stack(tracker: TaskTracker) -> Traced<Limited<Guarded<Handler>>> {
    Traced {
        inner: Limited {
            inner: Guarded {
                inner: Handler,
                tracker,
            },
        },
    }
}

/// Implements the readiness half of a service that is always ready.
macro_rules! always_ready {
    () => {
        type Response = Done;
        type Error = JobError;
        type Future = Running;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), JobError>> {
            Poll::Ready(Ok(()))
        }
    };
}

/// One span per attempt.
pub(super) struct Traced<S> {
    inner: S,
}

impl<C: Send + Sync + 'static, S> Service<Attempt<C>> for Traced<S>
where
    S: Service<Attempt<C>, Response = Done, Error = JobError, Future = Running>,
{
    always_ready!();

    fn call(&mut self, attempt: Attempt<C>) -> Running {
        let lease = attempt.ctx.lease();
        let span = tracing::info_span!(
            "job", job = lease.id.0, kind = %lease.kind, queue = %lease.queue,
            attempt = lease.attempt, run_id = lease.run_id
        );
        let running = span.in_scope(|| self.inner.call(attempt));
        Box::pin(running.instrument(span))
    }
}

/// Ends an attempt at its kind's time limit, and soon after its token fired.
pub(super) struct Limited<S> {
    inner: S,
}

impl<C: Send + Sync + 'static, S> Service<Attempt<C>> for Limited<S>
where
    S: Service<Attempt<C>, Response = Done, Error = JobError, Future = Running>,
{
    always_ready!();

    fn call(&mut self, attempt: Attempt<C>) -> Running {
        let (timeout, cancel) = (attempt.kind.timeout, attempt.ctx.cancelled().clone());
        let mut running = self.inner.call(attempt);
        Box::pin(async move {
            tokio::select! {
                biased;
                result = &mut running => return result,
                () = cancel.cancelled() => {}
                () = tokio::time::sleep(timeout) => return Err(TimedOut(timeout).into()),
            }
            let last_words = tokio::time::timeout(CANCEL_GRACE, running).await;
            last_words.unwrap_or(Err(JobError::Cancelled))
        })
    }
}

/// Runs the handler on a task of its own: a panic becomes an error, a busy
/// handler does not stop the clock of its limit, and dropping it aborts it.
pub(super) struct Guarded<S> {
    inner: S,
    tracker: TaskTracker,
}

impl<C: Send + Sync + 'static, S> Service<Attempt<C>> for Guarded<S>
where
    S: Service<Attempt<C>, Response = Done, Error = JobError, Future = Running>,
{
    always_ready!();

    fn call(&mut self, attempt: Attempt<C>) -> Running {
        let (job, timeout) = (attempt.ctx.lease().id, attempt.kind.timeout);
        let handler = Watched::new(job, timeout, self.inner.call(attempt)).in_current_span();
        let task = AbortOnDropHandle::new(self.tracker.spawn(handler));
        Box::pin(async move {
            match task.await {
                Ok(result) => result,
                Err(error) => match error.try_into_panic() {
                    Ok(payload) => Err(Panicked(message(payload.as_ref())).into()),
                    Err(_) => Err(JobError::Cancelled),
                },
            }
        })
    }
}

/// Calls the kind.
pub(super) struct Handler;

impl<C: Send + Sync + 'static> Service<Attempt<C>> for Handler {
    always_ready!();

    fn call(&mut self, attempt: Attempt<C>) -> Running {
        (attempt.kind.run)(attempt.ctx)
    }
}

/// Reads what a panic said.
fn message(payload: &(dyn Any + Send)) -> String {
    payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}
