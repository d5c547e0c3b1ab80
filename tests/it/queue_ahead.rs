//! Claims that run ahead of the slots, and claims that begin above a floor.

use std::{sync::Arc, time::Duration};

use ingestd::queue::Done;
use tokio::sync::{Notify, Semaphore};

use crate::queue_rig::{Play, Rig, Setup, done, play, stop};

const HOUR: Duration = Duration::from_hours(1);

/// A kind whose jobs say that they began, and end when the test says so.
fn slow() -> (Play, Arc<Semaphore>, Arc<Notify>) {
    let (gate, begun) = (Arc::new(Semaphore::new(0)), Arc::new(Notify::new()));
    let (opened, begins) = (Arc::clone(&gate), Arc::clone(&begun));
    let play = play("t.slow", move |_| {
        let opened = Arc::clone(&opened);
        begins.notify_one();
        async move {
            opened.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    (play, gate, begun)
}

/// A daemon of one slot that has learnt that its jobs are short, and a way to end its slow one.
async fn ahead(rig: &Rig, setup: Setup) -> ingestd::queue::Running {
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.short' FROM generate_series(1, 40)")
        .await;
    rig.until_idle().await;
    // One statement, so one claim: the slow job takes the slot, the other is claimed ahead. Not by
    // its priority, for every eighth claim takes those in reverse.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_at)
         SELECT CASE n WHEN 1 THEN 't.slow' ELSE 't.short' END, now() - (2 - n) * interval '1 s'
         FROM generate_series(1, 2) n",
    )
    .await;
    rig.until("(SELECT count(*) FROM ingestd.jobs WHERE state = 'running') = 2")
        .await;
    engine
}

#[tokio::test]
async fn what_was_claimed_ahead_does_not_wait_behind_a_slow_job() {
    let (rig, (slow, gate, _)) = (Rig::new().await, slow());
    let setup = Setup::of([slow, done("t.short")]).slots("default", 1);
    let first = ahead(&rig, setup.clone()).await;
    let other = setup.start(rig.url()).await;
    rig.until("(SELECT count(*) FROM ingestd.job_history) = 41")
        .await;
    let burnt = "SELECT count(*) FROM ingestd.job_history WHERE attempt <> 1";
    assert_eq!(rig.ask::<i64>(burnt).await, 0, "waiting is no attempt");
    gate.add_permits(1);
    rig.until_idle().await;
    stop(first).await;
    stop(other).await;
}

/// Jobs got longer than they were: what was claimed ahead goes back once, and not again and again.
#[tokio::test]
async fn what_went_back_is_not_claimed_ahead_again() {
    let (rig, (slow, gate, _)) = (Rig::new().await, slow());
    let setup = Setup::of([slow, done("t.short")]).slots("default", 1);
    let engine = ahead(&rig, setup).await;
    rig.until("(SELECT count(*) FROM ingestd.jobs WHERE state = 'queued' AND attempt = 0) = 1")
        .await;
    let claimed = "SELECT last_value FROM ingestd.lease_seq";
    let before: i64 = rig.ask(claimed).await;
    // Were it claimed again, it would be at once: it gets ten heartbeats for it.
    let beat: i64 = rig.ask("SELECT beat FROM ingestd.workers").await;
    rig.until(&format!(
        "(SELECT beat >= {beat} + 10 FROM ingestd.workers)"
    ))
    .await;
    assert_eq!(rig.ask::<i64>(claimed).await, before, "claimed again");
    gate.add_permits(1);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_stopping_daemon_returns_what_it_claimed_ahead_at_once() {
    let (rig, (slow, gate, begun)) = (Rig::new().await, slow());
    let setup = Setup::of([slow, done("t.short")])
        .slots("default", 1)
        .with(|q| q.soft_stop = HOUR);
    let engine = ahead(&rig, setup).await;
    begun.notified().await; // a job that has not begun is returned, too
    let returned = async {
        rig.until(
            "(SELECT string_agg(concat_ws(' ', state, attempt, crashes), ',' ORDER BY id)
              FROM ingestd.jobs)
             = 'running 1 0,queued 0 0'",
        )
        .await;
        gate.add_permits(1); // while it is stopping its slow job may finish
    };
    tokio::join!(stop(engine), returned);
    let completed = "SELECT count(*) FROM ingestd.job_history WHERE kind = 't.slow'";
    assert_eq!(rig.ask::<i64>(completed).await, 1);
}

#[tokio::test]
async fn a_job_cancelled_while_it_waits_for_its_slot_never_begins() {
    let (rig, (slow, gate, _)) = (Rig::new().await, slow());
    let setup = Setup::of([slow, done("t.short")]).slots("default", 1);
    let engine = ahead(&rig, setup).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let id: i64 = rig.ask("SELECT max(id) FROM ingestd.jobs").await;
    ingestd::queue::control::cancel(&mut conn, ingestd::queue::JobId(id))
        .await
        .unwrap();
    rig.until(&format!(
        "(SELECT state = 'cancelled' FROM ingestd.job_history WHERE id = {id})"
    ))
    .await;
    gate.add_permits(1);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_job_that_was_due_long_before_the_last_claim_is_found() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.short")]).with(|q| q.poll_interval = HOUR);
    let engine = setup.start(rig.url()).await;
    for _ in 0..3 {
        // The first raises the floor; the second lies an hour below it, as after a late commit.
        rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.short')")
            .await;
        rig.until_idle().await;
        rig.sql(
            "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.short', now() - interval '1 h')",
        )
        .await;
        rig.until_idle().await;
    }
    stop(engine).await;
}

#[tokio::test]
async fn an_infinite_run_at_is_refused() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.short")]).await).await;
    for at in ["infinity", "-infinity"] {
        let insert = "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.short', $1::timestamptz)";
        let error = sqlx::query(insert)
            .bind(at)
            .execute(rig.pool())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("run_at"), "{at}: {error}");
    }
}
