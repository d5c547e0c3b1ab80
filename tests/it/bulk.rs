//! One action on many jobs, as a run: progress, pace, pause, and what survives a kill.

use std::{collections::BTreeMap, sync::Arc};

use ingestd::{
    blob, config, db,
    fetch::Fetcher,
    ingest::{
        self, Context,
        system::bulk::{self, Action, Order},
    },
    queue::{Engine, Running},
    runs::{self, Run, RunId, RunState},
};
use serde_json::{Value, json};

use crate::{
    process::Daemon,
    queue_rig::{Rig, Setup, stop},
};

/// Starts an engine with the kinds of the daemon.
async fn engine(rig: &Rig, dir: &std::path::Path) -> Running {
    let config = Arc::new(config::Config::default());
    let database = config::Database {
        url: Some(rig.url().into()),
        ..config::Database::default()
    };
    let engine = Engine {
        pool: db::connect_queue(&database).await.unwrap(),
        options: db::session(&database).unwrap(),
        kinds: ingest::kinds(&config),
        state: Context {
            db: db::connect(&database).await.unwrap(),
            blobs: blob::Store::open(dir).await.unwrap(),
            fetch: Fetcher::new(&config.fetch),
            config,
        },
        settings: Setup::of([]).settings,
        concurrency: BTreeMap::new(),
    };
    engine.start().await.unwrap()
}

/// A rig whose database knows the daemon's kinds.
async fn rig() -> (Rig, tempfile::TempDir) {
    let (rig, dir) = (Rig::new().await, tempfile::tempdir().unwrap());
    stop(engine(&rig, dir.path()).await).await;
    (rig, dir)
}

async fn submit(rig: &Rig, action: Action, filter: Value, rate: Option<u32>) -> RunId {
    let order = Order::new(action, filter, rate).unwrap();
    let mut tx = rig.pool().begin().await.unwrap();
    let (id, _) = bulk::submit(&mut tx, &order, "api", "a test")
        .await
        .unwrap();
    tx.commit().await.unwrap();
    id
}

async fn run(rig: &Rig, id: RunId) -> Run {
    runs::get(rig.pool(), id).await.unwrap().unwrap()
}

/// Waits until a run is in a state.
async fn until(rig: &Rig, id: RunId, state: &str) -> Run {
    rig.until(&format!(
        "(SELECT state = '{state}' FROM ingestd.runs WHERE id = {id})"
    ))
    .await;
    run(rig, id).await
}

/// Inserts that many letters of `system.noop`.
async fn letters(rig: &Rig, n_letters: i64) {
    rig.sql(&format!(
        "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at)
         SELECT nextval('ingestd.jobs_id_seq'), 'system.noop', '{{}}', 'default', 1, 3, 0,
           'exhausted', 'it broke', 42, now()
         FROM generate_series(1, {n_letters})"
    ))
    .await;
}

#[tokio::test]
async fn many_letters_begin_after_their_steps_or_afresh() {
    let (rig, dir) = rig().await;
    letters(&rig, 3).await;
    // Of a kind that no daemon here has, so that what they become stays.
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.other', 'default', 3, 60)",
    )
    .await;
    rig.sql("UPDATE ingestd.dead_jobs SET kind = 't.other', fingerprint = 40 + 2 * (id % 3)::int")
        .await;
    let other = json!({ "fingerprint": "0000000000000028" });
    let afresh = submit(&rig, Action::ReplayAfresh, other, None).await;
    let engine = engine(&rig, dir.path()).await;
    until(&rig, afresh, "completed").await;
    let rest = submit(&rig, Action::Replay, json!({}), None).await;
    until(&rig, rest, "completed").await;
    stop(engine).await;
    // What begins afresh is its own origin; the others go on for the letter's.
    let origins: String = rig
        .ask(
            "SELECT string_agg(concat(d.fingerprint, ':', coalesce(j.origin_id = d.id, false)), ' '
               ORDER BY d.fingerprint)
             FROM ingestd.dead_jobs d JOIN ingestd.jobs j ON j.id = d.replayed_to",
        )
        .await;
    assert_eq!(origins, "40:f 42:t 44:t");
}

