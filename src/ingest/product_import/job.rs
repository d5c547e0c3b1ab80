//! `product_import.run`: reads the file on a thread of its own and commits it chunk by chunk.
//!
//! Each chunk is one transaction: fence, rows, counts, cursor, heartbeat. What
//! is not committed did not happen; what is committed is not done again, since
//! the next attempt skips the chunks before the cursor. Chunk boundaries depend
//! on the file and the options alone, and the cursor says which options.

use std::{ops::ControlFlow, path::PathBuf, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use tokio::sync::mpsc;

use super::{
    columns::Columns,
    load::{self, Loaded, Target},
    row::Chunk,
    sheet::{self, Inspection, Refusal, Summary},
    store,
};
use crate::{
    db,
    ingest::Context,
    notify::{mail, search},
    observe::{RowResult, RowsIngested},
    queue::{DeadJob, Done, Job, JobContext, JobError, Retry},
    runs::{self, Progress, RunId},
};

/// How many chunks the reader may be ahead of the database.
const CHUNKS_AHEAD: usize = 2;

/// How long to let the database recover before going on; no attempt is counted for that.
const DATABASE_PAUSE: Duration = Duration::from_secs(2);

/// Imports the file of a run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunImport {
    /// The run, which is also the import's id.
    pub run_id: RunId,
}

/// What an import run is asked for: `ingestd.runs.params`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Params {
    /// The file's name in the blob store.
    pub blob: String,
    /// The file's name as the user knows it.
    pub file_name: String,
    /// What was found out about it when it was accepted.
    pub inspection: Inspection,
}

/// Where an import goes on: `ingestd.runs.cursor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor {
    /// The first chunk that is not committed.
    next_chunk: u32,
    /// The options under which chunks are counted; [`Inspection::fingerprint`].
    fingerprint: i64,
}

impl Job for RunImport {
    const KIND: &'static str = "product_import.run";
    const QUEUE: &'static str = "import";
    const RETRY: Retry = Retry::STANDARD.attempts(5);
    const TIMEOUT: Duration = Duration::from_hours(6);
    type Context = Context;

    fn unique_key(&self) -> Option<String> {
        Some(format!("run:{}", self.run_id))
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        match import(ctx, self.run_id).await {
            Err(JobError::Retry { error, .. }) if is_outage(&error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the import waits for the database"
                );
                Err(JobError::Snooze(DATABASE_PAUSE))
            }
            result => result,
        }
    }

    async fn on_dead(conn: &mut PgConnection, dead: &DeadJob) -> sqlx::Result<()> {
        let Some(id) = dead.run_id else { return Ok(()) };
        runs::fail(conn, RunId(id), &dead.error).await?;
        mail::after_import(conn, id).await?;
        Ok(())
    }
}

/// Says whether the database is away for a while, which is no fault of the import.
fn is_outage(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref())
        .any(db::is_transient)
}

async fn import(ctx: &JobContext<Context>, run_id: RunId) -> Result<Done, JobError> {
    let Some(import) = Import::begin(ctx, run_id).await? else {
        return Ok(Done::new()); // cancelled or finished meanwhile
    };
    let (chunks, reader) = import.read_aside();
    import.load(chunks).await?;
    let summary = reader
        .await
        .context("the reader broke off")?
        .map_err(refused)?;
    import.finish(&summary).await
}

/// A file that broke behind its header will not mend; a disk that did not answer may.
fn refused(refusal: Refusal) -> JobError {
    if refusal.is_transient() {
        refusal.into()
    } else {
        JobError::fatal(refusal)
    }
}

/// One attempt at an import.
struct Import<'a> {
    ctx: &'a JobContext<Context>,
    run_id: RunId,
    tenant: String,
    params: Params,
    path: PathBuf,
    options: sheet::Options,
    cursor: Cursor,
}

