//! From INSERT to claim: what is accepted, in which order it starts, when, and by whom.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ingestd::queue::{Done, NewJob, control, enqueue_raw};
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::queue_rig::{Play, Rig, Setup, args, done, play, stop};

/// A kind that notes the `n` of its jobs in the order in which they start.
fn noting(name: &'static str) -> (Play, Arc<Mutex<Vec<i64>>>) {
    let noted = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&noted);
    let play = play(name, move |ctx| {
        seen.lock()
            .unwrap()
            .push(args(&ctx).get("n").and_then(Value::as_i64).unwrap());
        async { Ok(Done::new()) }
    });
    (play, noted)
}

#[tokio::test]
async fn a_bare_insert_completes_into_the_history() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.bare")]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.bare')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    let row: String = rig
        .ask(
            "SELECT concat_ws(' ', kind, queue, state, attempt, args,
               created_at <= run_at AND run_at <= started_at AND started_at <= finished_at,
               worker_id = (SELECT id FROM ingestd.workers)) FROM ingestd.job_history",
        )
        .await;
    assert_eq!(row, "t.bare default completed 1 {} t t");
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn copy_enqueues_and_wakes() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.copied")]).with(|q| q.poll_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    let mut copy = sqlx::postgres::PgPoolCopyExt::copy_in_raw(
        rig.pool(),
        "COPY ingestd.jobs (kind, args) FROM STDIN",
    )
    .await
    .unwrap();
    let lines: Vec<_> = (0..300)
        .map(|n| format!("t.copied\t{{\"n\": {n}}}\n"))
        .collect();
    copy.send(lines.concat().as_bytes()).await.unwrap();
    assert_eq!(copy.finish().await.unwrap(), 300);
    // Nothing but the notification can have told the engine within the hour.
    rig.until("(SELECT count(DISTINCT args ->> 'n') = 300 FROM ingestd.job_history)")
        .await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn polling_alone_finds_work() {
    let rig = Rig::new().await;
    let engine = Setup::of([done("t.polled")])
        .polling()
        .start(rig.url())
        .await;
    let n_listeners: i64 = rig
        .ask(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND query ILIKE 'listen%'",
        )
        .await;
    assert_eq!(n_listeners, 0);
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.polled')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    // A queue that nobody named is found by a look, too.
    rig.sql("INSERT INTO ingestd.jobs (kind, queue) VALUES ('t.polled', 'nobody named it')")
        .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn a_queue_nobody_configured_is_served() {
    let rig = Rig::new().await;
    let setup =
        Setup::of([done("t.elsewhere")]).with(|q| q.poll_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind, queue) VALUES ('t.elsewhere', 'brand new')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE queue = 'brand new')")
        .await;
    stop(engine).await;
}

/// A daemon serves 256 at once; idle ones make room for those that wait, and come back.
#[tokio::test]
async fn more_queues_than_a_daemon_serves_at_once_have_their_turns() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.any")]).with(|q| q.poll_interval = Duration::from_secs(5));
    let engine = setup.start(rig.url()).await;
    for round in 1..=2 {
        rig.sql(
            "INSERT INTO ingestd.jobs (kind, queue)
             SELECT 't.any', 'queue ' || n FROM generate_series(1, 300) n",
        )
        .await;
        let done = format!("(SELECT count(*) = {round} * 300 FROM ingestd.job_history)");
        rig.until(&done).await;
    }
    let stalled = engine.stalled();
    assert!(stalled().is_empty(), "those that made room are not missed");
    let told = "SELECT count(*) <= 256 FROM ingestd.workers, jsonb_object_keys(slots)";
    rig.until(&format!("({told})")).await;
    stop(engine).await;
}

#[tokio::test]
async fn one_claim_takes_the_urgent_first() {
    let rig = Rig::new().await;
    let (play, noted) = noting("t.ordered");
    let setup = Setup::of([play.clone()]).slots("default", 1);
    // Registered, then left without a worker while the jobs are inserted.
    stop(setup.start(rig.url()).await).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, priority, run_at, args)
         SELECT 't.ordered', p, now() - d * interval '1 s', jsonb_build_object('n', p * 10 + 3 - d)
         FROM unnest(ARRAY[2, 0, 1]) p, generate_series(1, 2) d ORDER BY random()",
    )
    .await;
    let engine = setup.start(rig.url()).await;
    rig.until("(SELECT count(*) = 6 FROM ingestd.job_history)")
        .await;
    // By priority, and within it the one that waited longest first.
    assert_eq!(*noted.lock().unwrap(), [1, 2, 11, 12, 21, 22]);
    stop(engine).await;
}

#[tokio::test]
async fn the_least_urgent_does_not_starve() {
    let rig = Rig::new().await;
    // Every urgent job enqueues two more, so that the urgent ones never run out.
    let urgent = play("t.urgent", |ctx| async move {
        sqlx::query(
            "INSERT INTO ingestd.jobs (kind, priority) VALUES ('t.urgent', 0), ('t.urgent', 0)",
        )
        .execute(&ctx.state().db)
        .await?;
        Ok(Done::new())
    });
    let setup = Setup::of([urgent, done("t.patient")]).slots("default", 1);
    stop(setup.start(rig.url()).await).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, priority) SELECT 't.urgent', 0 FROM generate_series(1, 20);
         INSERT INTO ingestd.jobs (kind, priority) VALUES ('t.patient', 3)",
    )
    .await;
    let engine = setup.start(rig.url()).await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 't.patient')")
        .await;
    let n_urgent: i64 = rig
        .ask("SELECT count(*) FROM ingestd.jobs WHERE kind = 't.urgent' AND run_at <= now()")
        .await;
    assert!(n_urgent > 0, "it only ran because nothing else was due");
    stop(engine).await;
}

