//! What people change about jobs that are not finished: priority, time.

use std::time::Duration;

use ingestd::queue::{
    Done, JobId,
    control::{self, Change},
};
use tokio::sync::Semaphore;

use crate::queue_rig::{Rig, Setup, done, play, stop};

const HOUR: Duration = Duration::from_hours(1);

async fn insert(rig: &Rig, columns: &str, values: &str) -> JobId {
    let insert = format!("INSERT INTO ingestd.jobs ({columns}) VALUES ({values}) RETURNING id");
    JobId(rig.ask(&insert).await)
}

async fn change(rig: &Rig, id: JobId, change: Change) -> bool {
    let mut conn = rig.pool().acquire().await.unwrap();
    control::change(&mut conn, id, &change).await.unwrap()
}

fn priority(priority: i16) -> Change {
    Change {
        priority: Some(priority),
        ..Change::default()
    }
}

#[tokio::test]
async fn the_one_made_urgent_runs_first() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.urgent")]).slots("default", 1);
    stop(setup.start(rig.url()).await).await;
    let columns = "kind, run_at";
    let first = insert(&rig, columns, "'t.urgent', now() - interval '2 min'").await;
    let second = insert(&rig, columns, "'t.urgent', now() - interval '1 min'").await;
    assert!(change(&rig, second, priority(0)).await);
    let engine = setup.start(rig.url()).await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.job_history)")
        .await;
    let order: Vec<i64> = rig
        .ask("SELECT array_agg(id ORDER BY started_at, finished_at) FROM ingestd.job_history")
        .await;
    assert_eq!(order, [second.0, first.0]);
    stop(engine).await;
}

#[tokio::test]
async fn a_running_job_has_its_new_priority_at_the_next_attempt() {
    let rig = Rig::new().await;
    let gate = std::sync::Arc::new(Semaphore::new(0));
    let held = std::sync::Arc::clone(&gate);
    let stubborn = play("t.stubborn", move |ctx| {
        let gate = std::sync::Arc::clone(&held);
        async move {
            drop(gate.acquire().await.unwrap());
            match (ctx.lease().attempt, ctx.lease().priority) {
                (1, 1) => Err(anyhow::anyhow!("again").into()),
                (2, 3) => Ok(Done::new()),
                other => Err(ingestd::queue::JobError::Fatal(anyhow::anyhow!(
                    "{other:?}"
                ))),
            }
        }
    });
    let engine = rig.play([stubborn]).await;
    let id = insert(&rig, "kind", "'t.stubborn'").await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    let later = Change {
        run_at: Some(chrono::DateTime::UNIX_EPOCH),
        ..priority(2)
    };
    assert!(
        !change(&rig, id, later).await,
        "a running job has no time to wait for"
    );
    assert!(change(&rig, id, priority(3)).await);
    gate.add_permits(2);
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE state = 'completed' AND attempt = 2)")
        .await;
    assert!(!change(&rig, id, priority(0)).await, "it has ended");
    stop(engine).await;
}

#[tokio::test]
async fn a_job_of_tomorrow_can_run_at_once() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.sooner")]).with(|q| q.poll_interval = HOUR);
    let engine = setup.start(rig.url()).await;
    let id = insert(&rig, "kind, run_at", "'t.sooner', now() + interval '1 day'").await;
    let now: chrono::DateTime<chrono::Utc> = rig.ask("SELECT now()").await;
    let sooner = Change {
        run_at: Some(now),
        ..Change::default()
    };
    // Within the hour only the notification can have told the worker.
    assert!(change(&rig, id, sooner).await);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_snoozed_job_waits_longer_than_it_would_have() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.snoozed")]).await).await;
    let due = insert(
        &rig,
        "kind, run_at",
        "'t.snoozed', now() - interval '1 day'",
    )
    .await;
    let tomorrow = insert(
        &rig,
        "kind, run_at",
        "'t.snoozed', now() + interval '1 day'",
    )
    .await;
    let running = insert(
        &rig,
        "kind, state, lease_id, worker_id",
        "'t.snoozed', 'running', 1, 1",
    )
    .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    for id in [due, tomorrow] {
        assert!(
            control::snooze(&mut conn, id, HOUR)
                .await
                .unwrap()
                .is_some()
        );
    }
    for id in [running, JobId(i64::MAX)] {
        assert_eq!(control::snooze(&mut conn, id, HOUR).await.unwrap(), None);
    }
    let waits: Vec<bool> = rig
        .ask(
            "SELECT array_agg(run_at - now() BETWEEN wait - interval '50 min' AND wait ORDER BY id)
             FROM (SELECT id, run_at, CASE WHEN id = (SELECT min(id) FROM ingestd.jobs)
                     THEN interval '1 h' ELSE interval '25 h' END AS wait
                   FROM ingestd.jobs WHERE state = 'queued') waiting",
        )
        .await;
    assert_eq!(waits, [true, true]);
}
