//! Two imports of one tenant at once.

use std::sync::Arc;

use ingestd::ingest::product_import::{
    load::{Turn, columns::Columns, load_chunk, take_turn},
    row::ProductRow,
};
use tokio::task::JoinSet;

use super::load_rig::{Rig, chunk, many, row, until};

/// Both imports hold the same codes, one in reverse and with other prices, in chunks that overlap.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_imports_at_once_neither_deadlock_nor_double() {
    let rig = Arc::new(Rig::new().await);
    let mut other: Vec<ProductRow> = (0..2_000)
        .map(|i| row(&format!("C{i:05}"), "2.50", 4))
        .collect();
    other.reverse();
    let mut loaders = JoinSet::new();
    for rows in [many(2_000), other] {
        let rig = Arc::clone(&rig);
        loaders.spawn(async move {
            let target = rig.import().await;
            for rows in rows.chunks(300) {
                let loaded = rig.try_load(&target, &chunk(rows.to_vec())).await?;
                assert_eq!(loaded.refused, 0);
            }
            Ok::<_, sqlx::Error>(())
        });
    }
    for loaded in loaders.join_all().await {
        loaded.unwrap();
    }
    // Whoever came last, price and stock are those of the row that the product says it is.
    let whole =
        "SELECT concat_ws(' ', count(*), count(DISTINCT code), count(x.price), count(s.qty),
            bool_and(x.import_id = p.import_id AND s.import_id = p.import_id
                     AND (x.price = 2.5) = (s.qty = 4)))
        FROM catalog.products p
        LEFT JOIN catalog.product_prices x ON x.product_id = p.id AND x.archived_at IS NULL
        LEFT JOIN catalog.product_stocks s ON s.product_id = p.id AND s.archived_at IS NULL";
    assert_eq!(rig.ask(whole).await, "2000 2000 2000 2000 t");
    let history = "SELECT count(*)::text FROM catalog.product_prices WHERE archived_at IS NOT NULL";
    assert_eq!(
        rig.ask(history).await,
        "2000",
        "each product was written by both"
    );
}

/// Whatever two chunks of one owner hold, the second looks at the catalog when the first is in it.
#[tokio::test]
async fn chunks_of_an_owner_take_turns() {
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = 'advisory')";
    let rig = Rig::new().await;
    let (first, second) = (rig.import().await, rig.import().await);
    let mut tx = rig.pool().begin().await.unwrap();
    take_turn(&mut tx, first.tenant, Turn::Alone).await.unwrap();
    let written = load_chunk(&mut tx, &first, &chunk(vec![row("A", "1", 1)])).await;
    assert_eq!(written.unwrap().0.loaded.inserted, 1);
    let rows = chunk(vec![row("A", "2", 1), row("B", "2", 1)]);
    let commit = async {
        until(rig.pool(), WAITS).await;
        tx.commit().await.unwrap();
    };
    let (loaded, ()) = tokio::join!(rig.load(&second, &rows), commit);
    assert_eq!((loaded.inserted, loaded.updated), (1, 1));
}

/// Whether the loader waits for a row of somebody else's.
const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
    AND wait_event_type = 'Lock' AND query LIKE 'COPY catalog.products%')";

/// A person's INSERT takes no turns: the loader meets it as a duplicate key and looks again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_inserted_meanwhile_is_updated_after_all() {
    let rig = Rig::new().await;
    let target = rig.import().await;
    let mut person = rig.pool().begin().await.unwrap();
    sqlx::query("INSERT INTO catalog.products (code, name) VALUES ('C00005', 'by hand')")
        .execute(&mut *person)
        .await
        .unwrap();
    let rows = chunk(many(100));
    let (loaded, ()) = tokio::join!(rig.load(&target, &rows), async {
        until(rig.pool(), WAITS).await;
        person.commit().await.unwrap();
    });
    assert_eq!(
        (loaded.inserted, loaded.updated, loaded.refused),
        (99, 1, 0)
    );
    let name = "SELECT name FROM catalog.products WHERE code = 'C00005'";
    assert_eq!(rig.ask(name).await, "name of C00005");
}

/// Nor does a person's DELETE: a row that is not there any more does not count as changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_deleted_meanwhile_is_not_taken_for_changed() {
    const WAITS: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'
          AND query LIKE '-- Changed products.%')";
    let rig = Rig::new().await;
    rig.rows(Columns::ALL, &many(100)).await;
    let target = rig.import().await;
    let mut person = rig.pool().begin().await.unwrap();
    sqlx::query("DELETE FROM catalog.products WHERE code = 'C00005'")
        .execute(&mut *person)
        .await
        .unwrap();
    let mut rows = many(100);
    for row in &mut rows {
        row.name = format!("{}, changed", row.name).into();
        row.hash ^= 1;
    }
    let rows = chunk(rows);
    let (loaded, ()) = tokio::join!(rig.try_load(&target, &rows), async {
        until(rig.pool(), WAITS).await;
        person.commit().await.unwrap();
    });
    assert!(
        matches!(loaded, Err(sqlx::Error::RowNotFound)),
        "{loaded:?}"
    );
    let loaded = rig.load(&target, &rows).await;
    assert_eq!((loaded.inserted, loaded.updated), (1, 99));
}
