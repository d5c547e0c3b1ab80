//! How long an import can be undone and its rejected rows be downloaded.

use std::sync::atomic::{AtomicU32, Ordering};

use ingestd::ingest::product_import::retention::{Cut, cut};
use sqlx::PgPool;

use super::{
    import::{accepted, finished},
    process::{Daemon, until},
};

const FILE: &str = "code,name,price\nA,a,1\nB,b,2\n,nameless,3\n";
const CHANGED: &str = "code,name,price\nA,aa,1\nB,bb,2\n,nameless,3\n";

async fn traces(pool: &PgPool, id: i64) -> [i64; 3] {
    let mut found = [0; 3];
    let tables = ["product_changes", "rejected_rows", "import_errors"];
    for (n, table) in found.iter_mut().zip(tables) {
        let query = format!("SELECT count(*) FROM catalog.{table} WHERE import_id = {id}");
        *n = count(pool, &query).await;
    }
    found
}

async fn count(pool: &PgPool, query: &str) -> i64 {
    sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn sql(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

async fn get(daemon: &Daemon, path: &str) -> (u16, String) {
    let answer = reqwest::get(daemon.url(path)).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn what_is_too_old_to_be_undone_says_so() {
    let (db, storage) = (
        ingestd::testing::Database::create().await,
        tempfile::tempdir().unwrap(),
    );
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    let mut imports = Vec::new();
    for file in [FILE, CHANGED, FILE] {
        let id = accepted(&daemon, "products.csv", file.into()).await;
        assert_eq!(finished(&daemon, id).await["status"], "completed");
        imports.push(id);
    }
    let [_, old, new] = imports[..] else { panic!() };
    let pool = db.pool();
    assert_eq!(
        (traces(pool, old).await, traces(pool, new).await),
        ([2, 1, 1], [2, 1, 1])
    );
    // Ended a moment ago, nothing is too old.
    assert_eq!(cut(pool, 90, || true).await.unwrap(), Cut::default());
    sql(
        pool,
        &format!(
            "UPDATE ingestd.runs SET created_at = created_at - interval '91 days',
               started_at = started_at - interval '91 days',
               finished_at = finished_at - interval '91 days' WHERE id = {old}"
        ),
    )
    .await;
    // While it is being undone it stays, and so while another transaction looks at it.
    sql(
        pool,
        &format!(
            "WITH run AS (INSERT INTO ingestd.runs (system, tenant, triggered_by, state)
               VALUES ('test', 'default', 'test', 'paused') RETURNING id)
             UPDATE catalog.imports SET rollback_run_id = (SELECT id FROM run) WHERE id = {old}"
        ),
    )
    .await;
    assert_eq!(cut(pool, 90, || true).await.unwrap(), Cut::default());
    let set = "UPDATE catalog.imports SET rollback_run_id = NULL";
    sql(pool, set).await;
    let mut looks = pool.begin().await.unwrap();
    sqlx::query("SELECT FROM ingestd.runs WHERE id = $1 FOR UPDATE")
        .bind(old)
        .execute(&mut *looks)
        .await
        .unwrap();
    assert_eq!(cut(pool, 90, || true).await.unwrap(), Cut::default());
    looks.rollback().await.unwrap();

    // Broken off after the first batch: marked, half deleted, and not undone by half.
    let asked = AtomicU32::new(0);
    let first_only = || asked.fetch_add(1, Ordering::SeqCst) == 0;
    let half = cut(pool, 90, first_only).await.unwrap();
    assert_eq!((half.n_imports, half.n_rows), (0, 2));
    let path = format!("/api/v1/imports/{old}/rollback");
    for told in [get(&daemon, &path).await, {
        let ask = reqwest::Client::new().post(daemon.url(&path)).send();
        let ask = ask.await.unwrap();
        (ask.status().as_u16(), ask.text().await.unwrap())
    }] {
        assert_eq!(told.0, 409, "{told:?}");
        assert!(told.1.contains("product_import.retention_days"), "{told:?}");
    }
    // The rest is the daily job's.
    sql(
        pool,
        "INSERT INTO ingestd.jobs (kind) VALUES ('product_import.forget')",
    )
    .await;
    let gone = format!("SELECT count(*) FROM catalog.imports WHERE id = {old} AND traces = 'gone'");
    until("the traces are gone", || async {
        count(pool, &gone).await == 1
    })
    .await;
    assert_eq!(
        (traces(pool, old).await, traces(pool, new).await),
        ([0; 3], [2, 1, 1])
    );
    assert_eq!(cut(pool, 90, || true).await.unwrap(), Cut::default());
    for part in ["errors.csv", "results.csv"] {
        let (status, text) = get(&daemon, &format!("/api/v1/import/{old}/{part}")).await;
        assert_eq!(status, 404, "{text}");
        assert!(text.contains("product_import.retention_days"), "{text}");
    }
    let (_, shown) = get(&daemon, &format!("/api/v1/imports/{old}")).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(
        (&shown["traces"], &shown["error_count"]),
        (&"gone".into(), &1.into())
    );
    // The newer one is undone as ever.
    let preview = get(&daemon, &format!("/api/v1/imports/{new}/rollback")).await;
    assert_eq!(preview.0, 200);
    // A run that was to undo it and is reset finds it forgotten.
    sql(
        pool,
        &format!(
            "WITH run AS (INSERT INTO ingestd.runs (system, job_kind, tenant, triggered_by, params)
               VALUES ('product_import', 'product_import.rollback', 'default', 'test',
                       '{{\"import_id\": {old}}}') RETURNING id)
             INSERT INTO ingestd.jobs (kind, args, run_id)
             SELECT 'product_import.rollback', jsonb_build_object('run_id', id), id FROM run"
        ),
    )
    .await;
    let dead =
        "SELECT count(*) FROM ingestd.dead_jobs WHERE error LIKE '%cannot be undone any more%'";
    until("the undoing is dead", || async {
        count(pool, dead).await == 1
    })
    .await;
}
