//! Daemons at work while the database is migrated under them, and beside newer ones.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use chrono::{DateTime, Utc};
use ingestd::{
    db,
    testing::{PrivateCluster, private_cluster},
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool, Row, postgres::types::PgInterval};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    process::Daemon,
    queue_ledger as ledger,
    queue_rig::{Setup, ask, run, stop, until},
};

/// A cluster with an empty database, its URL, and a pool for it.
async fn empty() -> (PrivateCluster, String, PgPool) {
    // As `main` does, for the client that asks whether a daemon is ready.
    drop(rustls::crypto::ring::default_provider().install_default());
    let cluster = private_cluster().await;
    cluster.ensure_database("older").await.unwrap();
    let url = cluster.url("older");
    let pool = PgPool::connect(&url).await.unwrap();
    (cluster, url, pool)
}

/// The version of the schema that a worker was built for, and what it says to claim and to complete.
const OLDER_SCHEMA: i64 = 30;
const OLDER_CLAIM: &str = include_str!("older/claim.sql");
const OLDER_FINISH: &str = include_str!("older/finish.sql");

/// A worker of an older release, from what it says to the database: it does jobs of the ledger until
/// it is told to stop.
struct OlderWorker {
    stop: CancellationToken,
    done: JoinHandle<sqlx::Result<()>>,
}

