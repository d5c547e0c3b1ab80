//! Faults of the kind that come with load: old snapshots, no connection left, races, poison at the
//! head of the queue.

use std::{sync::Arc, time::Duration};

use ingestd::{
    queue::{Done, JobId, control},
    testing::private_cluster,
};
use sqlx::{Connection, Executor, PgConnection, postgres::PgPoolOptions};
use tokio::sync::Semaphore;

use crate::{
    process::PATIENCE,
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, done, play, run, stop, until, until_true},
};

/// Lets `n` jobs pass while a snapshot from before all of them is held open.
async fn pass_under_a_held_snapshot(n: i64) {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.many")]).slots("default", 200);
    let engine = setup.start(rig.url()).await;
    let mut held = rig.pool().begin().await.unwrap();
    held.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    held.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        .await
        .unwrap();
    held.execute("SELECT count(*) FROM ingestd.jobs")
        .await
        .unwrap();
    for _ in 0..3 {
        rig.sql(&format!(
            "INSERT INTO ingestd.jobs (kind, priority)
             SELECT 't.many', i % 4 FROM generate_series(1, {n} / 3) i"
        ))
        .await;
        rig.until_idle().await;
    }
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.job_history")
        .fetch_one(&mut *held)
        .await
        .unwrap();
    assert_eq!(seen, 0, "the snapshot was held all the while");
    held.rollback().await.unwrap();
    stop(engine).await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', count(*), count(DISTINCT id), max(attempt),
               (SELECT count(*) FROM ingestd.dead_jobs)) FROM ingestd.job_history",
        )
        .await;
    let n = n / 3 * 3;
    assert_eq!(
        verdict,
        format!("{n} {n} 1 0"),
        "completed, distinct, attempts, dead"
    );
}

#[tokio::test]
async fn a_held_snapshot_makes_nothing_wrong() {
    pass_under_a_held_snapshot(1_500).await;
}

#[tokio::test]
#[ignore = "nightly: 30,000 jobs over dead rows"]
async fn nightly_a_held_snapshot_makes_nothing_wrong_at_length() {
    pass_under_a_held_snapshot(30_000).await;
}

#[tokio::test]
async fn a_server_without_a_free_connection_stops_no_running_engine() {
    let cluster = private_cluster().await;
    // One connection, kept: a pool that may have more tries for another while its first is on its
    // way back, and here it would try in vain for as long as it may.
    let pool = PgPoolOptions::new().max_connections(1);
    let pool = pool.connect(&cluster.database_url()).await.unwrap();
    let setup = Setup::of([ledger::job()]).slots("default", 4);
    let engine = setup.start(&cluster.database_url()).await;
    ledger::enqueue(&pool, 60).await;
    until(&pool, "EXISTS (SELECT FROM ledger)").await;
    let mut taken = Vec::new();
    // Until the server is full: what the engine has is all it gets.
    let error = loop {
        match PgConnection::connect(&cluster.database_url()).await {
            Ok(conn) => taken.push(conn),
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("too many clients"), "{error}");
    run(
        &pool,
        "WITH j AS (INSERT INTO ingestd.jobs (kind)
                    SELECT 't.ledger' FROM generate_series(1, 60) RETURNING id)
         INSERT INTO cursors (job) SELECT id FROM j",
    )
    .await;
    // And nobody gets one back: whatever is closed from now on is taken at once.
    let taking = async {
        loop {
            match PgConnection::connect(&cluster.database_url()).await {
                Ok(conn) => taken.push(conn),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    tokio::select! {
        () = taking => {}
        () = ledger::check(&pool, 120, "no connection left") => {}
    }
    assert!(engine.is_alive());
    let lives: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.workers")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(lives, 1, "no heartbeat was missed");
    drop(taken);
    stop(engine).await;
    pool.close().await;
}

#[tokio::test]
async fn poison_at_the_head_holds_up_nobody() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.unknown', 'default', 3, 60), ('t.fails', 'default', 1, 60), ('t.good', 'default', 3, 60)",
    )
    .await;
    // A thousand that nobody here knows and two hundred that fail, all before and above the good.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, priority) SELECT 't.unknown', 0 FROM generate_series(1, 1000);
         INSERT INTO ingestd.jobs (kind, priority) SELECT 't.fails', 0 FROM generate_series(1, 200);
         INSERT INTO ingestd.jobs (kind) SELECT 't.good' FROM generate_series(1, 50)",
    )
    .await;
    let fails = play("t.fails", |_| async {
        Err(anyhow::anyhow!("as always").into())
    });
    let engine = rig.play([done("t.good"), fails.attempts(1)]).await;
    rig.until("(SELECT count(*) = 50 FROM ingestd.job_history)")
        .await;
    rig.until("(SELECT count(*) = 200 FROM ingestd.dead_jobs)")
        .await;
    stop(engine).await;
    let left: String = rig
        .ask("SELECT concat_ws(' ', count(*), max(attempt), max(crashes)) FROM ingestd.jobs")
        .await;
    assert_eq!(left, "1000 0 0", "those wait for somebody who knows them");
}

