//! The statements on `catalog.imports`, the log of imported files.
//!
//! A file's import and its run have one id. The run says how far it is; this
//! log says what the file was and what came of its rows.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::load::Loaded;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "UPPERCASE")]
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
}

/// One row of the log.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct Import {
    /// The id of its run.
    pub id: i64,
    /// The owner of the data.
    pub tenant: String,
    /// What it holds.
    #[sqlx(rename = "type")]
    pub import_type: ImportType,
    /// Name of the file as uploaded.
    pub file_name: String,
    /// Size of the file in bytes.
    pub file_size_bytes: i64,
    /// SHA-256 of the file, 32 bytes.
    pub file_sha256: Vec<u8>,
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
        (id, tenant, type, file_name, file_size_bytes, file_sha256) VALUES ($1, $2, $3, $4, $5, $6)";
    sqlx::query(INSERT)
        .bind(import.id)
        .bind(import.tenant)
        .bind(import.import_type)
        .bind(import.file_name)
        .bind(import.file_size_bytes)
        .bind(import.file_sha256.as_slice())
        .execute(conn)
        .await?;
    Ok(())
}

/// Adds a chunk's counts, in the chunk's transaction.
///
/// # Errors
///
/// [`sqlx::Error::RowNotFound`] when there is no such import; or what Postgres says.
pub async fn count(conn: &mut PgConnection, id: i64, loaded: &Loaded) -> sqlx::Result<()> {
    const COUNT: &str = "UPDATE catalog.imports SET created_count = created_count + $2,
        updated_count = updated_count + $3, unchanged_count = unchanged_count + $4,
        error_count = error_count + $5
        WHERE id = $1";
    let done = sqlx::query(COUNT)
        .bind(id)
        .bind(i64::from(loaded.inserted))
        .bind(i64::from(loaded.updated))
        .bind(i64::from(loaded.unchanged))
        .bind(i64::from(loaded.n_failed()))
        .execute(conn)
        .await?;
    if done.rows_affected() == 1 {
        Ok(())
    } else {
        Err(sqlx::Error::RowNotFound)
    }
}

/// Returns the import of that id, or `None` where there is none.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn find(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<Import>> {
    const FIND: &str = "SELECT id, tenant, type, file_name, file_size_bytes, file_sha256,
        success_count, error_count, created_count, updated_count, unchanged_count, created_at
        FROM catalog.imports WHERE id = $1";
    sqlx::query_as(FIND).bind(id).fetch_optional(conn).await
}

/// What was wrong with a row.
#[derive(Debug, Clone, sqlx::FromRow, serde::Serialize)]
pub struct RowFault {
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
    const FAULTS: &str = "SELECT row_no, column_name, code, message, value
        FROM catalog.import_errors WHERE import_id = $1 ORDER BY row_no, id LIMIT $2";
    sqlx::query_as(FAULTS)
        .bind(id)
        .bind(limit)
        .fetch_all(conn)
        .await
}
