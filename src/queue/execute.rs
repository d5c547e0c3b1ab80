//! 3 of 5: a lease runs under a span, a time limit and a guard against panics, and has an outcome.
//!
//! ```text
//! Executor ( Traced ( Limited ( Guarded ( Handler ))))
//! ```
//!
//! apalis drives the outermost service, the others are the tower layers of
//! `layer.rs`. [`judge`] turns what the handler said into an [`Outcome`].

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use apalis_core::task::Task;
use futures::future::BoxFuture;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};

use super::{
    complete::Reason,
    job::{Done, JobContext, JobError, Lease},
    kind::{BadArgs, Kind},
    layer::{self, Attempt, Panicked, TimedOut},
    lease::Leases,
    record::Records,
    retry,
    slot::Seat,
    stats::Stats,
};
use crate::observe::{self, ErrorKind, JobErrored, JobFinished, JobMeters, LeaseFenced};

/// How long a job that was claimed ahead may wait for a slot before others may have it.
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// A claimed job on its way to its handler, with the seat it occupies.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) lease: Arc<Lease>,
    pub(super) worker_id: i64,
    /// Fires when this attempt must stop, for whatever reason.
    pub(super) cancel: CancellationToken,
    /// Fires when the worker may no longer trust any of its leases.
    pub(super) session: CancellationToken,
    pub(super) seat: Seat,
}

/// How an attempt ended, as the queue will store it.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Completed {
        /// To be kept in the history.
        output: Option<Box<RawValue>>,
    },
    CompletedInTransaction,
    Cancelled,
    Retry {
        after: Duration,
        error: String,
        kind: ErrorKind,
    },
    Snoozed(Duration),
    Dead {
        reason: Reason,
        error: String,
        kind: ErrorKind,
    },
    LeaseLost,
    /// Claimed ahead and not begun: goes back as it was.
    Returned,
    /// Stopped by the daemon's own hard stop: handed back with the rest, unburnt.
    HandedBack,
}

impl Outcome {
    /// Says whether the job is left as it is, for others to find it.
    pub(super) const fn leaves_the_job(&self) -> bool {
        matches!(self, Self::LeaseLost | Self::HandedBack)
    }

    /// Says whether the completer has anything to write.
    const fn needs_writing(&self) -> bool {
        !matches!(
            self,
            Self::CompletedInTransaction | Self::LeaseLost | Self::HandedBack
        )
    }
}

/// An outcome, whose it is, and whether the database has it.
#[derive(Debug)]
pub(super) struct Conclusion {
    pub(super) lease: Arc<Lease>,
    pub(super) worker_id: i64,
    pub(super) outcome: Outcome,
    pub(super) duration: Duration,
    pub(super) written: bool,
    pub(super) fenced: bool,
}

impl Conclusion {
    /// Emits what happened, once the database has it, and adds it to the figures.
    pub(super) fn report(&self, stats: &Stats, meters: &JobMeters) {
        use observe::Outcome as Seen;
        let outcome = match (&self.outcome, self.fenced) {
            (Outcome::HandedBack | Outcome::Returned, _) => return,
            (Outcome::LeaseLost, _) | (_, true) => Seen::Lost,
            (Outcome::Completed { .. } | Outcome::CompletedInTransaction, _) => Seen::Success,
            (Outcome::Cancelled, _) => Seen::Cancelled,
            (Outcome::Retry { .. }, _) => Seen::Retry,
            (Outcome::Snoozed(_), _) => Seen::Snoozed,
            (Outcome::Dead { .. }, _) => Seen::Dead,
        };
        let Lease {
            kind,
            queue,
            attempt,
            id,
            ..
        } = &*self.lease;
        let (job, attempt) = (id.0, *attempt);
        if outcome == Seen::Lost {
            LeaseFenced {
                queue,
                kind,
                job,
                attempt,
            }
            .emit();
        }
        let error = match &self.outcome {
            Outcome::Retry {
                error,
                kind: error_kind,
                ..
            }
            | Outcome::Dead {
                error,
                kind: error_kind,
                ..
            } => {
                JobErrored {
                    queue,
                    kind,
                    error_kind: *error_kind,
                }
                .emit();
                Some(error.as_str())
            }
            _ => None,
        };
        let (waited, duration) = (millis(self.lease.waited_ms), self.duration);
        let age = millis(self.lease.age_ms) + duration;
        stats.add(kind, queue, outcome, duration, waited);
        JobFinished {
            queue,
            kind,
            outcome,
            duration,
            waited,
            age,
            attempt,
            job,
            error,
        }
        .emit_to(meters);
    }
}

