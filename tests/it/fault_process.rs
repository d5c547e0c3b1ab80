//! Daemons that die, hang and sleep too long, as processes of their own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::queue::Done;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{
    process::Daemon,
    queue_rig::{Rig, Setup, play, stop, until_true},
};

async fn daemon(rig: &Rig, storage: &TempDir) -> Daemon {
    Daemon::start(rig.url(), storage.path(), &[]).await
}

/// Enqueues `n` jobs that do nothing for `millis`: so long that even on a busy machine they all run
/// at once, and still do when something happens to their daemon.
async fn enqueue(rig: &Rig, n: u32, millis: u32) {
    rig.sql(&format!(
        "INSERT INTO ingestd.jobs (kind, args)
         SELECT 'system.noop', '{{\"sleep_ms\": {millis}}}' FROM generate_series(1, {n})"
    ))
    .await;
}

const ENDED: &str = "
    SELECT concat_ws(' ', (SELECT count(*) FROM ingestd.job_history WHERE kind = 'system.noop'),
      (SELECT max(attempt) FROM ingestd.job_history WHERE kind = 'system.noop'),
      (SELECT count(*) FROM ingestd.dead_jobs), (SELECT count(*) FROM ingestd.jobs WHERE kind = 'system.noop'))";

#[tokio::test]
async fn a_daemon_that_is_back_rescues_its_own_jobs_at_once() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    // In half an hour others would notice that it is gone.
    let settings = [
        ("INGESTD_QUEUE__LOST_AFTER", "30m"),
        ("INGESTD_QUEUE__TRUST_WINDOW", "20m"),
    ];
    let mut first = Daemon::start(rig.url(), storage.path(), &settings).await;
    enqueue(&rig, 5, 4000).await;
    rig.until(
        "(SELECT count(*) = 5 FROM ingestd.jobs WHERE kind = 'system.noop' AND state = 'running')",
    )
    .await;
    first.kill9();
    let mut second = Daemon::start(rig.url(), storage.path(), &settings).await;
    rig.until(
        "(SELECT count(*) = 5 FROM ingestd.job_history WHERE kind = 'system.noop' AND attempt = 1)",
    )
    .await;
    let crashes = "SELECT count(*) FROM ingestd.job_attempts WHERE kind = 'system.noop' AND outcome = 'crash' AND attempt = 1";
    assert_eq!(rig.ask::<i64>(crashes).await, 5);
    assert!(second.terminate().success());
}

#[tokio::test]
async fn the_jobs_of_a_killed_daemon_go_to_the_other() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let (mut doomed, mut other) = (daemon(&rig, &storage).await, daemon(&rig, &storage).await);
    enqueue(&rig, 20, 4000).await;
    rig.until(
        "(SELECT count(*) = 20 FROM ingestd.jobs WHERE kind = 'system.noop' AND state = 'running')",
    )
    .await;
    let by_worker = "SELECT count(DISTINCT worker_id) FROM ingestd.jobs WHERE kind = 'system.noop'";
    assert_eq!(rig.ask::<i64>(by_worker).await, 2, "ten slots each");
    doomed.kill9();
    rig.until("(SELECT count(*) = 20 FROM ingestd.job_history WHERE kind = 'system.noop')")
        .await;
    assert_eq!(rig.ask::<String>(ENDED).await, "20 1 0 0");
    let crashes = "SELECT count(*) FROM ingestd.job_attempts WHERE kind = 'system.noop' AND outcome = 'crash'";
    assert_eq!(rig.ask::<i64>(crashes).await, 10);
    assert!(other.terminate().success());
}

