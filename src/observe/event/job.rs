//! Events of one job.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::observe::exporter::Exporter;
use crate::observe::label::{EnqueueSource, ErrorKind, LineLoss, Outcome};
use crate::observe::meter::JobMeters;
use crate::observe::metric;

/// Jobs were inserted, all of one kind into one queue.
#[derive(Debug)]
pub struct JobEnqueued<'a> {
    /// The queue they are in.
    pub queue: &'a str,
    /// Their kind.
    pub kind: &'a str,
    /// Who asked for them.
    pub source: EnqueueSource,
    /// How many.
    pub n: u64,
}

impl JobEnqueued<'_> {
    /// Counts the jobs. Emit it once the inserting transaction has committed.
    pub fn emit(self) {
        let Self {
            queue,
            kind,
            source,
            n,
        } = self;
        JobMeters::of(queue, kind).enqueued(source, n);
        debug!(queue, kind, source = source.as_str(), n, "jobs enqueued");
    }
}

/// A job was not inserted, because an unfinished one, or one of the same period, has its unique key.
#[derive(Debug)]
pub struct JobDeduplicated<'a> {
    /// The queue it would be in.
    pub queue: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// The job with the key, where it is known.
    pub job: Option<i64>,
}

impl JobDeduplicated<'_> {
    /// Counts the job that was left out.
    pub fn emit(self) {
        let Self { queue, kind, job } = self;
        JobMeters::of(queue, kind).deduplicated.increment(1);
        debug!(queue, kind, job, "another job has the unique key already");
    }
}

/// An attempt ended in an error; what becomes of the job is for [`JobFinished`] to say.
#[derive(Debug)]
pub struct JobErrored<'a> {
    /// The queue it was claimed from.
    pub queue: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// What went wrong.
    pub error_kind: ErrorKind,
}

impl JobErrored<'_> {
    /// Counts the error by what went wrong.
    pub fn emit(self) {
        let Self {
            queue,
            kind,
            error_kind,
        } = self;
        JobMeters::of(queue, kind).errored(error_kind);
        debug!(
            queue,
            kind,
            error_kind = error_kind.as_str(),
            "attempt errored"
        );
    }
}

/// An attempt ended, and its outcome is committed or was refused.
#[derive(Debug)]
pub struct JobFinished<'a> {
    /// The queue it was claimed from.
    pub queue: &'a str,
    /// Its kind.
    pub kind: &'a str,
    /// How the attempt ended.
    pub outcome: Outcome,
    /// The attempt's run time.
    pub duration: Duration,
    /// From the time it was due to its claim.
    pub waited: Duration,
    /// From the job's INSERT to now.
    pub age: Duration,
    /// The attempt's number, from 1.
    pub attempt: i16,
    /// The job's id, for the log line.
    pub job: i64,
    /// Why it failed, with causes, for the log line.
    pub error: Option<&'a str>,
}

impl JobFinished<'_> {
    /// Counts the attempt and, where it was the job's last, the job.
    pub fn emit(self) {
        self.record(&JobMeters::of(self.queue, self.kind));
        self.log();
    }

    /// As [`Self::emit`], for callers that hold the meters of many jobs' kind.
    pub fn emit_to(self, meters: &JobMeters) {
        self.record(meters);
        self.log();
    }

    fn record(&self, meters: &JobMeters) {
        meters.attempt_ended(self.outcome, self.duration.as_secs_f64());
        meters.wait.record(self.waited.as_secs_f64());
        if matches!(
            self.outcome,
            Outcome::Success | Outcome::Dead | Outcome::Cancelled
        ) {
            meters.end_to_end.record(self.age.as_secs_f64());
            meters.attempts_at_finish.record(f64::from(self.attempt));
        }
    }

    fn log(&self) {
        let Self {
            queue,
            kind,
            job,
            attempt,
            error,
            ..
        } = *self;
        let duration_ms = self.duration.as_millis();
        match self.outcome {
            Outcome::Success => debug!(queue, kind, job, attempt, duration_ms, "job completed"),
            Outcome::Snoozed => debug!(queue, kind, job, attempt, duration_ms, "job snoozed"),
            Outcome::Cancelled => info!(queue, kind, job, attempt, duration_ms, "job cancelled"),
            Outcome::Retry => warn!(
                queue,
                kind, job, attempt, duration_ms, error, "attempt failed, will be tried again"
            ),
            Outcome::Dead => warn!(
                queue,
                kind, job, attempt, duration_ms, error, "job is dead until someone replays it"
            ),
            Outcome::Lost => warn!(
                queue,
                kind, job, attempt, duration_ms, error, "lease lost, outcome not written"
            ),
        }
    }
}

/// Lines of jobs' logs were lost.
#[derive(Debug, Clone, Copy)]
pub struct LogLinesLost {
    /// Why.
    pub reason: LineLoss,
    /// How many; 0 says nothing.
    pub n: usize,
}

impl LogLinesLost {
    /// Counts the lines, and logs it where there are any; at DEBUG where each line is lost by itself.
    pub fn emit(self) {
        let Self { reason, n } = self;
        if n == 0 {
            return;
        }
        let counter = Exporter::get().counter(&metric::LOG_LINES_LOST, &[reason.as_str()]);
        counter.increment(u64::try_from(n).unwrap_or(u64::MAX));
        match reason {
            LineLoss::NoRoom => debug!(n, reason = reason.as_str(), "log lines lost"),
            LineLoss::Refused | LineLoss::Stopped => {
                warn!(n, reason = reason.as_str(), "log lines lost");
            }
        }
    }
}
