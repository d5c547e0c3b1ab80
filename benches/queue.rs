//! What the queue costs, beside a hand-written loop over the same tables in the same run.
//!
//! ```sh
//! cargo bench --bench queue -- --jobs 100000
//! ```
//!
//! Prints jobs per second and WAL bytes per job of both, their ratio, and the
//! latency from an INSERT's commit to the handler's start beside a bare NOTIFY
//! round trip. Starts a cluster of its own with durable commits and removes it.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark ends at the first surprise"
)]

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ingestd::{
    config, db,
    dev::{Cluster, Options},
    queue::{Done, Engine, Job, JobContext, JobError, Kind, Running},
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection, PgPool, Row, postgres::PgListener};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Does nothing; says that it began, where somebody listens.
#[derive(Debug, Serialize, Deserialize)]
struct Noop {}

#[derive(Debug)]
struct World {
    began: Option<mpsc::UnboundedSender<Instant>>,
}

impl Job for Noop {
    const KIND: &'static str = "bench.noop";
    const QUEUE: &'static str = "bench";
    type Context = World;

    async fn run(self, ctx: &JobContext<World>) -> Result<Done, JobError> {
        if let Some(began) = &ctx.state().began {
            began.send(Instant::now()).unwrap();
        }
        Ok(Done::new())
    }
}

const KINDS: &[Kind<World>] = &[Kind::of::<Noop>()];

/// The size of the arguments, in bytes of text.
const ARGS: &str = r#"{"payload": "0123456789012345678901234567890123456789012345678901234567890123456789012345678"}"#;

struct Bench {
    pool: PgPool,
    config: config::Database,
}

/// What a drain came to.
struct Drained {
    jobs_per_s: f64,
    wal_per_job: f64,
}

impl Bench {
    async fn engine(
        &self,
        began: Option<mpsc::UnboundedSender<Instant>>,
        n_slots: usize,
    ) -> Running {
        Engine {
            pool: db::connect_queue(&self.config).await.unwrap(),
            options: db::session(&self.config).unwrap(),
            kinds: KINDS.to_vec(),
            state: World { began },
            settings: config::Queue::default(),
            concurrency: BTreeMap::from([("bench".to_owned(), n_slots)]),
        }
        .start()
        .await
        .unwrap()
    }

    async fn fill(&self, n_jobs: i64) {
        self.run(
            "INSERT INTO ingestd.queues VALUES ('bench', now())
                  ON CONFLICT (queue) DO UPDATE SET paused_at = now()",
        )
        .await;
        // Each trigger of a plain INSERT stays in: the figure is of what people do.
        sqlx::query(
            "INSERT INTO ingestd.jobs (kind, args) SELECT 'bench.noop', $2::jsonb
             FROM generate_series(1, $1)",
        )
        .bind(n_jobs)
        .bind(ARGS.parse::<serde_json::Value>().unwrap())
        .execute(&self.pool)
        .await
        .unwrap();
        self.run("CHECKPOINT").await;
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }

