//! Handlers that do not give their thread back, seen from outside the runtime they block.
//!
//! A future that never returns from its poll cannot be dropped: neither time
//! limit nor cancellation reaches it, and where every thread has such a one,
//! nothing in the runtime runs at all. So each thread writes down which job it
//! polls and until when that job may take, two atomic stores a poll, and
//! somebody with a thread of their own reads it.

use std::{
    cell::OnceCell,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex, PoisonError, Weak,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};

use super::{job::JobId, rescue, session::Sessions};

/// Longest that the last resort may take: the process is about to end.
const LAST_RESORT: Duration = Duration::from_secs(5);

/// What one thread polls.
#[derive(Debug, Default)]
struct Thread {
    job: AtomicI64,
    /// When the job is past its deadline, in milliseconds since [`EPOCH`]; 0 where none is polled.
    due: AtomicU64,
    /// How many polls there were: one that goes on since the last look has the number it had then.
    polls: AtomicU64,
    /// Its value at the last look.
    seen: AtomicU64,
}

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);
/// The threads that ever polled a handler and still live.
static THREADS: Mutex<Vec<Weak<Thread>>> = Mutex::new(Vec::new());

thread_local! {
    static THIS: OnceCell<Arc<Thread>> = const { OnceCell::new() };
}

fn ms(at: Instant) -> u64 {
    let since = at.saturating_duration_since(*EPOCH).as_millis();
    u64::try_from(since).unwrap_or(u64::MAX).max(1)
}

fn this_thread() -> Arc<Thread> {
    THIS.with(|this| {
        let thread = this.get_or_init(|| {
            let thread = Arc::new(Thread::default());
            let mut all = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
            all.retain(|thread| thread.strong_count() > 0);
            all.push(Arc::downgrade(&thread));
            thread
        });
        Arc::clone(thread)
    })
}

/// A handler whose polls are written down.
pub(super) struct Watched<F> {
    inner: F,
    job: i64,
    due: u64,
}

impl<F> Watched<F> {
    /// Watches a handler that may take so long from now on.
    pub(super) fn new(job: JobId, timeout: Duration, inner: F) -> Self {
        let due = ms(Instant::now())
            .saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
        Self {
            inner,
            job: job.0,
            due,
        }
    }
}

/// The thread polls nothing any more, be it that the handler panicked.
struct Polling(Arc<Thread>);

impl Drop for Polling {
    fn drop(&mut self) {
        self.0.due.store(0, Ordering::Release);
    }
}

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let thread = this_thread();
        thread.job.store(self.job, Ordering::Relaxed);
        thread.polls.fetch_add(1, Ordering::Relaxed);
        thread.due.store(self.due, Ordering::Release);
        let _polling = Polling(thread);
        Pin::new(&mut self.inner).poll(cx)
    }
}

/// Returns the jobs whose handlers hold their threads since the last look, and longer than `grace`
/// after their deadline. Each is a slot that will not come back.
///
/// Looks are meant to be a second apart, made by one thread of the process.
#[must_use]
pub fn stuck(grace: Duration) -> Vec<JobId> {
    let now = ms(Instant::now());
    let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let live = threads.iter().filter_map(Weak::upgrade);
    let is_stuck = |thread: &Arc<Thread>| {
        let polls = thread.polls.load(Ordering::Relaxed);
        let is_same = thread.seen.swap(polls, Ordering::Relaxed) == polls;
        let due = thread.due.load(Ordering::Acquire);
        is_same && due > 0 && due.saturating_add(grace) < now
    };
    let stuck = live.filter(is_stuck);
    stuck
        .map(|thread| JobId(thread.job.load(Ordering::Relaxed)))
        .collect()
}

/// What is left to do where no thread of the runtime turns any more.
#[derive(Debug)]
pub struct LastResort {
    pub(super) options: PgConnectOptions,
    pub(super) session: Sessions,
}

impl LastResort {
    /// Ends the worker's life and hands back, unburnt, what it runs that is not past its deadline;
    /// what is past it is left to be rescued and charged. Returns how many jobs it handed back.
    ///
    /// Blocks for at most 5 s, on a connection of its own. The process must end right afterwards.
    ///
    /// # Errors
    ///
    /// What Postgres or the operating system says, or that time was up.
    pub fn hand_back(&self) -> anyhow::Result<u64> {
        let worker_id = self
            .session
            .borrow()
            .as_ref()
            .map(|session| session.worker_id);
        let Some(worker_id) = worker_id else {
            return Ok(0);
        };
        let hand_back = async {
            let mut conn = PgConnection::connect_with(&self.options).await?;
            rescue::hand_back_in_time(&mut conn, worker_id).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handed_back =
            runtime.block_on(async { tokio::time::timeout(LAST_RESORT, hand_back).await });
        runtime.shutdown_background(); // a name that is still being looked up holds nobody up
        Ok(handed_back??)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures::FutureExt as _;

    use super::*;

    /// Polls a handler on a thread of its own that comes back only when it is told to.
    fn block(job: i64, timeout: Duration) -> (mpsc::Sender<()>, std::thread::JoinHandle<()>) {
        let (release, released) = mpsc::channel::<()>();
        let (polled, polls) = mpsc::channel();
        let blocked = std::thread::spawn(move || {
            let handler = std::future::poll_fn(move |_| {
                polled.send(()).unwrap();
                released.recv().unwrap_err(); // the other end is dropped
                Poll::Ready(())
            });
            Watched::new(JobId(job), timeout, handler).now_or_never();
        });
        polls.recv().unwrap();
        (release, blocked)
    }

    /// Other tests of this process run handlers, too.
    fn is_stuck(job: i64, grace: Duration) -> bool {
        stuck(grace).contains(&JobId(job))
    }

    #[test]
    fn a_poll_that_outlives_the_deadline_is_seen_until_it_ends() {
        let (release, blocked) = block(-71, Duration::ZERO);
        is_stuck(-71, Duration::ZERO);
        while !is_stuck(-71, Duration::ZERO) {
            std::thread::yield_now();
        }
        assert!(!is_stuck(-71, Duration::from_hours(1)), "the grace counts");
        drop(release);
        blocked.join().unwrap();
        assert!(!is_stuck(-71, Duration::ZERO));
    }

    #[test]
    fn a_poll_before_the_deadline_may_take_its_time() {
        let (release, blocked) = block(-72, Duration::from_hours(1));
        is_stuck(-72, Duration::ZERO);
        assert!(!is_stuck(-72, Duration::ZERO));
        drop(release);
        blocked.join().unwrap();
    }

    #[test]
    fn a_panic_leaves_nothing_behind() {
        let panics = std::panic::catch_unwind(|| {
            let handler = std::future::poll_fn(|_| -> Poll<()> { panic!("on purpose") });
            Watched::new(JobId(-73), Duration::ZERO, handler).now_or_never();
        });
        assert!(panics.is_err());
        is_stuck(-73, Duration::ZERO);
        assert!(!is_stuck(-73, Duration::ZERO));
    }
}
