//! The end of a daemon: what runs may finish, what does not goes back unburnt, nothing stays.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::queue::{Done, JobError, JobId, control};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::queue_rig::{Play, Rig, Setup, done, play, stop, until_true};

const HOUR: Duration = Duration::from_hours(1);

/// A kind whose jobs wait for a permit of the gate.
fn waiting(name: &'static str) -> (Play, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let play = play(name, move |_| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    (play, gate)
}

/// A kind whose jobs end when they are told to.
fn obedient(name: &'static str) -> Play {
    play(name, |ctx| async move {
        ctx.cancelled().cancelled().await;
        Err(JobError::Cancelled)
    })
}

#[tokio::test]
async fn an_idle_engine_ends_without_waiting_for_its_grace_periods() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.idle")]).with(|q| (q.soft_stop, q.hard_stop) = (HOUR, HOUR));
    for with_jobs in [false, true] {
        let engine = setup.start(rig.url()).await;
        if with_jobs {
            rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.idle' FROM generate_series(1, 40)")
                .await;
            rig.until_idle().await;
        }
        stop(engine).await;
    }
    let ended =
        "SELECT bool_and(end_reason = 'stopped' AND ended_at >= started_at) FROM ingestd.workers";
    assert!(rig.ask::<bool>(ended).await);
}

#[tokio::test]
async fn running_jobs_finish_and_nothing_more_is_claimed() {
    let rig = Rig::new().await;
    let (play, gate) = waiting("t.finishes");
    let setup = Setup::of([play])
        .slots("default", 3)
        .with(|q| q.soft_stop = HOUR);
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.finishes' FROM generate_series(1, 5)")
        .await;
    until_true("three run", || engine.n_running() == 3).await;
    let opens = async {
        // The worker's row is the witness: the stop has begun when nobody listens any more.
        rig.until(
            "NOT EXISTS (SELECT FROM pg_stat_activity
                WHERE datname = current_database() AND query LIKE 'LISTEN%')",
        )
        .await;
        gate.add_permits(5);
    };
    tokio::join!(stop(engine), opens);
    let ended = "SELECT (SELECT count(*) FROM ingestd.job_history)
                   || ' ' || string_agg(concat_ws(' ', state, attempt), ',') FROM ingestd.jobs";
    assert_eq!(rig.ask::<String>(ended).await, "3 queued 0,queued 0");
}

#[tokio::test]
async fn what_does_not_finish_goes_back_at_once_and_unburnt() {
    let rig = Rig::new().await;
    let n_told = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&n_told);
    let obeys = play("t.obeys", move |ctx| {
        let told = Arc::clone(&told);
        async move {
            ctx.cancelled().cancelled().await;
            told.fetch_add(1, Ordering::SeqCst);
            Err(JobError::Cancelled)
        }
    });
    let deaf = play("t.deaf", |_| std::future::pending());
    let setup = Setup::of([obeys, deaf]).with(|q| q.soft_stop = Duration::from_millis(10));
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.obeys'), ('t.obeys'), ('t.deaf')")
        .await;
    until_true("all three run", || engine.n_running() == 3).await;
    stop(engine).await;
    assert_eq!(n_told.load(Ordering::SeqCst), 2);
    let back: i64 = rig
        .ask(
            "SELECT count(*) FROM ingestd.jobs WHERE state = 'queued' AND attempt = 0 AND crashes = 0
               AND run_at <= now() AND deadline_at IS NULL AND last_error IS NULL",
        )
        .await;
    assert_eq!(back, 3);
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_attempts")
            .await,
        0
    );
}

#[tokio::test]
async fn hurry_skips_the_first_grace_period() {
    let rig = Rig::new().await;
    let setup = Setup::of([obedient("t.hurried")]).with(|q| q.soft_stop = HOUR);
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.hurried')")
        .await;
    until_true("it runs", || engine.n_running() == 1).await;
    let hurry = CancellationToken::new();
    hurry.cancel();
    engine.stop(hurry).await;
    let state = "SELECT concat_ws(' ', state, attempt) FROM ingestd.jobs";
    assert_eq!(rig.ask::<String>(state).await, "queued 0");
}

#[tokio::test]
async fn a_job_somebody_cancelled_is_not_handed_back() {
    let rig = Rig::new().await;
    let setup = Setup::of([obedient("t.doomed")])
        .with(|q| q.soft_stop = Duration::from_millis(10))
        .polling();
    // No heartbeat in the meantime tells the engine that somebody cancelled the job.
    let setup = setup.with(|q| q.heartbeat_interval = Duration::from_secs(10));
    let engine = setup.start(rig.url()).await;
    let id: i64 = rig
        .ask("INSERT INTO ingestd.jobs (kind) VALUES ('t.doomed') RETURNING id")
        .await;
    until_true("it runs", || engine.n_running() == 1).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let asked = control::cancel(&mut conn, JobId(id)).await.unwrap();
    assert_eq!(asked, control::Cancelled::Requested);
    stop(engine).await;
    let state = "SELECT string_agg(state, ',') FROM ingestd.all_jobs";
    assert_eq!(rig.ask::<String>(state).await, "cancelled");
}
