//! Why a job does not run, in each real situation.

use std::{sync::Arc, time::Duration};

use ingestd::queue::{
    Done, JobError, JobId, control,
    why::{self, Code, Why},
};
use tokio::sync::Semaphore;

use crate::queue_rig::{Rig, Setup, done, play, stop};

async fn explain(rig: &Rig, id: i64) -> Why {
    let mut conn = rig.pool().acquire().await.unwrap();
    why::explain(&mut conn, JobId(id)).await.unwrap().unwrap()
}

async fn codes(rig: &Rig, id: i64) -> Vec<Code> {
    let why = explain(rig, id).await;
    assert!(
        why.reasons
            .iter()
            .all(|reason| reason.text.ends_with(['.', 't', 'e'])),
        "{why:?}"
    );
    why.reasons.iter().map(|reason| reason.code).collect()
}

async fn insert(rig: &Rig, columns: &str, values: &str) -> i64 {
    let insert = format!("INSERT INTO ingestd.jobs ({columns}) VALUES ({values}) RETURNING id");
    rig.ask(&insert).await
}

/// A rig whose database knows `t.kind`, and a live worker that takes nothing.
async fn rig_with_worker() -> Rig {
    let rig = Rig::new().await;
    stop(rig.play([done("t.kind")]).await).await;
    rig.sql(
        "INSERT INTO ingestd.workers (host, pid, version, queues, heartbeat_at)
         VALUES ('a test', 1, '0', '{default}', now() + interval '1 h')",
    )
    .await;
    rig
}

#[tokio::test]
async fn without_a_daemon_nothing_runs() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.kind")]).await;
    stop(engine).await;
    let id = insert(&rig, "kind", "'t.kind'").await;
    assert_eq!(codes(&rig, id).await, [Code::NoWorker]);
    // One that was heard of long ago is none.
    rig.sql(
        "INSERT INTO ingestd.workers (host, pid, version, queues, heartbeat_at)
         VALUES ('a test', 1, '0', '{default}', now() - interval '31 s')",
    )
    .await;
    assert_eq!(codes(&rig, id).await, [Code::NoWorker]);
}

#[tokio::test]
async fn what_waits_says_for_what() {
    let rig = rig_with_worker().await;
    let due = insert(&rig, "kind", "'t.kind'").await;
    assert_eq!(codes(&rig, due).await, [Code::Due]);
    let later = insert(&rig, "kind, run_at", "'t.kind', now() + interval '1 day'").await;
    assert_eq!(codes(&rig, later).await, [Code::Scheduled]);
    // Ahead of the later one is nothing, for the due one is in its own time.
    let behind = insert(&rig, "kind", "'t.kind'").await;
    let told = explain(&rig, behind).await.reasons.remove(0);
    assert_eq!(told.code, Code::Behind);
    assert!(told.text.starts_with("1 due jobs"), "{}", told.text);
    let urgent = insert(&rig, "kind, priority", "'t.kind', 0").await;
    assert_eq!(codes(&rig, urgent).await, [Code::Due]);
    let suspect = insert(&rig, "kind, state, crashes", "'t.kind', 'held', 2").await;
    assert_eq!(codes(&rig, suspect).await, [Code::Suspect]);

    let mut conn = rig.pool().acquire().await.unwrap();
    control::pause(&mut conn, "default").await.unwrap();
    assert_eq!(codes(&rig, due).await, [Code::QueuePaused]);
    assert_eq!(
        codes(&rig, later).await,
        [Code::Scheduled, Code::QueuePaused]
    );
    assert_eq!(
        codes(&rig, suspect).await,
        [Code::QueuePaused, Code::Suspect]
    );
    control::resume(&mut conn, "default").await.unwrap();

    insert(
        &rig,
        "kind, state, lease_id, worker_id",
        "'t.kind', 'running', 1, 1",
    )
    .await;
    rig.sql("UPDATE ingestd.queues SET max_running = 2 WHERE queue = 'default'")
        .await;
    assert_ne!(codes(&rig, urgent).await, [Code::QueueFull]);
    rig.sql("UPDATE ingestd.queues SET max_running = 1 WHERE queue = 'default'")
        .await;
    assert_eq!(codes(&rig, urgent).await, [Code::QueueFull]);
}

