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

mod frame;
mod settings;
mod wire;

use std::{
    fmt, io,
    os::{linux::net::SocketAddrExt as _, unix::net as unix},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::unistd::Uid;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpStream, UnixListener, UnixStream},
};
use tokio_util::task::TaskTracker;

use settings::Settings;
use wire::Wire;

/// Bytes read at once.
const BLOCK: usize = 64 * 1024;

/// What the abstract socket's name begins with; the rest is unique to the door.
const NAME: &str = "ingestd-relay";

/// The port of the doors' names; it says nothing.
const PORT: u16 = 5432;

/// The doors of this process. One stays as long as the process does.
static DOORS: Mutex<Vec<Door>> = Mutex::new(Vec::new());

/// Where this process takes connections for one pooler.
#[derive(Debug)]
struct Door {
    target: Target,
    /// What stands for the socket's folder in a connection's options.
    folder: PathBuf,
}

/// Where a pooler is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Socket(PathBuf),
    Tcp(String, u16),
}

/// Returns options that reach the same pooler through a relay.
///
/// # Errors
///
/// A pooler on another machine, unless the URL says `sslmode=disable`: the relay speaks no TLS. The
/// operating system has no thread or socket left.
pub(super) fn through(options: PgConnectOptions) -> sqlx::Result<PgConnectOptions> {
    let target = Target::of(&options);
    if !target.may_be_plain(options.get_ssl_mode()) {
        let why = "database.pooler = \"transaction\" speaks no TLS: run the pooler on this machine, \
                   or say sslmode=disable in database.url where the network is safe";
        return Err(sqlx::Error::Configuration(why.into()));
    }
    let mut doors = DOORS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = doors.iter().find(|door| door.target == target);
    let folder = if let Some(door) = known {
        door.folder.clone()
    } else {
        let folder = open(target.clone())?;
        doors.push(Door {
            target,
            folder: folder.clone(),
        });
        folder
    };
    Ok(options
        .socket(folder)
        .port(PORT)
        .ssl_mode(PgSslMode::Disable))
}

/// Says whether a connection with these options goes through a relay.
#[must_use]
pub(super) fn is_relayed(options: &PgConnectOptions) -> bool {
    target_of(options).is_some()
}

/// Returns where the pooler is that a connection with these options reaches through a relay.
#[must_use]
pub fn relayed_to(options: &PgConnectOptions) -> Option<String> {
    target_of(options).map(|target| target.to_string())
}

fn target_of(options: &PgConnectOptions) -> Option<Target> {
    let folder = options.get_socket()?;
    let doors = DOORS.lock().unwrap_or_else(PoisonError::into_inner);
    let door = doors.iter().find(|door| door.folder == *folder)?;
    Some(door.target.clone())
}

impl Target {
    fn of(options: &PgConnectOptions) -> Self {
        let port = options.get_port();
        let host = options.get_host();
        let folder = options.get_socket().map(PathBuf::as_path);
        let folder = folder.or_else(|| host.starts_with('/').then(|| Path::new(host)));
        match folder {
            Some(folder) => Self::Socket(folder.join(format!(".s.PGSQL.{port}"))),
            None => Self::Tcp(host.to_owned(), port),
        }
    }

    /// Says whether nobody can read along, or the operator has said that it does not matter.
    fn may_be_plain(&self, mode: PgSslMode) -> bool {
        let is_here = match self {
            Self::Socket(_) => true,
            Self::Tcp(host, _) => {
                let address = host.parse::<std::net::IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
        };
        match mode {
            PgSslMode::Disable => true,
            PgSslMode::Allow | PgSslMode::Prefer => is_here,
            PgSslMode::Require | PgSslMode::VerifyCa | PgSslMode::VerifyFull => false,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "the pooler {}", path.display()),
            Self::Tcp(host, port) => write!(f, "the pooler {host}:{port}"),
        }
    }
}

/// Opens a door on a thread of its own, so that busy handlers cannot hold up a heartbeat; returns
/// what stands for its folder.
///
/// The socket is an abstract one: nothing is left on disk when the process dies.
fn open(target: Target) -> io::Result<PathBuf> {
    let unique = format!("{NAME}-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let name = format!("{unique}/.s.PGSQL.{PORT}");
    let address = unix::SocketAddr::from_abstract_name(name)?;
    let listener = unix::UnixListener::bind_addr(&address)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("relay".into())
        .spawn(move || {
            if let Err(error) = runtime.block_on(take_all(listener, target)) {
                tracing::error!(%error, "the relay to the pooler has ended");
            }
        })?;
    Ok(PathBuf::from(format!("\0{unique}")))
}

/// Takes connections of this user's processes, for ever.
async fn take_all(listener: unix::UnixListener, target: Target) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let target = Arc::new(target);
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of files, for example: others will be closed.
                tracing::warn!(%error, "the relay to the pooler takes no connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        // An abstract socket has no permissions; the pooler may trust this process's user.
        let uid = client.peer_cred().map(|peer| peer.uid());
        if uid.is_ok_and(|uid| uid == Uid::effective().as_raw()) {
            let target = Arc::clone(&target);
            tasks.spawn(async move {
                if let Err(error) = serve(client, &target).await {
                    tracing::debug!(%error, "a connection to the pooler ended");
                }
            });
        }
    }
}

/// Relays one connection until either side has enough.
async fn serve(mut client: UnixStream, target: &Target) -> io::Result<()> {
    let startup = frame::read_startup(&mut client).await?;
    let (startup, settings) = Settings::taken_from(&startup)?;
    let connected: io::Result<(Reading, Writing)> = match target {
        Target::Socket(path) => UnixStream::connect(path).await.map(|server| {
            let (from, to) = server.into_split();
            (Box::new(from) as Reading, Box::new(to) as Writing)
        }),
        Target::Tcp(host, port) => {
            TcpStream::connect((host.as_str(), *port))
                .await
                .and_then(|server| {
                    server.set_nodelay(true)?;
                    let (from, to) = server.into_split();
                    Ok((Box::new(from) as Reading, Box::new(to) as Writing))
                })
        }
    };
    let (from_server, mut to_server) = match connected {
        Ok(server) => server,
        Err(error) => {
            let said = frame::unreachable(&format!("cannot reach {target}: {error}"));
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

type Reading = Box<dyn AsyncRead + Send + Unpin>;
type Writing = Box<dyn AsyncWrite + Send + Unpin>;

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
