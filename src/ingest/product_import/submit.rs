//! From a file that somebody hands in to the run that imports it.
//!
//! Two steps, because no transaction waits for a file to be read: [`accept`]
//! inspects and stores the file, [`Accepted::submit`] makes run, import and job
//! in the caller's transaction. [`submit`] is both for callers with nothing of
//! their own to write beside.

use std::{io, path::PathBuf};

use sqlx::{PgConnection, PgPool};
use tokio::{sync::Semaphore, task::spawn_blocking};

use super::{
    RunImport,
    job::Params,
    kept,
    plan::{Mode, Wish},
    row::header,
    saved_map,
    sheet::{self, Inspection, Opened, Refusal, SkippedSheet},
    store::{self, ImportType},
};
use crate::{
    blob::{self, Blob},
    config::{Config, SameFile},
    observe::{BytesIngested, Direction, EnqueueSource, JobEnqueued},
    queue::{self, Job as _, NewJob},
    runs::{self, Driver, NewRun, RunId},
};

/// Files looked at at once: an inspection is a second of computing, and with xlsx some memory.
static INSPECTIONS: Semaphore = Semaphore::const_new(2);

/// The system's name in `ingestd.runs`.
pub const SYSTEM: &str = "product_import";

/// Whose import it is.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// Owner of the data.
    pub tenant: &'a str,
    /// Who or what starts it: `api`, `cli`, `schedule`, `dev`.
    pub triggered_by: &'a str,
}

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The file cannot be imported; the message says why.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The same file was imported before in the same way, and that is refused.
    #[error(
        "the same file came before, as import {0}; send on_duplicate_file=import to import it again"
    )]
    SameFile(RunId),
    /// The file cannot be stored.
    #[error("the file cannot be stored: {0}")]
    Storage(#[from] io::Error),
    /// The database refused or is away.
    #[error("the import cannot be noted: {0}")]
    Database(#[from] sqlx::Error),
}

/// A file that can be imported and is stored; dropped before [`Accepted::keep`], it is gone.
#[derive(Debug)]
pub struct Accepted {
    blob: Blob,
    file_name: String,
    inspection: Inspection,
    wish: Wish,
    reading_hash: i64,
    opened: Option<Opened>,
    /// Where the file lies, while nobody relies on it.
    unwanted: Option<PathBuf>,
}

impl Drop for Accepted {
    fn drop(&mut self) {
        if let Some(path) = &self.unwanted {
            drop(std::fs::remove_file(path)); // a file too many does no harm
        }
    }
}

/// Inspects a file that has been written whole, and gives it its name in the store.
///
/// `file_name` is the name the user knows it by. A saved mapping that the wish names is looked up
/// before, by [`saved_map::resolve`].
///
/// # Errors
///
/// [`SubmitError::Refused`] where it cannot be imported, [`SubmitError::Storage`]
/// where it cannot be read or stored. Nothing is left of the file.
pub async fn accept(
    blobs: &blob::Store,
    config: &Config,
    mut file: blob::Writer,
    file_name: &str,
    wish: Wish,
) -> Result<Accepted, SubmitError> {
    if let Some(name) = &wish.look.saved_mapping {
        return Err(saved_map::missing(name, "was not looked up").into());
    }
    let mut options = sheet::Options {
        max_file_bytes: config.http.max_upload_bytes,
        ..sheet::Options::from(&config.product_import)
    };
    wish.look.apply(&mut options);
    wish.plan.apply(&mut options);
    let asked = sheet::Options {
        chunk_bytes: usize::MAX, // where chunks end changes nothing about what it comes to
        ..options.clone()
    };
    file.begin_sync().await?;
    let (path, name) = (file.path().to_owned(), file_name.to_owned());
    let turn = INSPECTIONS.acquire().await.map_err(io::Error::other)?;
    let looked = spawn_blocking(move || sheet::inspect_and_keep(&path, &name, &options)).await;
    drop(turn);
    let (inspection, opened) = looked.map_err(io::Error::other)??;
    if wish.plan.mode == Mode::ReplaceAll {
        refuse_unread(&inspection)?;
    }
    let blob = file.finish().await?;
    let reading_hash = wish.plan.hash(inspection.fingerprint(&asked));
    Ok(Accepted {
        reading_hash,
        opened,
        wish,
        unwanted: blobs.path(&blob.name),
        blob,
        file_name: file_name.to_owned(),
        inspection,
    })
}

/// Refuses to archive what a file lacks where a sheet of it that has cells cannot be read: its
/// products would be missing. Hidden sheets are passed over by choice.
fn refuse_unread(inspection: &Inspection) -> Result<(), Refusal> {
    let is_unread = |sheet: &&SkippedSheet| {
        ![Refusal::EMPTY_FILE, SkippedSheet::HIDDEN].contains(&&*sheet.code)
    };
    let Some(sheet) = inspection.skipped.iter().find(is_unread) else {
        return Ok(());
    };
    let (name, why) = (header::cut(&sheet.sheet, 100), &sheet.message);
    Err(Refusal {
        code: Refusal::UNREAD_SHEET,
        message: format!(
            "replace_all archives what the file lacks, and sheet \"{name}\" cannot be read: {why}; \
             mend it, or list the sheets to read without it"
        ),
    })
}

impl Accepted {
    /// Returns what was found out about the file.
    #[must_use]
    pub const fn inspection(&self) -> &Inspection {
        &self.inspection
    }

    /// Returns the import of the same file, read and treated in the same way, that completed before
    /// and was not undone. Where that is to be refused, one that has not ended counts as well, and
    /// nobody else submits the file until the transaction ends.
    ///
    /// # Errors
    ///
    /// [`SubmitError::SameFile`] where that is to be refused; else what Postgres says.
    pub async fn same_before(
        &self,
        conn: &mut PgConnection,
        tenant: &str,
    ) -> Result<Option<RunId>, SubmitError> {
        let sha256 = &self.blob.sha256;
        let is_refused = self.wish.same_file == SameFile::Reject && !self.wish.plan.dry_run;
        if is_refused {
            store::hold_file(&mut *conn, tenant, sha256).await?;
        }
        let same = store::find_same(conn, tenant, sha256, self.reading_hash, is_refused).await?;
        match same.map(RunId) {
            Some(id) if is_refused => Err(SubmitError::SameFile(id)),
            same => Ok(same),
        }
    }

    /// Makes the run, the log's entry and the job in the connection's transaction.
    ///
    /// Call [`Accepted::keep`] before the commit.
    ///
    /// # Errors
    ///
    /// What Postgres says.
    pub async fn submit(&self, conn: &mut PgConnection, origin: Origin<'_>) -> sqlx::Result<RunId> {
        let rows_at_most = self.inspection.rows_at_most;
        let run = NewRun {
            system: SYSTEM,
            job_kind: Some(RunImport::KIND),
            tenant: origin.tenant.to_owned(),
            triggered_by: origin.triggered_by.to_owned(),
            params: serde_json::to_value(self.params(origin.tenant)).map_err(encode)?,
            items_total: rows_at_most.and_then(|n_rows| i64::try_from(n_rows).ok()),
        };
        let run_id = runs::create(conn, &run).await?;
        let import = store::NewImport {
            id: run_id.0,
            tenant: origin.tenant,
            import_type: ImportType::Parts,
            file_name: &self.file_name,
            file_size_bytes: i64::try_from(self.blob.size_bytes).unwrap_or(i64::MAX),
            file_sha256: self.blob.sha256,
            plan: self.wish.plan,
            reading_hash: self.reading_hash,
        };
        store::create(conn, &import).await?;
        let job = NewJob {
            run_id: Some(run_id.0),
            tenant: Some(origin.tenant.to_owned()),
            gate_key: Some(gate_key(origin.tenant)),
            priority: self.wish.priority,
            ..NewJob::of(&RunImport { run_id }).map_err(encode)?
        };
        queue::enqueue_new(conn, &job).await?;
        Ok(run_id)
    }

    fn params(&self, tenant: &str) -> Params {
        Params {
            plan: self.wish.plan,
            driver: Driver {
                gate_key: Some(gate_key(tenant)),
                priority: self.wish.priority,
            },
            blob: self.blob.name.clone(),
            file_name: self.file_name.clone(),
            inspection: self.inspection.clone(),
        }
    }

    /// Leaves the file to the run.
    ///
    /// Before the commit and not after it: when the answer to a COMMIT is lost,
    /// or nobody waits for it any more, the run may be there, and a file that
    /// nobody wants is better than a run without its file.
    pub fn keep(mut self) {
        self.unwanted = None;
        if let Some(opened) = self.opened.take() {
            kept::keep(&self.blob.name, opened);
        }
        let n = self.blob.size_bytes;
        BytesIngested {
            kind: RunImport::KIND,
            direction: Direction::In,
            n,
        }
        .emit();
    }
}

/// Returns the gate of an owner's catalog: one import or rollback at a time, the others wait in the
/// order of their priority.
pub(super) fn gate_key(tenant: &str) -> String {
    format!("catalog:{tenant}")
}

fn encode(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}

/// Says that an import's job was enqueued, once that is committed.
pub fn report() {
    let (queue, kind) = (RunImport::QUEUE, RunImport::KIND);
    JobEnqueued {
        queue,
        kind,
        source: EnqueueSource::Api,
        n: 1,
    }
    .emit();
}

/// Accepts a file that has been written whole and submits it in a transaction of its own.
///
/// # Errors
///
/// As [`accept`], and what Postgres says. Nothing is left of the file unless the
/// commit failed.
pub async fn submit(
    db: &PgPool,
    blobs: &blob::Store,
    config: &Config,
    file: blob::Writer,
    file_name: &str,
    origin: Origin<'_>,
) -> Result<RunId, SubmitError> {
    let wish = Wish::from(&config.product_import);
    let accepted = accept(blobs, config, file, file_name, wish).await?;
    let mut tx = db.begin().await?;
    let run_id = accepted.submit(&mut tx, origin).await?;
    accepted.keep();
    tx.commit().await?;
    report();
    Ok(run_id)
}