#[tokio::test]
async fn eight_clients_and_one_key_make_one_job() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.once', 'once', 3, 60)",
    )
    .await;
    for key in 0..20 {
        let clients = (0..8).map(|_| {
            let enqueue = "SELECT inserted FROM ingestd.enqueue('t.once', unique_key => $1)";
            let enqueue = sqlx::query_scalar::<_, bool>(enqueue).bind(key.to_string());
            enqueue.fetch_one(rig.pool())
        });
        let inserted = futures::future::try_join_all(clients).await.unwrap();
        assert_eq!(inserted.iter().filter(|inserted| **inserted).count(), 1);
    }
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await,
        20
    );
}

#[tokio::test]
async fn whoever_cancels_as_a_job_ends_gets_one_end() {
    const JOBS: u32 = 60;
    let rig = Rig::new().await;
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let ends = play("t.ends", move |_| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    let setup = Setup::of([ends]).slots("default", 10);
    let engine = setup.start(rig.url()).await;
    rig.sql(&format!(
        "INSERT INTO ingestd.jobs (kind) SELECT 't.ends' FROM generate_series(1, {JOBS})"
    ))
    .await;
    until_true("ten run", || engine.n_running() >= 10).await;
    let ids: Vec<i64> = sqlx::query_scalar("SELECT id FROM ingestd.jobs ORDER BY id")
        .fetch_all(rig.pool())
        .await
        .unwrap();
    for id in ids {
        gate.add_permits(1);
        let mut conn = rig.pool().acquire().await.unwrap();
        // Waiting, running, ended or just between: every answer is possible.
        control::cancel(&mut conn, JobId(id)).await.unwrap();
        control::run_now(&mut conn, JobId(id)).await.unwrap();
    }
    rig.until_idle().await;
    stop(engine).await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', count(*), count(DISTINCT id),
               count(*) FILTER (WHERE state NOT IN ('completed', 'cancelled')),
               (SELECT count(*) FROM ingestd.dead_jobs)) FROM ingestd.job_history",
        )
        .await;
    assert_eq!(verdict, format!("{JOBS} {JOBS} 0 0"));
}

#[tokio::test]
async fn sessions_that_are_ended_by_function_come_back() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let setup = Setup::of([ledger::job()]).slots("default", 8);
    let engine = setup.start(rig.url()).await;
    ledger::enqueue(&observer, 150).await;
    // The listener, the heartbeat, claims, completions, the handlers: one kind of session a turn.
    for (n, what) in [
        "LISTEN%",
        "UPDATE ingestd.workers%",
        "%Claims up to%",
        "%Completes or cancels%",
        "%ledger%",
    ]
    .into_iter()
    .enumerate()
    {
        until(
            &observer,
            &format!("(SELECT count(*) >= {} FROM ledger)", n * 20),
        )
        .await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'ingestd' AND query LIKE $1";
        sqlx::query(end)
            .bind(what)
            .execute(&observer)
            .await
            .unwrap();
    }
    ledger::check(&observer, 150, "sessions ended by what they do").await;
    let listens = "EXISTS (SELECT FROM pg_stat_activity
                   WHERE datname = current_database() AND query LIKE 'LISTEN%')";
    until(&observer, listens).await;
    until_true("it lives", || engine.is_alive()).await;
    tokio::time::timeout(PATIENCE, stop(engine)).await.unwrap();
}
