//! Cancelling: at once where a job waits, by its token where it runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::queue::{
    Done, JobError, JobId,
    control::{self, Cancelled},
};
use tokio::sync::Semaphore;

use crate::queue_rig::{Play, Rig, Setup, args, done, play, stop, until_true};

async fn cancel(rig: &Rig, id: i64) -> Cancelled {
    let mut conn = rig.pool().acquire().await.unwrap();
    control::cancel(&mut conn, JobId(id)).await.unwrap()
}

async fn insert(rig: &Rig, kind: &str) -> i64 {
    rig.ask(&format!(
        "INSERT INTO ingestd.jobs (kind) VALUES ('{kind}') RETURNING id"
    ))
    .await
}

/// A kind that ends as soon as its token fires.
fn obedient(name: &'static str) -> Play {
    play(name, |ctx| async move {
        ctx.cancelled().cancelled().await;
        Err(JobError::Cancelled)
    })
}

const STATES: &str = "SELECT string_agg(state, ',' ORDER BY id) FROM ingestd.all_jobs";

#[tokio::test]
async fn a_waiting_job_never_runs() {
    let rig = Rig::new().await;
    let engine = rig
        .play([done("t.never").queue("nap"), done("t.runs")])
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    control::pause(&mut conn, "nap").await.unwrap();
    let queued = insert(&rig, "t.never").await;
    let scheduled: i64 = rig
        .ask(
            "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.never', now() + interval '1 s')
             RETURNING id",
        )
        .await;
    assert_eq!(cancel(&rig, queued).await, Cancelled::Done);
    assert_eq!(cancel(&rig, scheduled).await, Cancelled::Done);
    assert_eq!(cancel(&rig, queued).await, Cancelled::NotFound);
    control::resume(&mut conn, "nap").await.unwrap();
    let ran = insert(&rig, "t.runs").await;
    rig.until_idle().await;
    assert_eq!(cancel(&rig, ran).await, Cancelled::NotFound);
    assert_eq!(
        rig.ask::<String>(STATES).await,
        "cancelled,cancelled,completed"
    );
    let untouched = "SELECT bool_and(started_at IS NULL AND worker_id IS NULL AND attempt = 0)
                     FROM ingestd.job_history WHERE state = 'cancelled'";
    assert!(rig.ask::<bool>(untouched).await);
    stop(engine).await;
}

#[tokio::test]
async fn a_running_job_is_told() {
    let rig = Rig::new().await;
    let setup = Setup::of([obedient("t.told")]).with(|q| {
        // Only the notification can bring the news in time.
        q.heartbeat_interval = Duration::from_hours(1);
    });
    let engine = setup.start(rig.url()).await;
    let (one, _other) = (insert(&rig, "t.told").await, insert(&rig, "t.told").await);
    until_true("both run", || engine.n_running() == 2).await;
    assert_eq!(cancel(&rig, one).await, Cancelled::Requested);
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    rig.until(&format!("({STATES}) = 'cancelled,running'"))
        .await;
    assert_eq!(engine.n_running(), 1);
    let hurry = tokio_util::sync::CancellationToken::new();
    hurry.cancel();
    engine.stop(hurry).await;
}

#[tokio::test]
async fn without_notifications_the_heartbeat_brings_it() {
    let rig = Rig::new().await;
    let engine = Setup::of([obedient("t.polled")])
        .polling()
        .start(rig.url())
        .await;
    let id = insert(&rig, "t.polled").await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    assert_eq!(cancel(&rig, id).await, Cancelled::Requested);
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE state = 'cancelled')")
        .await;
    stop(engine).await;
}

/// Counts when it is dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn one_that_does_not_listen_is_dropped_after_a_grace_period() {
    let rig = Rig::new().await;
    let n_dropped = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::clone(&n_dropped);
    let deaf = play("t.deaf", move |_| {
        let guard = Dropped(Arc::clone(&dropped));
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok(Done::new())
        }
    });
    let engine = rig.play([deaf]).await;
    let id = insert(&rig, "t.deaf").await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    assert_eq!(cancel(&rig, id).await, Cancelled::Requested);
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE state = 'cancelled')")
        .await;
    until_true("the handler is gone", || {
        n_dropped.load(Ordering::SeqCst) == 1
    })
    .await;
    stop(engine).await;
}

#[tokio::test]
async fn one_that_finishes_first_is_completed() {
    let rig = Rig::new().await;
    let finishes = play("t.finishes", |ctx| async move {
        ctx.cancelled().cancelled().await;
        Ok(Done::new())
    });
    let engine = rig.play([finishes]).await;
    let id = insert(&rig, "t.finishes").await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    assert_eq!(cancel(&rig, id).await, Cancelled::Requested);
    rig.until_idle().await;
    assert_eq!(rig.ask::<String>(STATES).await, "completed");
    stop(engine).await;
}

