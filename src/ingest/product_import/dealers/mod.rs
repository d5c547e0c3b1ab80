//! The dealers' import: a small file, read and written while the caller waits.
//!
//! The same readers, checks, row errors and downloads as for products; a dealer's own columns are
//! the extra columns of that engine, found by their headers. Everything is one transaction.

mod field;
mod write;

use std::{io, ops::ControlFlow, path::Path};

use sqlx::PgConnection;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::spawn_blocking,
};

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
    runs::{self, Driver, NewRun, Place, Progress, RunId},
};

/// The system's name in `ingestd.runs`.
pub const SYSTEM: &str = "dealer_import";

/// Files of dealers that are in memory at once.
static TURNS: Semaphore = Semaphore::const_new(2);

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

/// A dealers' file that has been read whole. Others wait until it is dropped, since it is in memory.
#[derive(Debug)]
pub struct Read {
    _turn: SemaphorePermit<'static>,
    file_name: String,
    size_bytes: u64,
    sha256: [u8; 32],
    inspection: Inspection,
    chunk: Chunk,
    n_rows: u64,
}

/// What the rows of a file may take in memory, in bytes; they are held together.
const MOST_BYTES: usize = 16 << 20;

/// Reads a file that has been written whole; it is not kept. Waits for its turn.
///
/// # Errors
///
/// [`DealersError::Refused`] where it cannot be imported, or is larger than
/// `product_import.max_dealer_rows` or 16 MiB in memory and so no file to wait for.
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
        chunk_bytes: MOST_BYTES,
        ..sheet::Options::from(&config.product_import)
    };
    field::add_aliases(&mut options.aliases);
    let (from, name) = (path.clone(), file_name.to_owned());
    let turn = TURNS.acquire().await.map_err(io::Error::other)?;
    // The turn is the thread's: it reads on where its caller leaves.
    let read = spawn_blocking(move || (read_file(&from, &name, &options), turn)).await;
    blobs.delete(&blob.name).await?;
    let (read, turn) = read.map_err(io::Error::other)?;
    let (inspection, chunk, n_rows) = read.map_err(|refusal| {
        if refusal.code == Refusal::TOO_MANY_ROWS {
            return too_many(max_rows);
        }
        refusal
    })?;
    Ok(Read {
        _turn: turn,
        file_name: file_name.to_owned(),
        size_bytes: blob.size_bytes,
        sha256: blob.sha256,
        inspection,
        chunk,
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
) -> Result<(Inspection, Chunk, u64), Refusal> {
    let (mut inspection, opened) = sheet::inspect_and_keep(path, name, options)?;
    field::own_only(&mut inspection.mapping);
    let mut whole = None;
    let summary = sheet::read_on(
        opened,
        path,
        &inspection,
        options,
        &mut |chunk| match whole {
            None => {
                whole = Some(chunk);
                ControlFlow::Continue(())
            }
            Some(_) => ControlFlow::Break(()),
        },
    )?;
    if summary.n_chunks > 1 {
        return Err(too_large(options.chunk_bytes));
    }
    Ok((inspection, whole.unwrap_or_default(), summary.n_rows))
}

fn too_large(n_bytes: usize) -> Refusal {
    Refusal {
        code: Refusal::FILE_TOO_LARGE,
        message: format!(
            "the dealers take more than {} MiB of memory, and the caller of this import waits for its \
             end; cut the file in parts",
            n_bytes >> 20
        ),
    }
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
    let (tenant, inspection, chunk) = (origin.tenant, &read.inspection, &read.chunk);
    let loaded = write::chunk(&mut *conn, id.0, tenant, inspection, chunk).await?;
    written.loaded.add(&loaded);
    store::count(&mut *conn, id.0, &written).await?;
    let loaded = written.loaded;
    let progress = Progress {
        ok: i64::from(loaded.inserted + loaded.updated),
        skipped: i64::from(loaded.unchanged),
        failed: i64::from(loaded.n_failed()),
        items_total: i64::try_from(read.n_rows).ok(),
        ..Progress::default()
    };
    runs::advance(&mut *conn, id, &Place::default(), &progress)
        .await
        .map_err(|unmoved| lost(unmoved.into()))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_at_its_turn_and_no_more_of_it_than_one_chunk() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = blob::Store::open(folder.path()).await.unwrap();
        let config = Config::default();
        let store = &blobs;
        let file = |text: String| async move {
            let mut file = store.create().await.unwrap();
            file.write(text.as_bytes()).await.unwrap();
            file
        };
        let small = file("code,name\nA,a\nB,b\n".to_owned()).await;
        let small = read(&blobs, &config, small, "small.csv").await.unwrap();
        assert_eq!((small.n_rows, small.chunk.n_rows), (2, 2));
        assert_eq!(TURNS.available_permits(), 1);

        let long = "x".repeat(30_000);
        let row = |n: u32| format!("{n},a,{long}\n");
        let rows: String = (0..700).map(row).collect();
        let large = file(format!("code,name,note\n{rows}")).await;
        let refused = read(&blobs, &config, large, "large.csv").await.unwrap_err();
        let DealersError::Refused(refusal) = refused else {
            panic!("{refused}");
        };
        assert_eq!(refusal.code, Refusal::FILE_TOO_LARGE);
        assert!(refusal.message.contains("16 MiB"), "{refusal}");
        assert_eq!(TURNS.available_permits(), 1);
        drop(small);
        assert_eq!(TURNS.available_permits(), 2);
    }
}
