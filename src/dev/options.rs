//! How a private cluster is made and run.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use super::{ClusterError, folder, owner::Owner};

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
    /// Words before the server's own command line: `env NAME=value`, `nice`.
    pub launcher: Vec<OsString>,
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
            launcher: Vec::new(),
        }
    }

    /// Returns the folder of the server's socket, made.
    pub(crate) fn socket_dir(&self) -> Result<PathBuf, ClusterError> {
        folder::socket_dir(&Owner::current()?, &self.data_dir)
    }
}
