//! What can go wrong while a private cluster is found, made or started.

use std::path::PathBuf;

/// A private cluster could not be found, made, started or reached.
///
/// Each text says what to do next, because it is read by somebody in their
/// first five minutes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No folder holds `initdb` and `postgres` side by side.
    #[error(
        "no Postgres server was found: none of these folders has both initdb and postgres: {}\n\
         install one:\n\
         \x20 Debian, Ubuntu:  apt-get install postgresql\n\
         \x20 Fedora, RHEL:    dnf install postgresql-server\n\
         \x20 macOS:           brew install postgresql@17\n\
         or name the folder of an installed one in INGESTD_PG_BIN, or give a database in DATABASE_URL",
        list(searched)
    )]
    NoBinaries {
        /// The folders looked into, in order.
        searched: Vec<PathBuf>,
    },
    /// The process is root, and neither `postgres` nor `nobody` exists.
    #[error(
        "Postgres refuses to run as root, and there is no user `postgres` or `nobody` to run it as"
    )]
    NoUser,
    /// Neither `--data-dir` nor a home folder says where the data should go.
    #[error("there is no folder for the data: set HOME or XDG_STATE_HOME, or name a data folder")]
    NoDataDir,
    /// The user that Postgres runs as may not pass a folder above its data.
    #[error(
        "{} cannot be reached by user `{user}`, as whom Postgres runs: {} lacks the x permission for others\n\
         choose another data folder, or run: chmod o+x {}",
        path.display(), ancestor.display(), ancestor.display()
    )]
    Unreachable {
        /// The folder that has to be reached.
        path: PathBuf,
        /// The first folder on the way that stops the user.
        ancestor: PathBuf,
        /// Who is stopped.
        user: String,
    },
    /// A folder of ours exists but belongs to somebody else, or others may enter it.
    #[error("{} must be a folder of user `{user}` that nobody else may enter; remove it", path.display())]
    NotPrivate {
        /// The folder.
        path: PathBuf,
        /// Who should own it.
        user: String,
    },
    /// The socket's path would be longer than the kernel takes, 107 bytes.
    #[error("the temporary folder's path is too long for a socket: {}", path.display())]
    SocketPathTooLong {
        /// The path that does not fit.
        path: PathBuf,
    },
    /// Another Postgres serves the same data already.
    #[error(
        "another Postgres, pid {pid}, serves {} already\n\
         stop that `ingestd dev`, or use its database: --database-url '{url}'",
        data_dir.display()
    )]
    Busy {
        /// The other postmaster's process id.
        pid: i32,
        /// The data both want.
        data_dir: PathBuf,
        /// Where the other one answers.
        url: String,
    },
    /// `initdb` failed.
    #[error("initdb failed on {}:\n{output}", data_dir.display())]
    Initdb {
        /// The folder it was to fill.
        data_dir: PathBuf,
        /// What it said.
        output: String,
    },
    /// Postgres ended or did not answer in time.
    #[error("Postgres {what}; the last lines of {}:\n{tail}", log.display())]
    NotReady {
        /// What it did instead of getting ready.
        what: String,
        /// The server's log.
        log: PathBuf,
        /// The end of the log.
        tail: String,
    },
    /// The server answers, but a statement on it failed.
    #[error("the private Postgres refused a statement")]
    Sql(#[from] sqlx::Error),
    /// The operating system refused something.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried, ending in a preposition or verb that takes the path.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl ClusterError {
    /// Returns a function for `map_err` that says what was tried on which path.
    pub(crate) fn io(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}

fn list(paths: &[PathBuf]) -> String {
    let shown: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    shown.join(", ")
}
