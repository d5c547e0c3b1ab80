//! Two chunks of an import at once: loaded side by side, committed in the order of the file.

use std::time::Duration;

use ingestd::testing::Database;
use sqlx::{PgPool, Postgres, Transaction};
use tempfile::TempDir;

use super::{
    import::{accepted, accepted_as, assert_exactly, count, csv, finished, post, status},
    process::{Daemon, until},
};

const CHUNKED: (&str, &str) = ("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "100");
/// Chunks that have a turn at an owner's products with others, and all by themselves.
const SHARED: &str = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted
    AND mode = 'ShareLock' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
const ALONE: &str = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock' AND a.wait_event_type = 'Lock'
      AND a.datname = current_database()";
/// Chunks that are loaded and wait for the one before.
const LOADED: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND state = 'idle in transaction' AND query LIKE 'RELEASE SAVEPOINT%'";
const WAITS_FOR_ROW: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE '-- Changed products.%'";
const COMMITTED: &str =
    "SELECT count(*) FROM ingestd.runs WHERE cursor IS NOT NULL AND state = 'running'";

/// A catalog with 1,000 products, and a file that changes all of them.
async fn world(settings: &[(&str, &str)]) -> (Database, TempDir, Daemon, Vec<u8>) {
    let (db, storage) = (Database::create().await, TempDir::new().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), settings).await;
    let old = String::from_utf8(csv(1_000)).unwrap();
    let old = old.replace("Product", "Former").replace(".50,", ".75,");
    let first = accepted(&daemon, "first.csv", old.into()).await;
    assert_eq!(
        finished(&daemon, first).await["results"]["createdCount"],
        1_000
    );
    (db, storage, daemon, csv(1_000))
}

/// Holds the row of a code.
async fn hold(pool: &PgPool, code: &str) -> Transaction<'static, Postgres> {
    let mut holder = pool.begin().await.unwrap();
    lock(&mut holder, code).await;
    holder
}

async fn lock(holder: &mut Transaction<'static, Postgres>, code: &str) {
    sqlx::query("SELECT FROM catalog.products WHERE code = $1 FOR UPDATE")
        .bind(code)
        .execute(&mut **holder)
        .await
        .unwrap();
}

/// Asserts that the catalog is what the file says, and that each product was changed once.
async fn assert_changed_once(pool: &PgPool) {
    let live = "DELETE FROM catalog.product_prices WHERE archived_at IS NOT NULL";
    let former = sqlx::query(live).execute(pool).await.unwrap();
    assert_eq!(former.rows_affected(), 1_000);
    assert_exactly(pool, 1_000).await;
    let changes = "SELECT count(*) FROM catalog.product_changes";
    assert_eq!(count(pool, changes).await, 1_000);
    let counted = "SELECT updated_count FROM catalog.imports ORDER BY id DESC LIMIT 1";
    assert_eq!(count(pool, counted).await, 1_000);
}

/// Waits until a chunk waits for a row and the next one is loaded.
async fn both_are_there(pool: &PgPool) {
    until(
        "a chunk waits for the row, and the next one for the chunk",
        || async { count(pool, WAITS_FOR_ROW).await == 1 && count(pool, LOADED).await == 1 },
    )
    .await;
    assert_eq!(count(pool, SHARED).await, 2);
}

#[tokio::test]
async fn a_chunk_is_loaded_beside_the_one_before_and_committed_behind_it() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let holder = hold(db.pool(), "P000050").await;
    let job = accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    assert_eq!(
        count(db.pool(), COMMITTED).await,
        0,
        "none before the first"
    );
    holder.rollback().await.unwrap();
    assert_eq!(finished(&daemon, job).await["status"], "completed");
    assert_changed_once(db.pool()).await;
}

/// A person has a row of the first chunk and wants one of the second: no server sees that circle.
#[tokio::test]
async fn a_loaded_chunk_lets_go_of_what_somebody_waits_for() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let mut person = hold(db.pool(), "P000050").await;
    let job = accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    lock(&mut person, "P000150").await;
    assert_eq!(count(db.pool(), WAITS_FOR_ROW).await, 1, "it still waits");
    person.rollback().await.unwrap();
    assert_eq!(finished(&daemon, job).await["status"], "completed");
    assert_changed_once(db.pool()).await;
    let attempts = "SELECT count(*) FROM ingestd.job_attempts";
    assert_eq!(count(db.pool(), attempts).await, 0, "in one attempt");
    assert!(!daemon.log().contains("the import waits for the database"));
}

