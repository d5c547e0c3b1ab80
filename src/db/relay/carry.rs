//! Connections over TCP whose socket is ours.
//!
//! sqlx leaves the socket as the system makes it: what is small waits until what was sent before is
//! acknowledged (Nagle), and a server that has nothing to say yet acknowledges 40 ms late. The end
//! of every short COPY is such a wait: two a chunk that has row errors. And where the network
//! swallows everything, a statement waits as long as the system tries, a quarter of an hour. So
//! connections that carry rows go through a door of this process, which has a socket as it should
//! be; what goes through stays as it is, TLS included.

use std::io;

use sqlx::postgres::PgConnectOptions;
use tokio::{io::copy_bidirectional_with_sizes, net::UnixStream};

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
pub(crate) fn carried(options: PgConnectOptions) -> sqlx::Result<PgConnectOptions> {
    match Target::of(&options) {
        Target::Socket(_) => Ok(options),
        target @ Target::Tcp(..) => Ok(door::lead(options, target, Way::Plain)?),
    }
}

/// Carries one connection until both sides have enough.
pub(super) async fn serve(mut client: UnixStream, target: &Target) -> io::Result<()> {
    let mut server = match target.connect().await {
        Ok(server) => server,
        Err(error) => {
            // Whoever asked learns only that the connection broke off.
            tracing::warn!(%error, "cannot reach the database at {target}");
            return Ok(());
        }
    };
    copy_bidirectional_with_sizes(&mut client, &mut server, BLOCK, BLOCK)
        .await
        .map(|_| ())
}
