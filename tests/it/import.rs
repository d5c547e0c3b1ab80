//! The product import through the front door: upload, progress, results, and what survives a kill.

use std::path::Path;

use ingestd::testing::{Database, private_cluster};
use reqwest::multipart::{Form, Part};
use rust_xlsxwriter::Workbook;
use serde_json::Value;
use sqlx::PgPool;

use super::process::{Daemon, until};

/// A CSV of `n` good rows, each with a price and a stock; row `i` has code `P<i>`.
pub(crate) fn csv(n: usize) -> Vec<u8> {
    let rows = (0..n).map(|i| format!("P{i:06},Product {i},{}.50,{}\n", i % 900 + 1, i % 40));
    "code,name,price,stock\n"
        .chars()
        .chain(rows.collect::<String>().chars())
        .collect::<String>()
        .into()
}

pub(crate) async fn upload(daemon: &Daemon, name: &str, bytes: Vec<u8>) -> (u16, Value) {
    upload_as(daemon, name, bytes, "").await
}

/// Uploads a file with the options of a query string.
pub(crate) async fn upload_as(
    daemon: &Daemon,
    name: &str,
    bytes: Vec<u8>,
    query: &str,
) -> (u16, Value) {
    let part = Part::bytes(bytes).file_name(name.to_owned());
    let request = reqwest::Client::new()
        .post(daemon.url(&format!("/api/v1/import/products?{query}")))
        .multipart(Form::new().part("file", part));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

pub(crate) async fn status(daemon: &Daemon, job: i64) -> Value {
    let answer = reqwest::get(daemon.url(&format!("/import/status/{job}")))
        .await
        .unwrap();
    let (code, body) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(code, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
}

/// Uploads a file that must be accepted and returns its job.
pub(crate) async fn accepted(daemon: &Daemon, name: &str, bytes: Vec<u8>) -> i64 {
    accepted_as(daemon, name, bytes, "").await
}

/// As [`accepted`], with the options of a query string.
pub(crate) async fn accepted_as(daemon: &Daemon, name: &str, bytes: Vec<u8>, query: &str) -> i64 {
    let (code, body) = upload_as(daemon, name, bytes, query).await;
    assert_eq!(code, 202, "{body}");
    assert_eq!(body["success"], true);
    let job = body["data"]["jobId"].as_i64().unwrap();
    assert_eq!(
        body["data"]["statusUrl"],
        format!("/api/v1/import/status/{job}")
    );
    job
}

pub(crate) async fn finished(daemon: &Daemon, job: i64) -> Value {
    until("the import has ended", || async {
        let state = status(daemon, job).await["status"].clone();
        state == "completed" || state == "failed"
    })
    .await;
    status(daemon, job).await
}

/// Waits until some chunks are committed and some are not.
async fn half_way(daemon: &Daemon, pool: &PgPool, job: i64, n_rows: i64) {
    until("the import is half way", || async {
        let n = count(pool, "SELECT count(*) FROM catalog.products").await;
        n > 0 && n < n_rows
    })
    .await;
    assert_eq!(status(daemon, job).await["status"], "processing");
}

pub(crate) async fn count(pool: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(pool).await.unwrap()
}

/// Asserts that the catalog holds exactly the rows of [`csv`], once each.
pub(crate) async fn assert_exactly(pool: &PgPool, n_rows: i64) {
    let wrong = "SELECT count(*) FROM catalog.products p
        LEFT JOIN catalog.product_prices pp ON pp.product_id = p.id
        LEFT JOIN catalog.product_stocks ps ON ps.product_id = p.id
        WHERE pp.price IS DISTINCT FROM substr(p.code, 2)::int % 900 + 1.5
           OR ps.qty IS DISTINCT FROM substr(p.code, 2)::int % 40
           OR p.name <> 'Product ' || substr(p.code, 2)::int";
    assert_eq!(
        count(pool, "SELECT count(*) FROM catalog.products").await,
        n_rows
    );
    assert_eq!(
        count(pool, "SELECT count(DISTINCT code) FROM catalog.products").await,
        n_rows
    );
    assert_eq!(
        count(pool, "SELECT count(*) FROM catalog.product_prices").await,
        n_rows
    );
    assert_eq!(
        count(pool, "SELECT count(*) FROM catalog.product_stocks").await,
        n_rows
    );
    assert_eq!(count(pool, wrong).await, 0);
}

#[tokio::test]
async fn a_daemon_takes_no_huge_pages() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    // Linux before 5.0 does not say.
    assert_ne!(daemon.status("THP_enabled:").as_deref(), Some("1"));
}

#[tokio::test]
async fn a_file_goes_all_the_way() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    let job = accepted(&daemon, "products.csv", csv(2500)).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["progress"]["total"], 2500);
    assert_eq!(done["progress"]["percentage"], 100);
    assert_eq!(done["results"]["totalRows"], 2500);
    assert_eq!(done["results"]["successCount"], 2500);
    assert_eq!(done["results"]["errorCount"], 0);
    assert_exactly(db.pool(), 2500).await;

    // The same file again writes nothing.
    let again = accepted(&daemon, "products.csv", csv(2500)).await;
    assert_eq!(
        finished(&daemon, again).await["results"]["successCount"],
        2500
    );
    assert_exactly(db.pool(), 2500).await;
    let unchanged: i64 = sqlx::query_scalar(
        r#"SELECT "unchangedCount" FROM "ImportLog" WHERE id = $1 AND "importStatus" = 'COMPLETED'"#,
    )
    .bind(again)
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(unchanged, 2500);
    let blobs = std::fs::read_dir(storage.path().join("blobs"))
        .unwrap()
        .count();
    assert_eq!(blobs, 2, "imported files are kept for their results");
}