#[tokio::test]
async fn a_job_for_later_waits_and_then_runs() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.later")]).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.later', now() + interval '700 ms');
         INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.later', now() + interval '1 h')",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    assert!(
        rig.ask::<bool>("SELECT bool_and(started_at >= run_at) FROM ingestd.job_history")
            .await
    );
    let left: String = rig
        .ask("SELECT concat_ws(' ', state, attempt) FROM ingestd.jobs")
        .await;
    assert_eq!(left, "queued 0");
    stop(engine).await;
}

#[tokio::test]
async fn one_unfinished_job_per_unique_key() {
    let rig = Rig::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let engine = rig
        .play([play("t.unique", move |_| {
            let gate = Arc::clone(&gate);
            async move {
                gate.acquire().await?.forget();
                Ok(Done::new())
            }
        })])
        .await;
    let job = NewJob {
        kind: "t.unique".into(),
        unique_key: Some("only one".into()),
        ..NewJob::default()
    };
    let mut conn = rig.pool().acquire().await.unwrap();
    let first = enqueue_raw(&mut conn, &job).await.unwrap();
    assert!(first.inserted);
    let again = enqueue_raw(&mut conn, &job).await.unwrap();
    assert_eq!((again.id, again.inserted), (first.id, false));
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    let while_running = enqueue_raw(&mut conn, &job).await.unwrap();
    assert_eq!(
        (while_running.id, while_running.inserted),
        (first.id, false)
    );
    opened.add_permits(2);
    rig.until_idle().await;
    let later = enqueue_raw(&mut conn, &job).await.unwrap();
    assert!(later.inserted && later.id != first.id);
    rig.until("(SELECT count(*) = 2 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn kinds_of_a_newer_binary_are_left_alone() {
    let rig = Rig::new().await;
    let old = Setup::of([done("t.old")]).lost_after(Duration::from_secs(3));
    let new = Setup::of([done("t.old"), done("t.new")]);
    stop(new.start(rig.url()).await).await;
    let engine = old.start(rig.url()).await;
    // The unknown ones are due first; they must neither be burnt nor hold up the known ones.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_at)
         SELECT 't.new', now() - interval '1 h' FROM generate_series(1, 50);
         INSERT INTO ingestd.jobs (kind) VALUES ('t.old')",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 't.old')")
        .await;
    let untouched: i64 = rig
        .ask(
            "SELECT count(*) FROM ingestd.jobs WHERE kind = 't.new' AND state = 'queued'
               AND attempt = 0 AND crashes = 0 AND last_error IS NULL",
        )
        .await;
    assert_eq!(untouched, 50);
    let newer = new.start(rig.url()).await;
    rig.until_idle().await;
    stop(engine).await;
    stop(newer).await;
}

#[tokio::test]
async fn a_paused_queue_claims_nothing_until_it_is_resumed() {
    let rig = Rig::new().await;
    let engine = rig
        .play([done("t.paused").queue("nap"), done("t.awake")])
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    control::pause(&mut conn, "nap").await.unwrap();
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.paused'), ('t.paused')")
        .await;
    // Jobs of another queue, one after the other, give the paused one every chance.
    for n in 1..=5 {
        rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.awake')")
            .await;
        rig.until(&format!("(SELECT count(*) = {n} FROM ingestd.job_history)"))
            .await;
    }
    let waiting = "SELECT count(*) FROM ingestd.jobs WHERE queue = 'nap' AND attempt = 0";
    assert_eq!(rig.ask::<i64>(waiting).await, 2);
    assert!(control::resume(&mut conn, "nap").await.unwrap());
    assert!(!control::resume(&mut conn, "nap").await.unwrap());
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn two_engines_claim_each_job_once() {
    let rig = Rig::new().await;
    let (play, noted) = noting("t.shared");
    let setup = Setup::of([play.queue("shared")]).slots("shared", 20);
    let engines = [setup.start(rig.url()).await, setup.start(rig.url()).await];
    for _ in 0..20 {
        rig.sql(
            "INSERT INTO ingestd.jobs (kind, args)
             SELECT 't.shared', jsonb_build_object('n', n) FROM generate_series(1, 40) n",
        )
        .await;
    }
    rig.until("(SELECT count(*) = 800 FROM ingestd.job_history)")
        .await;
    assert_eq!(
        rig.ask::<i16>("SELECT max(attempt) FROM ingestd.job_history")
            .await,
        1
    );
    assert_eq!(noted.lock().unwrap().len(), 800);
    assert_eq!(
        rig.ask::<i64>("SELECT count(DISTINCT worker_id) FROM ingestd.job_history")
            .await,
        2
    );
    for engine in engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn a_row_that_somebody_locks_holds_up_nobody() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.locked")]).slots("default", 1);
    stop(setup.start(rig.url()).await).await;
    rig.sql("INSERT INTO ingestd.jobs (kind, priority) VALUES ('t.locked', 0)")
        .await;
    let mut tx = rig.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM ingestd.jobs FOR UPDATE")
        .execute(&mut *tx)
        .await
        .unwrap();
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.locked'), ('t.locked')")
        .await;
    let engine = setup.start(rig.url()).await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.job_history)")
        .await;
    tx.rollback().await.unwrap();
    rig.until_idle().await;
    stop(engine).await;
}