#[tokio::test]
async fn what_fits_is_cancelled_and_nothing_else() {
    let (rig, dir) = rig().await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, queue, run_at)
         SELECT 'system.noop', 'bulk', now() + interval '1 day' FROM generate_series(1, 120);
         INSERT INTO ingestd.jobs (kind, queue, run_at)
         VALUES ('system.noop', 'other', now() + interval '1 day'),
                ('system.sweep_blobs', 'bulk', now() + interval '1 day')",
    )
    .await;
    let filter = json!({ "queue": "bulk", "kind": "system.noop" });
    let id = submit(&rig, Action::Cancel, filter, None).await;
    assert_eq!(run(&rig, id).await.items_total, Some(120));
    // What comes after it began is not meant.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, queue, run_at)
         VALUES ('system.noop', 'bulk', now() + interval '1 day')",
    )
    .await;
    let engine = engine(&rig, dir.path()).await;
    let run = until(&rig, id, "completed").await;
    assert_eq!(
        (run.items_ok, run.items_failed, run.items_skipped),
        (120, 0, 0)
    );
    let left: i64 = rig
        .ask("SELECT count(*) FROM ingestd.jobs WHERE run_at > now() + interval '1 h'")
        .await;
    assert_eq!(left, 3);
    let cancelled: i64 = rig
        .ask(
            "SELECT count(*) FROM ingestd.job_history WHERE state = 'cancelled' AND queue = 'bulk'",
        )
        .await;
    assert_eq!(cancelled, 120);
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.bulk')")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn a_running_job_is_told_and_a_driver_takes_its_run_along() {
    let (rig, dir) = rig().await;
    let engine = engine(&rig, dir.path()).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args, queue)
         VALUES ('system.noop', '{\"sleep_ms\": 600000}', 'bulk');
         WITH run AS (
           INSERT INTO ingestd.runs (system, job_kind, triggered_by)
           VALUES ('t', 'product_import.run', 'api') RETURNING id)
         INSERT INTO ingestd.jobs (kind, args, queue, run_id, run_at)
         SELECT 'product_import.run', jsonb_build_object('run_id', id), 'bulk', id,
                now() + interval '1 day' FROM run",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running' AND queue = 'bulk')")
        .await;
    let id = submit(&rig, Action::Cancel, json!({ "queue": "bulk" }), None).await;
    assert_eq!(until(&rig, id, "completed").await.items_ok, 2);
    rig.until("(SELECT state = 'cancelled' FROM ingestd.runs WHERE system = 't')")
        .await;
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE queue = 'bulk')")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn what_waits_for_later_is_due_and_what_is_due_keeps_its_place() {
    let (rig, dir) = rig().await;
    rig.sql(
        "INSERT INTO ingestd.queues (queue, paused_at) VALUES ('nap', now());
         INSERT INTO ingestd.jobs (kind, queue, run_at)
         VALUES ('system.noop', 'nap', now() + interval '1 day'),
                ('system.noop', 'nap', now() - interval '1 day')",
    )
    .await;
    let id = submit(&rig, Action::Retry, json!({ "queue": "nap" }), None).await;
    let engine = engine(&rig, dir.path()).await;
    assert_eq!(until(&rig, id, "completed").await.items_ok, 1);
    let due: i64 = rig
        .ask("SELECT count(*) FROM ingestd.jobs WHERE queue = 'nap' AND run_at <= now()")
        .await;
    let in_place: i64 = rig
        .ask("SELECT count(*) FROM ingestd.jobs WHERE run_at < now() - interval '20 h'")
        .await;
    assert_eq!((due, in_place), (2, 1));
    stop(engine).await;
}

#[tokio::test]
async fn a_letter_that_cannot_be_replayed_is_no_reason_to_leave_the_others() {
    let (rig, dir) = rig().await;
    letters(&rig, 60).await;
    rig.sql(
        "UPDATE ingestd.dead_jobs SET kind = 't.gone' WHERE id = (SELECT min(id) FROM ingestd.dead_jobs);
         UPDATE ingestd.dead_jobs SET unique_key = 'taken'
         WHERE id = (SELECT max(id) FROM ingestd.dead_jobs);
         INSERT INTO ingestd.jobs (kind, unique_key, run_at)
         VALUES ('system.noop', 'taken', now() + interval '1 day')",
    )
    .await;
    let id = submit(&rig, Action::Replay, json!({}), None).await;
    let engine = engine(&rig, dir.path()).await;
    let run = until(&rig, id, "completed").await;
    assert_eq!((run.items_ok, run.items_failed), (58, 2), "{run:?}");
    assert!(run.details["refused"]["error"].is_string(), "{run:?}");
    rig.until("(SELECT count(*) = 1 FROM ingestd.jobs)").await;
    let replayed: i64 = rig
        .ask(
            "SELECT count(*) FROM ingestd.job_history h
             JOIN ingestd.dead_jobs d ON d.replayed_to = h.id WHERE h.state = 'completed'",
        )
        .await;
    assert_eq!(replayed, 58);
    stop(engine).await;
}

