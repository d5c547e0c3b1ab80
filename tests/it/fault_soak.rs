//! A soak: three daemons and a producer under a seeded nemesis, and the ledger as the judge.

use std::{
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use ingestd::testing::{PrivateCluster, private_cluster};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::PgPool;

use crate::{
    queue_ledger as ledger,
    queue_rig::{Setup, ask, run, tell, until},
};

/// Names the database for [`works_until_it_is_killed`].
const URL: &str = "INGESTD_TEST_SOAK_URL";
const LOST_AFTER: Duration = Duration::from_secs(3);

/// A daemon as a process of its own, which a nemesis kills and stops.
struct Worker {
    child: Child,
    /// Stopped until then.
    asleep: Option<Instant>,
}

impl Worker {
    fn start(url: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "fault_soak::works_until_it_is_killed",
                "--ignored",
            ])
            .env(URL, url)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Self {
            child: child.unwrap(),
            asleep: None,
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Wakes it when it is time, and starts it again where it is gone.
    fn look(&mut self, url: &str) {
        if self.asleep.is_some_and(|until| until < Instant::now()) {
            self.signal(Signal::SIGCONT);
            self.asleep = None;
        }
        if self.child.try_wait().unwrap().is_some() {
            *self = Self::start(url);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test]
#[ignore = "not a test: the process that the others here start and kill"]
async fn works_until_it_is_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let setup = Setup::of([ledger::job_with(pause)])
        .slots("default", 32)
        .lost_after(LOST_AFTER)
        .with(|queue| queue.max_crashes = 1000)
        // Never in batches, always, or where there is much to do.
        .with(|queue| queue.batch_lease_from = [0, 1, 8][fastrand::usize(..3)]);
    let _engine = setup.start(&url).await; // panics while there is no database, and is started again
    std::future::pending::<()>().await;
}

/// Now and then as long as a daemon is stopped: when it wakes, another is in the middle of the job.
fn pause() -> Duration {
    let longest = if fastrand::u8(..20) == 0 { 6_000 } else { 10 };
    Duration::from_millis(fastrand::u64(..longest))
}

/// What a producer was told.
#[derive(Default)]
struct Told {
    acked: Vec<i64>,
    n_unknown: usize,
}

/// Enqueues a few jobs at a time until told to stop; a slow machine is not given ever more to do.
async fn produce(pool: PgPool, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    while !stop.load(Ordering::SeqCst) {
        let enqueued = sqlx::query_scalar(
            "WITH j AS (INSERT INTO ingestd.jobs (kind, priority)
                        SELECT 't.ledger', i % 4 FROM generate_series(1, 5) i
                        WHERE (SELECT count(*) FROM ingestd.jobs) < 500 RETURNING id)
             INSERT INTO cursors (job) SELECT id FROM j RETURNING job",
        );
        match enqueued.fetch_all(&pool).await {
            Ok(ids) => told.acked.extend::<Vec<i64>>(ids),
            Err(_) => told.n_unknown += 5,
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    told
}

/// Does one thing to somebody; returns its name.
async fn strike(
    dice: &mut fastrand::Rng,
    cluster: &mut PrivateCluster,
    workers: &mut [Worker],
    pool: &PgPool,
) -> &'static str {
    let victim = dice.usize(..workers.len());
    match dice.u8(..8) {
        0..2 => {
            drop(workers[victim].child.kill());
            "kill -9"
        }
        2..4 if workers[victim].asleep.is_none() => {
            workers[victim].signal(Signal::SIGSTOP);
            workers[victim].asleep = Some(Instant::now() + LOST_AFTER * 2);
            "SIGSTOP past the lease"
        }
        4 => {
            cluster.kill9().await.unwrap();
            cluster.restart().await.unwrap();
            "Postgres killed"
        }
        _ => {
            // Any half of the sessions, the producer's among them.
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid % 2 = $1";
            drop(sqlx::query(end).bind(dice.i32(..2)).execute(pool).await);
            "sessions ended"
        }
    }
}

async fn soak(duration: Duration) {
    let seed = std::env::var("INGESTD_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut cluster = private_cluster().await;
    let (url, pool) = (cluster.database_url(), cluster.connect().await.unwrap());
    run(&pool, ledger::TABLES).await;
    let mut workers: Vec<Worker> = (0..3).map(|_| Worker::start(&url)).collect();
    until(&pool, "(SELECT count(*) >= 3 FROM ingestd.workers)").await;
    let stop = Arc::new(AtomicBool::new(false));
    let (began, mut strikes) = (Instant::now(), Vec::new());
    let nemesis = async {
        while began.elapsed() < duration {
            tokio::time::sleep(Duration::from_millis(dice.u64(200..1500))).await;
            strikes.push(strike(&mut dice, &mut cluster, &mut workers, &pool).await);
            for worker in &mut workers {
                worker.look(&url);
            }
        }
        stop.store(true, Ordering::SeqCst);
    };
    let (told, ()) = tokio::join!(produce(pool.clone(), Arc::clone(&stop)), nemesis);
    let quiet = async {
        loop {
            for worker in &mut workers {
                worker.look(&url);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let story = format!("seed {seed}; {} strikes: {strikes:?}", strikes.len());
    // Connections of its own: of the others, some are ended and may not know it yet.
    let own = cluster.connect().await.unwrap();
    tokio::select! {
        () = judge(&own, &told, &story) => {}
        () = quiet => {}
    }
    let (n_acked, n_unknown) = (told.acked.len(), told.n_unknown);
    let secs = began.elapsed().as_secs();
    tell(&format!(
        "{n_acked} acked, {n_unknown} unknown; {secs} s; {story}"
    ));
}

/// Waits until all is done and asserts that nothing is lost, done twice, or left behind.
async fn judge(pool: &PgPool, told: &Told, story: &str) {
    ledger::settle(pool).await;
    let n_jobs: i64 = ask(pool, "SELECT count(*) FROM cursors").await;
    ledger::check(pool, n_jobs, story).await;
    let n_found: i64 =
        sqlx::query_scalar("SELECT count(*) FROM ingestd.job_history WHERE id = ANY ($1)")
            .bind(&told.acked)
            .fetch_one(pool)
            .await
            .unwrap();
    let n_acked = told.acked.len();
    assert_eq!(
        usize::try_from(n_found).unwrap(),
        n_acked,
        "acked and lost; {story}"
    );
    let n_jobs = usize::try_from(n_jobs).unwrap();
    assert!(
        (n_acked..=n_acked + told.n_unknown).contains(&n_jobs),
        "ghosts: {n_jobs} jobs; {story}"
    );
    until(
        pool,
        "NOT EXISTS (SELECT FROM pg_stat_activity
                     WHERE application_name = 'ingestd' AND state = 'idle in transaction')",
    )
    .await;
}

#[tokio::test]
async fn twenty_seconds_of_a_nemesis() {
    soak(Duration::from_secs(20)).await;
}

/// `INGESTD_TEST_SOAK_SECS` says how long, `INGESTD_TEST_SEED` repeats one that failed.
#[tokio::test]
#[ignore = "nightly: ten minutes"]
async fn nightly_ten_minutes_of_a_nemesis() {
    let secs = std::env::var("INGESTD_TEST_SOAK_SECS")
        .ok()
        .and_then(|secs| secs.parse().ok());
    soak(Duration::from_secs(secs.unwrap_or(600))).await;
}
