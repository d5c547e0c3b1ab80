//! Runs: what a batch commits with each chunk, what a fan-out counts, who picks up what was left.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::{
    queue::{Done, JobError, NewJob, enqueue_raw},
    runs::{
        self, NewRun, Place, Progress, Recovered, RunId, RunState, Unmoved,
        fan_out::{self, ItemOutcome},
    },
};
use serde_json::json;
use sqlx::Connection as _;
use tokio::sync::{Barrier, Semaphore};

use crate::queue_rig::{Ctx, Outcome, Play, Rig, Setup, args, play, stop};

async fn create(rig: &Rig, job_kind: Option<&'static str>) -> RunId {
    let new = NewRun {
        system: "test",
        job_kind,
        tenant: "default".into(),
        triggered_by: "test".into(),
        params: json!({}),
        items_total: None,
    };
    let mut conn = rig.pool().acquire().await.unwrap();
    runs::create(&mut conn, &new).await.unwrap()
}

/// Enqueues the job that drives a batch run.
async fn drive(rig: &Rig, id: RunId, kind: &str) {
    let job = NewJob {
        kind: kind.into(),
        args: json!({ "run_id": id }),
        run_id: Some(id.0),
        ..NewJob::default()
    };
    let mut conn = rig.pool().acquire().await.unwrap();
    enqueue_raw(&mut conn, &job).await.unwrap();
}

async fn state(rig: &Rig, id: RunId) -> RunState {
    runs::get(rig.pool(), id).await.unwrap().unwrap().state
}

fn run_id(ctx: &Ctx) -> RunId {
    RunId(ctx.lease().run_id.unwrap())
}

fn chunk(n: i64) -> Progress {
    Progress {
        ok: 2,
        failed: 1,
        cursor: Some(json!({ "chunk": n })),
        ..Progress::default()
    }
}

#[tokio::test]
async fn only_a_running_run_moves() {
    let rig = Rig::new().await;
    let id = create(&rig, Some("t.batch")).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let refused = |moved| matches!(moved, Err(JobError::Cancelled));
    let stopped = |moved: Result<Place, Unmoved>, state| match moved {
        Err(Unmoved::Stopped(found)) => assert_eq!(found, state),
        other => panic!("{other:?}"),
    };
    let place = Place::default();
    let moved = runs::advance(&mut conn, id, &place, &chunk(1)).await;
    stopped(moved, RunState::Pending);
    let gone = runs::advance(&mut conn, RunId(0), &place, &chunk(1)).await;
    assert!(matches!(gone, Err(Unmoved::Gone)), "{gone:?}");
    assert!(refused(runs::complete(&mut conn, id).await));
    assert_eq!(
        runs::begin(&mut conn, id).await.unwrap().unwrap().state,
        RunState::Running
    );
    assert!(
        runs::begin(&mut conn, id).await.unwrap().is_some(),
        "a second attempt goes on"
    );
    let place = runs::advance(&mut conn, id, &place, &chunk(1))
        .await
        .unwrap();
    rig.sql("UPDATE ingestd.runs SET state = 'paused'").await;
    let moved = runs::advance(&mut conn, id, &place, &chunk(2)).await;
    stopped(moved, RunState::Paused);
    assert!(runs::begin(&mut conn, id).await.unwrap().is_none());
    rig.sql("UPDATE ingestd.runs SET state = 'running'").await;
    runs::complete(&mut conn, id).await.unwrap();
    let run = runs::get(rig.pool(), id).await.unwrap().unwrap();
    assert_eq!(
        (run.items_ok, run.items_failed, run.items_total),
        (2, 1, Some(3))
    );
    assert_eq!(
        (run.state, run.cursor),
        (RunState::Completed, Some(json!({ "chunk": 1 })))
    );
    let moved = runs::advance(&mut conn, id, &place, &chunk(2)).await;
    stopped(moved, RunState::Completed);
    assert!(runs::begin(&mut conn, id).await.unwrap().is_none());
    assert!(!runs::fail(&mut conn, id, "too late").await.unwrap());
    assert!(!runs::cancel(&mut conn, id).await.unwrap());
    assert!(!runs::reset(&mut conn, id).await.unwrap());
    assert!(!runs::cancel(&mut conn, RunId(0)).await.unwrap());
}

