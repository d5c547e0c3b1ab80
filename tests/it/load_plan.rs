//! Every statement of the loader has one possible plan, whatever the statistics say.

use sqlx::{AssertSqlSafe, PgConnection};

use super::load_rig::{Rig, chunk, many};

const PROBE: &str = include_str!("../../src/ingest/product_import/load/probe.sql");
const BETWEEN: &str = include_str!("../../src/ingest/product_import/load/between.sql");
const NEARBY: &str = include_str!("../../src/ingest/product_import/load/nearby.sql");
const CHANGED: &str = include_str!("../../src/ingest/product_import/load/changed.sql");
const BEFORE: &str = include_str!("../../src/ingest/product_import/load/before.sql");
const UPDATE: &str = include_str!("../../src/ingest/product_import/load/update.sql");

/// Empty, one row as ANALYZE saw it, many rows that ANALYZE has not seen, many that it has.
#[tokio::test]
async fn plans_do_not_follow_the_statistics() {
    let rig = Rig::new().await;
    let target = rig.import().await;
    let analyze = "ANALYZE catalog.products, catalog.product_prices, catalog.product_stocks";
    let mut seen = Vec::new();
    seen.push(plans(&rig).await);
    rig.load(&target, &chunk(many(1))).await;
    seen.push(plans(&rig).await);
    rig.run(analyze).await;
    seen.push(plans(&rig).await);
    rig.load(&target, &chunk(many(5_000))).await;
    seen.push(plans(&rig).await);
    rig.run(analyze).await;
    seen.push(plans(&rig).await);
    assert_eq!(
        seen[0],
        [
            "products_code",
            "products_code",
            "products_pkey",
            "products_code product_prices_live product_stocks_live",
            "products_pkey product_prices_live product_stocks_live",
            "products_pkey",
        ]
    );
    for later in &seen[1..] {
        assert_eq!(later, &seen[0]);
    }
}

/// Returns the indexes of each statement's plan, in the order of the nested loops.
async fn plans(rig: &Rig) -> Vec<String> {
    let mut tx = rig.pool().begin().await.unwrap();
    // An empty chunk leaves nothing but the planner's settings.
    let target = rig.import().await;
    _ = ingestd::ingest::product_import::load::load_chunk(&mut tx, &target, &chunk(Vec::new()))
        .await
        .unwrap();
    let mut plans = Vec::new();
    for (statement, n_parameters) in [
        (PROBE, 2),
        (BETWEEN, 4),
        (NEARBY, 4),
        (CHANGED, 2),
        (BEFORE, 3),
        (UPDATE, 13),
    ] {
        plans.push(indexes(&plan(&mut tx, statement, n_parameters).await));
    }
    plans
}

async fn plan(conn: &mut PgConnection, statement: &str, n_parameters: usize) -> String {
    let nulls = vec!["NULL"; n_parameters].join(", ");
    let prepare = AssertSqlSafe(format!("PREPARE one AS {statement}"));
    sqlx::raw_sql(prepare).execute(&mut *conn).await.unwrap();
    let lines: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(format!("EXPLAIN EXECUTE one ({nulls})")))
            .persistent(false)
            .fetch_all(&mut *conn)
            .await
            .unwrap();
    sqlx::raw_sql("DEALLOCATE one").execute(conn).await.unwrap();
    lines.join("\n")
}

fn indexes(plan: &str) -> String {
    for other in ["Seq Scan", "Hash", "Merge", "Bitmap", "Memoize"] {
        assert!(!plan.contains(other), "{plan}");
    }
    let conditions = plan.matches("Index Cond").count();
    let scans: Vec<&str> = plan
        .split("using ")
        .skip(1)
        .filter_map(|rest| rest.split_whitespace().next())
        .collect();
    assert_eq!(
        conditions,
        scans.len(),
        "an index is walked from end to end:\n{plan}"
    );
    scans.join(" ")
}
