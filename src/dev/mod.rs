//! The private Postgres cluster and the sample data behind `ingestd dev`.

pub mod binaries;
pub mod cluster;
mod error;
mod guardian;
pub(crate) mod owner;
mod postmaster;

pub use binaries::Binaries;
pub use cluster::{Cluster, Lifeline, Options};
pub use error::ClusterError;
