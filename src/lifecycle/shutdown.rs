//! Soft and hard stop, and the tasks that they wait for.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// The stop of the process, shared by all its parts.
///
/// The only place that spawns tasks: each has a name, shutdown waits for it,
/// and its panic stops the process instead of leaving it half alive.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    soft: CancellationToken,
    hard: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<&'static str, usize>>,
    cause: OnceLock<Cause>,
}

impl Default for Inner {
    fn default() -> Self {
        let hard = CancellationToken::new();
        Self {
            soft: hard.child_token(),
            hard,
            tracker: TaskTracker::new(),
            running: Mutex::default(),
            cause: OnceLock::new(),
        }
    }
}

/// Why the process stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM: the service manager, or somebody, asked.
    Terminate,
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// A part of the process is done and the rest with it.
    Finished,
    /// Handlers block too many threads for good; see [`Recycler`](super::Recycler).
    Stuck,
    /// A task panicked, or a part that must live ended; the process failed.
    Failed(&'static str),
}

/// How the stop went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Drained {
    /// Every task ended by itself.
    Clean,
    /// Some were still at work when the soft stop was over, and then ended.
    Hard,
    /// These did not end even then, by name.
    Abandoned(Vec<&'static str>),
}

impl Shutdown {
    /// Returns a stop that nobody has asked for yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the token that fires when nothing new is to be begun.
    #[must_use]
    pub fn soft(&self) -> &CancellationToken {
        &self.inner.soft
    }

    /// Returns the token that fires when running work is to be dropped; it fires the soft one too.
    #[must_use]
    pub fn hard(&self) -> &CancellationToken {
        &self.inner.hard
    }

    /// Returns why the process stops: the first cause; `None` while it does not.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        self.inner.cause.get().copied()
    }

    /// Begins the soft stop; does nothing where it has begun.
    pub fn stop(&self, cause: Cause) {
        if self.inner.cause.set(cause).is_ok() {
            info!(?cause, "stopping");
        }
        self.inner.soft.cancel();
    }

    /// Begins the hard stop; does nothing where it has begun.
    pub fn stop_hard(&self, cause: Cause) {
        self.stop(cause);
        self.inner.hard.cancel();
    }

    /// Spawns a task that [`Self::drain`] waits for.
    ///
    /// `name` stands in the log when the task panics or does not end. A panic
    /// begins the soft stop with [`Cause::Failed`].
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let this = self.clone();
        let alive = Alive::new(self, name);
        let watched = async move {
            let ended = AssertUnwindSafe(task).catch_unwind().await;
            if ended.is_err() {
                error!(task = name, "task panicked");
                this.stop(Cause::Failed(name));
            }
            drop(alive);
        };
        self.inner.tracker.spawn(watched);
    }

    /// Waits for the soft stop to begin, then for every task.
    ///
    /// Tasks have `soft_stop` to end by themselves; then, or at a second signal,
    /// the hard stop begins, and they have `hard_stop` to notice. Those that
    /// are left then are abandoned: they end with the process.
    pub async fn drain(&self, soft_stop: Duration, hard_stop: Duration) -> Drained {
        let Inner {
            soft,
            hard,
            tracker,
            ..
        } = &*self.inner;
        soft.cancelled().await;
        tracker.close();
        tokio::select! {
            () = tracker.wait() => return Drained::Clean,
            () = hard.cancelled() => {}
            () = tokio::time::sleep(soft_stop) => {
                info!(tasks = ?self.running(), "soft stop is over, dropping what still runs");
                hard.cancel();
            }
        }
        if tokio::time::timeout(hard_stop, tracker.wait())
            .await
            .is_ok()
        {
            return Drained::Hard;
        }
        let names = self.running();
        warn!(tasks = ?names, "tasks did not end");
        Drained::Abandoned(names)
    }

    /// Returns the names of the tasks that run, each once.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        self.lock().keys().copied().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        let running = &self.inner.running;
        running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a task as running for as long as it lives, dropped at an await included.
struct Alive {
    shutdown: Shutdown,
    name: &'static str,
}

impl Alive {
    fn new(shutdown: &Shutdown, name: &'static str) -> Self {
        *shutdown.lock().entry(name).or_default() += 1;
        Self {
            shutdown: shutdown.clone(),
            name,
        }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let mut running = self.shutdown.lock();
        if let Some(n) = running.get_mut(self.name) {
            *n -= 1;
            if *n == 0 {
                running.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_task_that_heeds_the_soft_stop_drains_clean() {
        let shutdown = Shutdown::new();
        let soft = shutdown.soft().clone();
        shutdown.spawn("heeds", async move { soft.cancelled().await });
        assert_eq!(shutdown.running(), ["heeds"]);
        shutdown.stop(Cause::Terminate);
        assert_eq!(shutdown.drain(LONG, LONG).await, Drained::Clean);
        assert!(!shutdown.hard().is_cancelled());
        assert!(shutdown.running().is_empty());
    }

    #[tokio::test]
    async fn the_hard_stop_follows_when_the_soft_one_is_over() {
        let shutdown = Shutdown::new();
        let hard = shutdown.hard().clone();
        shutdown.spawn("slow", async move { hard.cancelled().await });
        shutdown.stop(Cause::Interrupt);
        assert_eq!(shutdown.drain(SHORT, LONG).await, Drained::Hard);
    }

    #[tokio::test]
    async fn a_second_request_does_not_wait_for_the_soft_stop() {
        let shutdown = Shutdown::new();
        let hard = shutdown.hard().clone();
        shutdown.spawn("slow", async move { hard.cancelled().await });
        shutdown.stop(Cause::Interrupt);
        shutdown.stop_hard(Cause::Terminate);
        assert_eq!(shutdown.drain(LONG, LONG).await, Drained::Hard);
        assert_eq!(shutdown.cause(), Some(Cause::Interrupt), "the first counts");
    }

    #[tokio::test]
    async fn a_task_that_never_ends_is_named() {
        let shutdown = Shutdown::new();
        shutdown.spawn("deaf", std::future::pending());
        shutdown.spawn("deaf", std::future::pending());
        shutdown.spawn("quick", std::future::ready(()));
        shutdown.stop(Cause::Terminate);
        let drained = shutdown.drain(SHORT, SHORT).await;
        assert_eq!(drained, Drained::Abandoned(vec!["deaf"]));
    }

    #[tokio::test]
    async fn a_panic_stops_the_process() {
        let shutdown = Shutdown::new();
        shutdown.spawn("fragile", async { panic!("on purpose") });
        assert_eq!(shutdown.drain(LONG, LONG).await, Drained::Clean);
        assert_eq!(shutdown.cause(), Some(Cause::Failed("fragile")));
    }

    #[test]
    fn hard_implies_soft() {
        let shutdown = Shutdown::new();
        shutdown.hard().cancel();
        assert!(shutdown.soft().is_cancelled());
    }
}
