//! A private Postgres cluster: made where there is none, reached through a socket alone, ended
//! with the process that started it.
//!
//! It is not for production: it has no password, because only its owner and root can pass the
//! folder of its socket.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{Binaries, ClusterError, guardian::Guardian, owner::Owner, postmaster::Postmaster};

/// The superuser of a private cluster.
const USER: &str = "ingestd";
/// The longest path of a socket, in bytes, less the file's own name.
const SOCKET_DIR_MAX: usize = 107 - "/.s.PGSQL.5432".len();
/// Recovery after a crash takes time; longer than this is a fault.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// A fast shutdown ends with a checkpoint; the guardian itself gives up after 15 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server that is on its way out is waited for, that of a killed daemon for example.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(10);
/// A `ready` server whose user was killed a moment ago may not know yet.
const NOTICE_TIMEOUT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);

/// What keeps Postgres running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lifeline {
    /// This process, through a pipe.
    Process,
    /// Every process that holds the FIFO open for writing; `src/dev/guardian.sh` has the protocol.
    Fifo {
        /// The FIFO, to be made by whoever starts the cluster.
        path: PathBuf,
        /// How long Postgres outlives its last user, in whole seconds.
        linger: Duration,
    },
}

/// How a cluster is made and run.
#[derive(Debug, Clone)]
pub struct Options {
    /// The data folder, absolute; made where it does not exist.
    pub data_dir: PathBuf,
    /// Whether a commit survives the machine's fall (`fsync`, full pages). Off in tests only: a
    /// process's fall is survived either way.
    pub durable: bool,
    /// The server's `max_connections`.
    pub max_connections: u16,
    /// What keeps it running.
    pub lifeline: Lifeline,
}

impl Options {
    /// Returns the settings of `ingestd dev` for the data in `data_dir`.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            durable: true,
            max_connections: 100,
            lifeline: Lifeline::Process,
        }
    }

    /// Returns the folder of the server's socket, made.
    pub(crate) fn socket_dir(&self) -> Result<PathBuf, ClusterError> {
        socket_dir(&Owner::current()?, &self.data_dir)
    }
}

/// Returns where `ingestd dev` keeps its data: `/var/lib/ingestd-dev/pg` for root,
/// `$XDG_STATE_HOME/ingestd/pg` or `~/.local/state/ingestd/pg` for others.
///
/// # Errors
///
/// [`ClusterError::NoDataDir`] where neither variable is an absolute path.
pub fn default_data_dir() -> Result<PathBuf, ClusterError> {
    if Uid::effective().is_root() {
        return Ok("/var/lib/ingestd-dev/pg".into());
    }
    let folder = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("ingestd/pg"))
        .ok_or(ClusterError::NoDataDir)
}

/// A running cluster. Dropped, it stops Postgres and waits for that; [`Cluster::stop`] does the
/// same without blocking the runtime.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    binaries: Binaries,
    owner: Owner,
    sockets: PathBuf,
    guardian: Guardian,
}

