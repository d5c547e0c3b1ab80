//! What an attempt writes down beside its outcome: the results of its steps, how far it has come,
//! what it has to say, and what came of it.
//!
//! Steps are saved at once and fenced; progress and log lines are kept in memory and written by
//! one task per engine, at most every second, for all attempts together. All of it has
//! connections of its own, opened when the first attempt needs one: a handler may hold every
//! connection of the jobs' pool while it saves a step, and claims never wait for what jobs write
//! down.

mod flush;
mod output;
mod pad;
mod read;
mod step;
mod sweep;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;
use tokio::sync::Notify;

use self::{
    pad::{Pad, Progress},
    step::Steps,
};
use super::job::{JobContext, JobId, Lease, LeaseId};
use crate::{
    db::{self, Bounded},
    observe::{LineLoss, LogLinesLost},
};

pub use pad::LogLevel;
pub use read::{
    JobLine, LogLine, LogPlace, ProgressRow, StepRow, lines, progress, steps, with_progress,
};
pub use sweep::sweep;

/// Most text that one engine keeps in memory while the database does not take it, in bytes.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// What the attempts of one engine write down.
#[derive(Debug, Clone)]
pub(super) struct Records(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    db: Bounded,
    /// The attempts that have said what is not written.
    queue: Mutex<Vec<Arc<Record>>>,
    /// Bytes of text that are not written.
    n_bytes: AtomicUsize,
    /// Something was said.
    said: Notify,
    /// Something was said by an attempt that has ended.
    hurry: Notify,
}

impl Records {
    /// Prepares; connects nothing yet. `limit` is the longest wait for an answer.
    pub(super) fn new(options: PgConnectOptions, limit: Duration) -> Self {
        let pool = db::records(options);
        Self(Arc::new(Inner {
            db: Bounded { pool, limit },
            queue: Mutex::default(),
            n_bytes: AtomicUsize::new(0),
            said: Notify::new(),
            hurry: Notify::new(),
        }))
    }

    /// Begins the record of one attempt.
    pub(super) fn begin(&self, lease: &Lease, keeps_output: bool) -> Arc<Record> {
        Arc::new(Record {
            records: self.clone(),
            id: lease.id,
            lease_id: lease.lease_id,
            attempt: lease.attempt,
            keeps_output,
            steps: Steps::default(),
            pad: Mutex::default(),
        })
    }

    /// Takes out the attempts that have said what is not written.
    fn queued(&self) -> Vec<Arc<Record>> {
        std::mem::take(&mut *lock(&self.0.queue))
    }

    fn is_idle(&self) -> bool {
        lock(&self.0.queue).is_empty()
    }
}

/// What one attempt writes down.
#[derive(Debug)]
pub(super) struct Record {
    records: Records,
    id: JobId,
    lease_id: LeaseId,
    attempt: i16,
    keeps_output: bool,
    steps: Steps,
    pad: Mutex<Pad>,
}

impl Record {
    fn db(&self) -> &Bounded {
        &self.records.0.db
    }

    /// Has the attempt say something, and the task that writes know of it.
    fn say(self: &Arc<Self>, say: impl FnOnce(&mut Pad)) {
        let mut pad = lock(&self.pad);
        say(&mut pad);
        if !pad.is_queued {
            pad.is_queued = true;
            lock(&self.records.0.queue).push(Arc::clone(self));
            self.records.0.said.notify_one();
        }
    }

    /// Has what the attempt said written soon: it has ended.
    pub(super) fn end(&self) {
        if lock(&self.pad).is_queued {
            self.records.0.hurry.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while holding one; were it so, the content would still be whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> JobContext<C> {
    /// Says how far the attempt has come, in units of the job's own: shown by `ingestd jobs` and
    /// the API.
    ///
    /// Cheap enough for every item: it is kept in memory, and the newest is written at most every
    /// second. It waits for nothing; where the lease is lost, nothing is written. `n_total` is
    /// `None` where it is not known, and `note`, cut at 500 characters, may be empty.
    ///
    /// ```
    /// # fn example(ctx: &ingestd::queue::JobContext<()>) {
    /// ctx.progress(70, 200, "reading page 7");
    /// ctx.progress(70, None, "");
    /// # }
    /// ```
    pub fn progress(&self, n_done: u64, n_total: impl Into<Option<u64>>, note: &str) {
        let progress = Progress::of(n_done, n_total.into(), note);
        self.record.say(|pad| pad.progress = Some(progress));
    }

    /// Writes a line to the attempt's log: shown by `ingestd jobs logs` and the API.
    ///
    /// It waits for nothing: lines are kept in memory and written at most a second later, also
    /// those of an attempt that fails; a crash loses that second. A line is cut at 8 KiB, an
    /// attempt has 1,000, and one more that says so. While the database is away, a process keeps
    /// 16 MiB of lines; where more are missing, a line says how many.
    pub fn log(&self, level: LogLevel, message: impl Into<String>) {
        let (message, n_bytes) = (message.into(), &self.record.records.0.n_bytes);
        let has_room = n_bytes.load(Ordering::Relaxed) < MOST_BYTES;
        self.record.say(|pad| {
            let n_lost = pad.n_lost();
            let grown = pad.say(level, message, has_room);
            n_bytes.fetch_add(grown, Ordering::Relaxed);
            let n = usize::from(pad.n_lost() > n_lost);
            let reason = LineLoss::NoRoom;
            LogLinesLost { reason, n }.emit();
        });
    }
}