/// Reads a duration in milliseconds; a clock set back gives zero.
fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// Turns a handler's result into an outcome. Pure: chance comes in.
fn judge<C>(
    kind: &Kind<C>,
    lease: &Lease,
    result: Result<Done, JobError>,
    cancelled: bool,
    chance: f64,
) -> Outcome {
    let (error, after) = match result {
        Ok(done) if done.in_transaction => return Outcome::CompletedInTransaction,
        Ok(done) => {
            let output = done.output.filter(|_| kind.keep_output);
            return Outcome::Completed { output };
        }
        Err(JobError::LeaseLost) => return Outcome::LeaseLost,
        Err(JobError::Cancelled) => return Outcome::Cancelled,
        Err(JobError::Snooze(delay)) => return Outcome::Snoozed(delay),
        Err(_) if cancelled => return Outcome::Cancelled,
        Err(JobError::Fatal(error)) => {
            let kind = error_kind(&error);
            return Outcome::Dead {
                reason: Reason::Fatal,
                error: describe(&error),
                kind,
            };
        }
        Err(JobError::Retry { error, after }) => (error, after),
    };
    let (text, error_kind) = (describe(&error), error_kind(&error));
    let attempt = u16::try_from(lease.attempt).unwrap_or(1);
    let allowed = lease.max_attempts.and_then(|n| u16::try_from(n).ok());
    if attempt >= allowed.unwrap_or(kind.retry.max_attempts) {
        return Outcome::Dead {
            reason: Reason::Exhausted,
            error: text,
            kind: error_kind,
        };
    }
    let after = after.unwrap_or_else(|| retry::delay(&kind.retry, attempt, chance));
    Outcome::Retry {
        after,
        error: text,
        kind: error_kind,
    }
}

/// Longest error that is stored, in bytes.
const LONGEST_ERROR: usize = 16 * 1024;

/// Writes an error with its causes so that Postgres can store it: without NUL, and cut.
fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("{error:#}").replace('\0', "\u{FFFD}");
    text.truncate(text.floor_char_boundary(LONGEST_ERROR));
    text
}

/// Says what sort of thing went wrong, for the metric's bounded label.
fn error_kind(error: &anyhow::Error) -> ErrorKind {
    for cause in error.chain() {
        if cause.is::<TimedOut>() {
            return ErrorKind::Timeout;
        }
        if cause.is::<Panicked>() {
            return ErrorKind::Panic;
        }
        if cause.is::<BadArgs>() {
            return ErrorKind::Validation;
        }
        if cause.is::<sqlx::Error>() {
            return ErrorKind::Db;
        }
        if cause.is::<std::io::Error>() {
            return ErrorKind::Io;
        }
    }
    ErrorKind::Other
}

/// What runs the claimed jobs of one engine.
pub(super) struct Executor<C: 'static> {
    pub(super) kinds: Arc<[Kind<C>]>,
    pub(super) state: Arc<C>,
    pub(super) tracker: TaskTracker,
    pub(super) leases: Leases,
    pub(super) records: Records,
    pub(super) conclusions: mpsc::Sender<Conclusion>,
    /// Fires when nothing more is begun because the daemon stops.
    pub(super) stop: CancellationToken,
    /// Fires when handlers must end now because the daemon does.
    pub(super) hard_stop: CancellationToken,
}

/// An [`Executor`] as one apalis worker's service.
pub(super) struct Execution<C: 'static>(pub(super) Arc<Executor<C>>);

impl<C: Send + Sync + 'static> Service<Task<Claimed>> for Execution<C> {
    type Response = ();
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, task: Task<Claimed>) -> Self::Future {
        let executor = Arc::clone(&self.0);
        Box::pin(async move {
            executor.execute(task.args).await;
            Ok(())
        })
    }
}

