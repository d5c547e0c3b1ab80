//! Rows that the database itself will not have, and failures that are no row's fault.

use ingestd::ingest::product_import::{
    load::{Loaded, REFUSED, columns::Columns},
    row::ProductRow,
};
use sqlx::Connection;

use super::load_rig::{Rig, chunk, many, row, until};

const ERRORS: &str =
    "SELECT coalesce(string_agg(concat_ws('|', row_no, code, value, message), E'\\n'
    ORDER BY row_no, id), '') FROM catalog.import_errors";

#[tokio::test]
async fn one_refused_row_among_ten_thousand_stands_alone() {
    let rig = Rig::new().await;
    let mut rows = many(10_000);
    rows[6_789].name = "with a \0".into();
    let target = rig.import().await;
    let loaded = rig.load(&target, &chunk(rows)).await;
    assert_eq!(
        loaded,
        Loaded {
            inserted: 9_999,
            refused: 1,
            ..Loaded::default()
        }
    );
    assert_eq!(
        rig.ask(ERRORS).await,
        "6791|refused_by_database|C06789|name: invalid byte sequence for encoding \"UTF8\": 0x00"
    );
    let landed = "SELECT concat_ws(' ', (SELECT count(*) FROM catalog.products),
        (SELECT count(*) FROM catalog.product_prices WHERE archived_at IS NULL),
        (SELECT count(*) FROM catalog.product_stocks WHERE archived_at IS NULL),
        (SELECT success_count || '+' || error_count FROM catalog.imports))";
    assert_eq!(rig.ask(landed).await, "9999 9999 9999 9999+1");
}

/// Whatever the column and whichever statement meets it first.
#[tokio::test]
async fn every_kind_of_refusal_is_its_rows_alone() {
    let rig = Rig::new().await;
    let attributes = serde_json::json!({"a": "\0"});
    let bad: [fn(&mut ProductRow); 7] = [
        |row| row.code = "nul\0".into(),
        |row| row.code = "long".repeat(1_000).into(),
        |row| row.name = "".into(),
        |row| row.brand = Some("\0".into()),
        |row| row.weight = Some("1000000000000000".parse().unwrap()),
        |row| row.price = Some("-1".parse().unwrap()),
        |row| row.stock = Some(-1),
    ];
    let mut rows = many(100);
    for (nth, spoil) in bad.iter().enumerate() {
        spoil(&mut rows[nth * 13 + 2]);
    }
    rows[99].attributes = attributes.as_object().cloned().map(Into::into);
    let (_, loaded) = rig.rows(Columns::ALL, &rows).await;
    assert_eq!(
        loaded,
        Loaded {
            inserted: 92,
            refused: 8,
            ..Loaded::default()
        }
    );
    let refused = "SELECT string_agg(row_no::text, ' ' ORDER BY row_no) FROM catalog.import_errors";
    assert_eq!(rig.ask(refused).await, "4 17 30 43 56 69 82 101");
    let whole = "SELECT count(*)::text FROM catalog.products p
        WHERE NOT EXISTS (SELECT FROM catalog.product_prices WHERE product_id = p.id)
           OR NOT EXISTS (SELECT FROM catalog.product_stocks WHERE product_id = p.id)";
    assert_eq!(rig.ask(whole).await, "0", "half a row landed");
}

#[tokio::test]
async fn a_refused_change_leaves_the_product_as_it_was() {
    let rig = Rig::new().await;
    let (first, _) = rig.rows(Columns::ALL, &many(3)).await;
    let mut rows: Vec<_> = (0..3).map(|i| row(&format!("C0000{i}"), "9", 9)).collect();
    rows[1].brand = Some("\0".into());
    let (second, loaded) = rig.rows(Columns::ALL, &rows).await;
    assert_eq!(
        loaded,
        Loaded {
            updated: 2,
            refused: 1,
            ..Loaded::default()
        }
    );
    let kept = format!("C00001 1.50EUR {first}*");
    let prices = rig.prices().await;
    assert!(
        prices.contains(&kept) && !prices.contains(&format!("C00001 9EUR {second}")),
        "{prices}"
    );
}

#[tokio::test]
async fn a_file_of_refused_rows_leaves_errors_only() {
    let rig = Rig::new().await;
    let mut rows = many(70);
    for row in &mut rows {
        row.name = "".into();
    }
    let (_, loaded) = rig.rows(Columns::ALL, &rows).await;
    assert_eq!(
        loaded,
        Loaded {
            refused: 70,
            ..Loaded::default()
        }
    );
    let said = "SELECT count(*) || ' ' || count(DISTINCT row_no) || ' ' || max(message) || ' ' ||
        (SELECT count(*) FROM catalog.products) FROM catalog.import_errors";
    let answer = rig.ask(said).await;
    assert!(
        answer.starts_with("70 70 ") && answer.contains("name_is_not_empty"),
        "{answer}"
    );
    assert_eq!(REFUSED, "refused_by_database");
}

#[tokio::test]
async fn a_trigger_may_refuse_a_row() {
    let rig = Rig::new().await;
    rig.run(
        "CREATE FUNCTION no_c7() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF NEW.code = 'C00007' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$",
    )
    .await;
    rig.run(
        "CREATE TRIGGER no_c7 BEFORE INSERT ON catalog.products
         FOR EACH ROW EXECUTE FUNCTION no_c7()",
    )
    .await;
    let (_, loaded) = rig.rows(Columns::ALL, &many(40)).await;
    assert_eq!(
        loaded,
        Loaded {
            inserted: 39,
            refused: 1,
            ..Loaded::default()
        }
    );
    assert_eq!(
        rig.ask(ERRORS).await,
        "9|refused_by_database|C00007|not this one"
    );
}

#[tokio::test]
async fn what_is_no_rows_fault_is_not_bisected() {
    let rig = Rig::new().await;
    let target = rig.import().await;
    rig.run("ALTER TABLE catalog.product_stocks RENAME TO elsewhere")
        .await;
    let error = rig
        .try_load(&target, &chunk(many(5_000)))
        .await
        .unwrap_err();
    assert_eq!(code(&error), "42P01");
    rig.run("ALTER TABLE catalog.elsewhere RENAME TO product_stocks")
        .await;
    let nothing = "SELECT concat_ws(' ', (SELECT count(*) FROM catalog.products),
        (SELECT count(*) FROM catalog.import_errors))";
    assert_eq!(rig.ask(nothing).await, "0 0");
    assert_eq!(rig.load(&target, &chunk(many(5))).await.inserted, 5);
}

const CANCEL: &str = "SELECT coalesce(bool_or(pg_cancel_backend(pid)), false) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'";
const TERMINATE: &str = "SELECT coalesce(bool_or(pg_terminate_backend(pid)), false)
    FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";

#[tokio::test]
async fn a_cancelled_statement_and_a_lost_connection_come_back_as_they_are() {
    let rig = Rig::new().await;
    let target = rig.import().await;
    let mut other = sqlx::PgConnection::connect(rig.db.url()).await.unwrap();
    let mut holds = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE catalog.products IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holds)
        .await
        .unwrap();
    for (stop, expected) in [(CANCEL, "57014"), (TERMINATE, "57P01")] {
        let rows = chunk(many(100));
        let load = rig.try_load(&target, &rows);
        let (loaded, ()) = tokio::join!(load, until(rig.pool(), stop));
        assert_eq!(code(&loaded.unwrap_err()), expected);
    }
}

fn code(error: &sqlx::Error) -> String {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .unwrap()
        .into_owned()
}