/// The server ends the session of the first of two chunks: the second must not be committed.
#[tokio::test]
async fn a_chunk_that_fails_takes_the_one_behind_it_back() {
    const END: &str =
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND query LIKE '-- Changed products.%'";
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    post(&daemon, "/api/v1/queues/import/pause").await;
    let job = accepted(&daemon, "second.csv", file).await;
    let holder = hold(db.pool(), "P000050").await;
    post(&daemon, "/api/v1/queues/import/resume").await;
    both_are_there(db.pool()).await;
    post(&daemon, "/api/v1/queues/import/pause").await; // no other attempt
    assert_eq!(count(db.pool(), END).await, 1);
    until("the attempt has ended", || async {
        let running =
            "SELECT count(*) FROM ingestd.jobs WHERE state = 'running' AND run_id IS NOT NULL";
        count(db.pool(), running).await == 0
    })
    .await;
    let changed = "SELECT count(*) FROM catalog.products WHERE name LIKE 'Product%'";
    assert_eq!(count(db.pool(), changed).await, 0);
    holder.rollback().await.unwrap();
    post(&daemon, "/api/v1/queues/import/resume").await;
    assert_eq!(finished(&daemon, job).await["status"], "completed");
    assert_changed_once(db.pool()).await;
}

/// The fence comes last: what was loaded under a lease that is lost by then is not committed.
#[tokio::test]
async fn neither_of_two_loaded_chunks_is_committed_without_the_lease() {
    const LOSE: &str = "UPDATE ingestd.jobs SET lease_id = nextval('ingestd.lease_seq')
        WHERE shard = 0 AND run_id IS NOT NULL RETURNING 1::int8";
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let holder = hold(db.pool(), "P000050").await;
    accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    assert_eq!(count(db.pool(), LOSE).await, 1, "another has it now");
    holder.rollback().await.unwrap();
    until("both chunks have given up", || async {
        count(db.pool(), SHARED).await == 0
    })
    .await;
    let changed = "SELECT count(*) FROM catalog.products WHERE name LIKE 'Product%'";
    assert_eq!(count(db.pool(), changed).await, 0);
    assert_eq!(count(db.pool(), COMMITTED).await, 0);
}

/// Where an owner's gate lets two imports through, one of them takes turns chunk by chunk.
#[tokio::test]
async fn of_two_imports_of_an_owner_only_one_loads_two_chunks() {
    let (db, _storage, daemon, file) = world(&[CHUNKED]).await;
    let wide = "INSERT INTO ingestd.gates (pattern, max_running) VALUES ('catalog:default', 2)";
    sqlx::query(wide).execute(db.pool()).await.unwrap();
    let holder = hold(db.pool(), "P000050").await;
    let first = accepted(&daemon, "second.csv", file).await;
    both_are_there(db.pool()).await;
    let third = String::from_utf8(csv(1_000)).unwrap();
    let third = third.replace("Product", "Later").into_bytes();
    let second = accepted(&daemon, "third.csv", third).await;
    until(
        "the other import waits for all of the first one's chunks",
        || async {
            let waits = "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
            WHERE locktype = 'advisory' AND NOT granted AND mode = 'ExclusiveLock'
              AND a.datname = current_database()";
            count(db.pool(), waits).await == 1
        },
    )
    .await;
    holder.rollback().await.unwrap();
    for job in [first, second] {
        let done = finished(&daemon, job).await;
        assert_eq!(done["status"], "completed", "{done}");
        assert_eq!(done["results"]["successCount"], 1_000, "{done}");
    }
    let live = "SELECT count(*) FROM catalog.product_prices WHERE archived_at IS NULL";
    assert_eq!(count(db.pool(), live).await, 1_000);
}

/// A dry run shows its rows in their order, and `connections = 1` is meant.
#[tokio::test]
async fn a_dry_run_and_an_import_by_one_connection_load_one_chunk_at_a_time() {
    let one = ("INGESTD_PRODUCT_IMPORT__CONNECTIONS", "1");
    for (settings, options) in [(&[CHUNKED][..], "dry_run=true"), (&[CHUNKED, one], "")] {
        let (db, _storage, daemon, file) = world(settings).await;
        let holder = hold(db.pool(), "P000050").await;
        let job = accepted_as(&daemon, "second.csv", file, options).await;
        until("a chunk waits for the row, alone", || async {
            count(db.pool(), ALONE).await == 1
        })
        .await;
        holder.rollback().await.unwrap();
        let done = finished(&daemon, job).await;
        assert_eq!(done["results"]["updatedCount"], 1_000, "{done}");
    }
}

/// Half of the pool is left to others: of two connections an import has one.
#[tokio::test]
async fn a_small_pool_is_not_taken_up_by_an_import() {
    let few = [CHUNKED, ("INGESTD_DATABASE__MAX_CONNECTIONS", "2")];
    let (db, _storage, daemon, file) = world(&few).await;
    let holder = hold(db.pool(), "P000050").await;
    let job = accepted(&daemon, "second.csv", file).await;
    until("a chunk waits for the row", || async {
        count(db.pool(), WAITS_FOR_ROW).await == 1
    })
    .await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(10)).await; // a second one would be there by then
        assert_eq!(count(db.pool(), SHARED).await, 1);
    }
    status(&daemon, job).await; // by the other connection
    holder.rollback().await.unwrap();
    assert_eq!(finished(&daemon, job).await["status"], "completed");
    assert_changed_once(db.pool()).await;
}