#[tokio::test]
async fn a_kind_that_no_live_daemon_registered_is_unknown() {
    let rig = rig_with_worker().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs, seen_at)
         VALUES ('t.old', 'default', 1, 1, now() - interval '1 day')",
    )
    .await;
    let id = insert(&rig, "kind", "'t.old'").await;
    assert_eq!(codes(&rig, id).await, [Code::KindUnknown]);
    // A process whose heartbeat was lost meanwhile registered its kinds when it started.
    rig.sql(
        "INSERT INTO ingestd.workers (host, pid, version, queues, started_at, ended_at, end_reason)
         VALUES ('a test', 1, '0', '{default}', now() - interval '1 day', now(), 'lost')",
    )
    .await;
    assert_eq!(codes(&rig, id).await, [Code::Due]);
    let odd = insert(
        &rig,
        "kind, queue, run_at",
        "'t.kind', 'odd', now() - interval '1 h'",
    )
    .await;
    assert_eq!(codes(&rig, odd).await, [Code::QueueUnnamed]);
}

#[tokio::test]
async fn a_running_job_says_by_whom() {
    let rig = Rig::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = Arc::clone(&gate);
    // It does not listen to its token.
    let deaf = play("t.deaf", move |_| {
        let gate = Arc::clone(&held);
        async move {
            drop(gate.acquire().await.unwrap());
            Ok(Done::new())
        }
    });
    let engine = rig.play([deaf]).await;
    let id = insert(&rig, "kind", "'t.deaf'").await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    let why = explain(&rig, id).await;
    let worker: i64 = rig.ask("SELECT worker_id FROM ingestd.jobs").await;
    assert_eq!(why.reasons[0].code, Code::Running);
    assert!(
        why.reasons[0]
            .text
            .contains(&format!("by worker {worker} (")),
        "{why:?}"
    );
    assert!(why.reasons[0].text.contains("last heard of"), "{why:?}");
    rig.sql("UPDATE ingestd.jobs SET cancel_requested = true")
        .await;
    let asked = codes(&rig, id).await;
    assert!(
        asked == [Code::Running, Code::CancelRequested] || asked == [Code::Cancelled],
        "{asked:?}"
    );
    gate.add_permits(1);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_lost_lease_is_told() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.kind")]).await).await;
    let worker: i64 = rig.ask("SELECT max(id) FROM ingestd.workers").await;
    let values = format!("'t.kind', 'running', 1, {worker}, now()");
    let id = insert(
        &rig,
        "kind, state, lease_id, worker_id, started_at",
        &values,
    )
    .await;
    assert_eq!(codes(&rig, id).await, [Code::Lost, Code::Running]);
}

#[tokio::test]
async fn a_failed_attempt_and_every_end_are_told() {
    let rig = Rig::new().await;
    let failing = play("t.failing", |_| async {
        Err(anyhow::anyhow!("no route to host").into())
    });
    let fatal = play("t.fatal", |_| async {
        Err(JobError::Fatal(anyhow::anyhow!("never")))
    });
    let failing = failing.first_wait(Duration::from_hours(1));
    let engine = rig.play([failing, fatal, done("t.kind")]).await;
    let retrying = insert(&rig, "kind", "'t.failing'").await;
    let dead = insert(&rig, "kind", "'t.fatal'").await;
    let completed = insert(&rig, "kind", "'t.kind'").await;
    rig.until(
        "EXISTS (SELECT FROM ingestd.jobs WHERE state = 'queued' AND attempt = 1)
         AND EXISTS (SELECT FROM ingestd.dead_jobs) AND EXISTS (SELECT FROM ingestd.job_history)",
    )
    .await;
    let why = explain(&rig, retrying).await;
    assert_eq!(why.reasons[0].code, Code::Retrying);
    assert!(why.reasons[0].text.contains("no route to host"), "{why:?}");
    let why = explain(&rig, dead).await;
    assert_eq!(why.reasons[0].code, Code::Dead);
    assert!(why.reasons[0].text.contains("(fatal): never"), "{why:?}");
    assert_eq!(codes(&rig, completed).await, [Code::Completed]);
    let mut conn = rig.pool().acquire().await.unwrap();
    control::cancel(&mut conn, JobId(retrying)).await.unwrap();
    assert_eq!(codes(&rig, retrying).await, [Code::Cancelled]);
    assert!(
        why::explain(&mut conn, JobId(i64::MAX))
            .await
            .unwrap()
            .is_none()
    );
    stop(engine).await;
}