impl<C: Send + Sync + 'static> Executor<C> {
    /// Runs one attempt and hands its conclusion on. The slot is free as soon as the handler ends.
    async fn execute(&self, claimed: Claimed) {
        let Some(kind) = self
            .kinds
            .iter()
            .find(|kind| kind.name == claimed.lease.kind)
        else {
            return; // claims name the kinds we know; an unknown one stays for rescue
        };
        let (outcome, duration) = match self.slot(&claimed).await {
            Ok(slot) => self.attempt(kind, &claimed, slot).await,
            Err(outcome) => (outcome, Duration::ZERO),
        };
        self.leases.end(claimed.lease.lease_id);
        let written = !outcome.needs_writing();
        let conclusion = Conclusion {
            lease: claimed.lease,
            worker_id: claimed.worker_id,
            outcome,
            duration,
            written,
            fenced: false,
        };
        // The seat is kept until here: claims must not run away from the completer.
        if let Err(unsent) = self.conclusions.send(conclusion).await {
            tracing::error!(job = %unsent.0.lease.id, "the completer is gone; rescue will find the job");
        }
        drop(claimed.seat);
    }

    /// Waits for a slot; an outcome where the job is not to begin here any more.
    async fn slot(&self, claimed: &Claimed) -> Result<OwnedSemaphorePermit, Outcome> {
        if let Some(slot) = claimed.seat.free_slot()
            && !claimed.cancel.is_cancelled()
            && !self.stop.is_cancelled()
        {
            return Ok(slot);
        }
        tokio::select! {
            biased;
            () = claimed.session.cancelled() => Err(Outcome::LeaseLost),
            () = claimed.cancel.cancelled() => Err(Outcome::Cancelled),
            () = self.stop.cancelled() => Err(Outcome::Returned),
            Some(slot) = claimed.seat.slot() => Ok(slot),
            () = tokio::time::sleep(LONGEST_WAIT) => {
                // Jobs are not as short as the last ones were: claim no more ahead for now.
                claimed.seat.ran(LONGEST_WAIT);
                Err(Outcome::Returned)
            }
        }
    }

    /// Runs the handler, frees the slot and says how it ended and how long it took.
    async fn attempt(
        &self,
        kind: &Kind<C>,
        claimed: &Claimed,
        slot: OwnedSemaphorePermit,
    ) -> (Outcome, Duration) {
        let Claimed { lease, cancel, .. } = claimed;
        let started = Instant::now();
        let record = self.records.begin(lease, kind.keep_output);
        let ctx = JobContext {
            lease: Arc::clone(lease),
            cancel: cancel.clone(),
            state: Arc::clone(&self.state),
            record: Arc::clone(&record),
        };
        let attempt = Attempt { kind: *kind, ctx };
        let result = layer::stack(self.tracker.clone()).oneshot(attempt).await;
        let duration = started.elapsed();
        record.end();
        drop(slot);
        claimed.seat.ran(duration);
        let outcome = match result {
            Err(_) if self.hard_stop.is_cancelled() => Outcome::HandedBack,
            Err(_) if claimed.session.is_cancelled() => Outcome::LeaseLost,
            result => judge(kind, lease, result, cancel.is_cancelled(), fastrand::f64()),
        };
        (outcome, duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{ByName, JobId, LeaseId, Retry};

    fn kind() -> Kind<()> {
        Kind {
            name: "test.kind",
            queue: "default",
            retry: Retry::STANDARD.attempts(3),
            timeout: Duration::from_secs(1),
            schedule: None,
            by_name: ByName::AllTenants,
            keep_output: false,
            run: |_| Box::pin(async { Ok(Done::new()) }),
            on_dead: |_, _| Box::pin(async { Ok(()) }),
        }
    }

    fn lease(attempt: i16, max_attempts: Option<i16>) -> Lease {
        Lease {
            id: JobId(1),
            lease_id: LeaseId(1),
            kind: "test.kind",
            queue: "default".into(),
            priority: 1,
            args: RawValue::from_string("{}".into()).unwrap(),
            attempt,
            crashes: 0,
            max_attempts,
            run_id: None,
            tenant: None,
            gate_key: None,
            origin_id: None,
            waited_ms: 0,
            age_ms: 0,
            worker_id: 1,
            batch_id: None,
        }
    }

    fn judged(lease: &Lease, error: JobError, cancelled: bool) -> Outcome {
        judge(&kind(), lease, Err(error), cancelled, 0.0)
    }

    #[test]
    fn retries_until_the_attempts_are_used_up() {
        let error = || JobError::from(anyhow::anyhow!("no"));
        let again = judged(&lease(2, None), error(), false);
        assert!(matches!(again, Outcome::Retry { after, .. } if after == Duration::from_secs(10)));
        let last = judged(&lease(3, None), error(), false);
        assert!(matches!(
            last,
            Outcome::Dead {
                reason: Reason::Exhausted,
                ..
            }
        ));
    }

    #[test]
    fn the_rows_own_attempts_win_over_the_kinds() {
        let error = || JobError::from(anyhow::anyhow!("no"));
        assert!(matches!(
            judged(&lease(1, Some(1)), error(), false),
            Outcome::Dead { .. }
        ));
        assert!(matches!(
            judged(&lease(3, Some(9)), error(), false),
            Outcome::Retry { .. }
        ));
    }

    #[test]
    fn a_delay_that_was_asked_for_replaces_the_backoff() {
        let asked = Some(Duration::from_secs(77));
        let error = JobError::Retry {
            error: anyhow::anyhow!("busy"),
            after: asked,
        };
        let outcome = judged(&lease(1, None), error, false);
        assert!(matches!(outcome, Outcome::Retry { after, .. } if after.as_secs() == 77));
    }

    #[test]
    fn a_cancelled_job_is_not_tried_again() {
        let error = JobError::from(anyhow::anyhow!("interrupted"));
        assert!(matches!(
            judged(&lease(1, None), error, true),
            Outcome::Cancelled
        ));
    }

    #[test]
    fn an_error_is_cut_between_characters() {
        let text = describe(&anyhow::anyhow!("x{}", "é".repeat(LONGEST_ERROR)));
        assert_eq!(text.len(), LONGEST_ERROR - 1);
        assert_eq!(
            describe(&anyhow::anyhow!("a\0b").context("c")),
            "c: a\u{FFFD}b"
        );
    }

    #[test]
    fn causes_are_classified_anywhere_in_the_chain() {
        let io = std::io::Error::other("disk");
        assert_eq!(
            error_kind(&anyhow::Error::new(io).context("reading")),
            ErrorKind::Io
        );
        assert_eq!(
            error_kind(&anyhow::Error::new(sqlx::Error::PoolTimedOut)),
            ErrorKind::Db
        );
        assert_eq!(error_kind(&anyhow::anyhow!("other")), ErrorKind::Other);
    }
}