#[tokio::test]
async fn changed_prices_and_stocks_are_archived() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    for (price, stock) in [("10.00", 5), ("12.00", 5), ("12.0", 7)] {
        let file = format!("code;name;price;stock\nA;Lamp;{price};{stock}\n");
        let job = accepted(&daemon, "prices.csv", file.into()).await;
        assert_eq!(finished(&daemon, job).await["status"], "completed");
    }
    let prices = "SELECT trim_scale(price)::text, archived_at IS NULL
        FROM catalog.product_prices ORDER BY valid_from";
    let stocks = "SELECT qty::text, archived_at IS NULL
        FROM catalog.product_stocks ORDER BY valid_from";
    let ended = |value: &str| (value.to_owned(), false);
    let live = |value: &str| (value.to_owned(), true);
    assert_eq!(history(db.pool(), prices).await, [ended("10"), live("12")]);
    assert_eq!(history(db.pool(), stocks).await, [ended("5"), live("7")]);
}

/// Reads values and whether each is the live one.
async fn history(pool: &PgPool, sql: &'static str) -> Vec<(String, bool)> {
    sqlx::query_as(sql).fetch_all(pool).await.unwrap()
}

/// A workbook with one bad row of every sort between good ones.
fn workbook_with_bad_rows() -> Vec<u8> {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    let header = ["Code", "Name", "Price", "Stock", "Updated at", "Colour"];
    for (column, text) in (0..).zip(header) {
        sheet.write(0, column, text).unwrap();
    }
    let rows: [[&str; 6]; 10] = [
        ["A1", "good", "1.50", "3", "2024-01-28", "red"],
        ["", "no code", "1", "1", "", ""],
        ["A2", "", "1", "1", "", ""],
        ["A3", "bad price", "1.234,56 €", "1", "", ""],
        ["A4", "negative price", "-5", "1", "", ""],
        ["A5", "half a stock", "1", "1.5", "", ""],
        ["A6", "impossible date", "1", "1", "2024-02-31", ""],
        ["A1", "seen before", "1", "1", "", ""],
        ["A7", "two errors", "x", "y", "", ""],
        ["A8", "good too", "", "", "", "blue"],
    ];
    for (row, cells) in (1..).zip(rows) {
        for (column, text) in (0..).zip(cells) {
            sheet.write(row, column, text).unwrap();
        }
    }
    book.save_to_buffer().unwrap()
}

