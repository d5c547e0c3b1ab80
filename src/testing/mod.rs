//! Clusters and databases for tests and benchmarks.
//!
//! One cluster serves a test run, however many processes the run has; one template database holds
//! the migrated schema; every test gets a database of its own, copied from the template, because
//! notifications, advisory locks and schedules are shared within a database. Nothing is ever
//! skipped: without Postgres the tests fail and say how to install it.

mod database;
mod home;
mod private;
mod server;
mod shared;

pub use database::Database;
pub use home::Folder;
pub use private::{PrivateCluster, PrivateOptions, private_cluster, private_cluster_with};

/// Connects a pool to `url` as the daemon does, with the default configuration.
async fn connect(url: impl Into<String>) -> sqlx::Result<sqlx::PgPool> {
    let url = Some(secrecy::SecretString::from(url.into()));
    let config = crate::config::Database {
        url,
        ..Default::default()
    };
    crate::db::connect(&config).await
}
