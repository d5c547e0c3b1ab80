//! The primary dies and its standby takes over: what was promised is there, and nothing is doubled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::{
    config, db,
    testing::{PrivateCluster, private_cluster},
};
use secrecy::SecretString;
use sqlx::PgPool;

use crate::{
    process,
    proxy::Proxy,
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, done, run, stop, until, until_true},
};

/// A primary, its standby, and an address that leads to one of them.
struct Pair {
    primary: PrivateCluster,
    standby: PrivateCluster,
    /// What lies between the two.
    link: Proxy,
    address: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let primary = private_cluster().await;
        let link = Proxy::start(&primary.database_url()).await;
        let standby = PrivateCluster::standby(&link.url()).await.unwrap();
        let address = Proxy::start(&primary.database_url()).await;
        Self {
            primary,
            standby,
            link,
            address,
        }
    }

    /// Kills the primary, promotes the standby and moves the address.
    async fn fail_over(&mut self) -> PgPool {
        self.primary.kill9().await.unwrap();
        // Clients find the standby before it is a primary, as they do where a name is moved early.
        self.address.turn_to(&self.standby.database_url());
        self.address.reset();
        let pool = self.standby.connect().await.unwrap();
        run(&pool, "SELECT pg_promote()").await;
        pool
    }
}

fn setup() -> Setup {
    Setup::of([ledger::job()])
        .slots("default", 8)
        .lost_after(Duration::from_secs(6))
        .with(|queue| queue.max_crashes = 1000)
}

/// Enqueues one job after the other, until `n` were acknowledged or the server is gone; returns
/// the acknowledged ones.
async fn produce(url: String, n: usize, n_acked: Arc<AtomicUsize>) -> Vec<i64> {
    // With sessions as the daemon's are: it enqueues, too.
    let database = config::Database {
        url: Some(SecretString::from(url)),
        ..config::Database::default()
    };
    let pool = db::connect(&database).await.unwrap();
    let mut acked = Vec::new();
    while acked.len() < n {
        let inserted = sqlx::query_scalar(
            "WITH j AS (INSERT INTO ingestd.jobs (kind) VALUES ('t.ledger') RETURNING id)
             INSERT INTO cursors (job) SELECT id FROM j RETURNING job",
        );
        match inserted.fetch_one(&pool).await {
            Ok(id) => {
                acked.push(id);
                n_acked.fetch_add(1, Ordering::SeqCst);
            }
            Err(_) => break,
        }
    }
    acked
}

