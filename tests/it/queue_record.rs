//! What attempts say: progress and log lines, from memory into the database.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::{
    queue::{Done, JobError, LogLevel},
    testing::private_cluster,
};
use tokio::sync::Semaphore;

use crate::queue_rig::{Ctx, Rig, Setup, counter, play, stop, until, until_true};

const PROGRESS: &str = "
    SELECT string_agg(concat_ws(' ', attempt, n_done, n_total, note), ', ') FROM ingestd.job_progress";
const LINES: &str = "
    SELECT string_agg(concat_ws(' ', attempt, line_no, level, message), ', '
                      ORDER BY lease_id, line_no) FROM ingestd.job_logs";

async fn pass(gate: &Semaphore) {
    gate.acquire().await.unwrap().forget();
}

#[tokio::test]
async fn the_newest_progress_is_written_while_the_job_runs() {
    let (rig, go_on) = (Rig::new().await, Arc::new(Semaphore::new(0)));
    let waits = Arc::clone(&go_on);
    let engine = rig
        .play([play("t.progress", move |ctx| {
            let go_on = Arc::clone(&waits);
            async move {
                for n in 1..=10_000 {
                    ctx.progress(n, 20_000, "half way");
                }
                pass(&go_on).await;
                ctx.progress(20_000, None, "");
                pass(&go_on).await;
                Ok(Done::new())
            }
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.progress')")
        .await;
    rig.until("(SELECT n_done = 10000 FROM ingestd.job_progress)")
        .await;
    assert_eq!(rig.ask::<String>(PROGRESS).await, "1 10000 20000 half way");
    go_on.add_permits(1);
    rig.until("(SELECT n_done = 20000 FROM ingestd.job_progress)")
        .await;
    assert_eq!(rig.ask::<String>(PROGRESS).await, "1 20000");
    go_on.add_permits(1);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_late_attempt_writes_no_progress_and_its_lines_are_told_apart() {
    let rig = Rig::new().await;
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    let waits = gates.clone();
    let contested = play("t.contested", move |ctx| {
        let attempt = ctx.lease().attempt;
        let gate = Arc::clone(&waits[usize::from(attempt != 1)]);
        async move {
            let n = u64::from(attempt.unsigned_abs());
            pass(&gate).await;
            ctx.progress(n, None, "");
            ctx.log(LogLevel::Info, format!("said by {attempt}"));
            pass(&gate).await;
            ctx.progress(n * 10, None, "");
            ctx.log(LogLevel::Warn, format!("said again by {attempt}"));
            pass(&gate).await;
            Ok(Done::new())
        }
    });
    let setup = Setup::of([contested])
        // No heartbeat tells the first attempt that it has lost its lease.
        .with(|q| q.heartbeat_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.contested')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE attempt = 1)")
        .await;
    let second = "EXISTS (SELECT FROM ingestd.jobs WHERE attempt = 2)";
    rig.sql(
        "UPDATE ingestd.jobs SET state = 'queued', lease_id = NULL, worker_id = NULL
         WHERE state = 'running'",
    )
    .await;
    rig.until(second).await;
    let said = |n: i32| format!("(SELECT count(*) = {n} FROM ingestd.job_logs)");
    // Progress is written before the lines that were said with it.
    gates[0].add_permits(1);
    rig.until(&said(1)).await;
    let n_written = "SELECT count(*) FROM ingestd.job_progress";
    assert_eq!(rig.ask::<i64>(n_written).await, 0);
    gates[1].add_permits(1);
    rig.until(&said(2)).await;
    assert_eq!(rig.ask::<String>(PROGRESS).await, "2 2");
    gates[0].add_permits(1);
    rig.until(&said(3)).await;
    assert_eq!(rig.ask::<String>(PROGRESS).await, "2 2");
    // An attempt whose lease is lost at this very moment: a newer one has written already.
    rig.sql("UPDATE ingestd.job_progress SET lease_id = lease_id + 1, n_done = 77")
        .await;
    gates[1].add_permits(1);
    rig.until(&said(4)).await;
    assert_eq!(rig.ask::<String>(PROGRESS).await, "2 77");

    gates[0].add_permits(1);
    gates[1].add_permits(1);
    rig.until_idle().await;
    assert_eq!(
        rig.ask::<String>(LINES).await,
        "1 1 info said by 1, 1 2 warn said again by 1, 2 1 info said by 2, 2 2 warn said again by 2"
    );
    stop(engine).await;
}

#[tokio::test]
async fn lines_of_every_attempt_are_kept_however_it_ended() {
    let rig = Rig::new().await;
    let engine = rig
        .play([play("t.says", |ctx| async move {
            ctx.log(LogLevel::Info, "begins");
            match ctx.lease().attempt {
                1 => Err(anyhow::anyhow!("no").into()),
                2 => panic!("no"),
                _ => {
                    ctx.log(LogLevel::Error, "a\0b");
                    Ok(Done::new())
                }
            }
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.says')")
        .await;
    rig.until_idle().await;
    // Nothing is left in memory.
    stop(engine).await;
    assert_eq!(
        rig.ask::<String>(LINES).await,
        "1 1 info begins, 2 1 info begins, 3 1 info begins, 3 2 error a\u{FFFD}b"
    );
    let in_time = "SELECT bool_and(l.logged_at BETWEEN h.created_at AND now())
                   FROM ingestd.job_logs l JOIN ingestd.job_history h ON h.id = l.job_id";
    assert!(rig.ask::<bool>(in_time).await);
}

#[tokio::test]
async fn what_is_said_as_the_daemon_stops_is_written() {
    let rig = Rig::new().await;
    let last_words = play("t.last_words", |ctx| async move {
        ctx.cancelled().cancelled().await;
        ctx.log(LogLevel::Warn, "stops");
        Err(JobError::Cancelled)
    });
    let setup = Setup::of([last_words]).with(|q| q.soft_stop = Duration::from_millis(10));
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.last_words')")
        .await;
    until_true("it runs", || engine.n_running() == 1).await;
    stop(engine).await;
    assert_eq!(rig.ask::<String>(LINES).await, "1 1 warn stops");
}

/// Says more than is kept while Postgres is away.
async fn chatter(ctx: &Ctx) {
    for n in 1..=1000 {
        ctx.progress(n, 1000, "");
        ctx.log(LogLevel::Info, "x".repeat(8 * 1024));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_said_while_postgres_is_away_blocks_nobody_and_is_bounded() {
    let mut cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    let (go_on, n_said) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (waits, counts) = (Arc::clone(&go_on), Arc::clone(&n_said));
    let chatty = play("t.chatty", move |ctx| {
        let (go_on, n_said) = (Arc::clone(&waits), Arc::clone(&counts));
        async move {
            if n_said.load(Ordering::SeqCst) < 4 {
                pass(&go_on).await;
                chatter(&ctx).await;
                n_said.fetch_add(1, Ordering::SeqCst);
            }
            Ok(Done::new())
        }
    });
    let setup = Setup::of([chatty]).slots("default", 4);
    let engine = setup.start(&cluster.database_url()).await;
    crate::queue_rig::run(
        &pool,
        "INSERT INTO ingestd.jobs (kind) SELECT 't.chatty' FROM generate_series(1, 4)",
    )
    .await;
    let running = "(SELECT count(*) = 4 FROM ingestd.jobs WHERE state = 'running')";
    until(&pool, running).await;
    cluster.kill9().await.unwrap();
    go_on.add_permits(4);
    until_true("all have said what they had to say", || {
        n_said.load(Ordering::SeqCst) == 4
    })
    .await;
    cluster.restart().await.unwrap();
    // Of 4,000 lines, 32 MB, those are there for which there was room, and the others are counted.
    let accounted =
        "(SELECT sum(coalesce(substring(message FROM '^(\\d+) lines are missing')::int, 1))
                      = 4000 FROM ingestd.job_logs)";
    until(&pool, accounted).await;
    assert!(counter("ingestd_log_lines_lost_total{reason=\"no_room\"}") >= 1.0);
    let n_bytes: i64 =
        sqlx::query_scalar("SELECT sum(octet_length(message)) FROM ingestd.job_logs")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert!(n_bytes > 8 << 20, "{n_bytes}");
    assert!(n_bytes < 17 << 20, "{n_bytes}");
    until(&pool, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
    stop(engine).await;
    pool.close().await;
}

#[tokio::test]
async fn a_stop_while_postgres_is_away_leaves_no_writer_behind() {
    let mut cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    let (go_on, said) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (waits, says) = (Arc::clone(&go_on), Arc::clone(&said));
    let chatty = play("t.last_words", move |ctx| {
        let (go_on, said) = (Arc::clone(&waits), Arc::clone(&says));
        async move {
            pass(&go_on).await;
            ctx.log(LogLevel::Info, "is anybody there?");
            said.add_permits(1);
            Ok(Done::new())
        }
    });
    let setup = Setup::of([chatty]).with(|q| q.hard_stop = Duration::from_millis(100));
    let engine = setup.start(&cluster.database_url()).await;
    crate::queue_rig::run(
        &pool,
        "INSERT INTO ingestd.jobs (kind) VALUES ('t.last_words')",
    )
    .await;
    until(&pool, "(SELECT state = 'running' FROM ingestd.jobs)").await;
    cluster.kill9().await.unwrap();
    go_on.add_permits(1);
    said.acquire().await.unwrap().forget();
    let lost = "ingestd_log_lines_lost_total{reason=\"stopped\"}";
    let before = counter(lost);
    let hurry = tokio_util::sync::CancellationToken::new();
    hurry.cancel();
    engine.stop(hurry).await;
    // It says what it could not write, and ends.
    until_true("the line is counted as lost", || counter(lost) > before).await;
    pool.close().await;
}