impl<'a> Import<'a> {
    async fn begin(ctx: &'a JobContext<Context>, run_id: RunId) -> Result<Option<Self>, JobError> {
        let Context {
            db, blobs, config, ..
        } = ctx.state();
        let mut tx = db.begin().await?;
        ctx.hold(&mut tx).await?;
        let Some(run) = runs::begin(&mut tx, run_id).await? else {
            return Ok(None);
        };
        tx.commit().await?;

        let params: Params = serde_json::from_value(run.params)
            .map_err(|error| JobError::Fatal(anyhow::anyhow!("params of run {run_id}: {error}")))?;
        let path = blobs
            .path(&params.blob)
            .filter(|path| path.exists())
            .ok_or_else(|| {
                JobError::Fatal(anyhow::anyhow!(
                    "the uploaded file {} is gone",
                    params.file_name
                ))
            })?;
        let options = sheet::Options::from(&config.product_import);
        let fingerprint = params.inspection.fingerprint(&options);
        let cursor = run
            .cursor
            .and_then(|cursor| serde_json::from_value(cursor).ok());
        let fresh = Cursor {
            next_chunk: 0,
            fingerprint,
        };
        let cursor = cursor.unwrap_or(fresh);
        if cursor.fingerprint != fingerprint {
            return Err(JobError::Fatal(anyhow::anyhow!(
                "the import began under other options (chunk_rows, aliases or limits have changed); \
                 what it committed stays, upload the file again for the rest"
            )));
        }
        Ok(Some(Self {
            ctx,
            run_id,
            tenant: run.tenant,
            params,
            path,
            options,
            cursor,
        }))
    }

    /// Starts the reader on a thread for blocking work; it is at most a few chunks ahead.
    fn read_aside(
        &self,
    ) -> (
        mpsc::Receiver<Chunk>,
        tokio::task::JoinHandle<Result<Summary, Refusal>>,
    ) {
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let (path, options) = (self.path.clone(), self.options.clone());
        let inspection = self.params.inspection.clone();
        let first = self.cursor.next_chunk;
        let reader = tokio::task::spawn_blocking(move || {
            sheet::read(&path, &inspection, &options, &mut |chunk| {
                // Committed by an earlier attempt: read again for the codes seen, not loaded again.
                if chunk.seq < first || sender.blocking_send(chunk).is_ok() {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(()) // nobody loads any more
                }
            })
        });
        (chunks, reader)
    }

    async fn load(&self, mut chunks: mpsc::Receiver<Chunk>) -> Result<(), JobError> {
        loop {
            tokio::select! {
                biased;
                () = self.ctx.cancelled().cancelled() => return Err(JobError::Cancelled),
                chunk = chunks.recv() => match chunk {
                    Some(chunk) => self.commit(&chunk).await?,
                    None => return Ok(()),
                }
            }
        }
    }

    /// Commits one chunk with its progress.
    async fn commit(&self, chunk: &Chunk) -> Result<(), JobError> {
        let target = Target {
            import_id: self.run_id.0,
            tenant: &self.tenant,
            sheet: self.params.inspection.sheet.as_deref(),
            columns: Columns::of(&self.params.inspection.mapping),
            notes_search: self.ctx.state().config.search.is_on(),
        };
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        let loaded = load::load_chunk(&mut tx, &target, chunk).await?;
        store::count(&mut tx, self.run_id.0, &loaded).await?;
        let cursor = Cursor {
            next_chunk: chunk.seq + 1,
            ..self.cursor
        };
        let progress = Progress {
            ok: i64::from(loaded.inserted + loaded.updated),
            skipped: i64::from(loaded.unchanged),
            failed: i64::from(loaded.n_failed()),
            cursor: Some(serde_json::to_value(cursor)?),
            ..Progress::default()
        };
        runs::advance(&mut tx, self.run_id, &progress).await?;
        tx.commit().await?;
        report(&loaded);
        Ok(())
    }

    /// Completes run, import and job in one transaction; then the file is not needed any more.
    async fn finish(&self, summary: &Summary) -> Result<Done, JobError> {
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        let total = Progress {
            items_total: Some(i64::try_from(summary.n_rows)?),
            ..Progress::default()
        };
        runs::advance(&mut tx, self.run_id, &total).await?;
        runs::complete(&mut tx, self.run_id).await?;
        search::after_import(&mut tx, &self.ctx.state().config, self.run_id.0).await?;
        if self.ctx.state().config.mail.is_on() {
            mail::after_import(&mut tx, self.run_id.0).await?;
        }
        let done = self.ctx.complete_in(&mut tx).await?;
        tx.commit().await?;
        if let Err(error) = self.ctx.state().blobs.delete(&self.params.blob).await {
            tracing::warn!(error = %error, "the imported file stays in the store");
        }
        Ok(done)
    }
}

fn report(loaded: &Loaded) {
    for (result, n) in [
        (RowResult::Inserted, loaded.inserted),
        (RowResult::Updated, loaded.updated),
        (RowResult::Unchanged, loaded.unchanged),
        (RowResult::Rejected, loaded.n_failed()),
    ] {
        RowsIngested {
            kind: RunImport::KIND,
            result,
            n: n.into(),
        }
        .emit();
    }
}
