//! A worker process is killed at every point that matters, and at points that chance picks.

use std::{
    io::Read,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    proxy::{Proxy, Then},
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, done, run, tell},
};

/// Names the database of a worker process.
const URL: &str = "INGESTD_TEST_WORKER_URL";

fn setup() -> Setup {
    Setup::of([ledger::job(), done("t.done")])
        .slots("default", 8)
        .lost_after(Duration::from_secs(5))
        // However often its process is killed, no job here is poison.
        .with(|queue| queue.max_crashes = 1000)
}

/// Works until it is killed, or the process that started it is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the worker process of the tests beside it"]
async fn worker() {
    let Ok(url) = std::env::var(URL) else { return };
    let _engine = setup().start(&url).await;
    let starter_gone = || std::io::stdin().read_to_end(&mut Vec::new());
    tokio::task::spawn_blocking(starter_gone)
        .await
        .unwrap()
        .unwrap();
    std::process::exit(0);
}

/// A worker as a process of its own; killed when dropped.
struct Worker(Child);

impl Worker {
    fn start(url: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "fault_kill::worker", "--ignored"])
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// Ends the process as a power cut would, and waits for that.
    fn kill9(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_worker_killed_at_any_point_of_a_job_loses_and_doubles_nothing() {
    let rig = Rig::new().await;
    run(rig.pool(), ledger::TABLES).await;
    let mut doomed = Worker::start(rig.url());
    rig.until("EXISTS (SELECT FROM ingestd.workers)").await;
    for point in ledger::POINTS {
        ledger::more(rig.pool(), 1, &format!(r#"{{"stop": "{point}"}}"#)).await;
    }
    // Every one of them stands at its point now, in one process.
    let n = ledger::POINTS.len();
    rig.until(&format!("(SELECT count(*) = {n} FROM stops)"))
        .await;
    let at_their_points = "
        (SELECT string_agg(coalesce(j.state, 'gone') || ' ' || c.step, ', ' ORDER BY c.job)
         FROM cursors c LEFT JOIN ingestd.jobs j ON j.id = c.job)";
    // Claimed with others a job is told to run a moment later.
    rig.until(&format!(
        "{at_their_points} = 'running 0, running 1, running 1, running 2, gone 3'"
    ))
    .await;
    doomed.kill9();
    let _other = Worker::start(rig.url());
    ledger::check(rig.pool(), 5, "one kill at five points").await;
    // The crash is on the record of those that were not done, once.
    let crashes = "SELECT string_agg(n || ' ' || outcome, ', ') FROM
                     (SELECT count(*) n, outcome FROM ingestd.job_attempts GROUP BY outcome) o";
    assert_eq!(rig.ask::<String>(crashes).await, "4 crash");
}

/// Kills a worker when the server has committed and the worker was not told.
async fn killed_before_the_answer(enqueue: &str, statement: &'static str) {
    let rig = Rig::new().await;
    run(rig.pool(), ledger::TABLES).await;
    let proxy = Proxy::start(rig.url()).await;
    let mut doomed = Worker::start(&proxy.url());
    rig.until("EXISTS (SELECT FROM ingestd.workers)").await;
    proxy.lose(statement, 1, Then::Silence);
    run(rig.pool(), enqueue).await;
    proxy.until_lost(1).await;
    doomed.kill9();
    let _other = Worker::start(rig.url());
    rig.until_idle().await;
    let n_steps = if enqueue.contains("t.ledger") { 3 } else { 0 };
    let verdict = "SELECT concat_ws(' ', (SELECT count(*) FROM ingestd.job_history),
                     (SELECT count(*) FROM ledger), (SELECT count(DISTINCT step) FROM ledger),
                     (SELECT count(*) FROM ingestd.dead_jobs))";
    assert_eq!(
        rig.ask::<String>(verdict).await,
        format!("1 {n_steps} {n_steps} 0"),
        "{statement}"
    );
}

const LEDGER: &str = "WITH j AS (INSERT INTO ingestd.jobs (kind) VALUES ('t.ledger') RETURNING id)
                      INSERT INTO cursors (job) SELECT id FROM j";
const DONE: &str = "INSERT INTO ingestd.jobs (kind) VALUES ('t.done')";

#[tokio::test]
async fn a_worker_killed_between_the_commit_of_a_claim_and_its_answer() {
    killed_before_the_answer(DONE, "Claims up to").await;
}

#[tokio::test]
async fn a_worker_killed_between_the_commit_of_a_step_and_its_answer() {
    killed_before_the_answer(LEDGER, "UPDATE cursors").await;
}

#[tokio::test]
async fn a_worker_killed_between_the_commit_of_its_outcomes_and_the_answer() {
    killed_before_the_answer(DONE, "Completes or cancels").await;
}

#[tokio::test]
async fn a_worker_killed_when_its_job_completed_itself_and_the_answer_was_under_way() {
    // Both begin the last transaction's text; only the last has them in this order.
    killed_before_the_answer(
        LEDGER,
        "UPDATE cursors SET step = $2 WHERE job = $1-- Completes",
    )
    .await;
}

/// Kills one of two workers `n_kills` times, each time at a moment that the seed picks.
async fn killed_by_chance(n_kills: u32, n_jobs: i64) {
    let seed = std::env::var("INGESTD_TEST_SEED")
        .map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    tell(&format!(
        "seed {seed}; INGESTD_TEST_SEED={seed} repeats its choices"
    ));
    let mut chance = fastrand::Rng::with_seed(seed);
    let rig = Rig::new().await;
    let mut workers = [Worker::start(rig.url()), Worker::start(rig.url())];
    rig.until("(SELECT count(*) = 2 FROM ingestd.workers)")
        .await;
    ledger::enqueue(rig.pool(), n_jobs).await;
    let mut goal = 0;
    for _ in 0..n_kills {
        goal += chance.i64(1..=n_jobs * 5 / i64::from(n_kills));
        ledger::lines(rig.pool(), goal.min(n_jobs * 3)).await;
        tokio::time::sleep(Duration::from_micros(chance.u64(0..5000))).await;
        let victim = &mut workers[chance.usize(0..2)];
        victim.kill9();
        *victim = Worker::start(rig.url());
    }
    let told = format!("{n_kills} kills, seed {seed}");
    ledger::check(rig.pool(), n_jobs, &told).await;
    let crashes = "SELECT count(*) FROM ingestd.job_attempts WHERE outcome = 'crash'";
    tell(&format!(
        "{} jobs were running when killed",
        rig.ask::<i64>(crashes).await
    ));
}

#[tokio::test]
async fn workers_killed_by_chance_lose_and_double_nothing() {
    killed_by_chance(6, 120).await;
}

#[tokio::test]
#[ignore = "nightly: 300 kills"]
async fn nightly_workers_killed_by_chance_lose_and_double_nothing_at_length() {
    killed_by_chance(300, 6000).await;
}
