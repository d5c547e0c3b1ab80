//! What an import that goes on must find as it was.

use ingestd::testing::Database;
use serde_json::json;

use super::{
    import::{accepted, accepted_as, count, csv, finished, post},
    process::{Daemon, until},
};

const PRODUCTS: &str = "SELECT count(*) FROM catalog.products";
const JOBS: &str = "SELECT count(*) FROM ingestd.jobs WHERE run_id IS NOT NULL";

/// A chunk is known by its number, which means other rows once chunks are of another size.
#[tokio::test]
async fn an_import_goes_on_under_no_other_options() {
    let chunks_of = |n: &'static str| [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", n)];
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let mut first = Daemon::start(db.url(), storage.path(), &chunks_of("200")).await;
    let job = accepted(&first, "long.csv", csv(60_000)).await;
    until("the first chunk is committed", || async {
        count(db.pool(), PRODUCTS).await > 0
    })
    .await;
    post(&first, &format!("/api/v1/runs/{job}/pause")).await;
    until("the job has ended", || async {
        count(db.pool(), JOBS).await == 0
    })
    .await;
    first.kill9();
    let n_written = count(db.pool(), PRODUCTS).await;
    let daemon = Daemon::start(db.url(), storage.path(), &chunks_of("300")).await;
    post(&daemon, &format!("/api/v1/runs/{job}/resume")).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "failed", "{done}");
    let error = done["error"].as_str().unwrap();
    assert!(error.contains("began under other options"), "{error}");
    assert_eq!(count(db.pool(), PRODUCTS).await, n_written);
}

/// Begun anew, it would count its rows twice.
#[tokio::test]
async fn an_import_whose_cursor_cannot_be_read_does_not_begin_anew() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    post(&daemon, "/api/v1/queues/import/pause").await;
    let job = accepted(&daemon, "a.csv", csv(10)).await;
    sqlx::query("UPDATE ingestd.runs SET cursor = $2 WHERE id = $1")
        .bind(job)
        .bind(json!({ "next_chunk": "the third" }))
        .execute(db.pool())
        .await
        .unwrap();
    post(&daemon, "/api/v1/queues/import/resume").await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "failed", "{done}");
    let error = done["error"].as_str().unwrap();
    assert!(error.contains("cursor"), "{error}");
    assert_eq!(count(db.pool(), PRODUCTS).await, 0);
}

#[tokio::test]
async fn an_import_that_is_reset_keeps_its_turn_and_its_priority() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    post(&daemon, "/api/v1/queues/import/pause").await;
    let job = accepted_as(&daemon, "a.csv", csv(10), "priority=3").await;
    let driver = async || -> (i64, Option<String>, i16) {
        sqlx::query_as("SELECT id, gate_key, priority FROM ingestd.jobs WHERE run_id = $1")
            .bind(job)
            .fetch_one(db.pool())
            .await
            .unwrap()
    };
    let first = driver().await;
    assert_eq!((first.1.as_deref(), first.2), (Some("catalog:default"), 3));
    post(&daemon, &format!("/api/v1/runs/{job}/cancel")).await;
    post(&daemon, &format!("/api/v1/runs/{job}/reset")).await;
    let again = driver().await;
    assert_ne!(again.0, first.0, "another job drives it");
    assert_eq!((again.1, again.2), (first.1, first.2));
}
