//! The cluster that everything is measured on, and how jobs get into it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use ingestd::{
    config, db,
    dev::{Cluster, Options},
    queue,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::{
    engine::KINDS,
    measure::{Cost, Phase},
};

/// The arguments of every job: 94 bytes of text.
pub(crate) const ARGS: &str = r#"{"payload": "0123456789012345678901234567890123456789012345678901234567890123456789012345678"}"#;

/// Jobs became due evenly over the last ten minutes, as a backlog does: no two loops are told
/// apart by what they do where all rows have the same time.
const FILL: &str = "
    INSERT INTO ingestd.jobs (kind, args, run_at)
    SELECT 'bench.noop', $2::jsonb, now() - interval '10 min' * (($1 - i)::float8 / $1)
    FROM generate_series(1, $1) AS i";

/// Whether a job is left, by the primary key.
pub(crate) const IS_LEFT: &str =
    "SELECT EXISTS (SELECT FROM ingestd.jobs WHERE shard = 0 AND id > 0)";

/// Jobs left, and jobs of the history from $1 on.
const DONE: &str = "
    SELECT (SELECT count(*) FROM ingestd.jobs),
           (SELECT count(*) FROM ingestd.job_history WHERE id >= $1)";

/// A private cluster with one migrated database.
pub(crate) struct Rig {
    pub(crate) pool: PgPool,
    pub(crate) config: config::Database,
    cluster: Cluster,
    home: PathBuf,
}

impl Rig {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let home = std::env::temp_dir().join(format!("ingestd-bench-{}", std::process::id()));
        let mut cluster = Cluster::start(Options {
            durable: true,
            ..Options::new(home.join("data"))
        })
        .await?;
        // No drain is to pay for a checkpoint, nor for making files that the next finds made; what
        // statements cost is counted where it is asked for.
        let mut conn = PgConnection::connect(&cluster.url("postgres")).await?;
        for setting in [
            "max_wal_size = '4GB'",
            "min_wal_size = '4GB'",
            "shared_preload_libraries = 'pg_stat_statements'",
        ] {
            let set = AssertSqlSafe(format!("ALTER SYSTEM SET {setting}"));
            sqlx::query(set).execute(&mut conn).await?;
        }
        conn.close().await?;
        cluster.restart().await?;
        cluster.ensure_database("bench").await?;
        let config = config::Database {
            url: Some(cluster.url("bench").into()),
            ..Default::default()
        };
        let pool = db::connect(&config).await?;
        db::migrate(&pool).await?;
        queue::register(&mut *pool.acquire().await?, KINDS).await?;
        let rig = Self {
            pool,
            config,
            cluster,
            home,
        };
        rig.run("CREATE EXTENSION pg_stat_statements").await?;
        rig.count_statements(false).await?;
        Ok(rig)
    }

    /// Has the server count what statements cost, or not: that costs a little itself.
    pub(crate) async fn count_statements(&self, is_on: bool) -> sqlx::Result<()> {
        let what = if is_on { "top" } else { "none" };
        self.run(format!(
            "ALTER SYSTEM SET pg_stat_statements.track = {what}"
        ))
        .await?;
        self.run("SELECT pg_reload_conf()").await
    }

    pub(crate) fn url(&self) -> String {
        self.cluster.url("bench")
    }

    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.pool.close().await;
        self.cluster.stop().await?;
        Ok(std::fs::remove_dir_all(self.home)?)
    }

    /// Runs a statement of the benchmark's own.
    pub(crate) async fn run(&self, sql: impl Into<String>) -> sqlx::Result<()> {
        let sql = AssertSqlSafe(sql.into());
        sqlx::query(sql).execute(&self.pool).await?;
        Ok(())
    }

    /// Connects as the queue does: every statement has one plan.
    pub(crate) async fn connect(&self) -> sqlx::Result<PgPool> {
        db::connect_queue(&self.config).await
    }

    /// Leaves `n_jobs` due in a paused queue, and no trace of the drain before.
    ///
    /// The checkpoint comes first: the jobs' pages were written since, as those of a queue that
    /// keeps up were, so that none goes into the WAL as a whole.
    pub(crate) async fn fill(&self, n_jobs: u32) -> anyhow::Result<()> {
        self.empty().await?;
        self.run("CHECKPOINT").await?;
        sqlx::query(FILL)
            .bind(i32::try_from(n_jobs)?)
            .bind(ARGS.parse::<serde_json::Value>()?)
            .execute(&self.pool)
            .await?;
        self.run("ANALYZE ingestd.jobs").await?;
        Ok(())
    }

    /// Leaves no job, and nobody to run one.
    pub(crate) async fn empty(&self) -> sqlx::Result<()> {
        self.run("TRUNCATE ingestd.jobs").await?;
        let mut conn = self.pool.acquire().await?;
        queue::control::pause(&mut conn, "bench").await?;
        Ok(())
    }

    /// Lets the queue go on.
    pub(crate) async fn resume(&self) -> sqlx::Result<()> {
        let mut conn = self.pool.acquire().await?;
        queue::control::resume(&mut conn, "bench").await?;
        Ok(())
    }

    /// Waits until no job is left.
    pub(crate) async fn drained(&self, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let pool = self.connect().await?;
        while sqlx::query_scalar(IS_LEFT).fetch_one(&pool).await? {
            anyhow::ensure!(
                began.elapsed() < patience,
                "jobs are left after {patience:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        pool.close().await;
        Ok(())
    }

    /// Returns what `drain` of `n_jobs` cost.
    ///
    /// Fails where it left a job behind, or the history does not have each.
    pub(crate) async fn measure(
        &self,
        n_jobs: u32,
        drain: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Cost> {
        let mut conn: PgConnection = self.pool.acquire().await?.detach();
        let first: Option<i64> = sqlx::query_scalar("SELECT min(id) FROM ingestd.jobs")
            .fetch_one(&mut conn)
            .await?;
        let phase = Phase::begin(&mut conn).await?;
        drain.await?;
        let cost = phase.end(&mut conn).await?;
        let (n_left, n_done): (i64, i64) = sqlx::query_as(DONE)
            .bind(first)
            .fetch_one(&mut conn)
            .await?;
        anyhow::ensure!(
            n_left == 0 && n_done == i64::from(n_jobs),
            "of {n_jobs} jobs {n_done} were done, {n_left} are left"
        );
        Ok(cost)
    }
}
