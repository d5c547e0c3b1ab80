//! The statements on `catalog.imports`, the log of imported files.
//!
//! A *file's import* and its run have one id; the run says how far it is, this
//! log says what came of it, and stays when the run is purged. Each function is
//! one statement with the expected status in its WHERE.

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

/// How far an import is.
///
/// `Pending` until [`start`], `Processing` until [`finish`]; the rest is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "text", rename_all = "UPPERCASE")]
pub enum ImportStatus {
    /// Uploaded, not begun.
    Pending,
    /// Chunks are being written.
    Processing,
    /// Read to the end; rows may have been refused.
    Completed,
    /// Stopped by an error; what was written stays.
    Failed,
    /// Stopped by a person; what was written stays.
    Cancelled,
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
    /// How far it is.
    pub status: ImportStatus,
    /// Data rows in the file; `None` until it was read to the end.
    pub total_rows: Option<i64>,
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
    /// Why it failed.
    pub error: Option<String>,
    /// When it was uploaded.
    pub created_at: DateTime<Utc>,
    /// When its first attempt began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, in whatever way.
    pub completed_at: Option<DateTime<Utc>>,
}

/// How an import ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// The file was read to the end and every chunk is committed.
    Completed,
    /// It cannot go on, for this reason.
    Failed(&'a str),
    /// A person stopped it.
    Cancelled,
}

/// Logs an uploaded file as pending.
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

/// Marks an import as being processed; one that is already stays so, after a crash for example.
///
/// Commit before the first chunk's transaction begins: imports of one tenant
/// see each other by it and take turns ([`super::load::load_chunk`]).
///
/// # Errors
///
/// [`sqlx::Error::RowNotFound`] when it has ended or never was.
pub async fn start(conn: &mut PgConnection, id: i64) -> sqlx::Result<()> {
    const START: &str = "UPDATE catalog.imports
        SET status = 'PROCESSING', started_at = coalesce(started_at, now())
        WHERE id = $1 AND status IN ('PENDING', 'PROCESSING')";
    one_row(
        sqlx::query(START)
            .bind(id)
            .execute(conn)
            .await?
            .rows_affected(),
    )
}

/// Adds a chunk's counts, in the chunk's transaction.
///
/// # Errors
///
/// [`sqlx::Error::RowNotFound`] when the import is not being processed: it was
/// cancelled meanwhile, and the chunk must not land.
pub async fn count(conn: &mut PgConnection, id: i64, loaded: &Loaded) -> sqlx::Result<()> {
    const COUNT: &str = "UPDATE catalog.imports SET created_count = created_count + $2,
        updated_count = updated_count + $3, unchanged_count = unchanged_count + $4,
        error_count = error_count + $5
        WHERE id = $1 AND status = 'PROCESSING'";
    let done = sqlx::query(COUNT)
        .bind(id)
        .bind(i64::from(loaded.inserted))
        .bind(i64::from(loaded.updated))
        .bind(i64::from(loaded.unchanged))
        .bind(i64::from(loaded.n_failed()))
        .execute(conn)
        .await?;
    one_row(done.rows_affected())
}

/// Ends an import; a completed one has all of the file's rows counted.
///
/// # Errors
///
/// [`sqlx::Error::RowNotFound`] when it has ended already, or, to be completed,
/// is not being processed.
pub async fn finish(conn: &mut PgConnection, id: i64, ending: Ending<'_>) -> sqlx::Result<()> {
    const COMPLETE: &str = "UPDATE catalog.imports SET status = 'COMPLETED', completed_at = now(),
        total_rows = created_count + updated_count + unchanged_count + error_count
        WHERE id = $1 AND status = 'PROCESSING'";
    const STOP: &str = "UPDATE catalog.imports
        SET status = $2, error = $3, completed_at = now()
        WHERE id = $1 AND status IN ('PENDING', 'PROCESSING')";
    let stop = |status: ImportStatus| sqlx::query(STOP).bind(id).bind(status);
    let statement = match ending {
        Ending::Completed => sqlx::query(COMPLETE).bind(id),
        Ending::Failed(error) => stop(ImportStatus::Failed).bind(error),
        Ending::Cancelled => stop(ImportStatus::Cancelled).bind(None::<&str>),
    };
    one_row(statement.execute(conn).await?.rows_affected())
}

/// Returns the import of that id, or `None` where there is none.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn find(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<Import>> {
    const FIND: &str = "SELECT id, tenant, type, file_name, file_size_bytes, file_sha256, status,
        total_rows, success_count, error_count, created_count, updated_count, unchanged_count,
        error, created_at, started_at, completed_at FROM catalog.imports WHERE id = $1";
    sqlx::query_as(FIND).bind(id).fetch_optional(conn).await
}

/// Makes an error of a lost race.
fn one_row(n_affected: u64) -> sqlx::Result<()> {
    if n_affected == 1 {
        Ok(())
    } else {
        Err(sqlx::Error::RowNotFound)
    }
}
