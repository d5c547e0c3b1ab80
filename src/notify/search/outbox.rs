//! The outbox: which products changed since the server was told.

use std::collections::{BTreeMap, HashSet};

use sqlx::{FromRow, PgConnection};

use super::document::Product;

/// Products of one note at most.
const MOST_OF_A_NOTE: i32 = 1000;

/// Notes products that changed, in the transaction that changes them.
///
/// Whoever writes `catalog.products`, prices or stocks calls it with the products' ids where
/// `config.search.is_on()`; archived and removed ones are noted the same way.
///
/// # Errors
///
/// What Postgres says.
pub async fn note(conn: &mut PgConnection, product_ids: &[i64]) -> sqlx::Result<()> {
    if product_ids.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO catalog.search_outbox (product_ids)
         SELECT ($1::int8[])[nth : nth + $2 - 1]
         FROM generate_series(1, cardinality($1::int8[]), $2) nth",
    )
    .bind(product_ids)
    .bind(MOST_OF_A_NOTE)
    .execute(conn)
    .await?;
    Ok(())
}

/// A product that is to be told of, as it was when it was read.
#[derive(Debug, FromRow)]
pub(super) struct Told {
    /// The note that asks for it; `None`: a rebuild or a retry does.
    pub(super) seq: Option<i64>,
    /// The product's id, be there such a product or not.
    pub(super) product_id: i64,
    /// Whether it is there and not archived; else its document is to be removed.
    pub(super) is_live: bool,
    /// What it is.
    #[sqlx(flatten)]
    pub(super) product: Product,
}

/// Reads the first notes after `after`, of `limit` products and those that the last note has more,
/// with their products.
pub(super) async fn notes(
    conn: &mut PgConnection,
    after: i64,
    limit: u32,
) -> sqlx::Result<Vec<Told>> {
    sqlx::query_as(include_str!("notes.sql"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await
}

/// Reads the products that were refused and are due again, at most `limit`.
pub(super) async fn due(
    conn: &mut PgConnection,
    collection: &str,
    limit: u32,
) -> sqlx::Result<Vec<Told>> {
    sqlx::query_as(include_str!("due.sql"))
        .bind(collection)
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await
}

/// Reads the live products with ids after `after`, at most `limit`, by id.
pub(super) async fn page(
    conn: &mut PgConnection,
    after: i64,
    limit: u32,
) -> sqlx::Result<Vec<Told>> {
    sqlx::query_as(include_str!("page.sql"))
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await
}

/// Draws the version of what is read next.
pub(super) async fn version(conn: &mut PgConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT nextval('catalog.search_version')")
        .fetch_one(conn)
        .await
}

/// What became of a batch's products.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Notes whose products are all dealt with.
    pub(super) done: Vec<i64>,
    /// Notes of which products are left, and which.
    pub(super) left: Vec<(i64, Vec<i64>)>,
    /// Products that the server took, or whose removal it took.
    pub(super) taken: Vec<i64>,
    /// Products that it refused, and why.
    pub(super) refused: Vec<(i64, String)>,
    /// How many of the taken were removals.
    pub(super) n_deleted: usize,
}

impl Settled {
    /// Finds the notes that are dealt with, and what is left of the others.
    pub(super) fn sort_notes(&mut self, told: &[Told]) {
        let refused = self.refused.iter().map(|(id, _)| *id);
        let dealt_with: HashSet<i64> = self.taken.iter().copied().chain(refused).collect();
        let mut left: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for told in told {
            let Some(seq) = told.seq else { continue };
            let left = left.entry(seq).or_default();
            if !dealt_with.contains(&told.product_id) {
                left.push(told.product_id);
            }
        }
        for (seq, left) in left {
            if left.is_empty() {
                self.done.push(seq);
            } else {
                self.left.push((seq, left));
            }
        }
    }
}

/// Takes away the notes that are dealt with and keeps the reasons of those that were refused.
pub(super) async fn settle(
    conn: &mut PgConnection,
    collection: &str,
    settled: &Settled,
) -> sqlx::Result<()> {
    // A note that another worker dealt with meanwhile is gone, which is as good.
    sqlx::query("DELETE FROM catalog.search_outbox WHERE seq = ANY ($1)")
        .bind(&settled.done)
        .execute(&mut *conn)
        .await?;
    for (seq, left) in &settled.left {
        sqlx::query("UPDATE catalog.search_outbox SET product_ids = $2 WHERE seq = $1")
            .bind(seq)
            .bind(left)
            .execute(&mut *conn)
            .await?;
    }
    sqlx::query(
        "DELETE FROM catalog.search_failures WHERE collection = $1 AND product_id = ANY ($2)",
    )
    .bind(collection)
    .bind(&settled.taken)
    .execute(&mut *conn)
    .await?;
    if settled.refused.is_empty() {
        return Ok(());
    }
    let (ids, errors): (Vec<i64>, Vec<&str>) = settled
        .refused
        .iter()
        .map(|(id, error)| (*id, error.as_str()))
        .unzip();
    sqlx::query(include_str!("refuse.sql"))
        .bind(collection)
        .bind(ids)
        .bind(errors)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Database;

    /// What changed first is told first, and no more at once than was asked for: under imports that
    /// never end an old note would wait for ever behind new ones.
    #[tokio::test]
    async fn notes_are_read_from_the_oldest_on() {
        let db = Database::create().await;
        let mut conn = db.pool().acquire().await.unwrap();
        for ids in [[5, 6], [3, 4], [1, 2]] {
            note(&mut conn, &ids).await.unwrap();
        }
        let mut after = 0;
        for expected in [vec![5, 6], vec![3, 4], vec![1, 2], vec![]] {
            let told = notes(&mut conn, after, 2).await.unwrap();
            let ids: Vec<i64> = told.iter().map(|told| told.product_id).collect();
            assert_eq!(ids, expected);
            assert!(told.iter().all(|told| !told.is_live), "there are none");
            after = told.last().and_then(|told| told.seq).unwrap_or_default();
        }
    }
}
