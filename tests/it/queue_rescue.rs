//! Lost leases: whose worker died, hung, fell silent or never heard that it had claimed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::queue::{Done, JobError, Running};
use tokio::sync::Semaphore;

use crate::queue_rig::{Play, Rig, Setup, counter, done, play, stop, until_true};

/// A worker that is gone: `$heartbeat` is when it was last heard of.
async fn dead_worker(rig: &Rig, heartbeat: &str) -> i64 {
    let worker = format!(
        "INSERT INTO ingestd.workers (host, pid, version, queues, heartbeat_at)
         VALUES ('gone', 1, '0', '{{}}', {heartbeat}) RETURNING id"
    );
    rig.ask(&worker).await
}

/// Inserts jobs that the worker runs, as a claim would have left them.
async fn running(rig: &Rig, worker: i64, kind: &str, n: i64, more: &str) {
    rig.sql(&format!(
        "INSERT INTO ingestd.jobs
           (kind, state, attempt, worker_id, lease_id, started_at, deadline_at, args)
         SELECT '{kind}', 'running', 1, {worker}, nextval('ingestd.lease_seq'), now(),
                now() + interval '1 h', jsonb_build_object('n', n)
         FROM generate_series(1, {n}) n;
         UPDATE ingestd.jobs SET {more} WHERE worker_id = {worker} AND kind = '{kind}'"
    ))
    .await;
}

/// Starts an engine once, so that its kinds are registered.
async fn register(rig: &Rig, plays: &[Play]) {
    stop(rig.play(plays).await).await;
}

fn waiting(name: &'static str) -> (Play, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (gate, n_started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (waits, started) = (Arc::clone(&gate), Arc::clone(&n_started));
    let play = play(name, move |_| {
        started.fetch_add(1, Ordering::SeqCst);
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    (play, gate, n_started)
}

const ATTEMPTS: &str = "
    SELECT coalesce(string_agg(concat_ws(' ', kind, attempt, outcome, error_kind), ', '), 'none')
    FROM ingestd.job_attempts";

#[tokio::test]
async fn a_dead_workers_job_runs_again_and_only_a_crash_is_charged() {
    let rig = Rig::new().await;
    let plays = [done("t.orphan"), done("t.unwanted")];
    register(&rig, &plays).await;
    let worker = dead_worker(&rig, "now() - interval '1 h'").await;
    running(&rig, worker, "t.orphan", 1, "tenant = 'acme'").await;
    running(&rig, worker, "t.unwanted", 1, "cancel_requested = true").await;
    let engine = rig.play(plays).await;
    rig.until_idle().await;
    let history = "SELECT string_agg(concat_ws(' ', kind, state, attempt), ', ' ORDER BY kind)
                   FROM ingestd.job_history";
    let expected = "t.orphan completed 1, t.unwanted cancelled 1";
    assert_eq!(rig.ask::<String>(history).await, expected);
    assert_eq!(rig.ask::<String>(ATTEMPTS).await, "t.orphan 1 crash crash");
    let reason = format!("SELECT end_reason FROM ingestd.workers WHERE id = {worker}");
    assert_eq!(rig.ask::<String>(&reason).await, "lost");
    stop(engine).await;
}

#[tokio::test]
async fn a_heartbeat_that_stands_still_is_found_whatever_the_clock_says() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.orphan")]).await;
    // The database's clock was set back by a day.
    let worker = dead_worker(&rig, "now() + interval '1 day'").await;
    running(&rig, worker, "t.orphan", 1, "tenant = 'acme'").await;
    let setup = Setup::of([done("t.orphan")]).lost_after(Duration::from_secs(2));
    let engine = setup.start(rig.url()).await;
    rig.until_idle().await;
    assert_eq!(rig.ask::<String>(ATTEMPTS).await, "t.orphan 1 crash crash");
    stop(engine).await;
}

#[tokio::test]
async fn an_attempt_past_its_deadline_is_taken_from_a_living_worker() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.hung")]).await;
    // It lives, as far as anybody can tell, and will not report.
    let worker = dead_worker(&rig, "now() + interval '1 day'").await;
    running(
        &rig,
        worker,
        "t.hung",
        1,
        "deadline_at = now() - interval '1 s'",
    )
    .await;
    let engine = rig.play([done("t.hung")]).await;
    rig.until_idle().await;
    let error: String = rig.ask("SELECT error FROM ingestd.job_attempts").await;
    assert!(
        error.contains("hung") && error.contains("deadline"),
        "{error}"
    );
    let alive = format!("SELECT ended_at IS NULL FROM ingestd.workers WHERE id = {worker}");
    assert!(rig.ask::<bool>(&alive).await);
    stop(engine).await;
}