/// Says whether an insert waits for the standby.
async fn waits_for_standby(pool: &PgPool) -> bool {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_stat_activity
                        WHERE wait_event = 'SyncRep' AND query LIKE '%INSERT INTO cursors%')",
    )
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Counts those of `ids` that the database does not know.
async fn n_unknown(pool: &PgPool, ids: &[i64]) -> i64 {
    sqlx::query_scalar(
        "SELECT count(*) FROM unnest($1::bigint[]) AS a (id)
         WHERE NOT EXISTS (SELECT FROM ingestd.all_jobs j WHERE j.id = a.id)",
    )
    .bind(ids)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Waits until all is done; nothing of it twice. Returns how many jobs there were.
async fn check(pool: &PgPool, told: &str) -> i64 {
    until(pool, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
    let n = sqlx::query_scalar("SELECT count(*) FROM ingestd.job_history")
        .fetch_one(pool)
        .await
        .unwrap();
    ledger::check(pool, n, told).await;
    n
}

#[tokio::test]
async fn a_synchronous_standby_has_all_that_was_acknowledged() {
    let mut pair = Pair::start().await;
    let old = pair.primary.connect().await.unwrap();
    run(&old, "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    run(&old, "SELECT pg_reload_conf()").await;
    let is_sync = "EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')";
    until(&old, is_sync).await;
    let engine = setup().start(&pair.address.url()).await;
    ledger::enqueue(&old, 100).await;
    let url = pair.primary.database_url();
    let n_acked = Arc::new(AtomicUsize::new(0));
    let producer = produce(url, usize::MAX, Arc::clone(&n_acked));
    let failover = async {
        until(&old, "(SELECT count(*) >= 150 FROM ledger)").await;
        // Whoever does not wait for the standby goes on without it, and its commits are lost.
        pair.link.freeze();
        pair.link.turn_to("postgres:///none?host=/nowhere");
        let n_before = n_acked.load(Ordering::SeqCst);
        process::until("the producer waits, or goes on", async || {
            n_acked.load(Ordering::SeqCst) > n_before + 10 || waits_for_standby(&old).await
        })
        .await;
        pair.fail_over().await
    };
    let (acked, pool) = futures::join!(producer, failover);
    let n = check(&pool, "synchronous").await;
    assert!(!acked.is_empty());
    assert_eq!(
        n_unknown(&pool, &acked).await,
        0,
        "of {} acknowledged",
        acked.len()
    );
    assert!(n >= 100 + i64::try_from(acked.len()).unwrap());
    until_true("it lives", || engine.is_alive()).await;
    stop(engine).await;
    pool.close().await;
    old.close().await;
}

#[tokio::test]
async fn an_asynchronous_standby_has_what_had_reached_it_whole() {
    let mut pair = Pair::start().await;
    let old = pair.primary.connect().await.unwrap();
    let engine = setup().start(&pair.address.url()).await;
    ledger::enqueue(&old, 60).await;
    until(&old, "(SELECT count(*) >= 90 FROM ledger)").await;
    let caught_up =
        "EXISTS (SELECT FROM pg_stat_replication WHERE flush_lsn >= pg_current_wal_lsn())";
    let reached = produce(pair.primary.database_url(), 10, Arc::default()).await;
    until(&old, caught_up).await;
    pair.link.freeze();
    pair.link.turn_to("postgres:///none?host=/nowhere");
    let tail = produce(pair.primary.database_url(), 10, Arc::default()).await;
    assert_eq!((reached.len(), tail.len()), (10, 10));
    // The tail is acknowledged and even done, with its effects.
    until(&old, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
    assert_eq!(n_unknown(&old, &tail).await, 0);
    let pool = pair.fail_over().await;
    let n = check(&pool, "asynchronous").await;
    assert_eq!(n, 70, "what had reached it");
    assert_eq!(n_unknown(&pool, &reached).await, 0);
    assert_eq!(
        n_unknown(&pool, &tail).await,
        10,
        "the last commits are gone, with all they wrote"
    );
    // It works on, with ids that may have been given out before.
    ledger::more(&pool, 5, "{}").await;
    assert_eq!(check(&pool, "afterwards").await, 75);
    until_true("it lives", || engine.is_alive()).await;
    stop(engine).await;
    pool.close().await;
    old.close().await;
}

/// Whoever cancels the wait for a synchronous standby gets a success that is not safe.
#[tokio::test]
async fn a_cancelled_wait_for_the_standby_is_a_commit_that_can_be_lost() {
    let mut pair = Pair::start().await;
    let old = pair.primary.connect().await.unwrap();
    run(&old, ledger::TABLES).await;
    run(&old, "ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    run(&old, "SELECT pg_reload_conf()").await;
    let is_sync = "EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')";
    until(&old, is_sync).await;
    // Registers the kind.
    stop(setup().start(&pair.primary.database_url()).await).await;
    pair.link.freeze();
    let cancel = async {
        let waits = "EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND query LIKE '%cursors%')";
        until(&old, waits).await;
        run(
            &old,
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity
             WHERE wait_event = 'SyncRep' AND query LIKE '%cursors%'",
        )
        .await;
    };
    let (acked, ()) = futures::join!(
        produce(pair.primary.database_url(), 1, Arc::default()),
        cancel
    );
    assert_eq!(acked.len(), 1, "the commit is a success, with a warning");
    let pool = pair.fail_over().await;
    assert_eq!(n_unknown(&pool, &acked).await, 1);
    pool.close().await;
    old.close().await;
}

/// A standby may lack the end of a job that its worker saw committed, and the worker lives on.
#[tokio::test]
async fn a_job_that_only_the_database_runs_is_handed_back() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.done")]).lost_after(Duration::from_secs(3));
    let engine = setup.start(rig.url()).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.done', now() + interval '1 h');
         UPDATE ingestd.jobs SET state = 'running', run_at = now(), attempt = 1,
           lease_id = nextval('ingestd.lease_seq'), worker_id = (SELECT max(id) FROM ingestd.workers), started_at = now(),
           deadline_at = now() + interval '1 h'",
    )
    .await;
    rig.until_idle().await;
    let told = "SELECT concat_ws(' ', state, attempt) FROM ingestd.job_history";
    assert_eq!(rig.ask::<String>(told).await, "completed 1");
    assert!(engine.is_alive());
    stop(engine).await;
}
