//! A cluster of one's own, for tests that crash or restart the server.

use std::ops::{Deref, DerefMut};

use sqlx::PgPool;

use super::Folder;
use crate::{
    db,
    dev::{Cluster, Options},
};

/// A running cluster with one migrated database; stopped and removed with this value.
#[derive(Debug)]
pub struct PrivateCluster {
    // Stopped before its folder is removed: fields are dropped in this order.
    cluster: Cluster,
    _home: Folder,
}

/// Starts a cluster for the calling test alone, in about 1 s.
///
/// # Panics
///
/// Where there is no Postgres, with the lines that install one, or where it does not start.
pub async fn private_cluster() -> PrivateCluster {
    let started = PrivateCluster::start().await;
    started.unwrap_or_else(|error| panic!("no cluster for this test: {error:#}"))
}

impl PrivateCluster {
    const DATABASE: &str = "ingestd";

    async fn start() -> anyhow::Result<Self> {
        let home = Folder::make()?;
        let options = Options {
            durable: false,
            ..Options::new(home.path().join("data"))
        };
        let cluster = Cluster::start(options).await?;
        cluster.ensure_database(Self::DATABASE).await?;
        let private = Self {
            cluster,
            _home: home,
        };
        let pool = private.connect().await?;
        db::migrate(&pool).await?;
        pool.close().await;
        Ok(private)
    }

    /// Returns the URL of the migrated database; a restart does not change it.
    #[must_use]
    pub fn database_url(&self) -> String {
        self.cluster.url(Self::DATABASE)
    }

    /// Connects a pool to the migrated database.
    ///
    /// # Errors
    ///
    /// As [`crate::db::connect`].
    pub async fn connect(&self) -> sqlx::Result<PgPool> {
        super::connect(self.database_url()).await
    }
}

impl Deref for PrivateCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for PrivateCluster {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}