impl Cluster {
    /// Starts Postgres on `options.data_dir`, which is made and filled first where it is empty,
    /// and returns when it takes connections.
    ///
    /// Root hands data and server over to user `postgres`, else `nobody`, because Postgres refuses
    /// root. A server that is on its way out is waited for.
    ///
    /// # Errors
    ///
    /// Every [`ClusterError`]; [`ClusterError::Busy`] where another one serves the same data.
    pub async fn start(options: Options) -> Result<Self, ClusterError> {
        let mut cluster = Self::launch(options).await?;
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Does all that [`Cluster::start`] does, but does not wait for the server.
    pub(crate) async fn launch(options: Options) -> Result<Self, ClusterError> {
        let binaries = Binaries::find()?;
        let owner = Owner::current()?;
        let sockets = socket_dir(&owner, &options.data_dir)?;
        make_data_dir(&owner, &options.data_dir)?;
        wait_for_leaver(&options.data_dir).await?;
        init(&owner, &binaries, &options).await?;
        let guardian = spawn(&owner, &binaries, &options, &sockets)?;
        Ok(Self {
            options,
            binaries,
            owner,
            sockets,
            guardian,
        })
    }

    /// Waits until the server takes connections.
    pub(crate) async fn ready(&mut self) -> Result<(), ClusterError> {
        let begun = Instant::now();
        loop {
            if answers(&self.options.data_dir).await {
                return Ok(());
            }
            if self.guardian.has_ended() {
                return Err(self.not_ready("ended at once"));
            }
            if begun.elapsed() > READY_TIMEOUT {
                return Err(self.not_ready("was not ready within 60 s"));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn not_ready(&self, what: &str) -> ClusterError {
        let log = log_file(&self.options.data_dir);
        let text = fs::read_to_string(&log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        let tail = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
        ClusterError::NotReady {
            what: what.to_owned(),
            log,
            tail,
        }
    }

    /// Returns the URL of `database`, as sqlx and psql take it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(&self.sockets, database)
    }

    /// Returns the shell line that opens `database` in psql.
    #[must_use]
    pub fn psql_line(&self, database: &str) -> String {
        format!("psql '{}'", self.url(database))
    }

    /// Returns the folder of the data.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// Creates `database` unless it exists.
    ///
    /// # Errors
    ///
    /// [`ClusterError::Sql`].
    pub async fn ensure_database(&self, database: &str) -> Result<(), ClusterError> {
        let mut conn = PgConnection::connect(&self.url("postgres")).await?;
        let exists: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
                .bind(database)
                .fetch_one(&mut conn)
                .await?;
        if !exists {
            let name = database.replace('"', "\"\"");
            let statement = AssertSqlSafe(format!("CREATE DATABASE \"{name}\""));
            sqlx::query(statement).execute(&mut conn).await?;
        }
        conn.close().await?;
        Ok(())
    }

    /// Returns the server's process id; `None` while it is down.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        Postmaster::read(&self.options.data_dir)
            .filter(|found| found.is_live(&self.options.data_dir))
            .map(|found| found.pid)
    }

    /// Kills the server with SIGKILL, as a crash would, and waits until it is gone.
    /// [`Cluster::restart`] brings it back.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotReady`] where it does not go.
    pub async fn kill9(&mut self) -> Result<(), ClusterError> {
        self.signal(Signal::SIGKILL).await
    }

    /// Stops the server at once, without a checkpoint and without goodbye to its clients, and
    /// starts it on the same data at the same URL. Starts it where it is down.
    ///
    /// # Errors
    ///
    /// As [`Cluster::start`].
    pub async fn restart(&mut self) -> Result<(), ClusterError> {
        self.signal(Signal::SIGQUIT).await?;
        let begun = Instant::now();
        loop {
            self.owner.make_private(&self.sockets)?;
            self.guardian = spawn(&self.owner, &self.binaries, &self.options, &self.sockets)?;
            match self.ready().await {
                // The children of a killed server hold its memory until they notice.
                Err(ClusterError::NotReady { tail, .. })
                    if tail.contains("shared memory") && begun.elapsed() < LEAVING_TIMEOUT =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return other,
            }
        }
    }

    async fn signal(&mut self, signal: Signal) -> Result<(), ClusterError> {
        if self.guardian.has_ended() {
            return Ok(());
        }
        if let Some(pid) = self.pid() {
            kill(Pid::from_raw(pid), signal)
                .map_err(|errno| ClusterError::io("cannot signal", "postgres")(errno.into()))?;
        }
        if self.guardian.ended(STOP_TIMEOUT).await {
            Ok(())
        } else {
            Err(self.not_ready("did not stop"))
        }
    }

    /// Stops the server: clients are disconnected, a checkpoint is written, the socket's folder
    /// is removed. Waits for it, at most 20 s. The data stays.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotReady`] where it does not stop.
    pub async fn stop(mut self) -> Result<(), ClusterError> {
        self.guardian.release();
        if self.guardian.ended(STOP_TIMEOUT).await {
            Ok(())
        } else {
            Err(self.not_ready("did not stop"))
        }
    }
}

/// Returns the URL of `database` on the server whose socket is in `sockets`.
pub(crate) fn url(sockets: &Path, database: &str) -> String {
    let mut url = format!("postgres://{USER}@localhost/");
    encode(&mut url, database);
    url.push_str("?host=");
    encode(&mut url, &sockets.to_string_lossy());
    url
}

/// Appends `text`, percent-encoded but for what both a path and a query may hold (RFC 3986).
fn encode(url: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.extend(['%', hex_digit(byte >> 4), hex_digit(byte & 0xF)]);
        }
    }
}

fn hex_digit(half: u8) -> char {
    char::from_digit(half.into(), 16)
        .unwrap_or('0')
        .to_ascii_uppercase()
}

/// Says whether the server of `data_dir` calls itself ready and takes a connection.
async fn answers(data_dir: &Path) -> bool {
    let Some(Postmaster {
        sockets: Some(sockets),
        status,
        ..
    }) = Postmaster::read(data_dir)
    else {
        return false;
    };
    if status != "ready" {
        return false;
    }
    match PgConnection::connect(&url(&sockets, "postgres")).await {
        Ok(conn) => conn.close().await.is_ok(),
        Err(_) => false,
    }
}

/// Returns the socket folder of `data_dir`, made: the same at every start, so that a URL stays
/// good, and short, because a socket's path may have 107 bytes.
fn socket_dir(owner: &Owner, data_dir: &Path) -> Result<PathBuf, ClusterError> {
    let digest = Sha256::digest(data_dir.as_os_str().as_encoded_bytes());
    let key = digest
        .iter()
        .take(4)
        .fold(0_u32, |key, byte| key << 8 | u32::from(*byte));
    let name = format!("ingestd-{key:08x}");
    let mut refused = None;
    for parent in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        let path = parent.join(&name);
        if path.as_os_str().len() > SOCKET_DIR_MAX {
            refused = Some(ClusterError::SocketPathTooLong { path });
        } else if let Err(error) = owner.check_reach(&path) {
            refused = Some(error);
        } else {
            owner.make_private(&path)?;
            return Ok(path);
        }
    }
    Err(refused.unwrap_or(ClusterError::NoDataDir))
}

