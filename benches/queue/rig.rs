//! The cluster that everything is measured on, and how jobs get into it.

use std::path::PathBuf;

use ingestd::{
    config, db,
    dev::{Cluster, Options},
    queue,
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

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
        let cluster = Cluster::start(Options {
            durable: true,
            ..Options::new(home.join("data"))
        })
        .await?;
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
        // No drain is to pay for a checkpoint, nor for making files that the next finds made.
        for setting in ["max_wal_size = '4GB'", "min_wal_size = '4GB'"] {
            rig.run(format!("ALTER SYSTEM SET {setting}")).await?;
        }
        rig.run("SELECT pg_reload_conf()").await?;
        Ok(rig)
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
        self.run(
            "INSERT INTO ingestd.queues (queue, paused_at) VALUES ('bench', now())
             ON CONFLICT (queue) DO UPDATE SET paused_at = now()",
        )
        .await?;
        self.run("VACUUM ingestd.jobs").await?;
        self.run("CHECKPOINT").await?;
        sqlx::query(FILL)
            .bind(i32::try_from(n_jobs)?)
            .bind(ARGS.parse::<serde_json::Value>()?)
            .execute(&self.pool)
            .await?;
        self.run("ANALYZE ingestd.jobs").await?;
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