#[tokio::test]
async fn poison_is_quarantined_and_what_cannot_be_buried_hides_nobody() {
    let rig = Rig::new().await;
    rig.sql("CREATE TABLE graves (job_id bigint, error text)")
        .await;
    let plays = [
        done("t.newer"),
        done("t.cursed"),
        done("t.poison"),
        done("t.orphan"),
    ];
    register(&rig, &plays).await;
    // In the order of their ids: more than a page of jobs whose kind nobody here knows, jobs that
    // cannot be buried, and only then those that can be helped.
    for (kind, n, more) in [
        ("t.newer", 250, "crashes = 2"),
        (
            "t.cursed",
            3,
            "crashes = 2, args = '{\"on_dead\": \"no sql\"}'",
        ),
        (
            "t.poison",
            3,
            "crashes = 2, args = '{\"on_dead\": \"INSERT INTO graves VALUES ($1, $2)\"}'",
        ),
        ("t.orphan", 3, "crashes = 0"),
    ] {
        let worker = dead_worker(&rig, "now() - interval '1 h'").await;
        running(&rig, worker, kind, n, more).await;
    }
    let [_, cursed, poison, orphan] = plays;
    let engine = rig.play([cursed, poison, orphan]).await;
    rig.until("(SELECT count(*) = 3 FROM ingestd.job_history WHERE kind = 't.orphan')")
        .await;
    rig.until("(SELECT count(*) = 3 FROM graves)").await;
    let letter =
        "SELECT DISTINCT concat_ws(' ', kind, reason, attempt, crashes) FROM ingestd.dead_jobs";
    assert_eq!(rig.ask::<String>(letter).await, "t.poison poison 1 3");
    let left = "SELECT string_agg(concat_ws(' ', kind, n), ', ' ORDER BY kind) FROM
                  (SELECT kind, count(*) n FROM ingestd.jobs WHERE state = 'running' GROUP BY kind) k";
    assert_eq!(rig.ask::<String>(left).await, "t.cursed 3, t.newer 250");
    stop(engine).await;
}

#[tokio::test]
async fn suspects_run_one_at_a_time_and_bystanders_are_not_charged() {
    let rig = Rig::new().await;
    let (suspect, gate, n_started) = waiting("t.suspect");
    let mut suspect = suspect;
    suspect.kind.retry.first = Duration::from_millis(1);
    let plays = [suspect, done("t.bystander")];
    register(&rig, &plays).await;
    let worker = dead_worker(&rig, "now() - interval '1 h'").await;
    running(&rig, worker, "t.suspect", 4, "crashes = 1").await;
    let engines = [rig.play(plays.clone()).await, rig.play(plays).await];
    for n in 1..=4 {
        until_true("the next one is let go", || {
            n_started.load(Ordering::SeqCst) == n
        })
        .await;
        let at_large = "SELECT count(*) FROM ingestd.jobs WHERE state <> 'held'";
        assert_eq!(rig.ask::<i64>(at_large).await, 1);
        if n == 2 {
            // Another worker dies with a suspect of its own and somebody who stood by.
            let worker = dead_worker(&rig, "now() - interval '1 h'").await;
            running(&rig, worker, "t.suspect", 1, "crashes = 2").await;
            running(&rig, worker, "t.bystander", 1, "crashes = 0").await;
            rig.until("EXISTS (SELECT FROM ingestd.dead_jobs WHERE reason = 'poison')")
                .await;
            rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 't.bystander')")
                .await;
        }
        gate.add_permits(1);
    }
    rig.until_idle().await;
    for engine in engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn the_end_of_a_suspect_lets_the_next_one_go() {
    let rig = Rig::new().await;
    // Nobody looks a second time while the test runs.
    let setup = Setup::of([done("t.suspect")])
        .with(|queue| queue.rescue_interval = Duration::from_hours(1));
    register(&rig, &setup.plays).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, state, crashes)
         SELECT 't.suspect', 'held', 2 FROM generate_series(1, 50)",
    )
    .await;
    let engine = setup.start(rig.url()).await;
    rig.until("(SELECT count(*) = 50 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

async fn worker_of(rig: &Rig) -> i64 {
    rig.ask("SELECT id FROM ingestd.workers WHERE ended_at IS NULL")
        .await
}

#[tokio::test]
async fn what_was_claimed_and_never_heard_of_goes_back() {
    let rig = Rig::new().await;
    let (waits, gate, n_started) = waiting("t.waits");
    let setup = Setup::of([waits, done("t.unheard"), done("t.bait")]).in_rows();
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.waits')")
        .await;
    until_true("it runs", || n_started.load(Ordering::SeqCst) == 1).await;
    let lease = "SELECT lease_id FROM ingestd.jobs WHERE kind = 't.waits'";
    let before: i64 = rig.ask(lease).await;
    // As a claim leaves them that was committed when its connection broke.
    running(
        &rig,
        worker_of(&rig).await,
        "t.unheard",
        3,
        "tenant = 'acme'",
    )
    .await;
    rig.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN RAISE EXCEPTION 'no claims now'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON ingestd.jobs
           FOR EACH ROW WHEN (NEW.state = 'running') EXECUTE FUNCTION refuse();
         INSERT INTO ingestd.jobs (kind) VALUES ('t.bait')",
    )
    .await;
    rig.until(
        "(SELECT count(*) = 3 FROM ingestd.jobs WHERE kind = 't.unheard' AND state = 'queued')",
    )
    .await;
    rig.sql("DROP TRIGGER refuse ON ingestd.jobs").await;
    rig.until("(SELECT count(*) = 4 FROM ingestd.job_history WHERE attempt = 1)")
        .await;
    assert_eq!(rig.ask::<i64>(lease).await, before);
    gate.add_permits(1);
    rig.until_idle().await;
    assert_eq!(rig.ask::<String>(ATTEMPTS).await, "none");
    stop(engine).await;
}