#[tokio::test]
async fn one_that_fails_meanwhile_is_not_tried_again() {
    let rig = Rig::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let fails = play("t.fails", move |ctx| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await?.forget();
            assert!(
                !ctx.cancelled().is_cancelled(),
                "the test wants it unknown to the handler"
            );
            match args(&ctx).get("snooze") {
                Some(_) => Err(JobError::Snooze(Duration::from_millis(1))),
                None => Err(anyhow::anyhow!("no").into()),
            }
        }
    });
    // Neither notification nor heartbeat tells the engine.
    let setup = Setup::of([fails])
        .polling()
        .with(|q| q.heartbeat_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    let fails = insert(&rig, "t.fails").await;
    let snoozes: i64 = rig
        .ask("INSERT INTO ingestd.jobs (kind, args) VALUES ('t.fails', '{\"snooze\": 1}') RETURNING id")
        .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.jobs WHERE state = 'running')")
        .await;
    assert_eq!(cancel(&rig, fails).await, Cancelled::Requested);
    assert_eq!(cancel(&rig, snoozes).await, Cancelled::Requested);
    opened.add_permits(2);
    rig.until_idle().await;
    assert_eq!(rig.ask::<String>(STATES).await, "cancelled,cancelled");
    stop(engine).await;
}

#[tokio::test]
async fn a_cancel_that_its_retry_waits_for_is_heeded() {
    let rig = Rig::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let fails = play("t.races", move |_| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await?.forget();
            Err(anyhow::anyhow!("no").into())
        }
    });
    // Neither notification nor heartbeat tells the engine, and nobody rescues the job. In rows: the
    // settling of a batch would wait instead of the retry.
    let setup = Setup::of([fails]).polling().in_rows().with(|q| {
        q.heartbeat_interval = Duration::from_hours(1);
        q.trust_window = Duration::from_hours(2);
        q.lost_after = Duration::from_hours(3);
    });
    let engine = setup.start(rig.url()).await;
    let id = insert(&rig, "t.races").await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    let mut other = rig.pool().begin().await.unwrap();
    let cancelled = control::cancel(&mut other, JobId(id)).await.unwrap();
    assert_eq!(cancelled, Cancelled::Requested);
    opened.add_permits(1);
    rig.until(
        "EXISTS (SELECT FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND query LIKE '-- Puts jobs back%')",
    )
    .await;
    // The retry saw the job as it was before, and finds it cancelled once it may go on.
    other.commit().await.unwrap();
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE state = 'cancelled')")
        .await;
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 0);
    stop(engine).await;
}

#[tokio::test]
async fn one_claimed_without_an_answer_is_not_forgotten() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.unheard"), done("t.bait")]).in_rows();
    let engine = setup.start(rig.url()).await;
    // What a claim leaves whose answer was lost, and somebody cancelled it since.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.unheard', now() + interval '1 h');
         UPDATE ingestd.jobs SET state = 'running', lease_id = nextval('ingestd.lease_seq'),
           attempt = 1, worker_id = (SELECT id FROM ingestd.workers), cancel_requested = true,
           deadline_at = now() + interval '1 h';
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN RAISE EXCEPTION 'no'; END$$;
         CREATE TRIGGER refuse BEFORE UPDATE ON ingestd.jobs
           FOR EACH ROW WHEN (NEW.kind = 't.bait') EXECUTE FUNCTION refuse()",
    )
    .await;
    // A claim that fails has its worker look for what it does not know of.
    let bait = insert(&rig, "t.bait").await;
    rig.until(
        "EXISTS (SELECT FROM ingestd.all_jobs WHERE kind = 't.unheard' AND state = 'cancelled')",
    )
    .await;
    rig.sql(&format!(
        "DROP TRIGGER refuse ON ingestd.jobs; UPDATE ingestd.jobs SET run_at = now() WHERE id = {bait}"
    ))
    .await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_run_is_cancelled_with_all_its_jobs() {
    let rig = Rig::new().await;
    let engine = rig.play([obedient("t.of_run"), done("t.other")]).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_id) VALUES ('t.of_run', 7), ('t.of_run', 7);
         INSERT INTO ingestd.jobs (kind, run_id, run_at)
           VALUES ('t.of_run', 7, now() + interval '1 h'), ('t.other', 8, now() + interval '1 h')",
    )
    .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.jobs WHERE state = 'running')")
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert_eq!(control::cancel_run(&mut conn, 7).await.unwrap(), (1, 2));
    rig.until("(SELECT count(*) = 3 FROM ingestd.job_history WHERE run_id = 7)")
        .await;
    assert_eq!(rig.ask::<i64>("SELECT run_id FROM ingestd.jobs").await, 8);
    stop(engine).await;
}
