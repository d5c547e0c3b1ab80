//! Daemons at work while the database is migrated under them.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use ingestd::{
    db,
    testing::{PrivateCluster, private_cluster},
};
use sqlx::PgPool;
use tempfile::TempDir;

use crate::{
    process::Daemon,
    queue_ledger as ledger,
    queue_rig::{Setup, run, stop, until},
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

#[tokio::test]
async fn a_daemon_works_on_while_the_last_migration_comes() {
    let (_cluster, url, pool) = empty().await;
    let versions: Vec<i64> = db::migrator()
        .iter()
        .map(|migration| migration.version)
        .collect();
    let last_but_one = versions[versions.len() - 2];
    db::migrator().run_to(last_but_one, &pool).await.unwrap();
    let engine = Setup::of([ledger::job()])
        .slots("default", 4)
        .start(&url)
        .await;
    ledger::enqueue(&pool, 100).await;
    db::migrate(&pool).await.unwrap();
    run(
        &pool,
        "WITH j AS (INSERT INTO ingestd.jobs (kind)
                    SELECT 't.ledger' FROM generate_series(1, 100) RETURNING id)
         INSERT INTO cursors (job) SELECT id FROM j",
    )
    .await;
    ledger::check(&pool, 200, "migrated meanwhile").await;
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
