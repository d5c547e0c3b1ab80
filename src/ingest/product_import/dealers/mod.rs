//! The dealers' import: a small file, read and written while the caller waits.
//!
//! The same readers, checks, row errors and downloads as for products; a dealer's own columns are
//! the extra columns of that engine, found by their headers. Everything is one transaction.

mod field;
mod write;

use std::{io, path::Path};

use sqlx::PgConnection;
use tokio::task::spawn_blocking;

use super::{
    job::Params,
    load::Written,
    plan::Plan,
    row::Chunk,
    sheet::{self, Inspection, Refusal},
    status,
    store::{self, ImportType, NewImport},
    submit::Origin,
};
use crate::{
    blob,
    config::Config,
    queue::JobError,
    runs::{self, Driver, NewRun, Progress, RunId},
};

/// The system's name in `ingestd.runs`.
pub const SYSTEM: &str = "dealer_import";

/// Why dealers are not imported.
#[derive(Debug, thiserror::Error)]
pub enum DealersError {
    /// The file cannot be imported, or not while somebody waits; the message says why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Storage(#[from] io::Error),
    /// The database refused or is away.
    #[error("the import cannot be written: {0}")]
    Database(#[from] sqlx::Error),
}

/// A dealers' file that has been read whole.
#[derive(Debug)]
pub struct Read {
    file_name: String,
    size_bytes: u64,
    sha256: [u8; 32],
    inspection: Inspection,
    chunks: Vec<Chunk>,
    n_rows: u64,
}

/// Reads a file that has been written whole; it is not kept.
///
/// # Errors
///
/// [`DealersError::Refused`] where it cannot be imported, or is larger than
/// `product_import.max_dealer_rows` and so no file to wait for.
pub async fn read(
    blobs: &blob::Store,
    config: &Config,
    mut file: blob::Writer,
    file_name: &str,
) -> Result<Read, DealersError> {
    file.flush().await?;
    let blob = file.finish().await?;
    let path = blobs
        .path(&blob.name)
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let max_rows = config.product_import.max_dealer_rows;
    let mut options = sheet::Options {
        max_file_bytes: config.http.max_upload_bytes,
        max_rows,
        chunk_rows: max_rows,
        ..sheet::Options::from(&config.product_import)
    };
    field::add_aliases(&mut options.aliases);
    let (from, name) = (path.clone(), file_name.to_owned());
    let read = spawn_blocking(move || read_file(&from, &name, &options)).await;
    blobs.delete(&blob.name).await?;
    let (inspection, chunks, n_rows) = read.map_err(io::Error::other)?.map_err(|refusal| {
        if refusal.code == Refusal::TOO_MANY_ROWS {
            return too_many(max_rows);
        }
        refusal
    })?;
    Ok(Read {
        file_name: file_name.to_owned(),
        size_bytes: blob.size_bytes,
        sha256: blob.sha256,
        inspection,
        chunks,
        n_rows,
    })
}

fn too_many(max_rows: u32) -> Refusal {
    Refusal {
        code: Refusal::TOO_MANY_ROWS,
        message: format!(
            "the file has more than {max_rows} dealers, and the caller of this import waits for its \
             end; cut the file in parts, or raise product_import.max_dealer_rows"
        ),
    }
}

fn read_file(
    path: &Path,
    name: &str,
    options: &sheet::Options,
) -> Result<(Inspection, Vec<Chunk>, u64), Refusal> {
    let mut inspection = sheet::inspect(path, name, options)?;
    field::own_only(&mut inspection.mapping);
    let mut chunks = Vec::new();
    let summary = sheet::read(path, &inspection, options, &mut |chunk| {
        chunks.push(chunk);
        std::ops::ControlFlow::Continue(())
    })?;
    Ok((inspection, chunks, summary.n_rows))
}

/// Writes dealers in the connection's transaction, as a run that is completed at once; returns it.
///
/// A row that the database refuses becomes a row error, and the rest lands. Imports of one owner
/// take turns until the transaction ends.
///
/// # Errors
///
/// What Postgres says.
pub async fn import(
    conn: &mut PgConnection,
    read: &Read,
    origin: Origin<'_>,
) -> sqlx::Result<RunId> {
    const LOCK: &str =
        "SELECT pg_advisory_xact_lock(hashtextextended('catalog.dealers:' || $1, 0))";
    sqlx::query(LOCK)
        .bind(origin.tenant)
        .execute(&mut *conn)
        .await?;
    let id = create(&mut *conn, read, origin).await?;
    runs::begin(&mut *conn, id).await?;
    let mut written = Written::default();
    for chunk in &read.chunks {
        let loaded = write::chunk(&mut *conn, id.0, origin.tenant, &read.inspection, chunk).await?;
        written.loaded.add(&loaded);
    }
    store::count(&mut *conn, id.0, &written).await?;
    let loaded = written.loaded;
    let progress = Progress {
        ok: i64::from(loaded.inserted + loaded.updated),
        skipped: i64::from(loaded.unchanged),
        failed: i64::from(loaded.n_failed()),
        items_total: i64::try_from(read.n_rows).ok(),
        ..Progress::default()
    };
    runs::advance(&mut *conn, id, &progress)
        .await
        .map_err(lost)?;
    runs::complete(conn, id).await.map_err(lost)?;
    Ok(id)
}

/// A run that was made in this transaction is nobody else's.
fn lost(error: JobError) -> sqlx::Error {
    match error {
        JobError::Retry { error, .. } => error.downcast().unwrap_or(sqlx::Error::RowNotFound),
        _ => sqlx::Error::RowNotFound,
    }
}

async fn create(conn: &mut PgConnection, read: &Read, origin: Origin<'_>) -> sqlx::Result<RunId> {
    let params = Params {
        blob: String::new(),
        file_name: read.file_name.clone(),
        inspection: read.inspection.clone(),
        plan: Plan::default(),
        driver: Driver::default(),
    };
    let run = NewRun {
        system: SYSTEM,
        job_kind: None,
        tenant: origin.tenant.to_owned(),
        triggered_by: origin.triggered_by.to_owned(),
        params: serde_json::to_value(params).map_err(|error| sqlx::Error::Encode(error.into()))?,
        items_total: None,
    };
    let id = runs::create(&mut *conn, &run).await?;
    let import = NewImport {
        id: id.0,
        tenant: origin.tenant,
        import_type: ImportType::Dealers,
        file_name: &read.file_name,
        file_size_bytes: i64::try_from(read.size_bytes).unwrap_or(i64::MAX),
        file_sha256: read.sha256,
        plan: Plan::default(),
        reading_hash: 0,
    };
    store::create(conn, &import).await?;
    Ok(id)
}

/// Returns what an import came to, as the product import's document shows it.
///
/// # Errors
///
/// What Postgres says.
pub async fn results(conn: &mut PgConnection, id: RunId) -> sqlx::Result<status::Shown> {
    let run = runs::get(&mut *conn, id).await?;
    status::read(conn, &run.ok_or(sqlx::Error::RowNotFound)?).await
}
