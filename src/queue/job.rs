//! What a job is to the code that runs it: [`Job`], [`JobError`], [`JobContext`].

use std::{sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::{kind::ByName, record::Record, retry::Retry};

/// Identifies a job; unique for ever within a shard, across live, history and dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type, Serialize)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct JobId(pub i64);

/// The right to finish one attempt, drawn anew at every claim and never reused: the fence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct LeaseId(pub i64);

impl std::fmt::Display for JobId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A type of work: its arguments are the struct, its behaviour is [`Job::run`].
///
/// The arguments are stored as a JSON object of at most 256 KiB; larger inputs
/// go by reference. Register a job by adding `Kind::of::<J>()` to the slice of
/// kinds that the daemon is built with.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The stored name, `system.verb`. Never change it once released.
    const KIND: &'static str;
    /// The queue of jobs that name none.
    const QUEUE: &'static str = "default";
    /// When failed attempts are tried again, and how often.
    const RETRY: Retry = Retry::STANDARD;
    /// The longest one attempt may take.
    const TIMEOUT: Duration = Duration::from_mins(5);
    /// A cron line (with seconds, UTC) that enqueues this kind with default arguments.
    const SCHEDULE: Option<&'static str> = None;
    /// Who may enqueue this kind by its name over HTTP.
    const BY_NAME: ByName = ByName::AllTenants;
    /// Whether the history keeps what [`Done::with_output`] returned.
    const KEEP_OUTPUT: bool = false;
    /// What the daemon lends to every job of this program.
    type Context: Send + Sync + 'static;

    /// Returns the key under which at most one unfinished job may exist.
    fn unique_key(&self) -> Option<String> {
        None
    }

    /// Returns the length of the periods in each of which the unique key is good for one job,
    /// finished or not; `None`: at most one unfinished job has it. See
    /// [`NewJob::unique_for`](super::NewJob::unique_for).
    fn unique_for(&self) -> Option<Duration> {
        None
    }

    /// Returns the key of the limit that this job counts against.
    fn gate_key(&self) -> Option<String> {
        None
    }

    /// Does the work of one attempt.
    ///
    /// It may run more than once, and may be dropped at any await when it is
    /// cancelled, times out, or its lease is lost.
    ///
    /// # Errors
    ///
    /// [`JobError`] says what happens next: another try, none, or a later one.
    fn run(
        self,
        ctx: &JobContext<Self::Context>,
    ) -> impl Future<Output = Result<Done, JobError>> + Send;

    /// Runs once the queue has given up, in the transaction that buries the job,
    /// so that a run can count the item as failed.
    ///
    /// # Errors
    ///
    /// An error rolls the burial back; it is tried again.
    fn on_dead(
        _conn: &mut PgConnection,
        _dead: &DeadJob,
    ) -> impl Future<Output = sqlx::Result<()>> + Send {
        std::future::ready(Ok(()))
    }
}

/// Proof that an attempt ended well.
#[derive(Debug)]
#[must_use = "return it from `Job::run`"]
pub struct Done {
    pub(super) in_transaction: bool,
    pub(super) output: Option<Box<RawValue>>,
}

impl Done {
    /// The work is done; the queue completes the job with the next batch.
    pub const fn new() -> Self {
        Self {
            in_transaction: false,
            output: None,
        }
    }

    /// The job was completed by [`JobContext::complete_in`], inside the handler's transaction.
    pub(super) const fn in_transaction() -> Self {
        Self {
            in_transaction: true,
            output: None,
        }
    }
}

impl Default for Done {
    fn default() -> Self {
        Self::new()
    }
}

/// How an attempt that did not succeed goes on. The handler decides, the queue obeys.
///
/// Any error turns into [`JobError::Retry`] with `?`; for that, this type is
/// itself no [`std::error::Error`], as `anyhow::Error` is none.
#[derive(Debug)]
pub enum JobError {
    /// Try again later: after `after`, or after the kind's backoff where it is `None`.
    Retry {
        /// What went wrong, with its causes.
        error: anyhow::Error,
        /// A delay that the other side asked for, `Retry-After` for example.
        after: Option<Duration>,
    },
    /// No later attempt can succeed: to the dead letters at once.
    Fatal(anyhow::Error),
    /// Not now: run again after the delay. This is not an attempt.
    Snooze(Duration),
    /// Somebody cancelled the job and the handler stopped because of it.
    Cancelled,
    /// Another worker may own the job now; nothing may be written any more.
    LeaseLost,
}

