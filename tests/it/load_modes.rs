//! What the modes make of rows that the catalog has, lacks, or has otherwise.

use ingestd::ingest::product_import::{
    load::{Loaded, Target, columns::Columns, preview::Preview, rehearse_chunk},
    plan::Mode,
};

use super::load_rig::{Rig, chunk, row, row_error};

const ERRORS: &str = "SELECT coalesce(string_agg(concat_ws(' ', value, code), ', '
    ORDER BY value), '') FROM catalog.import_errors";
const LIVE: &str = "SELECT coalesce(string_agg(code || ' ' || row_hash, ', ' ORDER BY code), '')
    FROM catalog.products WHERE archived_at IS NULL";

impl Rig {
    /// A catalog with A and B, and with C, which is archived.
    async fn stocked() -> Self {
        let rig = Self::new().await;
        let rows = [row("A", "1", 1), row("B", "2", 2), row("C", "3", 3)];
        rig.rows(Columns::ALL, &rows).await;
        rig.run("UPDATE catalog.products SET archived_at = now() WHERE code = 'C'")
            .await;
        rig
    }

    async fn load_as(&self, mode: Mode) -> Loaded {
        let target = Target {
            mode,
            ..self.import().await
        };
        let rows = vec![
            row("A", "1", 1),
            row("B", "9", 2),
            row("C", "3", 3),
            row("D", "4", 4),
        ];
        self.load(&target, &chunk(rows)).await
    }
}

#[tokio::test]
async fn insert_only_leaves_what_is_there() {
    let rig = Rig::stocked().await;
    let loaded = rig.load_as(Mode::InsertOnly).await;
    let expected = Loaded {
        inserted: 1,
        updated: 1, // C was archived, so it is not there
        unchanged: 1,
        turned_away: 1,
        ..Loaded::default()
    };
    assert_eq!(loaded, expected);
    assert_eq!(rig.ask(ERRORS).await, "B already_in_catalog");
    let prices = rig.prices().await;
    assert!(
        prices.contains("B 2EUR") && !prices.contains("B 9EUR"),
        "{prices}"
    );
    assert!(rig.ask(LIVE).await.contains("C "));
}

#[tokio::test]
async fn update_only_makes_nothing_new() {
    let rig = Rig::stocked().await;
    let loaded = rig.load_as(Mode::UpdateOnly).await;
    let expected = Loaded {
        updated: 1,
        unchanged: 1,
        turned_away: 2,
        ..Loaded::default()
    };
    assert_eq!(loaded, expected);
    assert_eq!(rig.ask(ERRORS).await, "C not_in_catalog, D not_in_catalog");
    let live = rig.ask(LIVE).await;
    assert!(!live.contains("C ") && !live.contains("D "), "{live}");
}

#[tokio::test]
async fn a_dry_run_counts_and_shows_and_writes_nothing() {
    let rig = Rig::stocked().await;
    let before = rig.fingerprint().await;
    let target = rig.import().await;
    let mut preview = Preview::default();
    let mut rows = vec![
        row("A", "1", 1),
        row("B", "9", 2),
        row("D", "4", 4),
        row("E", "5", 5),
    ];
    rows[3].name = "with a \0".into();
    for (row_no, row) in (2..).zip(&mut rows) {
        row.row_no = row_no;
    }
    let mut chunk = chunk(rows);
    chunk.errors.push(row_error(9, Some("Price"), Some("x")));
    chunk.n_bad = 1;
    let mut tx = rig.pool().begin().await.unwrap();
    let written = rehearse_chunk(&mut tx, &target, &chunk, &mut preview)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let expected = Loaded {
        inserted: 1,
        updated: 1,
        unchanged: 1,
        refused: 1,
        bad: 1,
        ..Loaded::default()
    };
    assert_eq!(written.loaded, expected);
    assert_eq!(rig.fingerprint().await, before, "the catalog was written");
    let kept = "SELECT count(*)::text FROM catalog.product_changes";
    assert_eq!(rig.ask(kept).await, "0");
    let shown = serde_json::to_value(&preview).unwrap();
    assert_eq!(shown["new"][0]["code"], "D");
    assert_eq!(shown["new"][0]["values"]["price"], "4");
    let price = serde_json::json!({ "price": { "from": "2", "to": "9" } });
    assert_eq!(shown["changed"][0]["changes"], price);
    assert_eq!(shown["unchanged"].as_array().unwrap().len(), 1);
    assert_eq!(shown["unchanged"][0]["code"], "A");
    let rejected = shown["rejected"].as_array().unwrap();
    let rejected: Vec<_> = rejected.iter().map(|row| row["row"].clone()).collect();
    assert_eq!(rejected, [5, 9]);
}

#[tokio::test]
async fn what_was_is_kept_of_changed_rows_and_nothing_of_new_and_unchanged_ones() {
    let rig = Rig::new().await;
    let kept = "SELECT coalesce(string_agg(concat_ws(' ', p.code, c.name, c.price, c.qty,
            c.was_import_id, c.price_import_id), ', ' ORDER BY p.code), '')
        FROM catalog.product_changes c JOIN catalog.products p ON p.id = c.product_id";
    let (first, _) = rig
        .rows(Columns::ALL, &[row("A", "1", 1), row("B", "2", 2)])
        .await;
    assert_eq!(rig.ask(kept).await, "");
    let before = rig.fingerprint().await;
    rig.rows(Columns::ALL, &[row("A", "1", 1), row("B", "2", 2)])
        .await;
    assert_eq!(rig.ask(kept).await, "");
    assert_eq!(
        rig.fingerprint().await,
        before,
        "unchanged rows cost no write"
    );
    rig.rows(
        Columns::ALL,
        &[row("A", "1", 1), row("B", "3", 2), row("C", "4", 4)],
    )
    .await;
    assert_eq!(
        rig.ask(kept).await,
        format!("B name of B 2 2 {first} {first}")
    );
}

#[tokio::test]
async fn an_edit_beside_the_imports_is_noticed() {
    let rig = Rig::new().await;
    let rows = [row("A", "1", 1), row("B", "2", 2)];
    rig.rows(Columns::ALL, &rows).await;
    rig.run("UPDATE catalog.products SET name = 'mine' WHERE code = 'A'")
        .await;
    let noted = "SELECT string_agg(concat_ws(' ', code, row_hash IS NULL, updated_at > created_at),
        ', ' ORDER BY code) FROM catalog.products";
    assert_eq!(rig.ask(noted).await, "A t t, B f f");
    let (_, loaded) = rig.rows(Columns::ALL, &rows).await;
    assert_eq!((loaded.updated, loaded.unchanged), (1, 1));
}