impl OlderWorker {
    async fn start(pool: &PgPool) -> Self {
        run(
            pool,
            "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
             VALUES ('t.ledger', 'default', 1000, 60) ON CONFLICT DO NOTHING",
        )
        .await;
        let id: i64 = ask(
            pool,
            "INSERT INTO ingestd.workers (host, pid, version, queues)
             VALUES ('older', 1, '0', '{default}') RETURNING id",
        )
        .await;
        let stop = CancellationToken::new();
        let (pool, stopped) = (pool.clone(), stop.clone());
        let done = TaskTracker::new().spawn(async move {
            while !stopped.is_cancelled() {
                match older_round(&pool, id).await {
                    Err(error) if is_deadlock(&error) => {} // as a daemon, it tries again
                    result => result?,
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            sqlx::query(
                "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'stopped' WHERE id = $1",
            )
            .bind(id)
            .execute(&pool)
            .await?;
            Ok(())
        });
        Self { stop, done }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.done.await.unwrap().unwrap();
    }
}

/// Says whether the server ended a transaction that stood in a circle, as with a migration that has
/// one table and wants another.
fn is_deadlock(error: &sqlx::Error) -> bool {
    let error = error.as_database_error();
    error.is_some_and(|error| error.code().as_deref() == Some("40P01"))
}

/// Beats, claims a few jobs and does them.
async fn older_round(pool: &PgPool, worker: i64) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    sqlx::query("UPDATE ingestd.workers SET heartbeat_at = clock_timestamp() WHERE id = $1")
        .bind(worker)
        .execute(&mut *conn)
        .await?;
    let minute = PgInterval {
        microseconds: 60_000_000,
        ..PgInterval::default()
    };
    let claimed = sqlx::query(OLDER_CLAIM)
        .bind("default")
        .bind(8_i64)
        .bind([0_i16, 1, 2, 3])
        .bind([None::<DateTime<Utc>>; 4])
        .bind(worker)
        .bind(["t.ledger"])
        .bind([minute])
        .bind(false)
        .fetch_all(&mut *conn)
        .await?;
    for job in claimed {
        let (id, lease): (i64, i64) = (job.try_get("id")?, job.try_get("lease_id")?);
        older_job(&mut conn, id, lease).await?;
    }
    Ok(())
}

/// Writes three steps in the transaction in which the job completes; none where it lost its lease.
async fn older_job(conn: &mut PgConnection, id: i64, lease: i64) -> sqlx::Result<()> {
    let mut tx = conn.begin().await?;
    sqlx::query(
        "INSERT INTO ledger (job, step, lease) SELECT $1, step, $2 FROM generate_series(1, 3) step",
    )
    .bind(id)
    .bind(lease)
    .execute(&mut *tx)
    .await?;
    sqlx::query("UPDATE cursors SET step = 3 WHERE job = $1")
        .bind(id)
        .execute(&mut *tx)
        .await?;
    let done = sqlx::query(OLDER_FINISH)
        .bind([id])
        .bind([lease])
        .bind("completed")
        .bind(None::<Vec<Value>>)
        .fetch_optional(&mut *tx)
        .await?;
    if done.is_some() {
        tx.commit().await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_older_worker_works_on_while_the_database_is_migrated() {
    let (_cluster, _, pool) = empty().await;
    db::migrator().run_to(OLDER_SCHEMA, &pool).await.unwrap();
    run(&pool, ledger::TABLES).await;
    let older = OlderWorker::start(&pool).await;
    ledger::more(&pool, 100, "{}").await;
    ledger::lines(&pool, 30).await;
    db::migrate(&pool).await.unwrap();
    ledger::more(&pool, 100, "{}").await;
    ledger::check(&pool, 200, "migrated meanwhile").await;
    older.stop().await;
}

#[tokio::test]
async fn an_older_worker_and_a_new_one_take_no_job_from_each_other() {
    let (_cluster, url, pool) = empty().await;
    db::migrate(&pool).await.unwrap();
    run(&pool, ledger::TABLES).await;
    let older = OlderWorker::start(&pool).await;
    let engine = Setup::of([ledger::job()])
        .slots("default", 8)
        .with(|queue| queue.batch_lease_from = 1)
        .start(&url)
        .await;
    ledger::more(&pool, 400, "{}").await;
    let n_workers = "(SELECT count(DISTINCT worker_id) = 2 FROM ingestd.job_history)";
    until(&pool, n_workers).await;
    ledger::check(&pool, 400, "an older worker and a new one").await;
    // Drawn from by each batch; what an older worker would not see, and take.
    let batches = "(SELECT is_called FROM ingestd.batch_leases_id_seq)";
    let any: bool = ask(&pool, &format!("SELECT {batches}")).await;
    assert!(!any, "jobs were leased in a batch beside an older worker");
    older.stop().await;
    ledger::more(&pool, 100, "{}").await;
    ledger::check(&pool, 500, "the older worker stopped").await;
    until(&pool, batches).await;
    stop(engine).await;
}

/// The release whose daemons must live through the migrations of this one.
const OLDER: &str = "b1c7395";

/// Builds the older daemon from this repository's history.
fn older() -> PathBuf {
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("older-{OLDER}"));
    let unpacked = Command::new("sh")
        .args([
            "-c",
            r#"mkdir -p "$1" && git archive "$2" | tar -x -C "$1""#,
            "sh",
        ])
        .arg(&tree)
        .arg(OLDER)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .unwrap();
    assert!(
        unpacked.success() && tree.join("Cargo.toml").is_file(),
        "needs git and the history back to {OLDER}"
    );
    let built = Command::new(env!("CARGO"))
        .args([
            "build",
            "--locked",
            "--bin",
            "ingestd",
            "--target-dir",
            "target",
        ])
        .current_dir(&tree)
        .status()
        .unwrap();
    assert!(built.success(), "{OLDER} does not build");
    tree.join("target/debug/ingestd")
}

/// Enqueues jobs that take a moment and waits until they are done.
async fn work(pool: &PgPool, n_jobs: i64, n_done: i64) {
    run(
        pool,
        &format!(
            "INSERT INTO ingestd.jobs (kind, args)
             SELECT 'system.noop', '{{\"sleep_ms\": 20}}' FROM generate_series(1, {n_jobs})"
        ),
    )
    .await;
    let done = format!(
        "(SELECT count(*) = {n_done} AND count(DISTINCT id) = {n_done} AND max(attempt) = 1
          FROM ingestd.job_history WHERE kind = 'system.noop' AND state = 'completed')"
    );
    until(pool, &done).await;
}

#[tokio::test]
#[ignore = "nightly: builds an older release from the history"]
async fn nightly_an_older_daemon_works_on_beside_the_one_that_migrated() {
    let program = older();
    let (_cluster, url, pool) = empty().await;
    let (storage, noops) = (TempDir::new().unwrap(), "WHERE kind = 'system.noop'");
    let mut old = Daemon::start_as(&program, &url, storage.path(), &[]).await;
    work(&pool, 100, 100).await;
    let n_before: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd._migrations")
        .fetch_one(&pool)
        .await
        .unwrap();
    let mut new = Daemon::start(&url, storage.path(), &[]).await;
    let n_after: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd._migrations")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(
        n_after > n_before,
        "nothing was migrated: {OLDER} is too new"
    );
    work(&pool, 400, 500).await;
    let by_both = format!(
        "SELECT count(DISTINCT worker_id) FROM (SELECT worker_id FROM ingestd.job_history {noops} ORDER BY id DESC LIMIT 400) AS last"
    );
    let by_both: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(by_both))
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(by_both, 2, "both work on the new schema");
    assert!(old.terminate().success(), "{}", old.log());
    work(&pool, 100, 600).await;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.dead_jobs")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert_eq!(left, 0);
    assert!(new.terminate().success());
}
