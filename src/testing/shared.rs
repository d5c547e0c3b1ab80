//! The cluster that all processes of a test run share.
//!
//! `cargo test` runs many tests in one process, nextest a process per test. Either way every
//! process holds a FIFO open, and the cluster stops some seconds after the last one has let go,
//! be it by SIGKILL. The data stays, so that the next run starts in 0.1 s.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};

use super::home;
use crate::dev::{Cluster, ClusterError, Lifeline, Options, owner::Owner};

/// How long the cluster outlives its last user; nextest leaves gaps between tests.
const LINGER: Duration = Duration::from_secs(10);
/// How long the guardian may take to answer, on a machine that is busy compiling.
const ANSWER_TIMEOUT: Duration = Duration::from_mins(1);
/// How long another process may take to start the cluster.
const LOCK_TIMEOUT: Duration = Duration::from_mins(2);
/// What the name begins with that a process sends to the guardian.
const JOIN: &str = "join-";
const POLL: Duration = Duration::from_millis(1);

/// The membership of this process.
#[derive(Debug)]
pub(super) struct Joined {
    /// The folder of the cluster's socket.
    pub(super) sockets: PathBuf,
    /// Keeps the cluster running while it is open.
    pub(super) lifeline: File,
    /// This process started the cluster, and nobody else has joined before it was swept.
    pub(super) is_fresh: bool,
}

/// Joins the cluster, which is started where it does not run.
///
/// One process at a time, under a lock on a file: the others find it running.
pub(super) async fn join() -> anyhow::Result<Joined> {
    let owner = Owner::current()?;
    join_at(&home::shared(&owner)?, LINGER, &owner).await
}

async fn join_at(home: &Path, linger: Duration, owner: &Owner) -> anyhow::Result<Joined> {
    let _lock = lock(&home.join("start.lock")).await?;
    let fifo = home.join("alive");
    let options = Options {
        durable: false,
        max_connections: 200,
        lifeline: Lifeline::Fifo {
            path: fifo.clone(),
            linger,
        },
        ..Options::new(home.join("data"))
    };
    let sockets = options.socket_dir()?;
    if let Some(lifeline) = hold(&fifo, &sockets).await {
        return Ok(Joined {
            sockets,
            lifeline,
            is_fresh: false,
        });
    }
    // Answers to processes that died before they took them.
    for entry in fs::read_dir(&sockets)?.flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(JOIN.as_bytes())
        {
            fs::remove_file(entry.path())?;
        }
    }
    let lifeline = match start(owner, &options, &fifo).await {
        // Without fsync a machine that fell leaves data that may not start again.
        Err(error) if is_about_the_data(&error) => {
            fs::remove_dir_all(&options.data_dir).context("cannot remove the test cluster")?;
            start(owner, &options, &fifo).await?
        }
        other => other?,
    };
    Ok(Joined {
        sockets,
        lifeline,
        is_fresh: true,
    })
}

async fn lock(path: &Path) -> anyhow::Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) if begun.elapsed() > LOCK_TIMEOUT => {
                bail!(
                    "another process has held {} for two minutes",
                    path.display()
                )
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(POLL).await,
        }
    }
}

/// Takes hold of the FIFO; `None` where no guardian reads it.
///
/// Having it open is not enough, for the guardian may have made up its mind to stop just before:
/// only its answer, a file of the name it was sent, says that Postgres stays.
async fn hold(fifo: &Path, sockets: &Path) -> Option<File> {
    // Without O_NONBLOCK the open would wait for a reader; with it, it fails where there is none.
    let nonblock = OFlag::O_NONBLOCK.bits();
    let mut file = OpenOptions::new()
        .write(true)
        .custom_flags(nonblock)
        .open(fifo)
        .ok()?;
    let name = format!("{JOIN}{}-{:08x}", std::process::id(), fastrand::u32(..));
    file.write_all(format!("{name}\n").as_bytes()).ok()?;
    let answer = sockets.join(name);
    let begun = Instant::now();
    while begun.elapsed() < ANSWER_TIMEOUT && fifo.exists() {
        if fs::remove_file(&answer).is_ok() {
            return Some(file);
        }
        tokio::time::sleep(POLL).await;
    }
    None
}

