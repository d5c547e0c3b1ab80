//! A cluster of one's own, for tests that crash or restart the server.

use std::{
    ffi::OsString,
    ops::{Deref, DerefMut},
    path::PathBuf,
};

use anyhow::{Context, bail};
use sqlx::PgPool;

use super::Folder;
use crate::{
    db,
    dev::{Binaries, Cluster, Options, owner::Owner},
};

/// A running cluster with one migrated database; stopped and removed with this value.
#[derive(Debug)]
pub struct PrivateCluster {
    // Stopped before its folder is removed: fields are dropped in this order.
    cluster: Cluster,
    _home: Option<Folder>,
}

/// What is special about a private cluster.
#[derive(Debug, Default)]
pub struct PrivateOptions {
    /// Where its data lies, in a folder that the caller has made and removes; its own by default.
    pub home: Option<PathBuf>,
    /// As [`Options::launcher`].
    pub launcher: Vec<OsString>,
}

/// Starts a cluster for the calling test alone, in about 1 s.
///
/// # Panics
///
/// Where there is no Postgres, with the lines that install one, or where it does not start.
pub async fn private_cluster() -> PrivateCluster {
    private_cluster_with(PrivateOptions::default()).await
}

/// As [`private_cluster`], with something special about it.
///
/// # Panics
///
/// As [`private_cluster`].
pub async fn private_cluster_with(options: PrivateOptions) -> PrivateCluster {
    let started = PrivateCluster::start(options).await;
    started.unwrap_or_else(|error| panic!("no cluster for this test: {error:#}"))
}

impl PrivateCluster {
    const DATABASE: &str = "ingestd";

    async fn start(private: PrivateOptions) -> anyhow::Result<Self> {
        // As `main` does: a test's own HTTP client has no other. Refused only where there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let (home, path) = if let Some(path) = private.home {
            (None, path)
        } else {
            let home = Folder::make()?;
            let path = home.path().to_owned();
            (Some(home), path)
        };
        let options = Options {
            durable: false,
            launcher: private.launcher,
            ..Options::new(path.join("data"))
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

    /// Copies the cluster of `url`, this one as it is reached from there, and starts the copy as its
    /// standby; `pg_promote()` makes it a primary.
    ///
    /// # Errors
    ///
    /// `pg_basebackup` is missing or fails, or the copy does not start.
    pub async fn standby(url: &str) -> anyhow::Result<Self> {
        let home = Folder::make()?;
        let data = home.path().join("data");
        let owner = Owner::current()?;
        owner.make_private(&data)?;
        let program = Binaries::find()?.postgres().with_file_name("pg_basebackup");
        let mut command = owner.command(program);
        command.args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]);
        command.arg("--dbname").arg(url).arg("--pgdata").arg(&data);
        command.stderr(std::process::Stdio::piped());
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = run.await?.context("pg_basebackup")?;
        if !output.status.success() {
            bail!("pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        }
        let options = Options {
            durable: false,
            ..Options::new(data)
        };
        Ok(Self {
            cluster: Cluster::start(options).await?,
            _home: Some(home),
        })
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
