//! The rows of files in watched folders. Every change names the state it expects.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgConnection, PgExecutor};

use super::place::Entry;
use crate::runs::RunId;

/// Rows of settled files that are kept of each source.
const KEPT: i64 = 1000;

/// One file of a watched folder.
#[derive(Debug, Clone, sqlx::FromRow, Serialize)]
pub struct SourceFile {
    /// Order in which files were first seen.
    pub id: i64,
    /// Its name in the folder.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: i64,
    /// `waiting`, `submitted`, `refused` or `settled`.
    pub state: String,
    /// Its import, which is a run.
    pub import_id: Option<i64>,
    /// What was wrong.
    pub error: Option<String>,
    /// Where it is now, below the folder.
    pub moved_to: Option<String>,
    /// When this version of it was first seen.
    pub seen_at: DateTime<Utc>,
    /// When it was moved away or found gone.
    pub settled_at: Option<DateTime<Utc>>,
}

/// Reads what is known of a source's files: those in the folder first, then the last that are not.
///
/// # Errors
///
/// What Postgres says.
pub async fn files(
    db: impl PgExecutor<'_>,
    source: &str,
    limit: i64,
) -> sqlx::Result<Vec<SourceFile>> {
    sqlx::query_as(
        "SELECT id, name, size_bytes, state, import_id, error, moved_to, seen_at, settled_at
         FROM catalog.source_files WHERE source = $1
         ORDER BY state = 'settled', CASE WHEN state <> 'settled' THEN name END, id DESC LIMIT $2",
    )
    .bind(source)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// A file that is not settled, and how far its import is.
#[derive(Debug, Clone, sqlx::FromRow)]
pub(super) struct Unsettled {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) stamp: String,
    pub(super) state: String,
    /// Whether this version was seen `settle` ago or longer.
    pub(super) has_settled: bool,
    /// The state of its import's run; `None`: there is none.
    pub(super) run_state: Option<String>,
    pub(super) run_error: Option<String>,
    /// Whether its run has ended.
    pub(super) has_ended: bool,
}

/// Reads the files that are not settled, by name.
pub(super) async fn unsettled(
    db: impl PgExecutor<'_>,
    source: &str,
    settle_ms: i64,
) -> sqlx::Result<Vec<Unsettled>> {
    sqlx::query_as(
        "SELECT f.id, f.name, f.stamp, f.state, r.state AS run_state, r.error AS run_error,
           f.seen_at <= clock_timestamp() - $2 * interval '1 millisecond' AS has_settled,
           r.id IS NULL OR r.finished_at IS NOT NULL AS has_ended
         FROM catalog.source_files f LEFT JOIN ingestd.runs r ON r.id = f.import_id
         WHERE f.source = $1 AND f.state <> 'settled' ORDER BY f.name COLLATE \"C\"",
    )
    .bind(source)
    .bind(settle_ms)
    .fetch_all(db)
    .await
}

/// Notes a version of a file that is seen for the first time; one of a row that waits takes the
/// place of the version before.
pub(super) async fn see(
    conn: &mut PgConnection,
    source: &str,
    entry: &Entry,
    error: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO catalog.source_files AS f (source, name, stamp, size_bytes, error)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (source, name) WHERE state <> 'settled' DO UPDATE
         SET stamp = excluded.stamp, size_bytes = excluded.size_bytes, error = excluded.error,
             seen_at = clock_timestamp()
         WHERE f.state = 'waiting' AND f.stamp <> excluded.stamp",
    )
    .bind(source)
    .bind(&entry.name)
    .bind(&entry.stamp)
    .bind(entry.size_bytes)
    .bind(error)
    .execute(conn)
    .await?;
    Ok(())
}

/// Binds a file to its import; false where it is not the waiting version any more: roll back.
pub(super) async fn submitted(
    conn: &mut PgConnection,
    file: &Unsettled,
    import: RunId,
) -> sqlx::Result<bool> {
    let changed = sqlx::query(
        "UPDATE catalog.source_files SET state = 'submitted', import_id = $3, error = NULL
         WHERE id = $1 AND state = 'waiting' AND stamp = $2",
    )
    .bind(file.id)
    .bind(&file.stamp)
    .bind(import.0)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Notes that a waiting file cannot be imported; false where it is not that version any more.
pub(super) async fn refused(
    conn: &mut PgConnection,
    file: &Unsettled,
    why: &str,
) -> sqlx::Result<bool> {
    let changed = sqlx::query(
        "UPDATE catalog.source_files SET state = 'refused', error = left($3, 1000)
         WHERE id = $1 AND state = 'waiting' AND stamp = $2",
    )
    .bind(file.id)
    .bind(&file.stamp)
    .bind(why)
    .execute(conn)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Notes what is wrong with a file that stays in its state.
pub(super) async fn trouble(
    conn: &mut PgConnection,
    file: &Unsettled,
    why: &str,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE catalog.source_files SET error = left($3, 1000) WHERE id = $1 AND state = $2",
    )
    .bind(file.id)
    .bind(&file.state)
    .bind(why)
    .execute(conn)
    .await?;
    Ok(())
}

/// Settles a file: it was moved to `moved_to`, or is gone. Forgets the oldest settled ones.
pub(super) async fn settled(
    conn: &mut PgConnection,
    source: &str,
    file: &Unsettled,
    moved_to: Option<&str>,
    error: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query(
        "WITH settled AS (
           UPDATE catalog.source_files SET state = 'settled', settled_at = clock_timestamp(),
             moved_to = $4, error = coalesce(left($5, 1000), CASE state WHEN 'refused' THEN error END)
           WHERE id = $2 AND state = $3)
         DELETE FROM catalog.source_files
         WHERE source = $1 AND state = 'settled' AND id <= (
           SELECT id FROM catalog.source_files
           WHERE source = $1 AND state = 'settled' ORDER BY id DESC OFFSET $6 LIMIT 1)",
    )
    .bind(source)
    .bind(file.id)
    .bind(&file.state)
    .bind(moved_to)
    .bind(error)
    .bind(KEPT)
    .execute(conn)
    .await?;
    Ok(())
}