async fn start(owner: &Owner, options: &Options, fifo: &Path) -> anyhow::Result<File> {
    make_fifo(owner, fifo)?;
    let mut cluster = Cluster::launch(options.clone()).await?;
    let sockets = options.socket_dir()?;
    let begun = Instant::now();
    let lifeline = loop {
        // The guardian may not have opened the FIFO yet.
        if let Some(lifeline) = hold(fifo, &sockets).await {
            break lifeline;
        }
        if begun.elapsed() > ANSWER_TIMEOUT {
            bail!("the guardian of the test cluster does not answer");
        }
        tokio::time::sleep(POLL).await;
    };
    cluster.ready().await?;
    Ok(lifeline)
}

fn make_fifo(owner: &Owner, path: &Path) -> anyhow::Result<()> {
    if path.exists() {
        fs::remove_file(path)?;
    }
    mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    Ok(owner.give(path)?)
}

fn is_about_the_data(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(ClusterError::NotReady { .. } | ClusterError::NotPrivate { .. })
    )
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, PgConnection};

    use super::*;
    use crate::{dev::url::url, testing::Folder};

    const SHORT: Duration = Duration::from_secs(1);

    async fn until_gone(path: &Path) {
        let begun = Instant::now();
        while path.exists() {
            assert!(begun.elapsed() < ANSWER_TIMEOUT, "{}", path.display());
            tokio::time::sleep(POLL).await;
        }
    }

    #[tokio::test]
    async fn the_last_user_s_leave_stops_the_cluster() {
        let (temp, owner) = (Folder::make().unwrap(), Owner::current().unwrap());
        let first = join_at(temp.path(), SHORT, &owner).await.unwrap();
        let second = join_at(temp.path(), SHORT, &owner).await.unwrap();
        assert!(first.is_fresh && !second.is_fresh);
        assert_eq!(first.sockets, second.sockets);
        drop(first);
        tokio::time::sleep(SHORT * 2).await; // the linger is over, the second user is not
        PgConnection::connect(&url(&second.sockets, "postgres"))
            .await
            .unwrap();
        drop(second.lifeline);
        until_gone(&second.sockets).await;
        assert!(!temp.path().join("data/postmaster.pid").exists());
    }

    #[tokio::test]
    async fn whoever_comes_as_the_cluster_stops_finds_a_server() {
        let (temp, owner) = (Folder::make().unwrap(), Owner::current().unwrap());
        // Everybody comes about when the guardian makes up its mind to stop.
        let comers = (0..2).map(async |_| {
            for _ in 0..3 {
                let joined = join_at(temp.path(), SHORT, &owner).await.unwrap();
                let url = url(&joined.sockets, "postgres");
                let mut conn = PgConnection::connect(&url).await.unwrap();
                sqlx::query("SELECT 1").execute(&mut conn).await.unwrap();
                drop((conn, joined));
                tokio::time::sleep(POLL * fastrand::u32(980..1_000)).await;
            }
        });
        futures::future::join_all(comers).await;
        until_gone(&temp.path().join("data/postmaster.pid")).await;
    }

    #[tokio::test]
    async fn data_that_does_not_start_is_made_anew() {
        let (temp, owner) = (Folder::make().unwrap(), Owner::current().unwrap());
        let joined = join_at(temp.path(), SHORT, &owner).await.unwrap();
        drop(joined.lifeline);
        until_gone(&joined.sockets).await;
        fs::write(temp.path().join("data/global/pg_control"), "torn").unwrap();
        let joined = join_at(temp.path(), SHORT, &owner).await.unwrap();
        PgConnection::connect(&url(&joined.sockets, "postgres"))
            .await
            .unwrap();
        drop(joined.lifeline);
        until_gone(&joined.sockets).await;
    }
}
