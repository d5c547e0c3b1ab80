//! The statements on `catalog.imports`, the log of imported files.
//!
//! A file's import and its run have one id. The run says how far it is; this
//! log says what the file was and what came of its rows.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{load::Written, plan::Plan};
use crate::runs::RunState;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type, Serialize, Deserialize)]
#[sqlx(type_name = "text", rename_all = "UPPERCASE")]
#[serde(rename_all = "UPPERCASE")]
pub enum ImportType {
    /// Products.
    Parts,
    /// Dealers.
    Dealers,
}

/// An uploaded file that is to be imported.
#[derive(Debug, Clone)]
pub struct NewImport<'a> {
    /// The id of its run.
    pub id: i64,
    /// The owner of the data.
    pub tenant: &'a str,
    /// What it holds.
    pub import_type: ImportType,
    /// Name of the file as uploaded.
    pub file_name: &'a str,
    /// Size of the file in bytes.
    pub file_size_bytes: i64,
    /// SHA-256 of the file.
    pub file_sha256: [u8; 32],
    /// What is done with its rows.
    pub plan: Plan,
    /// Changes with how it is read and what is done with its rows.
    pub reading_hash: i64,
}

/// One row of the log.
#[derive(Debug, Clone, sqlx::FromRow, Serialize)]
pub struct Import {
    /// The id of its run.
    pub id: i64,
    /// The owner of the data.
    pub tenant: String,
    /// How far its run is.
    pub state: RunState,
    /// What it holds.
    #[sqlx(rename = "type")]
    #[serde(rename = "type")]
    pub import_type: ImportType,
    /// Name of the file as uploaded.
    pub file_name: String,
    /// Size of the file in bytes.
    pub file_size_bytes: i64,
    /// SHA-256 of the file in base 16.
    pub file_sha256: String,
    /// Rows that are in the catalog as the file has them.
    pub success_count: i64,
    /// Rows that were refused.
    pub error_count: i64,
    /// Rows that made a new product.
    pub created_count: i64,
    /// Rows that changed a product.
    pub updated_count: i64,
    /// Rows that the catalog had already.
    pub unchanged_count: i64,
    /// Products archived because the file lacked them.
    pub archived_count: i64,
    /// What became of rows that the catalog had, lacked, or had otherwise.
    pub mode: String,
    /// Whether nothing was written, and the counts say what would have been.
    pub dry_run: bool,
    /// Why it would have been refused, had it been no dry run.
    pub refusal: Option<String>,
    /// The run that undoes, or has undone, it.
    pub rollback_run_id: Option<i64>,
    /// Whether it can be undone and its rejected rows be downloaded: `kept`; `going` or `gone` once
    /// `product_import.retention_days` are over.
    pub traces: String,
    /// When it was uploaded.
    pub created_at: DateTime<Utc>,
}

/// Logs an uploaded file, in the transaction that makes its run.
///
/// # Errors
///
/// An import of that id is there already; or the database cannot be reached.
pub async fn create(conn: &mut PgConnection, import: &NewImport<'_>) -> sqlx::Result<()> {
    const INSERT: &str = "INSERT INTO catalog.imports
        (id, tenant, type, file_name, file_size_bytes, file_sha256, mode, dry_run, reading_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let mode = serde_json::to_value(import.plan.mode)
        .map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(INSERT)
        .bind(import.id)
        .bind(import.tenant)
        .bind(import.import_type)
        .bind(import.file_name)
        .bind(import.file_size_bytes)
        .bind(import.file_sha256.as_slice())
        .bind(mode.as_str())
        .bind(import.plan.dry_run)
        .bind(import.reading_hash)
        .execute(conn)
        .await?;
    Ok(())
}

/// Adds a chunk's counts, in the chunk's transaction.
///
/// # Errors
///
/// [`sqlx::Error::RowNotFound`] when there is no such import; or what Postgres says.
pub async fn count(conn: &mut PgConnection, id: i64, written: &Written) -> sqlx::Result<()> {
    const COUNT: &str = "UPDATE catalog.imports SET created_count = created_count + $2,
        updated_count = updated_count + $3, unchanged_count = unchanged_count + $4,
        error_count = error_count + $5, first_created_id = least(first_created_id, $6),
        last_created_id = greatest(last_created_id, $7)
        WHERE id = $1";
    let loaded = &written.loaded;
    let done = sqlx::query(COUNT)
        .bind(id)
        .bind(i64::from(loaded.inserted))
        .bind(i64::from(loaded.updated))
        .bind(i64::from(loaded.unchanged))
        .bind(i64::from(loaded.n_failed()))
        .bind(written.created.map(|(first, _)| first))
        .bind(written.created.map(|(_, last)| last))
        .execute(conn)
        .await?;
    one(done.rows_affected())
}

/// Adds products archived because the file lacked them, in the transaction that archives them.
///
/// # Errors
///
/// As [`count`].
pub async fn count_archived(conn: &mut PgConnection, id: i64, n_archived: i64) -> sqlx::Result<()> {
    const COUNT: &str =
        "UPDATE catalog.imports SET archived_count = archived_count + $2 WHERE id = $1";
    let done = sqlx::query(COUNT)
        .bind(id)
        .bind(n_archived)
        .execute(conn)
        .await?;
    one(done.rows_affected())
}

fn one(n_affected: u64) -> sqlx::Result<()> {
    if n_affected == 1 {
        Ok(())
    } else {
        Err(sqlx::Error::RowNotFound)
    }
}

/// Returns the newest import of the same file, read and treated in the same way, that completed or,
/// with `or_may`, still may, and whose rows nobody took back.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn find_same(
    conn: &mut PgConnection,
    tenant: &str,
    file_sha256: &[u8; 32],
    reading_hash: i64,
    or_may: bool,
) -> sqlx::Result<Option<i64>> {
    // imports_file
    const FIND: &str = "SELECT i.id FROM catalog.imports i JOIN ingestd.runs r USING (id)
        WHERE i.tenant = $1 AND i.file_sha256 = $2 AND i.reading_hash = $3 AND NOT i.dry_run
          AND i.rollback_run_id IS NULL
          AND (r.state = 'completed' OR $4 AND r.state NOT IN ('failed', 'cancelled'))
        ORDER BY i.id DESC LIMIT 1";
    sqlx::query_scalar(FIND)
        .bind(tenant)
        .bind(file_sha256.as_slice())
        .bind(reading_hash)
        .bind(or_may)
        .fetch_optional(conn)
        .await
}