#[tokio::test]
async fn bad_rows_are_told_one_by_one_and_stop_nobody() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    let job = accepted(&daemon, "bad.xlsx", workbook_with_bad_rows()).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["results"]["totalRows"], 10);
    assert_eq!(done["results"]["successCount"], 2);
    assert_eq!(done["results"]["errorCount"], 8);
    let errors: Vec<(i32, Option<String>)> = sqlx::query_as(
        "SELECT row_no, column_name FROM catalog.import_errors WHERE import_id = $1
         ORDER BY row_no, column_name",
    )
    .bind(job)
    .fetch_all(db.pool())
    .await
    .unwrap();
    let told = |row, column: &str| (row, Some(column.to_owned()));
    assert_eq!(
        errors,
        [
            told(3, "Code"),
            told(4, "Name"),
            told(5, "Price"),
            told(6, "Price"),
            told(7, "Stock"),
            told(8, "Updated at"),
            told(9, "Code"),
            told(10, "Price"),
            told(10, "Stock"),
        ]
    );
    let colours: Vec<Value> =
        sqlx::query_scalar("SELECT attributes FROM catalog.products ORDER BY code")
            .fetch_all(db.pool())
            .await
            .unwrap();
    assert_eq!(
        colours,
        [
            serde_json::json!({"Colour": "red"}),
            serde_json::json!({"Colour": "blue"})
        ]
    );
}

#[tokio::test]
async fn what_cannot_be_imported_is_refused_at_once() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let limit = ("INGESTD_HTTP__MAX_UPLOAD_BYTES", "200000");
    let daemon = Daemon::start(db.url(), storage.path(), &[limit]).await;
    let refused: [(&str, Vec<u8>, &str); 5] = [
        ("empty.csv", Vec::new(), "empty"),
        (
            "noise.xlsx",
            (0..5000_u32).map(|i| (i * 7919 % 251) as u8).collect(),
            "format",
        ),
        ("headers.csv", b"kode,nome_x\n1,2\n".to_vec(), "header"),
        (
            "truncated.xlsx",
            workbook_with_bad_rows()[..3000].to_vec(),
            "",
        ),
        ("large.csv", csv(20_000), "large"),
    ];
    for (name, bytes, word) in refused {
        let (code, body) = upload(&daemon, name, bytes).await;
        assert_eq!(code, 400, "{name}: {body}");
        assert_eq!(body["success"], false, "{name}: {body}");
        let text = body.to_string().to_lowercase();
        assert!(text.contains(word), "{name} should say {word:?}: {body}");
    }
    assert_eq!(
        count(db.pool(), "SELECT count(*) FROM ingestd.runs").await,
        0
    );
    let blobs = std::fs::read_dir(storage.path().join("blobs"))
        .unwrap()
        .count();
    assert_eq!(blobs, 0, "a refused file is not kept");
}

async fn killed_half_way(storage: &Path, db: &Database, n_rows: i64) -> (i64, i64) {
    let settings = [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "500")];
    let mut first = Daemon::start(db.url(), storage, &settings).await;
    let job = accepted(&first, "big.csv", csv(usize::try_from(n_rows).unwrap())).await;
    half_way(&first, db.pool(), job, n_rows).await;
    first.kill9();
    (
        job,
        count(db.pool(), "SELECT count(*) FROM catalog.products").await,
    )
}

#[tokio::test]
async fn another_daemon_finishes_what_a_killed_one_began() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let n_rows = 60_000;
    let (job, n_committed) = killed_half_way(storage.path(), &db, n_rows).await;
    assert!(
        n_committed > 0 && n_committed < n_rows,
        "killed at {n_committed}"
    );

    let settings = [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "500")];
    let second = Daemon::start(db.url(), storage.path(), &settings).await;
    let done = finished(&second, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["results"]["successCount"], n_rows);
    assert_exactly(db.pool(), n_rows).await;
    let created: i64 = sqlx::query_scalar("SELECT created_count FROM catalog.imports")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(
        created, n_rows,
        "a chunk that was committed is not done again"
    );
    let crashes = count(
        db.pool(),
        "SELECT count(*) FROM ingestd.job_attempts WHERE outcome = 'crash'",
    )
    .await;
    assert_eq!(crashes, 1);
}

