//! The import log under the names that the product import's document queries.

use ingestd::{
    db,
    ingest::product_import::row::Chunk,
    runs::{self, RunId},
};
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool, Row,
    postgres::{PgConnectOptions, PgRow},
};

use super::load_rig::{Rig, chunk, many, row_error};

/// The queries of the document, word for word.
const RECENT: &str = r#"SELECT * FROM "ImportLog"
WHERE type = 'PARTS'
ORDER BY "createdAt" DESC
LIMIT 10;"#;
const IN_PROGRESS: &str = r#"SELECT * FROM "ImportLog"
WHERE type = 'PARTS'
AND "completedAt" IS NULL;"#;
const FAILED: &str = r#"SELECT * FROM "ImportLog"
WHERE type = 'PARTS'
AND "errorCount" > 0;"#;

#[tokio::test]
async fn the_documents_queries_run_as_written() {
    let rig = Rig::new().await;
    let done = rig.import().await;
    let bad = Chunk {
        errors: vec![row_error(3, Some("Cena"), Some("x"))],
        n_bad: 1,
        n_rows: 3,
        ..chunk(many(2))
    };
    rig.load(&done, &bad).await;
    finish(rig.pool(), done.import_id).await;
    let open = rig.import().await;

    let ids = |rows: Vec<PgRow>| -> Vec<i64> { rows.iter().map(|row| row.get("id")).collect() };
    let ask = async |query| sqlx::query(query).fetch_all(rig.pool()).await.unwrap();
    assert_eq!(ids(ask(RECENT).await), [open.import_id, done.import_id]);
    assert_eq!(ids(ask(IN_PROGRESS).await), [open.import_id]);
    assert_eq!(ids(ask(FAILED).await), [done.import_id]);
    let log = r#"SELECT concat_ws(' ', "importStatus", "fileName", "successCount", "errorCount",
        "completedAt" >= "createdAt") FROM "ImportLog" WHERE "errorCount" > 0"#;
    assert_eq!(rig.ask(log).await, "COMPLETED products.xlsx 2 1 t");
    let errors = r#"SELECT concat_ws(' ', "importLogId" > 0, sheet, "rowNumber", "columnName", code, value)
        FROM "ImportErrorsLog""#;
    assert_eq!(rig.ask(errors).await, "t Products 3 Cena invalid_number x");
}

async fn finish(pool: &PgPool, id: i64) {
    let mut conn = pool.acquire().await.unwrap();
    runs::begin(&mut conn, RunId(id)).await.unwrap().unwrap();
    runs::complete(&mut conn, RunId(id)).await.unwrap();
}

/// A database that has tables of these names keeps them, and is migrated all the same.
#[tokio::test]
async fn tables_of_the_old_system_stay() {
    let rig = Rig::new().await;
    let options: PgConnectOptions = rig.db.url().parse().unwrap();
    let old = format!("{}_old", options.get_database().unwrap());
    let mut admin = PgConnection::connect(rig.db.url()).await.unwrap();
    let create = AssertSqlSafe(format!("CREATE DATABASE {old}"));
    sqlx::query(create).execute(&mut admin).await.unwrap();
    let pool = PgPool::connect_with(options.database(&old)).await.unwrap();
    sqlx::query(r#"CREATE TABLE "ImportLog" (mine text)"#)
        .execute(&pool)
        .await
        .unwrap();
    let migrated = db::migrate(&pool).await;
    let names: Vec<(String, String)> = sqlx::query_as(
        "SELECT relname::text, relkind::text FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relname LIKE 'Import%' ORDER BY relname",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    pool.close().await;
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE {old}")))
        .execute(&mut admin)
        .await
        .unwrap();
    migrated.unwrap();
    assert_eq!(
        names,
        [
            ("ImportErrorsLog".into(), "v".into()),
            ("ImportLog".into(), "r".into())
        ]
    );
}
