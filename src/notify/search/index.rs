//! `catalog.search_indexes`: which collection is behind the alias, and how far its rebuild is.

use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgExecutor};

/// Where an alias stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub(super) struct Index {
    /// The collection that is searched.
    pub(super) live: Option<String>,
    /// The collection that a rebuild fills.
    pub(super) building: Option<String>,
    /// The fields that it was made with.
    pub(super) build_fields: Option<Vec<String>>,
    /// Products up to this id are in it.
    pub(super) build_after: i64,
    /// Documents sent to it by the rebuild's pages.
    pub(super) build_rows: i64,
    /// Collections to be dropped.
    pub(super) retired: Vec<String>,
    /// Until when the server wants to be left alone.
    pub(super) wait_until: Option<DateTime<Utc>>,
    /// The database's time.
    pub(super) now: DateTime<Utc>,
}

impl Index {
    /// Returns the collections that changes go to.
    pub(super) fn targets(&self) -> Vec<String> {
        let both = [&self.live, &self.building];
        both.into_iter().flatten().cloned().collect()
    }
}

/// Returns where an alias stands, `None` where nothing was ever built.
pub(super) async fn find(db: impl PgExecutor<'_>, alias: &str) -> sqlx::Result<Option<Index>> {
    sqlx::query_as(
        "SELECT live, building, build_fields, build_after, build_rows, retired, wait_until,
                clock_timestamp() AS now
         FROM catalog.search_indexes WHERE alias = $1",
    )
    .bind(alias)
    .fetch_optional(db)
    .await
}

/// Begins a rebuild, or goes on with the one that is under way; where that one has other fields
/// than are wanted now, its collection is retired and another begun.
pub(super) async fn begin_build(
    conn: &mut PgConnection,
    alias: &str,
    fields: &[String],
) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO catalog.search_indexes (alias) VALUES ($1) ON CONFLICT DO NOTHING")
        .bind(alias)
        .execute(&mut *conn)
        .await?;
    // The sequence keeps apart two that begin within a second.
    sqlx::query(
        "UPDATE catalog.search_indexes SET
           retired = CASE WHEN building IS NULL THEN retired ELSE retired || building END,
           building = format('%s_%s_%s', alias,
             to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD\"T\"HH24MISS'),
             nextval('catalog.search_version')),
           build_fields = $2, build_after = 0, build_rows = 0, build_began_at = clock_timestamp()
         WHERE alias = $1 AND (building IS NULL OR build_fields IS DISTINCT FROM $2)",
    )
    .bind(alias)
    .bind(fields)
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a page is in the collection being built. `false`: somebody else got there first.
pub(super) async fn advance_build(
    conn: &mut PgConnection,
    alias: &str,
    building: &str,
    (from, to): (i64, i64),
    n_rows: usize,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "UPDATE catalog.search_indexes SET build_after = $4, build_rows = build_rows + $5
         WHERE alias = $1 AND building = $2 AND build_after = $3",
    )
    .bind(alias)
    .bind(building)
    .bind(from)
    .bind(to)
    .bind(i64::try_from(n_rows).unwrap_or(i64::MAX))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that the alias leads to the collection that was built. `false`: it was noted before.
pub(super) async fn switch(
    conn: &mut PgConnection,
    alias: &str,
    building: &str,
) -> sqlx::Result<bool> {
    let done = sqlx::query(
        "UPDATE catalog.search_indexes SET
           retired = CASE WHEN live IS NULL THEN retired ELSE retired || live END,
           live = building, live_fields = build_fields, switched_at = clock_timestamp(),
           building = NULL, build_fields = NULL, build_after = 0, build_rows = 0,
           build_began_at = NULL
         WHERE alias = $1 AND building = $2",
    )
    .bind(alias)
    .bind(building)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that a retired collection is dropped.
pub(super) async fn dropped(conn: &mut PgConnection, alias: &str, name: &str) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE catalog.search_indexes SET retired = array_remove(retired, $2)
         WHERE alias = $1 AND $2 = ANY (retired)",
    )
    .bind(alias)
    .bind(name)
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that a collection is not on the server any more: it takes no more changes, and one that
/// was being built begins anew.
pub(super) async fn lost(conn: &mut PgConnection, alias: &str, name: &str) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE catalog.search_indexes SET
           live = nullif(live, $2),
           build_fields = CASE WHEN building = $2 THEN NULL ELSE build_fields END
         WHERE alias = $1 AND (live = $2 OR building = $2)",
    )
    .bind(alias)
    .bind(name)
    .execute(conn)
    .await?;
    Ok(())
}

/// Counts what the server took.
pub(super) async fn count(
    conn: &mut PgConnection,
    alias: &str,
    n_upserted: usize,
    n_deleted: usize,
) -> sqlx::Result<()> {
    let int = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE catalog.search_indexes SET upserted = upserted + $2, deleted = deleted + $3,
           trouble = NULL, trouble_at = NULL, wait_until = NULL
         WHERE alias = $1",
    )
    .bind(alias)
    .bind(int(n_upserted))
    .bind(int(n_deleted))
    .execute(conn)
    .await?;
    Ok(())
}

/// Notes that everything noted was taken.
pub(super) async fn caught_up(conn: &mut PgConnection, alias: &str) -> sqlx::Result<()> {
    sqlx::query("UPDATE catalog.search_indexes SET synced_at = clock_timestamp() WHERE alias = $1")
        .bind(alias)
        .execute(conn)
        .await?;
    Ok(())
}

/// Notes what went wrong, for people, and for how many seconds the server wants to be left alone.
pub(super) async fn trouble(
    db: impl PgExecutor<'_>,
    alias: &str,
    text: &str,
    wait_secs: Option<f64>,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE catalog.search_indexes SET trouble = $2, trouble_at = clock_timestamp(),
           wait_until = clock_timestamp() + $3 * interval '1 s'
         WHERE alias = $1",
    )
    .bind(alias)
    .bind(text)
    .bind(wait_secs)
    .execute(db)
    .await?;
    Ok(())
}