fn make_data_dir(owner: &Owner, data_dir: &Path) -> Result<(), ClusterError> {
    if let Some(parent) = data_dir.parent() {
        fs::create_dir_all(parent).map_err(ClusterError::io("cannot create", parent))?;
    }
    owner.check_reach(data_dir)?;
    owner.make_private(data_dir)
}

/// Waits for a server that is stopping, or about to.
async fn wait_for_leaver(data_dir: &Path) -> Result<(), ClusterError> {
    let begun = Instant::now();
    while let Some(found) = Postmaster::read(data_dir) {
        if !found.is_live(data_dir) {
            return forget(data_dir, &found);
        }
        let patience = if found.status == "stopping" {
            LEAVING_TIMEOUT
        } else {
            NOTICE_TIMEOUT
        };
        if begun.elapsed() > patience {
            let sockets = found.sockets.unwrap_or_default();
            let url = url(&sockets, "ingestd");
            return Err(ClusterError::Busy {
                pid: found.pid,
                data_dir: data_dir.into(),
                url,
            });
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Removes the file of a dead server whose process id another process has got, as in a restarted
/// container: Postgres would take that process for the server. Otherwise the file stays, because
/// by it Postgres finds children of the dead server that still use the data.
fn forget(data_dir: &Path, dead: &Postmaster) -> Result<(), ClusterError> {
    if kill(Pid::from_raw(dead.pid), None).is_ok() {
        let path = data_dir.join("postmaster.pid");
        fs::remove_file(&path).map_err(ClusterError::io("cannot remove", &path))?;
    }
    Ok(())
}

/// Fills the data folder unless it is filled. It is made beside and put in place by a rename, so
/// that an interrupted `initdb` leaves nothing that looks like a cluster.
async fn init(owner: &Owner, binaries: &Binaries, options: &Options) -> Result<(), ClusterError> {
    let data_dir = &options.data_dir;
    if data_dir.join("PG_VERSION").exists() {
        return Ok(());
    }
    let fresh = data_dir.with_extension("initdb");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).map_err(ClusterError::io("cannot remove", &fresh))?;
    }
    owner.make_private(&fresh)?;
    let ctype = if cfg!(target_os = "linux") {
        "C.UTF-8"
    } else {
        "UTF-8"
    };
    let mut command = owner.command(binaries.initdb());
    command
        .arg("--pgdata")
        .arg(&fresh)
        .args(["--username", USER, "--auth", "trust"]);
    command.args(["--encoding", "UTF8", "--locale", "C", "--lc-ctype", ctype]);
    command.args(["--no-instructions", "--no-sync"]);
    run_initdb(command, data_dir).await?;
    fs::rename(&fresh, data_dir).map_err(ClusterError::io("cannot fill", data_dir))
}

async fn run_initdb(mut command: Command, data_dir: &Path) -> Result<(), ClusterError> {
    let failed = |output| ClusterError::Initdb {
        data_dir: data_dir.into(),
        output,
    };
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(String::from_utf8_lossy(&said).trim().to_owned()))
}

fn spawn(
    owner: &Owner,
    binaries: &Binaries,
    options: &Options,
    sockets: &Path,
) -> Result<Guardian, ClusterError> {
    let on_or_off = if options.durable { "on" } else { "off" };
    let mut server = Command::new(binaries.postgres());
    server
        .arg("-D")
        .arg(&options.data_dir)
        .arg("-k")
        .arg(sockets);
    server.args([
        "-c",
        "port=5432",
        "-c",
        "listen_addresses=",
        "-c",
        "log_checkpoints=off",
    ]);
    for name in ["fsync", "full_page_writes"] {
        server.arg("-c").arg(format!("{name}={on_or_off}"));
    }
    server
        .arg("-c")
        .arg(format!("max_connections={}", options.max_connections));
    Guardian::spawn(
        owner,
        &server,
        &log_file(&options.data_dir),
        sockets,
        &options.lifeline,
    )
}

fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.join("server.log")
}
