//! Connections over TCP whose socket is ours.
//!
//! sqlx leaves the socket as the system makes it: what is small waits until what was sent before is
//! acknowledged (Nagle), and a server that has nothing to say yet acknowledges 40 ms late. The end
//! of every short COPY is such a wait: two a chunk that has row errors. And where the network
//! swallows everything, a statement waits as long as the system tries, a quarter of an hour. So
//! the jobs' connections, which HTTP shares, go through a door of this process, which has a socket as
//! it should be; what goes through stays as it is, TLS included.

use std::{io, time::Duration};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::copy_bidirectional_with_sizes,
    net::UnixStream,
    time::{Instant, sleep},
};

use super::{
    BLOCK,
    door::{self, Target, Way},
};

/// Returns options that reach the same server over a socket of ours where they go over TCP, else the
/// same options.
///
/// # Errors
///
/// The operating system has no thread or socket left.
pub(crate) fn carried(
    options: PgConnectOptions,
    statement_timeout: Duration,
) -> sqlx::Result<PgConnectOptions> {
    match Target::of(&options) {
        Target::Socket(_) => Ok(options),
        target @ Target::Tcp(..) => {
            // A server that waits for a lock takes nothing of a COPY meanwhile.
            Ok(door::lead(
                options,
                target,
                Way::Plain(2 * statement_timeout),
            )?)
        }
    }
}

/// How long a server that refuses connections is taken for one that is starting, and how long between
/// two attempts. A pool does the same where it sees the refusal itself.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// Carries one connection until both sides have enough.
pub(super) async fn serve(
    mut client: UnixStream,
    target: &Target,
    unacknowledged: Duration,
) -> io::Result<()> {
    let until = Instant::now() + PATIENCE;
    let mut server = loop {
        match target.connect(unacknowledged).await {
            Ok(server) => break server,
            Err(error) if is_starting(&error) && Instant::now() < until => sleep(PAUSE).await,
            Err(error) => {
                // Whoever asked learns only that the connection broke off.
                tracing::warn!(%error, "cannot reach the database at {target}");
                return Ok(());
            }
        }
    };
    copy_bidirectional_with_sizes(&mut client, &mut server, BLOCK, BLOCK)
        .await
        .map(|_| ())
}

fn is_starting(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}