#[tokio::test]
async fn a_daemon_that_slept_past_its_leases_changes_nothing() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut sleeper = daemon(&rig, &storage).await;
    enqueue(&rig, 3, 4000).await;
    rig.until(
        "(SELECT count(*) = 3 FROM ingestd.jobs WHERE kind = 'system.noop' AND state = 'running')",
    )
    .await;
    sleeper.signal(Signal::SIGSTOP);
    let mut other = daemon(&rig, &storage).await;
    let others =
        "(SELECT count(*) = 3 FROM ingestd.jobs j JOIN ingestd.workers w ON w.id = j.worker_id
                   WHERE kind = 'system.noop' AND state = 'running' AND w.ended_at IS NULL AND crashes = 1)";
    rig.until(others).await;
    sleeper.signal(Signal::SIGCONT);
    rig.until_idle().await;
    assert_eq!(rig.ask::<String>(ENDED).await, "3 1 0 0");
    // Two lives of one process, and it claims again in the second.
    rig.until("(SELECT count(*) = 2 FROM ingestd.workers WHERE ended_at IS NULL)")
        .await;
    let lives = "SELECT string_agg(n::text, ',' ORDER BY n) FROM
                   (SELECT count(*) n FROM ingestd.workers GROUP BY pid) p";
    assert_eq!(rig.ask::<String>(lives).await, "1,2");
    let first_life = "SELECT count(*) FROM ingestd.job_history
                      WHERE kind = 'system.noop' AND worker_id = (SELECT min(id) FROM ingestd.workers)";
    assert_eq!(rig.ask::<i64>(first_life).await, 0);
    assert_eq!(
        sleeper.log().matches("another worker owns the job").count(),
        3,
        "{}",
        sleeper.log()
    );
    assert!(sleeper.terminate().success());
    assert!(other.terminate().success());
}

#[tokio::test]
async fn a_process_whose_jobs_hang_loses_them_at_their_deadline() {
    let rig = Rig::new().await;
    let (n_begun, release) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (begun, released) = (Arc::clone(&n_begun), Arc::clone(&release));
    let hangs = play("t.hangs", move |_| {
        let is_first = begun.fetch_add(1, Ordering::SeqCst) == 0;
        let release = Arc::clone(&released);
        async move {
            while is_first && !release.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            Ok(Done::new())
        }
    });
    let setup = Setup::of([hangs.timeout(Duration::from_secs(1)).queue("hung")]);
    let (url, hung) = (rig.url().to_owned(), setup.clone());
    // All of this runtime's one thread is in the handler: neither timer nor completion runs there.
    // The heartbeat does.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let engine = hung.start(&url).await;
            until_true("it has begun", || n_begun.load(Ordering::SeqCst) > 0).await;
            stop(engine).await;
        });
    });
    rig.until("EXISTS (SELECT FROM ingestd.workers)").await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.hangs')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    let engine = setup.start(rig.url()).await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE attempt = 1)")
        .await;
    let error: String = rig.ask("SELECT error FROM ingestd.job_attempts").await;
    assert!(error.contains("hung"), "{error}");
    let alive = "SELECT count(*) FROM ingestd.workers WHERE ended_at IS NULL";
    assert_eq!(rig.ask::<i64>(alive).await, 2);
    release.store(true, Ordering::SeqCst);
    thread.join().unwrap();
    stop(engine).await;
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_history")
            .await,
        1
    );
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_no_tick_out_and_none_doubled() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let (mut doomed, mut other) = (daemon(&rig, &storage).await, daemon(&rig, &storage).await);
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed)
         VALUES ('every second', '* * * * * *', 'system.noop', 'all')",
    )
    .await;
    let ticks = |n: i32| {
        format!(
            "(SELECT count(*) >= {n} FROM ingestd.schedule_ticks WHERE schedule = 'every second')"
        )
    };
    rig.until(&ticks(2)).await;
    doomed.kill9();
    rig.until(&ticks(5)).await;
    rig.sql("UPDATE ingestd.schedules SET paused_at = now()")
        .await;
    rig.until_idle().await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', extract(epoch FROM max(tick_at) - min(tick_at))::int + 1 - count(*),
               count(*) - count(DISTINCT h.id), count(*) - count(*) FILTER (WHERE result = 'enqueued'))
             FROM ingestd.schedule_ticks t LEFT JOIN ingestd.job_history h ON h.id = t.job_id
             WHERE schedule = 'every second'",
        )
        .await;
    assert_eq!(
        verdict, "0 0 0",
        "left out, without exactly one job, not enqueued"
    );
    assert!(other.terminate().success());
}
