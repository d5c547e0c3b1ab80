//! Ctrl-C and SIGTERM while a command has something to tidy up first.

use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure};

/// Waits for SIGINT or SIGTERM, which from the first call on no longer end the process by
/// themselves; returns the exit code that the shell expects.
///
/// # Cancel safety
///
/// A signal that came while nobody waited may be lost.
pub(super) async fn interrupted() -> Exit {
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await; // then they end the process as ever
    };
    tokio::select! {
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Terminated,
    }
}

/// Does something unless a signal comes first.
///
/// # Errors
///
/// Those of `work`; [`Exit::Interrupted`] or [`Exit::Terminated`] where it was dropped.
pub(super) async fn unless_interrupted<T>(
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        exit = interrupted() => Err(Failure::say(exit, "interrupted")),
    }
}