/// Drives a run of fifty chunks without a fence; starts over from what it finds where another was
/// first. Both read their first place before either moves. Returns how often it came too late.
async fn race(rig: &Rig, id: RunId, ready: &Barrier) -> usize {
    let mut n_late = 0;
    let mut conn = rig.pool().acquire().await.unwrap();
    let mut run = runs::begin(&mut conn, id).await.unwrap().unwrap();
    ready.wait().await;
    loop {
        let mut place = Place::of(&run);
        let done = run.cursor.and_then(|cursor| cursor.get("chunk")?.as_i64());
        for n in done.unwrap_or(0) + 1.. {
            if n > 50 {
                return n_late;
            }
            let mut tx = conn.begin().await.unwrap();
            sqlx::query("INSERT INTO ledger VALUES ($1, $2)")
                .bind(id)
                .bind(n)
                .execute(&mut *tx)
                .await
                .unwrap();
            match runs::advance(&mut tx, id, &place, &chunk(n)).await {
                Ok(moved) => {
                    tx.commit().await.unwrap();
                    place = moved;
                }
                Err(Unmoved::Elsewhere(found)) => {
                    tx.rollback().await.unwrap();
                    assert_ne!(found, None, "the other was first");
                    n_late += 1;
                    break;
                }
                Err(other) => panic!("{other:?}"),
            }
        }
        run = runs::get(rig.pool(), id).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_drive_a_run_one_moves_it() {
    let rig = Rig::new().await;
    let id = create(&rig, Some("t.batch")).await;
    rig.sql("CREATE TABLE ledger (run bigint, n bigint)").await;
    let ready = Barrier::new(2);
    let (one, other) = tokio::join!(race(&rig, id, &ready), race(&rig, id, &ready));
    assert!(one + other > 0, "they raced");
    let counts = "SELECT concat_ws(' ', count(*), count(DISTINCT n)) FROM ledger";
    assert_eq!(rig.ask::<String>(counts).await, "50 50");
    let run = runs::get(rig.pool(), id).await.unwrap().unwrap();
    assert_eq!((run.items_ok, run.items_failed), (100, 50));
    assert_eq!(run.cursor, Some(json!({ "chunk": 50 })));
    // The job of who came too late ends, and fails neither itself nor the run.
    let mut conn = rig.pool().acquire().await.unwrap();
    let late = runs::advance(&mut conn, id, &Place::default(), &chunk(1)).await;
    let late = late.map_err(JobError::from);
    assert!(matches!(late, Err(JobError::Cancelled)), "{late:?}");
}

/// Walks six chunks, each committed with its cursor and a line of the ledger; `gate` is passed
/// before each. Fails for good in the fourth while `broken`.
fn batch(gate: &Arc<Semaphore>, broken: &Arc<AtomicBool>) -> Play {
    let (gate, broken) = (Arc::clone(gate), Arc::clone(broken));
    play("t.batch", move |ctx| {
        walk(ctx, Arc::clone(&gate), Arc::clone(&broken))
    })
}

async fn walk(ctx: Ctx, gate: Arc<Semaphore>, broken: Arc<AtomicBool>) -> Outcome {
    let (db, id) = (&ctx.state().db, run_id(&ctx));
    let Some(run) = runs::begin(&mut *db.acquire().await?, id).await? else {
        return Ok(Done::new());
    };
    let mut place = Place::of(&run);
    let done = run.cursor.and_then(|cursor| cursor.get("chunk")?.as_i64());
    for n in done.map_or(1, |n| n + 1)..=6 {
        gate.acquire().await?.forget();
        if n == 4 && broken.load(Ordering::SeqCst) {
            runs::fail(&mut *db.acquire().await?, id, "chunk 4 is broken").await?;
            return Err(JobError::fatal(anyhow::anyhow!("chunk 4 is broken")));
        }
        let mut tx = db.begin().await?;
        ctx.fence(&mut tx).await?;
        sqlx::query("INSERT INTO ledger VALUES ($1, $2)")
            .bind(id)
            .bind(n)
            .execute(&mut *tx)
            .await?;
        let moved = runs::advance(&mut tx, id, &place, &chunk(n)).await?;
        tx.commit().await?;
        place = moved;
    }
    let mut tx = db.begin().await?;
    runs::complete(&mut tx, id).await?;
    let done = ctx.complete_in(&mut tx).await?;
    tx.commit().await?;
    Ok(done)
}

/// What a run and its ledger came to.
const BATCH: &str = "
    SELECT concat_ws(' ', state, items_ok, items_failed, cursor -> 'chunk',
             (SELECT count(*) FROM ledger), (SELECT count(DISTINCT n) FROM ledger))
    FROM ingestd.runs";

async fn rig_with_ledger() -> Rig {
    let rig = Rig::new().await;
    rig.sql("CREATE TABLE ledger (run bigint, n bigint)").await;
    rig
}

#[tokio::test]
async fn a_reset_run_goes_on_after_its_last_chunk() {
    let rig = rig_with_ledger().await;
    let (gate, broken) = (
        Arc::new(Semaphore::new(1000)),
        Arc::new(AtomicBool::new(true)),
    );
    let engine = rig.play([batch(&gate, &broken)]).await;
    let id = create(&rig, Some("t.batch")).await;
    drive(&rig, id, "t.batch").await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs)").await;
    assert_eq!(rig.ask::<String>(BATCH).await, "failed 6 3 3 3 3");
    broken.store(false, Ordering::SeqCst);
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(runs::reset(&mut conn, id).await.unwrap());
    rig.until("(SELECT state = 'completed' FROM ingestd.runs)")
        .await;
    assert_eq!(rig.ask::<String>(BATCH).await, "completed 12 6 6 6 6");
    let error = "SELECT error IS NULL AND retry_count = 0 FROM ingestd.runs";
    assert!(rig.ask::<bool>(error).await);
    stop(engine).await;
}

#[tokio::test]
async fn a_cancelled_run_keeps_its_chunks_and_gets_no_more() {
    let rig = rig_with_ledger().await;
    let (gate, broken) = (
        Arc::new(Semaphore::new(2)),
        Arc::new(AtomicBool::new(false)),
    );
    // Nothing but the guard of the run's row tells the handler.
    let setup = Setup::of([batch(&gate, &broken)]).polling();
    let setup = setup.with(|q| q.heartbeat_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    let id = create(&rig, Some("t.batch")).await;
    drive(&rig, id, "t.batch").await;
    rig.until("(SELECT count(*) = 2 FROM ledger)").await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(runs::cancel(&mut conn, id).await.unwrap());
    gate.add_permits(1000);
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE state = 'cancelled')")
        .await;
    assert_eq!(rig.ask::<String>(BATCH).await, "cancelled 4 2 2 2 2");
    stop(engine).await;
}

#[tokio::test]
async fn a_reset_takes_a_stuck_run_from_its_worker() {
    let rig = rig_with_ledger().await;
    let (gate, broken) = (
        Arc::new(Semaphore::new(2)),
        Arc::new(AtomicBool::new(false)),
    );
    let engine = rig.play([batch(&gate, &broken)]).await;
    let id = create(&rig, Some("t.batch")).await;
    drive(&rig, id, "t.batch").await;
    rig.until("(SELECT count(*) = 2 FROM ledger)").await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(runs::reset(&mut conn, id).await.unwrap());
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running' AND attempt = 2)")
        .await;
    rig.until("(SELECT state = 'running' FROM ingestd.runs)")
        .await;
    // The first attempt goes on as well, and is refused.
    gate.add_permits(1000);
    rig.until("(SELECT state = 'completed' FROM ingestd.runs)")
        .await;
    assert_eq!(rig.ask::<String>(BATCH).await, "completed 12 6 6 6 6");
    rig.until_idle().await;
    stop(engine).await;
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ledger").await, 6);
}

/// A run whose handler hears of no cancellation until it looks, and its job's id.
async fn deaf_run(rig: &Rig, gate: &Arc<Semaphore>) -> (ingestd::queue::Running, RunId, i64) {
    let setup = Setup::of([batch(gate, &Arc::new(AtomicBool::new(false)))]).polling();
    let setup = setup.with(|q| q.heartbeat_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    let id = create(rig, Some("t.batch")).await;
    drive(rig, id, "t.batch").await;
    rig.until("(SELECT count(*) = 2 FROM ledger)").await;
    (engine, id, rig.ask("SELECT id FROM ingestd.jobs").await)
}

#[tokio::test]
async fn a_cancelled_job_stays_so_when_its_run_is_resumed_or_reset() {
    for by_reset in [false, true] {
        let rig = rig_with_ledger().await;
        let gate = Arc::new(Semaphore::new(2));
        let (engine, id, job) = deaf_run(&rig, &gate).await;
        let mut conn = rig.pool().acquire().await.unwrap();
        if by_reset {
            assert!(runs::cancel(&mut conn, id).await.unwrap());
            assert!(runs::reset(&mut conn, id).await.unwrap());
        } else {
            assert!(runs::pause(&mut conn, id).await.unwrap());
            rig.sql(&format!("SELECT ingestd.cancel({job})")).await;
            assert!(runs::resume(&mut conn, id).await.unwrap());
        }
        let ended = format!("SELECT state FROM ingestd.all_jobs WHERE id = {job}");
        assert_eq!(rig.ask::<String>(&ended).await, "cancelled");
        // Another job does the rest, and the first is refused at its next chunk.
        gate.add_permits(1000);
        rig.until("(SELECT state = 'completed' FROM ingestd.runs)")
            .await;
        assert_eq!(rig.ask::<String>(BATCH).await, "completed 12 6 6 6 6");
        rig.until_idle().await;
        stop(engine).await;
    }
}

#[tokio::test]
async fn a_stale_run_whose_job_was_cancelled_is_cancelled_with_it() {
    let rig = rig_with_ledger().await;
    let gate = Arc::new(Semaphore::new(2));
    let (engine, id, job) = deaf_run(&rig, &gate).await;
    rig.sql(&format!("SELECT ingestd.cancel({job})")).await;
    rig.sql(SILENCE).await;
    assert_eq!(recover(&rig).await, Recovered::default());
    assert_eq!(state(&rig, id).await, RunState::Cancelled);
    let jobs = "SELECT string_agg(state, ',') FROM ingestd.all_jobs";
    assert_eq!(rig.ask::<String>(jobs).await, "cancelled");
    gate.add_permits(1000);
    stop(engine).await;
    assert_eq!(rig.ask::<String>(BATCH).await, "cancelled 4 2 2 2 2");
}

const STALE_AFTER: Duration = Duration::from_mins(15);
const SILENCE: &str = "UPDATE ingestd.runs SET heartbeat_at = now() - interval '16 minutes'
                       WHERE state = 'running'";

async fn recover(rig: &Rig) -> Recovered {
    runs::recover_stale(rig.pool(), STALE_AFTER, 3, |_, _| {
        Box::pin(async { Ok(()) })
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn a_stale_run_is_started_again_three_times_and_then_failed() {
    let rig = rig_with_ledger().await;
    let n_begun = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&n_begun);
    let stuck = play("t.stuck", move |ctx| {
        let begun = Arc::clone(&begun);
        async move {
            runs::begin(&mut *ctx.state().db.acquire().await?, run_id(&ctx)).await?;
            begun.fetch_add(1, Ordering::SeqCst);
            ctx.cancelled().cancelled().await;
            Err(JobError::Cancelled)
        }
    });
    let engine = rig.play([stuck]).await;
    let (stale, fresh) = (
        create(&rig, Some("t.stuck")).await,
        create(&rig, Some("t.stuck")).await,
    );
    drive(&rig, stale, "t.stuck").await;
    for retries in 0..=3 {
        crate::queue_rig::until_true("it has begun", || {
            n_begun.load(Ordering::SeqCst) == retries + 1
        })
        .await;
        rig.sql(SILENCE).await;
        let mut conn = rig.pool().acquire().await.unwrap();
        runs::begin(&mut conn, fresh).await.unwrap();
        let recovered = recover(&rig).await;
        let failed = usize::from(retries == 3);
        assert_eq!(
            recovered,
            Recovered {
                n_retried: 1 - failed,
                n_failed: failed
            }
        );
        assert_eq!(recover(&rig).await, Recovered::default());
    }
    let run = runs::get(rig.pool(), stale).await.unwrap().unwrap();
    assert_eq!((run.state, run.retry_count), (RunState::Failed, 3));
    let error = run.error.unwrap();
    assert!(
        error.contains("15m") && error.contains("3 retries"),
        "{error}"
    );
    assert_eq!(state(&rig, fresh).await, RunState::Running);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_stale_run_that_lost_its_job_gets_another() {
    let rig = rig_with_ledger().await;
    let (gate, broken) = (
        Arc::new(Semaphore::new(1000)),
        Arc::new(AtomicBool::new(false)),
    );
    let engine = rig.play([batch(&gate, &broken)]).await;
    let id = create(&rig, Some("t.batch")).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    runs::begin(&mut conn, id).await.unwrap();
    rig.sql(SILENCE).await;
    assert_eq!(
        recover(&rig).await,
        Recovered {
            n_retried: 1,
            n_failed: 0
        }
    );
    rig.until("(SELECT state = 'completed' FROM ingestd.runs)")
        .await;
    assert_eq!(rig.ask::<String>(BATCH).await, "completed 12 6 6 6 6");
    stop(engine).await;
}

/// One item of a fan-out; counts who closed the run.
fn item(closers: &Arc<AtomicUsize>) -> Play {
    let closers = Arc::clone(closers);
    let play = play("t.item", move |ctx| {
        let closers = Arc::clone(&closers);
        async move {
            let (db, id) = (&ctx.state().db, run_id(&ctx));
            let n = args(&ctx)
                .get("n")
                .and_then(serde_json::Value::as_i64)
                .unwrap();
            let outcome = if n % 3 == 0 {
                ItemOutcome::Skipped
            } else {
                ItemOutcome::Ok
            };
            if n < 0 {
                return Err(JobError::fatal(anyhow::anyhow!("item {n} is broken")));
            }
            let mut tx = db.begin().await?;
            fan_out::note(&mut tx, id, &n.to_string(), outcome, None).await?;
            let done = ctx.complete_in(&mut tx).await?;
            tx.commit().await?;
            closers.fetch_add(usize::from(fan_out::fold(db, id).await?), Ordering::SeqCst);
            Ok(done)
        }
    });
    play.attempts(1)
}

/// Opens a fan-out and enqueues its items in one transaction; those below 0 fail for good, and
/// their burial notes it.
async fn open(rig: &Rig, id: RunId, items: std::ops::Range<i64>) {
    let mut tx = rig.pool().begin().await.unwrap();
    assert!(
        fan_out::open(&mut tx, id, items.end - items.start)
            .await
            .unwrap()
    );
    for n in items {
        let on_dead = format!(
            "INSERT INTO ingestd.run_items (run_id, item_key, outcome, error)
             SELECT {id}, '{n}', 'failed', $2 WHERE $1::bigint IS NOT NULL"
        );
        let job = NewJob {
            kind: "t.item".into(),
            args: json!({ "n": n, "on_dead": on_dead }),
            run_id: Some(id.0),
            ..NewJob::default()
        };
        enqueue_raw(&mut tx, &job).await.unwrap();
    }
    tx.commit().await.unwrap();
}

const FAN_OUT: &str = "
    SELECT concat_ws(' ', state, items_total, items_ok, items_failed, items_skipped,
             (SELECT count(*) FROM ingestd.run_items i WHERE i.run_id = r.id AND i.folded))
    FROM ingestd.runs r";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_workers_close_a_fan_out_once() {
    let rig = Rig::new().await;
    let closers = Arc::new(AtomicUsize::new(0));
    let setup = Setup::of([item(&closers)]).slots("default", 20);
    let engines = [setup.start(rig.url()).await, setup.start(rig.url()).await];
    // Several small ones: the race is about the last items of a run.
    for _ in 0..30 {
        let id = create(&rig, None).await;
        open(&rig, id, 0..12).await;
    }
    rig.until_idle().await;
    // Whoever came last closed it; nothing was left for the look every five minutes.
    rig.until("(SELECT bool_and(state = 'completed') FROM ingestd.runs)")
        .await;
    let counts =
        "SELECT DISTINCT concat_ws(' ', items_ok, items_skipped, items_failed) FROM ingestd.runs";
    assert_eq!(rig.ask::<String>(counts).await, "8 4 0");
    for engine in engines {
        stop(engine).await;
    }
    assert_eq!(closers.load(Ordering::SeqCst), 30);
}

#[tokio::test]
async fn a_dead_job_is_a_failed_item_and_the_leftover_is_folded() {
    let rig = Rig::new().await;
    let closers = Arc::new(AtomicUsize::new(0));
    let engine = rig.play([item(&closers)]).await;
    let id = create(&rig, None).await;
    open(&rig, id, -2..4).await;
    rig.until("(SELECT count(*) = 6 FROM ingestd.run_items)")
        .await;
    rig.until_idle().await;
    // Nobody folds after a burial.
    fan_out::fold_left_over(rig.pool()).await.unwrap();
    assert_eq!(rig.ask::<String>(FAN_OUT).await, "completed 6 2 2 2 6");
    let error = "SELECT error FROM ingestd.run_items WHERE item_key = '-1'";
    assert_eq!(rig.ask::<String>(error).await, "item -1 is broken");
    assert_eq!(fan_out::fold_left_over(rig.pool()).await.unwrap(), 0);
    stop(engine).await;
}

#[tokio::test]
async fn the_first_outcome_of_an_item_stands() {
    let rig = Rig::new().await;
    let id = create(&rig, None).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(fan_out::open(&mut conn, id, 2).await.unwrap());
    assert!(
        fan_out::note(&mut conn, id, "a", ItemOutcome::Ok, None)
            .await
            .unwrap()
    );
    assert!(
        !fan_out::note(&mut conn, id, "a", ItemOutcome::Failed, Some("no"))
            .await
            .unwrap()
    );
    assert!(!fan_out::fold(rig.pool(), id).await.unwrap());
    assert!(!fan_out::fold(rig.pool(), id).await.unwrap());
    assert_eq!(rig.ask::<String>(FAN_OUT).await, "running 2 1 0 0 1");
    assert!(runs::cancel(&mut conn, id).await.unwrap());
    fan_out::note(&mut conn, id, "b", ItemOutcome::Ok, None)
        .await
        .unwrap();
    assert!(
        !fan_out::fold(rig.pool(), id).await.unwrap(),
        "it is cancelled"
    );
    assert!(!fan_out::open(&mut conn, id, 1).await.unwrap());
    let empty = create(&rig, None).await;
    assert!(fan_out::open(&mut conn, empty, 0).await.unwrap());
    assert_eq!(state(&rig, empty).await, RunState::Completed);
}

#[tokio::test]
async fn a_fold_does_not_return_while_others_hold_its_outcome_back() {
    let rig = Rig::new().await;
    let id = create(&rig, None).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    fan_out::open(&mut conn, id, 1).await.unwrap();
    // Somebody folds, has looked already, and has not committed.
    let mut folding = rig.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM ingestd.runs FOR NO KEY UPDATE")
        .execute(&mut *folding)
        .await
        .unwrap();
    fan_out::note(&mut conn, id, "last", ItemOutcome::Ok, None)
        .await
        .unwrap();
    let mut fold = std::pin::pin!(fan_out::fold(rig.pool(), id));
    tokio::select! {
        _ = &mut fold => panic!("it returned, and the other one will not look again"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    folding.rollback().await.unwrap();
    assert!(fold.await.unwrap());
    assert_eq!(state(&rig, id).await, RunState::Completed);
}

#[tokio::test]
async fn a_fan_out_that_waits_for_its_jobs_is_not_stale() {
    let rig = Rig::new().await;
    let closers = Arc::new(AtomicUsize::new(0));
    stop(rig.play([item(&closers)]).await).await;
    let (waits, lost) = (create(&rig, None).await, create(&rig, None).await);
    open(&rig, waits, 0..1).await;
    rig.sql("UPDATE ingestd.jobs SET run_at = now() + interval '1 h', attempt = 3")
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    fan_out::open(&mut conn, lost, 1).await.unwrap();
    rig.sql(SILENCE).await;
    assert_eq!(
        recover(&rig).await,
        Recovered {
            n_retried: 0,
            n_failed: 1
        }
    );
    assert_eq!(state(&rig, waits).await, RunState::Running);
    assert_eq!(state(&rig, lost).await, RunState::Failed);
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 1);
}

#[tokio::test]
async fn a_run_whose_driver_waits_its_turn_is_not_stale() {
    let rig = Rig::new().await;
    stop(rig.play([crate::queue_rig::done("t.drives")]).await).await;
    for waits in ["queued", "held"] {
        let id = create(&rig, Some("t.drives")).await;
        drive(&rig, id, "t.drives").await;
        let mut conn = rig.pool().acquire().await.unwrap();
        runs::begin(&mut conn, id).await.unwrap();
        rig.sql(&format!(
            "UPDATE ingestd.jobs SET state = '{waits}' WHERE run_id = {}",
            id.0
        ))
        .await;
        rig.sql(SILENCE).await;
        assert_eq!(recover(&rig).await, Recovered::default(), "{waits}");
        // Once it runs and nothing is heard of it, it is.
        rig.sql(&format!(
            "UPDATE ingestd.jobs SET state = 'running', lease_id = nextval('ingestd.lease_seq'),
               attempt = 1, worker_id = (SELECT max(id) FROM ingestd.workers),
               deadline_at = now() + interval '1 h' WHERE run_id = {}",
            id.0
        ))
        .await;
        assert_eq!(recover(&rig).await.n_retried, 1, "{waits}");
    }
}

#[tokio::test]
async fn a_reset_leaves_the_jobs_of_what_it_cannot_reset() {
    let rig = Rig::new().await;
    let id = create(&rig, None).await;
    rig.sql(&format!(
        "INSERT INTO ingestd.job_kinds VALUES ('t.item', 'default', 1, 60);
         INSERT INTO ingestd.jobs (kind, run_id, state, lease_id, worker_id)
         VALUES ('t.item', {id}, 'running', 1, 1)"
    ))
    .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(!runs::reset(&mut conn, id).await.unwrap());
    assert_eq!(
        rig.ask::<String>("SELECT state FROM ingestd.jobs").await,
        "running"
    );
}
