//! What loading a chunk makes of the catalog, to the row.

use chrono::NaiveDate;
use ingestd::ingest::product_import::{
    load::{Loaded, Target, Written, columns::Columns},
    plan::Mode,
    row::{Chunk, ProductRow, attributes::Attributes},
    store,
};

use super::load_rig::{Rig, chunk, many, row, row_error};

#[tokio::test]
async fn a_new_row_fills_every_column() {
    let rig = Rig::new().await;
    let full = ProductRow {
        row_no: 2,
        code: "00123".into(),
        name: "Kotouč \"brzdový\"".into(),
        description: Some("two\nlines\tand a \\".into()),
        brand: Some("Ésprit".into()),
        category: Some("".into()),
        price: Some("1118.270".parse().unwrap()),
        currency: Some("CZK".into()),
        stock: Some(i64::MAX),
        ean: Some("0859000000001".into()),
        url: Some("https://example.com/?a=1&b=2".into()),
        weight: Some("0.0005".parse().unwrap()),
        updated_at: NaiveDate::from_ymd_opt(1999, 12, 31)
            .and_then(|d| d.and_hms_micro_opt(23, 59, 59, 1)),
        attributes: serde_json::json!({"Farbe": "grün", "Anzahl": 4})
            .as_object()
            .cloned()
            .map(Into::into),
        hash: -5,
    };
    let (id, loaded) = rig.rows(Columns::ALL, &[full]).await;
    assert_eq!(
        loaded,
        Loaded {
            inserted: 1,
            ..Loaded::default()
        }
    );
    let product = rig
        .ask(
            "SELECT concat_ws('|', tenant, code, name, description, brand, category, ean, url, weight,
               source_updated_at, attributes, row_hash, import_id, archived_at) FROM catalog.products",
        )
        .await;
    let expected = "default|00123|Kotouč \"brzdový\"|two\nlines\tand a \\|Ésprit||0859000000001|\
        https://example.com/?a=1&b=2|0.0005|1999-12-31 23:59:59.000001|\
        {\"Farbe\": \"grün\", \"Anzahl\": 4}|-5|";
    assert_eq!(product, format!("{expected}{id}"));
    assert_eq!(rig.prices().await, format!("00123 1118.270CZK {id}*"));
    assert_eq!(rig.stocks().await, format!("00123 {} {id}*", i64::MAX));
}

#[tokio::test]
async fn a_row_of_code_and_name_alone_has_no_price_and_no_stock() {
    let rig = Rig::new().await;
    let bare = ProductRow {
        code: "A".into(),
        name: "a".into(),
        ..ProductRow::default()
    };
    rig.rows(Columns::NONE, &[bare]).await;
    assert_eq!(rig.prices().await + &rig.stocks().await, "");
    let bare = "SELECT count(*)::text FROM catalog.products
        WHERE num_nulls(description, brand, category, ean, url, weight, source_updated_at, attributes) = 8";
    assert_eq!(rig.ask(bare).await, "1");
}

#[tokio::test]
async fn a_second_import_writes_what_differs_and_keeps_what_was() {
    let rig = Rig::new().await;
    let (first, _) = rig
        .rows(
            Columns::ALL,
            &[
                row("A", "1.50", 3),
                row("B", "2", 3),
                row("C", "3", 3),
                row("D", "4", 3),
            ],
        )
        .await;
    let (second, loaded) = rig
        .rows(
            Columns::ALL,
            &[
                row("D", "4.00", 7),
                row("B", "2.5", 3),
                row("E", "5", 1),
                row("A", "1.50", 3),
            ],
        )
        .await;
    let expected = Loaded {
        inserted: 1,
        updated: 2,
        unchanged: 1,
        ..Loaded::default()
    };
    assert_eq!(loaded, expected);
    assert_eq!(
        rig.prices().await,
        format!(
            "A 1.50EUR {first}*, B 2EUR {first}, B 2.5EUR {second}*, C 3EUR {first}*, \
             D 4EUR {first}*, E 5EUR {second}*"
        )
    );
    assert_eq!(
        rig.stocks().await,
        format!(
            "A 3 {first}*, B 3 {first}*, C 3 {first}*, D 3 {first}, D 7 {second}*, E 1 {second}*"
        )
    );
    let touched =
        "SELECT string_agg(code || import_id || (updated_at > created_at), ' ' ORDER BY code)
        FROM catalog.products";
    assert_eq!(
        rig.ask(touched).await,
        format!("A{first}false B{second}true C{first}false D{second}true E{second}false")
    );
    let handed_over = "SELECT bool_and(old.archived_at = new.valid_from)::text
        FROM catalog.product_prices old JOIN catalog.product_prices new USING (product_id)
        WHERE old.archived_at IS NOT NULL AND new.archived_at IS NULL";
    assert_eq!(rig.ask(handed_over).await, "true");
}