impl std::fmt::Display for JobError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Retry { error, .. } | Self::Fatal(error) => write!(f, "{error:#}"),
            Self::Snooze(delay) => write!(f, "snoozed for {delay:?}"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::LeaseLost => f.write_str("the lease was lost; another worker may own the job"),
        }
    }
}

impl JobError {
    /// Wraps an error that no later attempt can mend.
    pub fn fatal(error: impl Into<anyhow::Error>) -> Self {
        Self::Fatal(error.into())
    }
}

impl<E: Into<anyhow::Error>> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::Retry {
            error: error.into(),
            after: None,
        }
    }
}

/// One claimed job: what the row held, and the lease to finish it.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The job's id.
    pub id: JobId,
    /// The fence.
    pub lease_id: LeaseId,
    /// The kind's stored name.
    pub kind: &'static str,
    /// The queue it was claimed from.
    pub queue: Arc<str>,
    /// Priority, 0 urgent to 3 background.
    pub priority: i16,
    /// The arguments, the text of a JSON object.
    pub args: Box<RawValue>,
    /// This attempt's number, from 1.
    pub attempt: i16,
    /// Attempts that ended without an outcome so far.
    pub crashes: i16,
    /// Attempts allowed by the row; `None` leaves it to the kind.
    pub max_attempts: Option<i16>,
    /// The run this job is part of.
    pub run_id: Option<i64>,
    /// The owner of the data.
    pub tenant: Option<String>,
    /// The limit that it counts against.
    pub gate_key: Option<String>,
    /// The job whose work it goes on with, where it is a replay, or a replay of a replay.
    pub origin_id: Option<JobId>,
    /// Milliseconds from the time it was due to the claim, on the database's clock.
    pub waited_ms: i64,
    /// Milliseconds from its INSERT to the claim, on the database's clock.
    pub age_ms: i64,
    /// The worker that holds it.
    pub(super) worker_id: i64,
    /// The row of `batch_leases` that it was claimed with, where it was.
    pub(super) batch_id: Option<i64>,
}

impl Lease {
    /// Says whether the job is this owner's; one that names none is `default`'s.
    #[must_use]
    pub fn belongs_to(&self, owner: &str) -> bool {
        self.tenant.as_deref().unwrap_or("default") == owner
    }
}

/// What a handler is given besides its arguments.
#[derive(Debug)]
pub struct JobContext<C> {
    pub(super) lease: Arc<Lease>,
    pub(super) cancel: CancellationToken,
    pub(super) state: Arc<C>,
    pub(super) record: Arc<Record>,
}

impl<C> Clone for JobContext<C> {
    fn clone(&self) -> Self {
        Self {
            lease: Arc::clone(&self.lease),
            cancel: self.cancel.clone(),
            state: Arc::clone(&self.state),
            record: Arc::clone(&self.record),
        }
    }
}

impl<C> JobContext<C> {
    /// Returns what the daemon lends to every job: pools, stores, settings.
    #[must_use]
    pub fn state(&self) -> &C {
        &self.state
    }

    /// Returns the claimed row.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Returns the token that fires on cancellation, on a lost lease and on a hard stop.
    ///
    /// Long work that does not await checks it between items.
    #[must_use]
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Returns a key that is the same for every attempt of this job and step, and of its replays,
    /// to hand to services outside the database (`Idempotency-Key`).
    ///
    /// A replay that was asked to begin afresh has keys of its own.
    #[must_use]
    pub fn idempotency_key(&self, step: &str) -> String {
        let origin = self.lease.origin_id.unwrap_or(self.lease.id);
        format!("ingestd-job-{origin}-{step}")
    }
}

/// A job that the queue gave up, as its kind's [`Job::on_dead`] sees it.
#[derive(Debug, Clone)]
pub struct DeadJob {
    /// The job's id, also its id among the dead letters.
    pub id: JobId,
    /// The kind's stored name.
    pub kind: String,
    /// The arguments it ran with.
    pub args: serde_json::Value,
    /// The run it was part of.
    pub run_id: Option<i64>,
    /// The last error, for people.
    pub error: String,
}
