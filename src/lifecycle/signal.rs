//! Signals: the first SIGTERM or SIGINT stops softly, the second hard; SIGHUP reloads.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use super::notify::Notifier;
use super::shutdown::{Cause, Shutdown};

/// Watches the process's signals from now on, until it ends.
///
/// At SIGHUP `reload` is called, between the service manager's RELOADING and
/// READY; it runs on the runtime and must not block for long.
///
/// # Errors
///
/// Where a handler cannot be installed. Must be called inside a runtime.
pub fn watch_signals(
    shutdown: &Shutdown,
    notifier: Notifier,
    reload: impl FnMut() + Send + 'static,
) -> io::Result<()> {
    let signals = Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        hangup: signal(SignalKind::hangup())?,
    };
    let watching = signals.watch(shutdown.clone(), notifier, reload);
    #[expect(
        clippy::disallowed_methods,
        reason = "shutdown must not wait for it: it hears the second signal while the others drain"
    )]
    tokio::spawn(watching);
    Ok(())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    async fn watch(
        mut self,
        shutdown: Shutdown,
        notifier: Notifier,
        mut reload: impl FnMut() + Send + 'static,
    ) {
        loop {
            let cause = tokio::select! {
                _ = self.terminate.recv() => Cause::Terminate,
                _ = self.interrupt.recv() => Cause::Interrupt,
                _ = self.hangup.recv() => {
                    info!("reloading");
                    notifier.reloading();
                    reload();
                    notifier.ready();
                    continue;
                }
            };
            if shutdown.soft().is_cancelled() {
                info!("second signal, dropping what still runs");
                shutdown.stop_hard(cause);
            } else {
                shutdown.stop(cause);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal::SIGHUP, Signal::SIGTERM, raise};
    use tokio::sync::mpsc;

    use super::*;
    use crate::lifecycle::notify::tests::Manager;

    #[tokio::test]
    async fn hangup_reloads_then_terminate_stops_softly_then_hard() {
        let manager = Manager::new();
        let (shutdown, (sender, mut reloads)) = (Shutdown::new(), mpsc::unbounded_channel());
        let reload = move || sender.send(()).unwrap();
        watch_signals(&shutdown, manager.notifier(None), reload).unwrap();

        raise(SIGHUP).unwrap();
        reloads.recv().await.unwrap();
        assert!(
            manager
                .heard()
                .await
                .starts_with("RELOADING=1\nMONOTONIC_USEC=")
        );
        assert_eq!(manager.heard().await, "READY=1\n");
        assert!(!shutdown.soft().is_cancelled());

        raise(SIGTERM).unwrap();
        shutdown.soft().cancelled().await;
        assert!(!shutdown.hard().is_cancelled());
        raise(SIGTERM).unwrap();
        shutdown.hard().cancelled().await;
        assert_eq!(shutdown.cause(), Some(Cause::Terminate));
    }
}