#[tokio::test]
async fn an_absent_column_keeps_and_an_empty_cell_clears() {
    let rig = Rig::new().await;
    let full = ProductRow {
        brand: Some("Acme".into()),
        weight: Some("2.5".parse().unwrap()),
        attributes: serde_json::json!({"a": 1})
            .as_object()
            .cloned()
            .map(Into::into),
        ..row("A", "1.50", 3)
    };
    let (first, _) = rig.rows(Columns::ALL, &[full]).await;
    let bare = |hash| ProductRow {
        code: "A".into(),
        name: "new".into(),
        hash,
        ..ProductRow::default()
    };
    let now = "SELECT concat_ws(' ', name, brand, weight, attributes) FROM catalog.products";

    let (_, loaded) = rig.rows(Columns::NONE, &[bare(1)]).await;
    assert_eq!(loaded.updated, 1);
    assert_eq!(rig.ask(now).await, "new Acme 2.5 {\"a\": 1}");
    assert_eq!(rig.prices().await, format!("A 1.50EUR {first}*"));
    assert_eq!(rig.stocks().await, format!("A 3 {first}*"));

    let most = Columns::ALL
        .without(Columns::WEIGHT)
        .without(Columns::STOCK);
    rig.rows(most, &[bare(2)]).await;
    assert_eq!(rig.ask(now).await, "new 2.5");
    assert_eq!(rig.prices().await, format!("A 1.50EUR {first}"));
    assert_eq!(rig.stocks().await, format!("A 3 {first}*"));
}

/// The bits of `Columns` stand in `update.sql` as numbers; each must name the column it says.
#[tokio::test]
async fn each_column_of_the_set_is_the_column_of_the_update() {
    let rig = Rig::new().await;
    for (column, name) in [
        (Columns::DESCRIPTION, "description"),
        (Columns::BRAND, "brand"),
        (Columns::CATEGORY, "category"),
        (Columns::EAN, "ean"),
        (Columns::URL, "url"),
        (Columns::WEIGHT, "weight"),
        (Columns::UPDATED_AT, "source_updated_at"),
        (Columns::ATTRIBUTES, "attributes"),
    ] {
        let full = |hash| ProductRow {
            description: Some("x".into()),
            brand: Some("x".into()),
            category: Some("x".into()),
            ean: Some("x".into()),
            url: Some("x".into()),
            weight: Some("1".parse().unwrap()),
            updated_at: NaiveDate::from_ymd_opt(2024, 1, 1).and_then(|d| d.and_hms_opt(0, 0, 0)),
            attributes: Some(Attributes::default()),
            hash,
            ..row(name, "1", 1)
        };
        let bare = ProductRow {
            code: name.into(),
            name: name.into(),
            hash: 1,
            ..ProductRow::default()
        };
        rig.rows(Columns::NONE, &[bare]).await;
        rig.rows(column, &[full(2)]).await;
    }
    let set = "SELECT count(*) || ' ' || bool_and(to_jsonb(p) ? 'code'
          AND (SELECT array_agg(key) FROM jsonb_each(to_jsonb(p)) WHERE value <> 'null'
               AND key IN ('description', 'brand', 'category', 'ean', 'url', 'weight',
                           'source_updated_at', 'attributes')) = ARRAY[p.code])
        FROM catalog.products p";
    assert_eq!(rig.ask(set).await, "8 true");
    assert_eq!(rig.prices().await + &rig.stocks().await, "");
}