#[tokio::test]
async fn an_import_outlives_a_killed_postgres() {
    let (mut cluster, storage) = (private_cluster().await, tempfile::tempdir().unwrap());
    let settings = [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "500")];
    let daemon = Daemon::start(&cluster.database_url(), storage.path(), &settings).await;
    let pool = cluster.connect().await.unwrap();
    // A crash takes back whatever nobody waited for: chunks, but never what was told to be done.
    for set in [
        "ALTER SYSTEM SET wal_writer_delay = '10s'",
        "ALTER SYSTEM SET wal_writer_flush_after = '1GB'",
        "SELECT pg_reload_conf()",
    ] {
        sqlx::query(set).execute(&pool).await.unwrap();
    }
    let n_rows = 60_000;
    let job = accepted(&daemon, "big.csv", csv(usize::try_from(n_rows).unwrap())).await;
    half_way(&daemon, &pool, job, n_rows).await;
    cluster.kill9().await.unwrap();
    cluster.restart().await.unwrap();
    until("Postgres is back and the import has ended", || async {
        let answer = reqwest::get(daemon.url(&format!("/import/status/{job}")))
            .await
            .unwrap();
        answer.status() == 200
            && answer.json::<Value>().await.unwrap()["data"]["status"] == "completed"
    })
    .await;
    cluster.kill9().await.unwrap();
    cluster.restart().await.unwrap();
    until("Postgres is back", || async {
        sqlx::query("SELECT").execute(&pool).await.is_ok()
    })
    .await;
    assert_exactly(&pool, n_rows).await;
    let created = count(&pool, "SELECT created_count FROM catalog.imports").await;
    assert_eq!(created, n_rows, "counts and rows are taken back together");
}

#[tokio::test]
async fn a_cancelled_import_stops_and_keeps_what_it_committed() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let settings = [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "200")];
    let daemon = Daemon::start(db.url(), storage.path(), &settings).await;
    let n_rows = 100_000;
    let job = accepted(&daemon, "big.csv", csv(n_rows)).await;
    half_way(&daemon, db.pool(), job, 100_000).await;
    let cancel = reqwest::Client::new().post(daemon.url(&format!("/api/v1/runs/{job}/cancel")));
    assert!(cancel.send().await.unwrap().status().is_success());
    until("nothing of it is left in the queue", || async {
        count(
            db.pool(),
            "SELECT count(*) FROM ingestd.jobs WHERE run_id IS NOT NULL",
        )
        .await
            == 0
    })
    .await;
    let kept = count(db.pool(), "SELECT count(*) FROM catalog.products").await;
    assert!(kept < 100_000);
    let stopped = status(&daemon, job).await;
    assert_eq!(stopped["status"], "failed");
    assert_eq!(stopped["error"], "cancelled");
    let counted = count(db.pool(), "SELECT created_count FROM catalog.imports").await;
    assert_eq!(counted, kept, "counts and rows commit together");

    // Put back to work, it goes on from its cursor.
    let reset = reqwest::Client::new().post(daemon.url(&format!("/api/v1/runs/{job}/reset")));
    assert!(reset.send().await.unwrap().status().is_success());
    assert_eq!(finished(&daemon, job).await["status"], "completed");
    assert_exactly(db.pool(), 100_000).await;
}

/// Somebody holds the catalog up, so that the loader waits for him, the checks for the loader, and
/// the reader for the checks.
#[tokio::test]
async fn cancelling_an_import_that_waits_ends_its_threads() {
    const CHECKS: &str = "import-checks";
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let settings = [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "200")];
    let daemon = Daemon::start(db.url(), storage.path(), &settings).await;
    let mut holder = db.pool().begin().await.unwrap();
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('catalog.products:default', 0))")
        .execute(&mut *holder)
        .await
        .unwrap();
    let job = accepted(&daemon, "big.csv", csv(50_000)).await;
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()";
    until("the loader waits", || async {
        count(db.pool(), waiting).await == 1
    })
    .await;
    until("rows are checked", || async {
        daemon.n_threads(CHECKS) == 1
    })
    .await;
    post(&daemon, &format!("/api/v1/runs/{job}/cancel")).await; // does not wait for the chunk
    holder.rollback().await.unwrap();
    until("the threads have ended", || async {
        daemon.n_threads(CHECKS) == 0
    })
    .await;
    let kept = count(db.pool(), "SELECT count(*) FROM catalog.products").await;
    assert!(kept < 50_000, "the file was read to its end");
    let counted = count(db.pool(), "SELECT created_count FROM catalog.imports").await;
    assert_eq!(counted, kept, "counts and rows commit together");
}