    async fn left(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM (SELECT FROM ingestd.jobs LIMIT 1) one")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn wal(&self) -> f64 {
        sqlx::query_scalar("SELECT (pg_current_wal_insert_lsn() - '0/0')::float8")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn measure<F: Future<Output = ()>>(&self, n_jobs: i64, drain: F) -> Drained {
        let (wal, began) = (self.wal().await, Instant::now());
        drain.await;
        #[expect(clippy::cast_precision_loss, reason = "a count of jobs")]
        let n_jobs = n_jobs as f64;
        let seconds = began.elapsed().as_secs_f64();
        Drained {
            jobs_per_s: n_jobs / seconds,
            wal_per_job: (self.wal().await - wal) / n_jobs,
        }
    }

    /// Drains through the engine with everything on.
    async fn drain_engine(&self, n_jobs: i64, n_slots: usize) -> Drained {
        self.fill(n_jobs).await;
        let engine = self.engine(None, n_slots).await;
        let drained = self.measure(n_jobs, async {
            self.run("UPDATE ingestd.queues SET paused_at = NULL").await;
            self.run("NOTIFY ingestd_wake, 'bench'").await;
            while self.left().await > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let drained = drained.await;
        engine.stop(CancellationToken::new()).await;
        drained
    }

    /// Drains by hand: two connections, one statement to claim, one to complete, no handler.
    async fn drain_by_hand(&self, n_jobs: i64, batch: i64) -> Drained {
        self.fill(n_jobs).await;
        self.measure(n_jobs, async {
            tokio::join!(self.loop_by_hand(batch), self.loop_by_hand(batch));
        })
        .await
    }

    async fn loop_by_hand(&self, batch: i64) {
        let options = db::session(&self.config).unwrap().options([
            ("enable_seqscan", "off"),
            ("enable_bitmapscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
        ]);
        let mut conn = PgConnection::connect_with(&options).await.unwrap();
        loop {
            let rows = sqlx::query(
                "WITH due AS MATERIALIZED (
                   SELECT id FROM ingestd.jobs
                   WHERE shard = 0 AND queue = 'bench' AND priority = 1 AND state = 'queued'
                     AND run_at <= now()
                   ORDER BY run_at, id LIMIT $1 FOR UPDATE SKIP LOCKED)
                 UPDATE ingestd.jobs SET state = 'running', worker_id = 1, attempt = attempt + 1,
                   lease_id = nextval('ingestd.lease_seq'), started_at = clock_timestamp()
                 WHERE shard = 0 AND id = ANY (ARRAY(SELECT id FROM due))
                 RETURNING id, lease_id, args",
            )
            .bind(batch)
            .fetch_all(&mut conn)
            .await
            .unwrap();
            if rows.is_empty() {
                return;
            }
            let column = |name: &str| rows.iter().map(|row| row.get(name)).collect::<Vec<i64>>();
            sqlx::query(
                "WITH gone AS (
                   DELETE FROM ingestd.jobs
                   WHERE shard = 0 AND id = ANY ($1) AND lease_id = ANY ($2) RETURNING *)
                 INSERT INTO ingestd.job_history
                   (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant,
                    worker_id, created_at, run_at, started_at)
                 SELECT shard, id, kind, queue, 'completed', priority, attempt, args, run_id, tenant,
                    worker_id, created_at, run_at, started_at FROM gone",
            )
            .bind(column("id"))
            .bind(column("lease_id"))
            .execute(&mut conn)
            .await
            .unwrap();
        }
    }

    /// From the commit of one INSERT to the start of its handler, the daemon idle.
    async fn latency_engine(&self, n_jobs: usize) -> Vec<Duration> {
        self.run("UPDATE ingestd.queues SET paused_at = NULL").await;
        let (sender, mut began) = mpsc::unbounded_channel();
        let engine = self.engine(Some(sender), 10).await;
        let mut conn = PgConnection::connect_with(&db::session(&self.config).unwrap())
            .await
            .unwrap();
        let mut latencies = Vec::new();
        for _ in 0..n_jobs {
            sqlx::query("INSERT INTO ingestd.jobs (kind) VALUES ('bench.noop')")
                .execute(&mut conn)
                .await
                .unwrap();
            let committed = Instant::now();
            latencies.push(
                began
                    .recv()
                    .await
                    .unwrap()
                    .saturating_duration_since(committed),
            );
            tokio::time::sleep(Duration::from_millis(fastrand::u64(20..80))).await;
        }
        engine.stop(CancellationToken::new()).await;
        latencies
    }

    /// From the commit of a bare NOTIFY to its arrival, and one statement's round trip.
    async fn latency_notify(&self, n: usize) -> Vec<Duration> {
        let mut listener = PgListener::connect_with(&self.pool).await.unwrap();
        listener.listen("bench").await.unwrap();
        let mut latencies = Vec::new();
        for _ in 0..n {
            self.run("NOTIFY bench").await;
            let committed = Instant::now();
            listener.recv().await.unwrap();
            self.run("SELECT 1").await;
            latencies.push(committed.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        latencies
    }
}

fn quantile(latencies: &mut [Duration], share: f64) -> f64 {
    latencies.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let place = ((latencies.len() - 1) as f64 * share) as usize;
    latencies.get(place).unwrap().as_secs_f64() * 1000.0
}

fn argument(name: &str, default: i64) -> i64 {
    let mut args = std::env::args().skip_while(|arg| arg != name);
    args.nth(1)
        .map_or(default, |value| value.parse().expect("a number"))
}

#[tokio::main]
async fn main() {
    let n_jobs = argument("--jobs", 100_000);
    let home = std::env::temp_dir().join(format!("ingestd-bench-{}", std::process::id()));
    let cluster = Cluster::start(Options::new(home.join("data")))
        .await
        .unwrap();
    cluster.ensure_database("bench").await.unwrap();
    let config = config::Database {
        url: Some(cluster.url("bench").into()),
        ..config::Database::default()
    };
    let pool = db::connect(&config).await.unwrap();
    db::migrate(&pool).await.unwrap();
    ingestd::queue::register(&mut pool.acquire().await.unwrap(), KINDS)
        .await
        .unwrap();
    let bench = Arc::new(Bench { pool, config });

    println!(
        "{n_jobs} no-op jobs, {} bytes of args, durable commits",
        ARGS.len()
    );
    for (batch, n_slots) in [(100, 100), (500, 500)] {
        let by_hand = bench.drain_by_hand(n_jobs, batch).await;
        let engine = bench.drain_engine(n_jobs, n_slots).await;
        println!(
            "batches of {batch}: by hand {:>7.0} jobs/s, {:>5.0} B WAL a job | engine {:>7.0} jobs/s, \
             {:>5.0} B | ratio {:.2}",
            by_hand.jobs_per_s,
            by_hand.wal_per_job,
            engine.jobs_per_s,
            engine.wal_per_job,
            engine.jobs_per_s / by_hand.jobs_per_s
        );
    }
    let mut notify = bench.latency_notify(200).await;
    let mut engine = bench.latency_engine(200).await;
    println!(
        "latency, idle: engine p50 {:.2} ms, p99 {:.2} ms | NOTIFY and a statement p50 {:.2} ms, p99 {:.2} ms",
        quantile(&mut engine, 0.5),
        quantile(&mut engine, 0.99),
        quantile(&mut notify, 0.5),
        quantile(&mut notify, 0.99)
    );
    bench.pool.close().await;
    cluster.stop().await.unwrap();
    std::fs::remove_dir_all(home).unwrap();
}