#[tokio::test]
async fn the_same_chunk_twice_changes_nothing() {
    let rig = Rig::new().await;
    let rows = many(500);
    let target = rig.import().await;
    let first = rig.load(&target, &chunk(rows.clone())).await;
    let before = rig.fingerprint().await;
    let again = rig.load(&target, &chunk(rows)).await;
    assert_eq!(
        first,
        Loaded {
            inserted: 500,
            ..Loaded::default()
        }
    );
    assert_eq!(
        again,
        Loaded {
            unchanged: 500,
            ..Loaded::default()
        }
    );
    assert_eq!(rig.fingerprint().await, before);
}

#[tokio::test]
async fn an_archived_product_that_appears_again_is_live() {
    let rig = Rig::new().await;
    let rows = [row("A", "1", 1), row("B", "2", 2)];
    rig.rows(Columns::ALL, &rows).await;
    rig.run("UPDATE catalog.products SET archived_at = now() WHERE code = 'A'")
        .await;
    let (_, loaded) = rig.rows(Columns::ALL, &rows).await;
    assert_eq!(
        loaded,
        Loaded {
            updated: 1,
            unchanged: 1,
            ..Loaded::default()
        }
    );
    assert_eq!(
        rig.ask("SELECT count(archived_at)::text FROM catalog.products")
            .await,
        "0"
    );
}

#[tokio::test]
async fn a_product_written_by_others_is_compared_no_more() {
    let rig = Rig::new().await;
    rig.rows(Columns::ALL, &[row("A", "1", 1)]).await;
    rig.run("UPDATE catalog.products SET name = 'by hand', row_hash = NULL")
        .await;
    let (_, loaded) = rig.rows(Columns::ALL, &[row("A", "1", 1)]).await;
    assert_eq!(loaded.updated, 1);
    assert_eq!(
        rig.ask("SELECT name FROM catalog.products").await,
        "name of A"
    );
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let rig = Rig::new().await;
    let target = rig.import().await;
    for tenant in ["default", "other"] {
        let loaded = rig
            .load(&Target { tenant, ..target }, &chunk(many(10)))
            .await;
        assert_eq!(loaded.inserted, 10);
    }
    let two = "SELECT count(*) || ' ' || count(DISTINCT tenant) FROM catalog.products";
    assert_eq!(rig.ask(two).await, "20 2");
}

/// Rows in the order of their codes are looked for in one walk along the codes, others among the
/// products that lie around a few of them or one by one: all find the same, whatever lies between.
#[tokio::test]
async fn the_order_of_a_file_does_not_matter() {
    for (n_rows, n_between, is_sorted) in [
        (20, 0, true),
        (20, 1, true),
        (20, 40, true), // too much lies between
        (20, 0, false),
        (20, 40, false), // too few for a walk along the ids
        (400, 0, false),
        (400, 900, false),
        (400, 0, true),
    ] {
        let rig = Rig::new().await;
        let target = rig.import().await;
        let n_known = n_rows as usize - 6;
        // the other tenant has the very rows that are new here, and right before the others
        let tenant = "other";
        let other = Target { tenant, ..target };
        rig.load(&other, &chunk(many(n_rows))).await;
        let mut known = many(n_rows);
        known.truncate(n_known);
        known[3] = row("C00003", "9.00", 3);
        let between = (0..n_between).map(|n| row(&format!("C00001-{n}"), "1.50", 3));
        known.extend(between);
        rig.load(&target, &chunk(known)).await;
        rig.run(
            "UPDATE catalog.products SET archived_at = now() WHERE code IN ('C00005', 'C00001-0')
             AND tenant = 'default'",
        )
        .await;
        let mut rows = many(n_rows);
        if !is_sorted {
            rows.swap(0, 19);
        }
        let expected = Loaded {
            inserted: 6,
            updated: 2,
            unchanged: n_rows - 8,
            ..Loaded::default()
        };
        let loaded = rig.load(&target, &chunk(rows.clone())).await;
        let case = format!("{n_rows} rows, {n_between} between, sorted {is_sorted}");
        assert_eq!(loaded, expected, "{case}");
        let again = rig.load(&target, &chunk(rows)).await;
        assert_eq!(again.unchanged, n_rows, "{case}");
    }
}