#[tokio::test]
async fn it_is_paused_goes_on_and_is_cancelled() {
    let (rig, dir) = rig().await;
    letters(&rig, 1_000).await;
    let engine = engine(&rig, dir.path()).await;
    // At one a second it is never done within this test.
    let id = submit(
        &rig,
        Action::Purge,
        json!({ "kind": "system.noop" }),
        Some(1),
    )
    .await;
    let more_than = async |n: i64| {
        rig.until(&format!(
            "(SELECT items_ok > {n} FROM ingestd.runs WHERE id = {id})"
        ))
        .await;
    };
    more_than(0).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(runs::pause(&mut conn, id).await.unwrap());
    assert!(!runs::pause(&mut conn, id).await.unwrap());
    let paused = run(&rig, id).await;
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.bulk')")
        .await;
    assert_eq!(
        run(&rig, id).await.items_ok,
        paused.items_ok,
        "nothing is done while paused"
    );
    assert!(runs::resume(&mut conn, id).await.unwrap());
    assert!(!runs::resume(&mut conn, id).await.unwrap());
    more_than(paused.items_ok).await;
    let mut tx = rig.pool().begin().await.unwrap();
    assert!(runs::cancel(&mut tx, id).await.unwrap());
    tx.commit().await.unwrap();
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.bulk')")
        .await;
    let ended = run(&rig, id).await;
    assert_eq!(ended.state, RunState::Cancelled);
    let left: i64 = rig.ask("SELECT count(*) FROM ingestd.dead_jobs").await;
    assert_eq!(
        left,
        1_000 - ended.items_ok,
        "each was counted with its deletion"
    );
    stop(engine).await;
}

#[tokio::test]
async fn a_resume_at_once_leaves_exactly_one_driver() {
    let (rig, dir) = rig().await;
    // Slow enough that it is not done before the pause.
    letters(&rig, 24).await;
    let engine = engine(&rig, dir.path()).await;
    let id = submit(
        &rig,
        Action::Replay,
        json!({ "fingerprint": "000000000000002a" }),
        Some(2),
    )
    .await;
    rig.until(&format!(
        "(SELECT items_ok > 0 FROM ingestd.runs WHERE id = {id})"
    ))
    .await;
    // Each in a transaction of its own, as people ask: both in one would lock the run before its job.
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(runs::pause(&mut conn, id).await.unwrap());
    let mut tx = rig.pool().begin().await.unwrap();
    assert!(runs::resume(&mut tx, id).await.unwrap());
    tx.commit().await.unwrap();
    let run = until(&rig, id, "completed").await;
    assert_eq!((run.items_ok, run.items_failed), (24, 0));
    rig.until_idle().await;
    assert_once_each(&rig, 24).await;
    stop(engine).await;
}

/// Asserts that each letter became one job, and that each of those completed.
async fn assert_once_each(rig: &Rig, n_letters: i64) {
    let completed: i64 = rig
        .ask(
            "SELECT count(*) FROM ingestd.job_history
             WHERE kind = 'system.noop' AND state = 'completed'",
        )
        .await;
    let marked: i64 = rig
        .ask("SELECT count(DISTINCT replayed_to) FROM ingestd.dead_jobs")
        .await;
    assert_eq!((completed, marked), (n_letters, n_letters));
}

#[tokio::test]
async fn a_kill_in_the_middle_of_a_chunk_does_nothing_of_it() {
    let (rig, dir) = rig().await;
    letters(&rig, 200).await;
    // Twenty at a time, and the fourth time it waits for one in the middle.
    let mut held = rig.pool().begin().await.unwrap();
    sqlx::query(
        "SELECT FROM ingestd.dead_jobs WHERE id = (
           SELECT id FROM ingestd.dead_jobs ORDER BY id OFFSET 70 LIMIT 1) FOR UPDATE",
    )
    .execute(&mut *held)
    .await
    .unwrap();
    let mut first = Daemon::start(rig.url(), dir.path(), &[]).await;
    let filter = json!({ "kind": "system.noop" });
    let id = submit(&rig, Action::Replay, filter, Some(20)).await;
    rig.until(
        "EXISTS (SELECT FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock')",
    )
    .await;
    first.kill9();
    let half = run(&rig, id).await;
    assert_eq!(half.items_ok, 60, "three chunks");
    held.rollback().await.unwrap();
    let second = Daemon::start(rig.url(), dir.path(), &[]).await;
    let run = until(&rig, id, "completed").await;
    assert_eq!(
        (run.items_ok, run.items_failed, run.items_skipped),
        (200, 0, 0)
    );
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind IN ('system.noop', 'system.bulk'))")
        .await;
    assert_once_each(&rig, 200).await;
    drop(second);
}
