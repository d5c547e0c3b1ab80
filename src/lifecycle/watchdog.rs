//! The service manager's watchdog, fed by work that went through and not by a bare timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::notify::Notifier;

/// Looks per watchdog interval: with four, work that stalls for up to three
/// quarters of the interval is forgiven.
const LOOKS: u32 = 4;

/// Tells the service manager that the process works, as long as it does.
///
/// The parts that do the work [`feed`](Self::feed) it; a process whose runtime
/// hangs feeds nothing and is restarted by the manager.
#[derive(Debug, Clone, Default)]
pub struct Watchdog {
    fed: Arc<AtomicBool>,
}

impl Watchdog {
    /// Notes that a round trip to the database, on the runtime that runs jobs, came back.
    ///
    /// An answer that is an error feeds it too: a restart does not mend a
    /// database that is down, and would drop what does not need it.
    pub fn feed(&self) {
        self.fed.store(true, Ordering::Relaxed);
    }

    /// Passes the feeding on to the manager until `stop` fires, four times an interval.
    ///
    /// Returns at once where the manager keeps no watchdog.
    pub async fn run(self, notifier: Notifier, stop: CancellationToken) {
        let Some(interval) = notifier.watchdog() else {
            return;
        };
        let mut n_hungry = 0;
        while stop
            .run_until_cancelled(tokio::time::sleep(interval / LOOKS))
            .await
            .is_some()
        {
            if self.fed.swap(false, Ordering::Relaxed) {
                notifier.alive();
                n_hungry = 0;
            } else {
                n_hungry += 1;
                warn!(n_hungry, "no sign of work that gets on; watchdog not fed");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lifecycle::{Cause, Drained, Shutdown, notify::tests::Manager};

    #[tokio::test]
    async fn the_manager_hears_only_what_was_fed() {
        let manager = Manager::new();
        let (watchdog, shutdown) = (Watchdog::default(), Shutdown::new());
        let notifier = manager.notifier(Some(Duration::from_millis(40)));
        let task = watchdog
            .clone()
            .run(notifier.clone(), shutdown.soft().clone());
        shutdown.spawn("watchdog", task);

        watchdog.feed();
        assert_eq!(manager.heard().await, "WATCHDOG=1\n");
        watchdog.feed();
        assert_eq!(manager.heard().await, "WATCHDOG=1\n");

        // Several looks without food: the next word is what the test says itself.
        let looks = Duration::from_millis(100);
        assert!(tokio::time::timeout(looks, manager.heard()).await.is_err());
        notifier.status("quiet");
        assert_eq!(manager.heard().await, "STATUS=quiet\n");
        shutdown.stop(Cause::Finished);
        assert_eq!(shutdown.drain(looks, looks).await, Drained::Clean);
    }

    #[tokio::test]
    async fn without_a_watchdog_it_ends_at_once() {
        let stop = CancellationToken::new();
        Watchdog::default().run(Notifier::default(), stop).await;
    }
}