/// Waits until nobody else looks whether this file came before, till the end of the transaction.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn hold_file(
    conn: &mut PgConnection,
    tenant: &str,
    file_sha256: &[u8; 32],
) -> sqlx::Result<()> {
    const HOLD: &str = "SELECT pg_advisory_xact_lock(hashtextextended(
        'ingestd file ' || $1 || ' ' || encode($2, 'hex'), 0))";
    sqlx::query(HOLD)
        .bind(tenant)
        .bind(file_sha256.as_slice())
        .execute(conn)
        .await?;
    Ok(())
}

/// Returns the newest import that has written to the catalog of an import since that was uploaded,
/// and was not undone: where the older one goes on, its rows go over the newer ones.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn find_newer(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<i64>> {
    const FIND: &str =
        "SELECT i.id FROM catalog.imports i JOIN catalog.imports o USING (tenant, type)
        WHERE o.id = $1 AND i.id > o.id AND NOT i.dry_run AND NOT o.dry_run AND i.type = 'PARTS'
          AND i.rollback_run_id IS NULL
          AND i.created_count + i.updated_count + i.archived_count > 0
        ORDER BY i.id DESC LIMIT 1";
    sqlx::query_scalar(FIND).bind(id).fetch_optional(conn).await
}

/// Returns the import of that id, or `None` where there is none.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn find(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<Import>> {
    let only = Filter {
        id: Some(id),
        ..Filter::default()
    };
    let mut found = list(conn, only, 1).await?;
    Ok(found.pop())
}

/// Which imports are listed; what is not said does not matter.
#[derive(Debug, Clone, Copy, Default)]
pub struct Filter<'a> {
    /// Only of these owners.
    pub tenants: Option<&'a [String]>,
    /// Only this one.
    pub id: Option<i64>,
    /// Only those whose run is so far.
    pub state: Option<RunState>,
    /// Only those that hold this.
    pub import_type: Option<ImportType>,
    /// Only those below this id.
    pub before: Option<i64>,
}

/// Returns the newest imports, newest first, at most `limit`.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn list(
    conn: &mut PgConnection,
    filter: Filter<'_>,
    limit: i64,
) -> sqlx::Result<Vec<Import>> {
    const LIST: &str = "SELECT i.id, i.tenant, i.type, i.file_name, i.file_size_bytes,
          encode(i.file_sha256, 'hex') AS file_sha256, i.success_count, i.error_count,
          i.created_count, i.updated_count, i.unchanged_count, i.archived_count, i.mode, i.dry_run,
          i.rollback_run_id, i.traces, i.created_at, r.state,
          r.details #>> '{preview,refusal}' AS refusal
        FROM catalog.imports i JOIN ingestd.runs r USING (id)
        WHERE ($1::text[] IS NULL OR i.tenant = ANY ($1)) AND ($2::int8 IS NULL OR i.id = $2)
          AND ($3::int8 IS NULL OR i.id < $3) AND ($4::text IS NULL OR r.state = $4)
          AND ($5::text IS NULL OR i.type = $5)
        ORDER BY i.id DESC LIMIT $6";
    sqlx::query_as(LIST)
        .bind(filter.tenants)
        .bind(filter.id)
        .bind(filter.before)
        .bind(filter.state)
        .bind(filter.import_type)
        .bind(limit)
        .fetch_all(conn)
        .await
}

/// What was wrong with a row.
#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct RowFault {
    /// The sheet's name; `None` where the file has none, as in CSV.
    pub sheet: Option<String>,
    /// Row number as the user sees it, from 1.
    #[sqlx(rename = "row_no")]
    pub row: i32,
    /// Header as in the file; `None`: the row as a whole.
    #[sqlx(rename = "column_name")]
    pub column: Option<String>,
    /// What is wrong, in one stable word for programs.
    pub code: String,
    /// What is wrong, in a sentence for people.
    pub message: String,
    /// The cell as the file has it, cut; `None` where it is empty.
    pub value: Option<String>,
}

/// Returns the first errors of an import in the order of its rows, at most `limit`.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn row_faults(
    conn: &mut PgConnection,
    id: i64,
    limit: i64,
) -> sqlx::Result<Vec<RowFault>> {
    const FAULTS: &str = "SELECT sheet, row_no, column_name, code, message, value
        FROM catalog.import_errors WHERE import_id = $1 ORDER BY row_no, id LIMIT $2";
    sqlx::query_as(FAULTS)
        .bind(id)
        .bind(limit)
        .fetch_all(conn)
        .await
}
