//! The limit: the same rows by bulk COPY into the same tables, indexes built afterwards.

use ingestd::{
    db::copy::{CopyIn, Jsonb},
    ingest::product_import::row::Chunk,
};
use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    measure::{Cost, Phase},
    rig::checkpoint,
};

const TABLES: [&str; 4] = [
    "CREATE SCHEMA raw",
    "CREATE TABLE raw.products (LIKE catalog.products
     INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING IDENTITY) WITH (fillfactor = 90)",
    "CREATE TABLE raw.product_prices (LIKE catalog.product_prices
     INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
    "CREATE TABLE raw.product_stocks (LIKE catalog.product_stocks
     INCLUDING DEFAULTS INCLUDING CONSTRAINTS)",
];

/// The catalog's own indexes, to be made on the copies.
const INDEXES: &str = "SELECT replace(indexdef, ' ON catalog.', ' ON raw.') FROM pg_indexes
    WHERE schemaname = 'catalog' AND tablename IN ('products', 'product_prices', 'product_stocks')";

const PRODUCTS: &str = "COPY raw.products (id, tenant, code, name, description, brand, category,
    ean, url, weight, source_updated_at, attributes, row_hash, import_id) FROM STDIN (FORMAT binary)";
const PRICES: &str = "COPY raw.product_prices (product_id, price, currency, import_id)
    FROM STDIN (FORMAT binary)";
const STOCKS: &str = "COPY raw.product_stocks (product_id, qty, import_id)
    FROM STDIN (FORMAT binary)";

/// Copies every row in bulk, builds the indexes, and drops the tables again.
pub(crate) async fn measure(conn: &mut PgConnection, chunks: &[Chunk]) -> anyhow::Result<Cost> {
    prepare(conn).await?;
    checkpoint(conn).await?;
    let phase = Phase::begin(conn).await?;
    load(conn, chunks).await?;
    let cost = phase.end(conn).await?;
    clear(conn).await?;
    Ok(cost)
}

/// Makes the tables without indexes.
async fn prepare(conn: &mut PgConnection) -> sqlx::Result<()> {
    for statement in TABLES {
        sqlx::query(statement).execute(&mut *conn).await?;
    }
    Ok(())
}

/// Drops the tables.
async fn clear(conn: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("DROP SCHEMA raw CASCADE").execute(conn).await?;
    Ok(())
}

/// Copies every row and builds the indexes; the row's number is its id.
async fn load(conn: &mut PgConnection, chunks: &[Chunk]) -> sqlx::Result<()> {
    let rows = || chunks.iter().flat_map(|chunk| &chunk.rows);
    let mut copy = CopyIn::begin(conn, PRODUCTS).await?;
    for row in rows() {
        copy.row(|out| {
            out.push(i64::from(row.row_no))
                .push("default")
                .push(row.code.as_str());
            out.push(row.name.as_str()).push(row.description.as_deref());
            out.push(row.brand.as_deref()).push(row.category.as_deref());
            out.push(row.ean.as_deref())
                .push(row.url.as_deref())
                .push(row.weight);
            out.push(row.updated_at)
                .push(row.attributes.as_ref().map(Jsonb));
            out.push(row.hash).push(1_i64);
        })
        .await?;
    }
    copy.finish().await?;
    let mut copy = CopyIn::begin(conn, PRICES).await?;
    for row in rows() {
        copy.row(|out| {
            out.push(i64::from(row.row_no)).push(row.price);
            out.push(row.currency.as_deref()).push(1_i64);
        })
        .await?;
    }
    copy.finish().await?;
    let mut copy = CopyIn::begin(conn, STOCKS).await?;
    for row in rows() {
        copy.row(|out| {
            out.push(i64::from(row.row_no)).push(row.stock).push(1_i64);
        })
        .await?;
    }
    copy.finish().await?;
    let indexes: Vec<String> = sqlx::query_scalar(INDEXES).fetch_all(&mut *conn).await?;
    for index in indexes {
        sqlx::query(AssertSqlSafe(index))
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
