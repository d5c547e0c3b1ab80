//! What lets the daemon work through a pooler in transaction mode.
//!
//! Such a pooler hands the server to somebody else after every transaction. What a session would
//! keep is gone then, or met by others: prepared statements, settings. Newer poolers keep account of
//! prepared statements by themselves; `PgBouncer` before 1.21 does not. So each connection goes
//! through a relay in this process, which speaks for the session that there is not:
//!
//! - a prepared statement is kept here; each execution sends its text along, unnamed, so that
//!   whichever server gets it has all it needs in one round trip;
//! - the settings of the session are taken out of the startup packet and made settings of each
//!   transaction, in the same round trip that begins it.
//!
//! No caller knows of it. What it cannot give: LISTEN, and advisory locks of sessions.

mod carry;
mod door;
mod frame;
mod settings;
mod wire;

use std::{
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::UnixStream,
};

pub(super) use carry::carried;
use door::{Target, Way};
use settings::Settings;
use wire::Wire;

/// Bytes read at once.
const BLOCK: usize = 64 * 1024;

/// Returns options that reach the same pooler through a relay.
///
/// # Errors
///
/// A pooler on another machine, unless the URL says `sslmode=disable`: the relay speaks no TLS. The
/// operating system has no thread or socket left.
pub(super) fn through(options: PgConnectOptions) -> sqlx::Result<PgConnectOptions> {
    let target = Target::of(&options);
    if !may_be_plain(&target, options.get_ssl_mode()) {
        let why = "database.pooler = \"transaction\" speaks no TLS: run the pooler on this machine, \
                   or say sslmode=disable in database.url where the network is safe";
        return Err(sqlx::Error::Configuration(why.into()));
    }
    Ok(door::lead(options, target, Way::Pooler)?.ssl_mode(PgSslMode::Disable))
}

/// Says whether a connection with these options goes to a pooler, through a relay.
#[must_use]
pub(super) fn is_relayed(options: &PgConnectOptions) -> bool {
    door::target_of(options, Way::Pooler).is_some()
}

/// Returns where the pooler is that a connection with these options reaches through a relay.
#[must_use]
pub fn relayed_to(options: &PgConnectOptions) -> Option<String> {
    door::target_of(options, Way::Pooler).map(|target| format!("the pooler {target}"))
}

/// Says whether nobody can read along, or the operator has said that it does not matter.
fn may_be_plain(target: &Target, mode: PgSslMode) -> bool {
    match mode {
        PgSslMode::Disable => true,
        PgSslMode::Allow | PgSslMode::Prefer => target.is_here(),
        PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => false,
    }
}

/// Relays one connection to a pooler until either side has enough.
async fn serve(mut client: UnixStream, target: &Target) -> io::Result<()> {
    let startup = frame::read_startup(&mut client).await?;
    let (startup, settings) = Settings::taken_from(&startup)?;
    let (from_server, mut to_server) = match target.connect(Duration::ZERO).await {
        Ok(server) => tokio::io::split(server),
        Err(error) => {
            let said = frame::unreachable(&format!("cannot reach the pooler {target}: {error}"));
            client.write_all(&said).await?;
            return client.shutdown().await;
        }
    };
    to_server.write_all(&startup).await?;
    let wire = Mutex::new(Wire::new(settings));
    let (from_client, to_client) = client.into_split();
    let up = pump(from_client, to_server, |input, output| {
        wire.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rewrite_up(input, output)
    });
    let down = pump(from_server, to_client, |input, output| {
        wire.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .rewrite_down(input, output)
    });
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

/// Reads, rewrites whole messages and writes until the end of the input. `rewrite` returns how many
/// bytes of the input it has used.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut rewrite: impl FnMut(&[u8], &mut Vec<u8>) -> io::Result<usize>,
) -> io::Result<()> {
    let (mut input, mut output) = (Vec::new(), Vec::new());
    loop {
        input.reserve(BLOCK);
        if from.read_buf(&mut input).await? == 0 {
            return to.shutdown().await;
        }
        let n_used = rewrite(&input, &mut output)?;
        input.drain(..n_used);
        to.write_all(&output).await?;
        output.clear();
        // A large row is no reason to hold so much for ever.
        output.shrink_to(BLOCK);
        if input.is_empty() {
            input.shrink_to(BLOCK);
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions as _;

    use super::*;
    use crate::db::is_transient;

    fn options(url: &str) -> PgConnectOptions {
        url.parse().unwrap()
    }

    #[test]
    fn a_password_does_not_cross_a_network_in_the_open_unasked() {
        for url in [
            "postgres://u:p@db.example:6432/d",
            "postgres://u:p@db.example:6432/d?sslmode=require",
            "postgres://u:p@127.0.0.1:6432/d?sslmode=verify-full",
        ] {
            let error = through(options(url)).unwrap_err();
            assert!(error.to_string().contains("sslmode=disable"), "{error}");
        }
    }

    #[test]
    fn one_pooler_has_one_door() {
        let far = options("postgres://u:p@db.example:6432/d?sslmode=disable");
        let first = through(far.clone()).unwrap();
        let second = through(far).unwrap();
        assert_eq!(first.get_socket(), second.get_socket());
        let place = relayed_to(&first).unwrap();
        assert_eq!(place, "the pooler db.example:6432");
        assert!(!is_relayed(&options("postgres://u@127.0.0.1/d")));
    }

    #[test]
    fn only_what_goes_over_tcp_is_carried() {
        let far = options("postgres://u:p@db.example/d?sslmode=verify-full");
        let carried_far = carried(far.clone(), Duration::ZERO).unwrap();
        assert!(carried_far.get_socket().is_some());
        assert_eq!(
            carried_far.get_host(),
            far.get_host(),
            "TLS asks for this name"
        );
        assert!(matches!(carried_far.get_ssl_mode(), PgSslMode::VerifyFull));
        assert!(!is_relayed(&carried_far), "no pooler stands in between");
        let here = options("postgres://u/d").socket("/run/postgresql");
        assert_eq!(
            carried(here.clone(), Duration::ZERO).unwrap().get_socket(),
            here.get_socket()
        );
        // Through a pooler's relay already, whose socket is ours as well.
        let pooled = through(options("postgres://u:p@127.0.0.1:6432/d")).unwrap();
        assert_eq!(
            carried(pooled.clone(), Duration::ZERO)
                .unwrap()
                .get_socket(),
            pooled.get_socket()
        );
    }

    #[tokio::test]
    async fn a_pooler_that_is_not_there_is_named_and_may_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let options = options("postgres://u/d").socket(folder.path());
        let error = through(options).unwrap().connect().await.unwrap_err();
        let here = folder.path().display().to_string();
        assert!(error.to_string().contains(&here), "{error}");
        assert!(is_transient(&error), "{error}");
    }
}
