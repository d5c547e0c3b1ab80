//! What people ask and do.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, PgExecutor};

use crate::config;

/// Where the search sync stands. No count of failures is above 10,001.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Status {
    /// The alias under which is searched.
    pub collection: String,
    /// Whether a search server is configured.
    pub is_configured: bool,
    /// The collection that the alias leads to; `None`: none was built yet.
    pub live: Option<String>,
    /// The collection that a rebuild fills.
    pub building: Option<String>,
    /// Documents that the rebuild sent so far.
    pub build_rows: i64,
    /// When the rebuild began.
    pub build_began_at: Option<DateTime<Utc>>,
    /// Whether the configured fields are others than the live collection was made with: a rebuild
    /// is needed.
    pub fields_changed: bool,
    /// Products of the first 10,001 notes that the server was not told of yet, each as often as it
    /// is noted.
    pub noted: i64,
    /// When the oldest of them was made.
    pub oldest_note_at: Option<DateTime<Utc>>,
    /// Products that it refused and that are tried again.
    pub retrying: i64,
    /// Products that it refused and that are kept.
    pub kept: i64,
    /// When everything noted had last been taken.
    pub synced_at: Option<DateTime<Utc>>,
    /// When the alias was last led to another collection.
    pub switched_at: Option<DateTime<Utc>>,
    /// Documents that the server took, ever.
    pub upserted: i64,
    /// Documents whose removal it took, ever.
    pub deleted: i64,
    /// Until when it asked to be left alone.
    pub wait_until: Option<DateTime<Utc>>,
    /// What went wrong last; `None`: the last exchange went well.
    pub trouble: Option<String>,
    /// When it did.
    pub trouble_at: Option<DateTime<Utc>>,
}

/// Returns where the search sync stands.
///
/// # Errors
///
/// What Postgres says.
pub async fn status(db: impl PgExecutor<'_>, settings: &config::Search) -> sqlx::Result<Status> {
    sqlx::query_as(include_str!("status.sql"))
        .bind(&settings.collection)
        .bind(settings.is_on())
        .bind(&settings.fields)
        .fetch_one(db)
        .await
}

/// A product that the server refused.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Failure {
    /// The product's id, and the document's.
    pub product_id: i64,
    /// Its owner; `None`: the product is gone.
    pub tenant: Option<String>,
    /// Its code.
    pub code: Option<String>,
    /// How often it was refused in a row.
    pub attempts: i16,
    /// What the server said.
    pub error: String,
    /// When it was last refused.
    pub failed_at: DateTime<Utc>,
    /// When it is tried again; `None`: kept until it changes or somebody asks for a retry.
    pub retry_at: Option<DateTime<Utc>>,
}

/// Lists what the server refused, the products with ids behind `after`, at most `limit`, by id.
///
/// # Errors
///
/// What Postgres says.
pub async fn failures(
    db: impl PgExecutor<'_>,
    collection: &str,
    after: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Failure>> {
    sqlx::query_as(
        "SELECT f.product_id, p.tenant, p.code, f.attempts, f.error, f.failed_at, f.retry_at
         FROM catalog.search_failures f LEFT JOIN catalog.products p ON p.id = f.product_id
         WHERE f.collection = $1 AND f.product_id > $2 ORDER BY f.product_id LIMIT $3",
    )
    .bind(collection)
    .bind(after.unwrap_or(i64::MIN))
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Makes everything that the server refused due now; returns how many. A sync sends them.
///
/// # Errors
///
/// What Postgres says.
pub async fn retry(conn: &mut PgConnection, collection: &str) -> sqlx::Result<u64> {
    let done = sqlx::query(
        "UPDATE catalog.search_failures SET retry_at = now(), attempts = 1
         WHERE collection = $1 AND retry_at IS DISTINCT FROM now()",
    )
    .bind(collection)
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}