#[tokio::test]
async fn a_stopped_daemon_hands_its_import_back_unburnt() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let settings = [
        ("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "500"),
        ("INGESTD_QUEUE__SOFT_STOP", "100ms"),
    ];
    let n_rows = 100_000;
    let mut first = Daemon::start(db.url(), storage.path(), &settings).await;
    let job = accepted(&first, "big.csv", csv(usize::try_from(n_rows).unwrap())).await;
    half_way(&first, db.pool(), job, n_rows).await;
    assert!(first.terminate().success(), "a clean stop ends with 0");
    let left: (String, i16, i16) =
        sqlx::query_as("SELECT state, attempt, crashes FROM ingestd.jobs WHERE run_id = $1")
            .bind(job)
            .fetch_one(db.pool())
            .await
            .unwrap();
    assert_eq!(left, ("held".to_owned(), 0, 0));
    let running = "SELECT count(*) FROM ingestd.workers WHERE ended_at IS NULL";
    assert_eq!(count(db.pool(), running).await, 0);

    let second = Daemon::start(db.url(), storage.path(), &settings).await;
    assert_eq!(finished(&second, job).await["status"], "completed");
    assert_exactly(db.pool(), n_rows).await;
}

/// Uploads a file while the import queue is paused and returns its run and its job.
async fn waiting(daemon: &Daemon, pool: &PgPool) -> (i64, i64) {
    post(daemon, "/api/v1/queues/import/pause").await;
    let run = accepted(daemon, "waits.csv", csv(100)).await;
    let job = count(pool, "SELECT id FROM ingestd.jobs WHERE run_id IS NOT NULL").await;
    (run, job)
}

pub(crate) async fn post(daemon: &Daemon, path: &str) {
    let answer = reqwest::Client::new()
        .post(daemon.url(path))
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
}

#[tokio::test]
async fn a_dead_import_that_is_replayed_goes_on() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    let (run, job) = waiting(&daemon, db.pool()).await;
    let blobs = storage.path().join("blobs");
    let blob = std::fs::read_dir(&blobs)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let aside = storage.path().join("aside");
    std::fs::rename(&blob, &aside).unwrap();
    post(&daemon, "/api/v1/queues/import/resume").await;
    let failed = finished(&daemon, run).await;
    assert_eq!(failed["status"], "failed");
    assert!(
        failed["error"].as_str().unwrap().contains("waits.csv"),
        "{failed}"
    );

    std::fs::rename(&aside, &blob).unwrap();
    post(&daemon, &format!("/api/v1/jobs/{job}/retry")).await;
    until("the replayed import is completed", || async {
        status(&daemon, run).await["status"] == "completed"
    })
    .await;
    assert_exactly(db.pool(), 100).await;
}

#[tokio::test]
async fn cancelling_the_job_of_an_import_cancels_the_import() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    let (run, job) = waiting(&daemon, db.pool()).await;
    post(&daemon, &format!("/api/v1/jobs/{job}/cancel")).await;
    let stopped = status(&daemon, run).await;
    assert_eq!(
        (&stopped["status"], &stopped["error"]),
        (&"failed".into(), &"cancelled".into())
    );
}

#[tokio::test]
async fn uploads_that_nobody_imports_are_swept() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    waiting(&daemon, db.pool()).await;
    let blobs = storage.path().join("blobs");
    let wanted = std::fs::read_dir(&blobs)
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let names = [
        "a".repeat(24),
        format!("{}.part", "b".repeat(24)),
        "c".repeat(24),
    ];
    let others = names.map(|name| blobs.join(name));
    for path in &others {
        std::fs::write(path, b"left behind").unwrap();
    }
    let [unnamed, broken_off, young] = &others;
    let long_ago = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
    for path in [unnamed, broken_off, &wanted] {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_times(long_ago).unwrap();
    }
    sqlx::query("INSERT INTO ingestd.jobs (kind) VALUES ('system.sweep_blobs')")
        .execute(db.pool())
        .await
        .unwrap();
    until("the sweep is done", || async {
        !unnamed.exists() && !broken_off.exists()
    })
    .await;
    assert!(
        young.exists() && wanted.exists(),
        "what is young or wanted stays"
    );
}
