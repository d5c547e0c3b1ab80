//! The cluster that everything is measured on.

use std::path::{Path, PathBuf};

use ingestd::{
    config, db,
    dev::{Cluster, Options},
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

/// A private cluster with durable commits and one migrated database.
pub(crate) struct Rig {
    pub(crate) pool: PgPool,
    cluster: Cluster,
    home: PathBuf,
}

impl Rig {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let home = std::env::temp_dir().join(format!("ingestd-bench-{}", std::process::id()));
        let cluster = Cluster::start(Options::new(home.join("data"))).await?;
        // Of the size that a server for such files has: no phase is to pay for a checkpoint of the
        // one before it, nor for making files that the next finds made.
        let mut conn = PgConnection::connect(&cluster.url("postgres")).await?;
        for (name, value) in [("max_wal_size", "4GB"), ("min_wal_size", "4GB")] {
            let set = AssertSqlSafe(format!("ALTER SYSTEM SET {name} = '{value}'"));
            sqlx::query(set).execute(&mut conn).await?;
        }
        let reload = "SELECT pg_reload_conf()";
        sqlx::query(reload).execute(&mut conn).await?;
        conn.close().await?;
        cluster.ensure_database("bench").await?;
        let pool = db::connect(&config::Database {
            url: Some(cluster.url("bench").into()),
            ..Default::default()
        })
        .await?;
        db::migrate(&pool).await?;
        Ok(Self {
            pool,
            cluster,
            home,
        })
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.url("bench")
    }

    /// A folder that is gone with the cluster.
    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.pool.close().await;
        self.cluster.stop().await?;
        Ok(std::fs::remove_dir_all(self.home)?)
    }

    /// Empties the catalog.
    pub(crate) async fn empty(&self) -> sqlx::Result<()> {
        const EMPTY: &str = "TRUNCATE catalog.products, catalog.product_prices,
            catalog.product_stocks, catalog.product_changes, catalog.imports,
            catalog.import_errors, catalog.rejected_rows";
        sqlx::query(EMPTY).execute(&self.pool).await?;
        Ok(())
    }

    /// Returns how many row errors all imports have.
    pub(crate) async fn n_row_errors(&self) -> sqlx::Result<i64> {
        let count = "SELECT count(*) FROM catalog.import_errors";
        sqlx::query_scalar(count).fetch_one(&self.pool).await
    }

    /// Does what autovacuum does within a minute.
    pub(crate) async fn vacuum(&self) -> sqlx::Result<()> {
        let vacuum = "VACUUM catalog.products";
        sqlx::query(vacuum).execute(&self.pool).await?;
        Ok(())
    }
}

/// Phases are not to pay for each other.
pub(crate) async fn checkpoint(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("CHECKPOINT").execute(conn).await?;
    Ok(())
}