#[tokio::test]
async fn what_was_expected_to_be_new_may_be_there() {
    let rig = Rig::new().await;
    let target = Target {
        expects_new: true,
        ..rig.import().await
    };
    // in no order of their codes, in which they would be looked for all the same
    let backwards = |n| many(n).into_iter().rev().collect::<Vec<_>>();
    let first = rig.load(&target, &chunk(backwards(300))).await;
    assert_eq!(first.inserted, 300);
    let mut rows = backwards(310);
    (rows[50].name, rows[50].hash) = ("not to be stored: \0".into(), 1);
    (rows[60].name, rows[60].hash) = ("another".into(), 2);
    let expected = Loaded {
        inserted: 10,
        updated: 1,
        unchanged: 298,
        refused: 1,
        ..Loaded::default()
    };
    assert_eq!(rig.load(&target, &chunk(rows)).await, expected);
    let found = "SELECT count(*) || ' ' || count(DISTINCT code) || ' ' ||
        count(*) FILTER (WHERE name = 'another') FROM catalog.products";
    assert_eq!(rig.ask(found).await, "310 310 1");
    // who updates only must not take it on trust, either
    let target = Target {
        mode: Mode::UpdateOnly,
        ..target
    };
    let loaded = rig.load(&target, &chunk(backwards(300))).await;
    assert_eq!((loaded.unchanged, loaded.turned_away), (299, 0));
}

#[tokio::test]
async fn errors_are_stored_as_they_were_found() {
    let rig = Rig::new().await;
    let target = rig.import().await;
    let bad = Chunk {
        errors: vec![
            row_error(4, Some("Cena"), Some("1.234,56 €")),
            row_error(4, None, None),
            row_error(9, Some("a\0b"), Some("nul \0 inside")),
        ],
        n_rows: 3,
        n_bad: 2,
        ..chunk(vec![row("A", "1", 1)])
    };
    let loaded = rig.load(&target, &bad).await;
    assert_eq!(
        loaded,
        Loaded {
            inserted: 1,
            bad: 2,
            ..Loaded::default()
        }
    );
    let errors = "SELECT string_agg(concat_ws('|', import_id > 0, sheet, row_no, column_name, code,
        message, value), E'\\n' ORDER BY row_no, id) FROM catalog.import_errors";
    assert_eq!(
        rig.ask(errors).await,
        "t|Products|4|Cena|invalid_number|this is no number|1.234,56 €\n\
         t|Products|4|invalid_number|this is no number\n\
         t|Products|9|a\u{fffd}b|invalid_number|this is no number|nul \u{fffd} inside"
    );
}

#[tokio::test]
async fn the_log_adds_up_what_came_of_the_rows() {
    let rig = Rig::new().await;
    let target = rig.import().await;
    rig.load(&target, &chunk(many(4))).await;
    let bad = Chunk {
        n_rows: 3,
        n_bad: 2,
        ..chunk(many(1))
    };
    rig.load(&target, &bad).await;
    rig.load(&target, &chunk(vec![row("C00000", "9", 9)])).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let import = store::find(&mut conn, target.import_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            import.created_count,
            import.updated_count,
            import.unchanged_count
        ),
        (4, 1, 1)
    );
    assert_eq!((import.success_count, import.error_count), (6, 2));
    assert_eq!(
        (import.file_name.as_str(), import.file_sha256),
        ("products.xlsx", "07".repeat(32))
    );

    let lost = store::count(&mut conn, -1, &Written::default()).await;
    assert!(matches!(lost, Err(sqlx::Error::RowNotFound)));
    assert!(store::find(&mut conn, -1).await.unwrap().is_none());
}
