//! Where this process takes connections to a server, to pass them on.

use std::{
    fmt, io,
    os::{linux::net::SocketAddrExt as _, unix::net as unix},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::socket::{setsockopt, sockopt},
    unistd::Uid,
};
use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixListener, UnixStream},
};
use tokio_util::task::TaskTracker;

use super::{carry, serve};

/// What the abstract socket's name begins with; the rest is unique to the door.
const NAME: &str = "ingestd-relay";

/// The port of the doors' names; it says nothing.
const PORT: u16 = 5432;

/// How long a connection is silent before the other machine is asked whether it is still there, how
/// long between two such questions, and how many may go unanswered. As the server asks, see
/// `SESSION` of the pool.
const IDLE: u32 = 30;
const INTERVAL: u32 = 10;
const COUNT: u32 = 3;

/// How long what was sent may at least stay unacknowledged, or not be taken by a server that waits for
/// a lock.
const UNACKNOWLEDGED: Duration = Duration::from_mins(1);

/// The doors of this process. One stays as long as the process does.
static DOORS: Mutex<Vec<Door>> = Mutex::new(Vec::new());

/// Where this process takes connections for one server.
#[derive(Debug)]
struct Door {
    target: Target,
    way: Way,
    /// What stands for the socket's folder in a connection's options.
    folder: PathBuf,
}

/// What becomes of what goes through a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// It is rewritten for a pooler in transaction mode.
    Pooler,
    /// It stays as it is. What was sent may stay unacknowledged for so long.
    Plain(Duration),
}

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Socket(PathBuf),
    Tcp(String, u16),
}

/// A connection to a server, whatever it goes over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Target {
    /// Returns where a connection with these options goes.
    pub(super) fn of(options: &PgConnectOptions) -> Self {
        let port = options.get_port();
        let host = options.get_host();
        let folder = options.get_socket().map(PathBuf::as_path);
        let folder = folder.or_else(|| host.starts_with('/').then(|| Path::new(host)));
        match folder {
            Some(folder) => Self::Socket(folder.join(format!(".s.PGSQL.{port}"))),
            None => Self::Tcp(host.to_owned(), port),
        }
    }

    /// Says whether it is on this machine.
    pub(super) fn is_here(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Tcp(host, _) => {
                let address = host.parse::<std::net::IpAddr>();
                host == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
        }
    }

    /// Connects. Over TCP nothing waits to be sent along with more, and a machine that is gone is
    /// noticed within two minutes.
    pub(super) async fn connect(&self, unacknowledged: Duration) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket(path) => Ok(Box::new(UnixStream::connect(path).await?)),
            Self::Tcp(host, port) => {
                let longest = unacknowledged.max(UNACKNOWLEDGED);
                Ok(Box::new(connect_tcp(host, *port, longest).await?))
            }
        }
    }
}

async fn connect_tcp(host: &str, port: u16, unacknowledged: Duration) -> io::Result<TcpStream> {
    let host = host.trim_matches(['[', ']']); // as URLs write an address of IPv6
    let server = TcpStream::connect((host, port)).await?;
    server.set_nodelay(true)?;
    setsockopt(&server, sockopt::KeepAlive, &true)?;
    setsockopt(&server, sockopt::TcpKeepIdle, &IDLE)?;
    setsockopt(&server, sockopt::TcpKeepInterval, &INTERVAL)?;
    setsockopt(&server, sockopt::TcpKeepCount, &COUNT)?;
    let unacknowledged = u32::try_from(unacknowledged.as_millis()).unwrap_or(u32::MAX);
    setsockopt(&server, sockopt::TcpUserTimeout, &unacknowledged)?;
    Ok(server)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => path.display().fmt(f),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// Returns options that lead to a server through a door, which is opened where there is none.
///
/// # Errors
///
/// The operating system has no thread or socket left.
pub(super) fn lead(
    options: PgConnectOptions,
    target: Target,
    way: Way,
) -> io::Result<PgConnectOptions> {
    let mut doors = DOORS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = |door: &&Door| door.target == target && door.way == way;
    let folder = if let Some(door) = doors.iter().find(known) {
        door.folder.clone()
    } else {
        let folder = open(target.clone(), way)?;
        doors.push(Door {
            target,
            way,
            folder: folder.clone(),
        });
        folder
    };
    Ok(options.socket(folder).port(PORT))
}

/// Returns where a connection with these options goes that goes through such a door.
pub(super) fn target_of(options: &PgConnectOptions, way: Way) -> Option<Target> {
    let folder = options.get_socket()?;
    let doors = DOORS.lock().unwrap_or_else(PoisonError::into_inner);
    let is = |door: &&Door| door.folder == *folder && door.way == way;
    Some(doors.iter().find(is)?.target.clone())
}

/// Opens a door on a thread of its own, so that busy handlers cannot hold up what goes through it, a
/// heartbeat for one; returns what stands for its folder.
///
/// The socket is an abstract one: nothing is left on disk when the process dies.
fn open(target: Target, way: Way) -> io::Result<PathBuf> {
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
            if let Err(error) = runtime.block_on(take_all(listener, target, way)) {
                tracing::error!(%error, "the relay to the database has ended");
            }
        })?;
    Ok(PathBuf::from(format!("\0{unique}")))
}

/// Takes connections of this user's processes, for ever.
async fn take_all(listener: unix::UnixListener, target: Target, way: Way) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let tasks = TaskTracker::new();
    let target = Arc::new(target);
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                // Out of files, for example: others will be closed.
                tracing::warn!(%error, "the relay to the database takes no connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // An abstract socket has no permissions; the server may trust this process's user.
        let uid = client.peer_cred().map(|peer| peer.uid());
        if uid.is_ok_and(|uid| uid == Uid::effective().as_raw()) {
            let target = Arc::clone(&target);
            tasks.spawn(async move {
                let served = match way {
                    Way::Pooler => serve(client, &target).await,
                    Way::Plain(longest) => carry::serve(client, &target, longest).await,
                };
                if let Err(error) = served {
                    tracing::debug!(%error, %target, "a connection to the database ended");
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::getsockopt;
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_socket_of_ours_waits_for_nothing_and_asks_for_the_other_end() {
        for address in ["127.0.0.1", "[::1]"] {
            let Ok(listener) = TcpListener::bind((address.trim_matches(['[', ']']), 0)).await
            else {
                continue; // a machine without IPv6
            };
            let port = listener.local_addr().unwrap().port();
            let socket = connect_tcp(address, port, UNACKNOWLEDGED).await.unwrap();
            assert!(socket.nodelay().unwrap());
            assert!(getsockopt(&socket, sockopt::KeepAlive).unwrap());
            let after = getsockopt(&socket, sockopt::TcpUserTimeout).unwrap();
            assert_eq!(after, 60_000);
        }
    }
}