/// Gives the engine's worker up, as others do that hear nothing of it.
async fn give_up(rig: &Rig) {
    rig.sql(
        "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'lost' WHERE ended_at IS NULL",
    )
    .await;
}

#[tokio::test]
async fn a_worker_that_was_given_up_stops_and_begins_a_new_life() {
    let rig = Rig::new().await;
    let n_told = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&n_told);
    let long = play("t.long", move |ctx| {
        let (told, crashes) = (Arc::clone(&told), ctx.lease().crashes);
        async move {
            if crashes == 0 {
                ctx.cancelled().cancelled().await;
                told.fetch_add(1, Ordering::SeqCst);
                return Err(JobError::Cancelled);
            }
            Ok(Done::new())
        }
    });
    let setup = Setup::of([long, done("t.next")]).slots("default", 1);
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.long')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.next')")
        .await;
    let first = worker_of(&rig).await;
    give_up(&rig).await;
    rig.until_idle().await;
    assert_eq!(n_told.load(Ordering::SeqCst), 1);
    // Its slot came free while the old life was over and the new one had not begun.
    assert_eq!(rig.ask::<String>(ATTEMPTS).await, "t.long 1 crash crash");
    let life =
        "SELECT bool_and(worker_id = (SELECT id FROM ingestd.workers WHERE ended_at IS NULL))
                FROM ingestd.job_history";
    assert!(rig.ask::<bool>(life).await);
    assert!(worker_of(&rig).await > first);
    stop(engine).await;
}

#[tokio::test]
async fn an_attempt_whose_lease_was_taken_away_is_told() {
    let rig = Rig::new().await;
    let n_told = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&n_told);
    let robbed = play("t.robbed", move |ctx| {
        let (told, attempt) = (Arc::clone(&told), ctx.lease().attempt);
        async move {
            if attempt == 1 {
                ctx.cancelled().cancelled().await;
                told.fetch_add(1, Ordering::SeqCst);
                return Err(JobError::Cancelled);
            }
            Ok(Done::new())
        }
    });
    // The slot that the new attempt needs is the one that the old attempt occupies.
    let engine = Setup::of([robbed])
        .slots("default", 1)
        .start(rig.url())
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.robbed')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    rig.sql("UPDATE ingestd.jobs SET state = 'queued', lease_id = NULL, worker_id = NULL")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE state = 'completed' AND attempt = 2)")
        .await;
    assert_eq!(n_told.load(Ordering::SeqCst), 1);
    stop(engine).await;
}

/// Waits until the engine has looked for work `n` more times.
async fn looks(engine: &Running, queue: &str, n: f64) {
    let series = format!("ingestd_claim_duration_seconds_count{{queue=\"{queue}\"}}");
    let before = counter(&series);
    until_true("it looks for work", || counter(&series) >= before + n).await;
    assert!(engine.is_alive());
}

#[tokio::test]
async fn a_worker_that_was_given_up_claims_nothing_before_it_knows() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.after").queue("given_up")])
        .with(|q| q.heartbeat_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    looks(&engine, "given_up", 1.0).await;
    give_up(&rig).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.after')")
        .await;
    looks(&engine, "given_up", 3.0).await;
    let state: String = rig
        .ask("SELECT concat_ws(' ', state, attempt) FROM ingestd.jobs")
        .await;
    assert_eq!(state, "queued 0");
    stop(engine).await;
}

#[tokio::test]
async fn a_batch_that_its_own_worker_does_not_know_of_is_settled() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.done")]).await;
    // As a failover leaves it that lost the end of what the worker claimed; nobody else looks.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.done', now() + interval '1 h');
         INSERT INTO ingestd.batch_leases (worker_id, queue, job_ids, lease_ids, time_limit)
         SELECT w.id, 'default', ARRAY[j.id], ARRAY[nextval('ingestd.lease_seq')], '1 h'
         FROM ingestd.jobs j, ingestd.workers w",
    )
    .await;
    rig.until(
        "(SELECT state = 'running' AND worker_id IS NOT NULL FROM ingestd.jobs)
         AND NOT EXISTS (SELECT FROM ingestd.batch_leases)",
    )
    .await;
    stop(engine).await;
}
