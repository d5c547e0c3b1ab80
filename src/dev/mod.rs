//! The private Postgres cluster and the sample data behind `ingestd dev`.

mod binaries;
mod cluster;
mod error;
pub(crate) mod folder;
mod guardian;
mod init;
mod options;
pub(crate) mod owner;
mod postmaster;
pub(crate) mod url;

pub use binaries::Binaries;
pub use cluster::Cluster;
pub use error::ClusterError;
pub use folder::default_data_dir;
pub use options::{Lifeline, Options};
