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
    unistd::Pid,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{
    Binaries, ClusterError, Options,
    folder::{make_data_dir, socket_dir},
    guardian::Guardian,
    init::init,
    owner::Owner,
    postmaster::Postmaster,
    url::url,
};

/// Recovery after a crash takes time; longer than this is a fault.
const READY_TIMEOUT: Duration = Duration::from_mins(1);
/// A fast shutdown ends with a checkpoint; the guardian itself gives up after 15 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a server that is on its way out is waited for, that of a killed daemon for example.
const LEAVING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the processes of a killed server are waited for: each leaves when it next waits for
/// something, on a busy machine not soon.
const ORPHANS_TIMEOUT: Duration = Duration::from_mins(1);
/// A `ready` server whose user was killed a moment ago may not know yet.
const NOTICE_TIMEOUT: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);

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
        make_data_dir(&owner, &options.data_dir)?;
        wait_for_leaver(&options.data_dir).await?;
        let sockets = socket_dir(&owner, &options.data_dir)?;
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
    ///
    /// A server that ended because its predecessor had not quite left is started again.
    pub(crate) async fn ready(&mut self) -> Result<(), ClusterError> {
        let begun = Instant::now();
        loop {
            match self.ready_or_ended().await {
                Err(ClusterError::NotReady { tail, .. })
                    if begun.elapsed() < predecessor_timeout(&tail) =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    self.spawn_again()?;
                }
                other => return other,
            }
        }
    }

    fn spawn_again(&mut self) -> Result<(), ClusterError> {
        self.owner.make_private(&self.sockets)?;
        self.guardian = spawn(&self.owner, &self.binaries, &self.options, &self.sockets)?;
        Ok(())
    }

    async fn ready_or_ended(&mut self) -> Result<(), ClusterError> {
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

    /// Stops the server and its processes at once, without a checkpoint and without goodbye to its
    /// clients. Killed in the middle of a crash of its own, it would leave some that wait for ever.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NotReady`] where it does not go.
    pub async fn halt(&mut self) -> Result<(), ClusterError> {
        self.signal(Signal::SIGQUIT).await
    }

    /// Stops the server at once, without a checkpoint and without goodbye to its clients, and
    /// starts it on the same data at the same URL. Starts it where it is down.
    ///
    /// # Errors
    ///
    /// As [`Cluster::start`].
    pub async fn restart(&mut self) -> Result<(), ClusterError> {
        self.halt().await?;
        self.spawn_again()?;
        self.ready().await
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

/// Returns how long it is worth to start again a server that ended with this log: not at all, unless
/// its predecessor was why. The children of a killed one hold its memory until they notice, and its
/// guardian's last act is to remove the socket's folder.
fn predecessor_timeout(log: &str) -> Duration {
    if log.contains("pre-existing shared memory block") {
        ORPHANS_TIMEOUT
    } else if log.contains("could not create lock file") {
        LEAVING_TIMEOUT
    } else {
        Duration::ZERO
    }
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

fn spawn(
    owner: &Owner,
    binaries: &Binaries,
    options: &Options,
    sockets: &Path,
) -> Result<Guardian, ClusterError> {
    let on_or_off = if options.durable { "on" } else { "off" };
    let postgres = binaries.postgres().into_os_string();
    let mut words = options.launcher.iter().chain([&postgres]);
    let mut server = Command::new(words.next().unwrap_or(&postgres));
    server
        .args(words)
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
    if !options.durable {
        // What is not to last often lies in memory: 1 GiB of WAL would be too much there.
        server.args(["-c", "max_wal_size=256MB", "-c", "min_wal_size=64MB"]);
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