#[tokio::test]
async fn of_a_long_line_only_a_part_is_counted() {
    let rig = rig_with_worker().await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, priority, run_at)
         SELECT 't.kind', 0, now() + interval '1 day' FROM generate_series(1, 3000);
         INSERT INTO ingestd.jobs (kind) SELECT 't.kind' FROM generate_series(1, 3000)",
    )
    .await;
    let id = insert(&rig, "kind, priority", "'t.kind', 3").await;
    let told = explain(&rig, id).await.reasons.remove(0);
    assert!(
        told.text.starts_with("more than 1000 due jobs"),
        "{}",
        told.text
    );
}

#[tokio::test]
async fn a_gate_says_what_it_lets_through() {
    let rig = rig_with_worker().await;
    let id = insert(&rig, "kind, gate_key", "'t.kind', 'host:a'").await;
    rig.sql("UPDATE ingestd.jobs SET state = 'held' WHERE gate_key IS NOT NULL")
        .await;
    assert_eq!(codes(&rig, id).await, [Code::GateTurn]);
    // Without limits of its own a key lets one through at a time.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, gate_key, state, lease_id, worker_id)
         VALUES ('t.kind', 'host:a', 'running', 1, 1)",
    )
    .await;
    assert_eq!(codes(&rig, id).await, [Code::GateFull]);
    rig.sql("INSERT INTO ingestd.gates (pattern, max_running) VALUES ('host:*', 2)")
        .await;
    assert_eq!(codes(&rig, id).await, [Code::GateTurn]);
    rig.sql(
        "UPDATE ingestd.gates SET rate_per_sec = 0.001;
         INSERT INTO ingestd.gate_tokens (gate_key, full_at)
         VALUES ('host:a', now() + interval '900 s')",
    )
    .await;
    let why = explain(&rig, id).await;
    assert_eq!(why.reasons[0].code, Code::GateRate, "{why:?}");
    assert!(
        why.reasons[0].text.contains("0.001 jobs a second"),
        "{why:?}"
    );
    rig.sql("UPDATE ingestd.gates SET paused_at = now()").await;
    let why = explain(&rig, id).await;
    assert_eq!(why.reasons[0].code, Code::GatePaused);
    assert!(
        why.reasons[0].advice.as_ref().unwrap().contains("'host:*'"),
        "{why:?}"
    );
}

#[tokio::test]
async fn a_full_queue_is_told_from_one_that_has_room() {
    let rig = Rig::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let waiting = play("t.waits", move |_| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    let engine = Setup::of([waiting])
        .slots("default", 2)
        .start(rig.url())
        .await;
    insert(&rig, "kind", "'t.waits'").await;
    let told = |n: u32| format!("(SELECT slots -> 'default' = '[2, {n}]' FROM ingestd.workers)");
    rig.until(&told(1)).await;
    insert(&rig, "kind", "'t.waits'").await;
    rig.until(&told(2)).await;
    let next = insert(&rig, "kind", "'t.waits'").await;
    let reason = explain(&rig, next).await.reasons.remove(0);
    assert_eq!(reason.code, Code::Busy);
    assert!(reason.text.contains("all 2 slots"), "{}", reason.text);
    // A queue that turns up is told of as well.
    let elsewhere = insert(
        &rig,
        "kind, queue, run_at",
        "'t.waits', 'elsewhere', now() - interval '1 min'",
    )
    .await;
    rig.until("(SELECT slots -> 'elsewhere' IS NOT NULL FROM ingestd.workers)")
        .await;
    rig.until(&format!(
        "(SELECT state = 'running' FROM ingestd.jobs WHERE id = {elsewhere})"
    ))
    .await;
    gate.add_permits(4);
    rig.until_idle().await;
    stop(engine).await;
}
