//! Postgres falls, hangs and comes back; the daemon recovers by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::{
    queue::{Done, JobError},
    testing::{PrivateCluster, private_cluster},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    process::PATIENCE,
    queue_ledger as ledger,
    queue_rig::{Setup, done, play, run, stop, until, until_true},
};

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_postgres_is_killed() {
    let mut cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    let setup = Setup::of([ledger::job()]).slots("default", 8);
    let engines = [
        setup.start(&cluster.database_url()).await,
        setup.start(&cluster.database_url()).await,
    ];
    ledger::enqueue(&pool, 600).await;
    for n in [50, 150, 300] {
        let in_the_middle = format!("(SELECT count(*) >= {n} FROM ledger)");
        until(&pool, &in_the_middle).await;
        cluster.kill9().await.unwrap();
        cluster.restart().await.unwrap();
    }
    ledger::check(&pool, 600, "three times killed").await;
    assert!(engines.iter().all(ingestd::queue::Running::is_alive));
    for engine in engines {
        stop(engine).await;
    }
    let ended = "SELECT bool_and(end_reason = 'stopped') FROM ingestd.workers WHERE ended_at > now() - interval '1 h'";
    assert!(
        sqlx::query_scalar::<_, bool>(ended)
            .fetch_one(&pool)
            .await
            .unwrap()
    );
    pool.close().await;
}

#[tokio::test]
async fn notifications_are_back_after_a_restart() {
    let mut cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    let setup = Setup::of([done("t.woken")]).with(|q| q.poll_interval = Duration::from_hours(1));
    let engine = setup.start(&cluster.database_url()).await;
    for _ in 0..3 {
        cluster.restart().await.unwrap();
        let listens = "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'LISTEN%')";
        until(&pool, listens).await;
    }
    run(&pool, "INSERT INTO ingestd.jobs (kind) VALUES ('t.woken')").await;
    until(&pool, "EXISTS (SELECT FROM ingestd.job_history)").await;
    stop(engine).await;
    pool.close().await;
}

/// Every process of the server: the postmaster first, so that it makes no new ones.
fn processes(cluster: &PrivateCluster) -> Vec<Pid> {
    let postmaster = cluster.pid().unwrap();
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(postmaster)
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let children: Vec<i32> = pids.filter(is_child).collect();
    [postmaster]
        .into_iter()
        .chain(children)
        .map(Pid::from_raw)
        .collect()
}

fn signal_all(cluster: &PrivateCluster, signal: Signal) {
    for pid in processes(cluster) {
        // One that has just ended needs no signal.
        kill(pid, signal).ok();
    }
}

#[tokio::test]
async fn a_worker_stops_itself_before_others_may_believe_it_dead() {
    const LOST_AFTER: Duration = Duration::from_mins(10);
    let cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    let n_told = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&n_told);
    let works = play("t.works", move |ctx| {
        let (told, crashes) = (Arc::clone(&told), ctx.lease().crashes);
        async move {
            if crashes > 0 {
                return Ok(Done::new());
            }
            ctx.cancelled().cancelled().await;
            told.fetch_add(1, Ordering::SeqCst);
            Err(JobError::Cancelled)
        }
    });
    let setup = Setup::of([works]).with(|q| {
        (q.lost_after, q.trust_window) = (LOST_AFTER, Duration::from_secs(2));
    });
    let engine = setup.start(&cluster.database_url()).await;
    run(
        &pool,
        "INSERT INTO ingestd.jobs (kind) SELECT 't.works' FROM generate_series(1, 3)",
    )
    .await;
    until_true("they run", || engine.n_running() == 3).await;
    signal_all(&cluster, Signal::SIGSTOP);
    // Patience ends long before others may believe it dead.
    until_true("they were told", || n_told.load(Ordering::SeqCst) == 3).await;
    until_true("it claims nothing more", || !engine.is_alive()).await;

    signal_all(&cluster, Signal::SIGCONT);
    until_true("it has begun a new life", || engine.is_alive()).await;
    // Nobody rescues from the old life before `lost_after`; here the test says that it is over.
    let over = "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'lost'
                WHERE id <> (SELECT max(id) FROM ingestd.workers)";
    run(&pool, over).await;
    until(
        &pool,
        "(SELECT count(*) = 3 FROM ingestd.job_history WHERE attempt = 1)",
    )
    .await;
    stop(engine).await;
    pool.close().await;
}

#[tokio::test]
async fn a_daemon_can_stop_while_postgres_is_away() {
    let mut cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    let waits = play("t.waits", |ctx| async move {
        ctx.cancelled().cancelled().await;
        Err(JobError::Cancelled)
    });
    let setup = Setup::of([waits]).with(|q| q.soft_stop = Duration::from_millis(100));
    let engine = setup.start(&cluster.database_url()).await;
    run(&pool, "INSERT INTO ingestd.jobs (kind) VALUES ('t.waits')").await;
    until_true("it runs", || engine.n_running() == 1).await;
    cluster.kill9().await.unwrap();
    // Each of its waits has an end; the sum of them is far below this.
    let stopped = tokio::time::timeout(PATIENCE, stop(engine)).await;
    stopped.unwrap();
    cluster.restart().await.unwrap();
    // What it could not hand back is found by the next one.
    run(
        &pool,
        "UPDATE ingestd.workers SET heartbeat_at = now() - interval '1 h'",
    )
    .await;
    let next = Setup::of([done("t.waits")])
        .start(&cluster.database_url())
        .await;
    until(&pool, "EXISTS (SELECT FROM ingestd.job_history)").await;
    stop(next).await;
    pool.close().await;
}
