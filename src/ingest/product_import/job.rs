//! `product_import.run`: reads the file on a thread of its own and commits it chunk by chunk.
//!
//! Each chunk is one transaction: rows, fence, counts, cursor, heartbeat. What
//! is not committed did not happen; what is committed is not done again, since
//! the next attempt skips the chunks before the cursor. Chunk boundaries depend
//! on the file and the options alone, and the cursor says which options.

use std::{ops::ControlFlow, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{PgConnection, Postgres, Transaction};

use super::{
    kept,
    load::{
        commit::Book,
        handover::{LoaderEnd, handover},
        tally::Tallies,
    },
    plan::{Duplicates, Mode, Plan},
    replace::{self, Scan},
    row::{Chunk, field::Field, seen::Spots},
    settle::Settler,
    sheet::{self, Inspection, Refusal, Summary},
    store,
};
use crate::{
    db,
    ingest::{Context, wait_for_database},
    notify::{mail, search},
    queue::{ByName, DeadJob, Done, Job, JobContext, JobError, Retry},
    runs::{self, Driver, Place, Progress, RunId, Unmoved},
};

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
    /// What is done with its rows.
    #[serde(default)]
    pub plan: Plan,
    /// How its job is enqueued.
    #[serde(default)]
    pub driver: Driver,
}

/// Where an import goes on: `ingestd.runs.cursor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The first chunk that is not committed.
    next_chunk: u32,
    /// The options under which chunks are counted; [`Inspection::fingerprint`].
    fingerprint: i64,
    /// How many products may be archived; `None`: not counted yet.
    #[serde(default)]
    may_archive: Option<i64>,
    /// Set once every row is committed and what the file lacks is archived.
    #[serde(default)]
    archiving: Option<Archiving>,
}

impl Cursor {
    /// Returns where the import goes on once this chunk is committed.
    pub(super) fn behind(&self, chunk: &Chunk) -> Self {
        Self {
            next_chunk: chunk.seq + 1,
            ..self.clone()
        }
    }
}

/// Returns how many chunks of an unfinished run are committed, by its cursor, and the fingerprint of
/// the options under which they are counted.
pub(super) fn chunks_committed(cursor: Option<Value>) -> Option<(u32, i64)> {
    let cursor = serde_json::from_value::<Cursor>(cursor?).ok()?;
    let n_chunks = match cursor.archiving {
        Some(_) => u32::MAX,
        None => cursor.next_chunk,
    };
    Some((n_chunks, cursor.fingerprint))
}

/// How far the archiving is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Archiving {
    /// Products up to this code are dealt with.
    after: String,
    /// Data rows of the file.
    n_rows: u64,
}

impl Job for RunImport {
    const KIND: &'static str = "product_import.run";
    const QUEUE: &'static str = "import";
    const RETRY: Retry = Retry::STANDARD.attempts(5);
    const TIMEOUT: Duration = Duration::from_hours(6);
    const BY_NAME: ByName = ByName::Nobody("upload the file, or reset the run");
    type Context = Context;

    fn unique_key(&self) -> Option<String> {
        Some(format!("run:{}", self.run_id))
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        wait_for_database(import(ctx, self.run_id).await, "the import")
    }

    async fn on_dead(conn: &mut PgConnection, dead: &DeadJob) -> sqlx::Result<()> {
        let Some(id) = dead.run_id else { return Ok(()) };
        if runs::fail(conn, RunId(id), &dead.error).await? {
            mail::after_import(conn, id).await?; // else it ended before, and that was told
        }
        Ok(())
    }
}

async fn import(ctx: &JobContext<Context>, run_id: RunId) -> Result<Done, JobError> {
    let Some(mut import) = Import::begin(ctx, run_id).await? else {
        return Ok(Done::new()); // cancelled or finished meanwhile
    };
    let scan = Arc::new(import.scan().await?);
    import.guard(&scan).await?;
    let n_rows = match &import.cursor.archiving {
        Some(archiving) => archiving.n_rows,
        None => import.rows(&scan).await?,
    };
    if import.plan.mode == Mode::ReplaceAll && !import.plan.dry_run {
        import.archive(&scan, n_rows).await?;
    }
    import.finish(n_rows).await
}

/// A file that broke behind its header will not mend; a disk that did not answer may, and one that is
/// full counts no attempt.
fn refused(refusal: Refusal) -> JobError {
    if refusal.code == Refusal::STORAGE_FULL {
        tracing::warn!(%refusal, "the import waits for room in storage.dir");
        JobError::Snooze(db::FULL_PAUSE)
    } else if refusal.is_transient() {
        refusal.into()
    } else {
        JobError::fatal(refusal)
    }
}

/// One attempt at an import.
pub(super) struct Import<'a> {
    pub(super) ctx: &'a JobContext<Context>,
    pub(super) run_id: RunId,
    pub(super) tenant: String,
    pub(super) params: Params,
    pub(super) plan: Plan,
    path: PathBuf,
    options: sheet::Options,
    /// As the attempt found it, but for the archiving.
    pub(super) cursor: Cursor,
    pub(super) book: Book,
}

/// However the attempt ends, a reader that waits for a child process need not wait any more.
impl Drop for Import<'_> {
    fn drop(&mut self) {
        self.options.stop.raise();
    }
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
        let undone = store::find(&mut tx, run_id.0).await?;
        if undone.is_some_and(|import| import.rollback_run_id.is_some()) {
            return Err(JobError::Fatal(anyhow::anyhow!(
                "the import was undone; upload the file again"
            )));
        }
        tx.commit().await?;
        let place = Place::of(&run);

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
        let mut options = sheet::Options::from(&config.product_import);
        params.plan.apply(&mut options);
        let fingerprint = params.inspection.fingerprint(&options);
        let cursor = run.cursor.map(serde_json::from_value).transpose();
        let cursor = cursor
            .map_err(|error| JobError::Fatal(anyhow::anyhow!("cursor of run {run_id}: {error}")))?;
        let fresh = Cursor {
            next_chunk: 0,
            fingerprint,
            may_archive: None,
            archiving: None,
        };
        let cursor = cursor.unwrap_or(fresh);
        if !params.inspection.go_on(&mut options, cursor.fingerprint) {
            return Err(JobError::Fatal(anyhow::anyhow!(
                "the import began under other options (chunk_rows, aliases or limits have changed); \
                 what it committed stays, upload the file again for the rest"
            )));
        }
        let preview = run.details.get("preview").cloned();
        let preview = preview.and_then(|preview| serde_json::from_value(preview).ok());
        Ok(Some(Self {
            ctx,
            run_id,
            tenant: run.tenant,
            plan: params.plan,
            book: Book {
                place,
                preview: preview.unwrap_or_default(),
                tallies: Tallies::of(&params.inspection, &run.details),
            },
            params,
            path,
            options,
            cursor,
        }))
    }

    /// Reads the codes of the whole file, where the plan needs them before the first row is written.
    async fn scan(&self) -> Result<Scan, JobError> {
        if !self.plan.needs_codes() {
            return Ok(Scan::default());
        }
        let (path, inspection) = (self.path.clone(), self.params.inspection.clone());
        let mut options = self.options.clone();
        options.allow_duplicates = true;
        let cancelled = self.ctx.cancelled().clone();
        let scanned = tokio::task::spawn_blocking(move || {
            let (mut scan, mut spots) = (Scan::default(), Spots::of_sheets(&inspection));
            let read = sheet::read(&path, &inspection, &options, &mut |chunk| {
                let mapping = inspection.head(chunk.sheet).mapping;
                spots.turn_to(chunk.sheet);
                scan.take(&chunk, &spots, mapping.place_of(Field::Code));
                if cancelled.is_cancelled() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
            read.map(|_| scan)
        });
        let scan = scanned.await.context("the reader broke off")?;
        if self.ctx.cancelled().is_cancelled() {
            return Err(JobError::Cancelled);
        }
        scan.map_err(refused)
    }

    /// Counts what the file lacks before the first row is written; too much is the import's end.
    async fn guard(&mut self, scan: &Scan) -> Result<(), JobError> {
        if self.plan.mode != Mode::ReplaceAll || self.cursor.may_archive.is_some() {
            return Ok(());
        }
        let db = &self.ctx.state().db;
        let preview = &mut self.book.preview;
        let (n_missing, judged) =
            replace::guard(db, &self.tenant, &self.plan, scan, preview).await?;
        match judged {
            Ok(()) => {}
            Err(refusal) if self.plan.dry_run => self.book.preview.refusal = Some(refusal),
            Err(refusal) => return Err(JobError::Fatal(anyhow::anyhow!(refusal))),
        }
        self.cursor.may_archive = Some(n_missing);
        Ok(())
    }

    /// Reads the file to its end and commits its rows; returns how many there are.
    async fn rows(&mut self, scan: &Arc<Scan>) -> Result<u64, JobError> {
        let (chunks, reader) = self.read_aside(Arc::clone(scan));
        self.load(chunks).await?;
        let summary = reader
            .await
            .context("the reader broke off")?
            .map_err(refused)?;
        self.book.tallies.hide(summary.n_hidden);
        Ok(summary.n_rows)
    }

    /// Archives what the file lacks, a page at a time under the fence.
    async fn archive(&mut self, scan: &Scan, n_rows: u64) -> Result<(), JobError> {
        loop {
            if self.ctx.cancelled().is_cancelled() {
                return Err(JobError::Cancelled);
            }
            let archiving = self.cursor.archiving.as_ref();
            let after = archiving.map_or("", |archiving| archiving.after.as_str());
            let mut tx = self.ctx.state().db.begin().await?;
            let (id, tenant) = (self.run_id.0, self.tenant.as_str());
            let (archived, last) =
                replace::archive_page(&mut tx, id, tenant, after, &scan.codes).await?;
            self.ctx.fence(&mut tx).await?; // behind the owner's lock, as that of a chunk
            if self.ctx.state().config.search.is_on() {
                search::note(&mut tx, &archived).await?;
            }
            let Some(after) = last else { return Ok(()) };
            let n_archived = i64::try_from(archived.len())?;
            self.stay_within(&mut tx, n_archived).await?;
            let cursor = Cursor {
                archiving: Some(Archiving { after, n_rows }),
                ..self.cursor.clone()
            };
            let progress = Progress {
                stage: Some("archiving".to_owned()),
                cursor: Some(serde_json::to_value(&cursor)?),
                ..Progress::default()
            };
            let place = self.advance(&mut tx, &self.book.place, &progress).await?;
            self.commit_tx(tx).await?;
            (self.cursor, self.book.place) = (cursor, place);
        }
    }

    /// Counts archived products, and refuses more than were missing when the import began.
    async fn stay_within(&self, conn: &mut PgConnection, n_archived: i64) -> Result<(), JobError> {
        store::count_archived(&mut *conn, self.run_id.0, n_archived).await?;
        let import = store::find(conn, self.run_id.0).await?;
        let n_in_all = import.map_or(0, |import| import.archived_count);
        match self.cursor.may_archive {
            Some(most) if n_in_all > most => Err(JobError::Fatal(anyhow::anyhow!(
                "more than the {most} products are missing that were when the import began; \
                 somebody else adds products: upload the file again"
            ))),
            _ => Ok(()),
        }
    }

    /// Starts the reader on a thread for blocking work; it is at most one chunk ahead.
    fn read_aside(
        &self,
        scan: Arc<Scan>,
    ) -> (LoaderEnd, tokio::task::JoinHandle<Result<Summary, Refusal>>) {
        let (mut maker, loader) = handover();
        let (path, options) = (self.path.clone(), self.options.clone());
        let inspection = self.params.inspection.clone();
        let (first, plan) = (self.cursor.next_chunk, self.plan);
        let opened = kept::take(&self.params.blob);
        let reader = tokio::task::spawn_blocking(move || {
            let mut spots = Spots::of_sheets(&inspection);
            sheet::read_on(opened, &path, &inspection, &options, &mut |mut chunk| {
                if plan.duplicates != Duplicates::FirstWins {
                    spots.turn_to(chunk.sheet);
                    let settler = Settler {
                        codes: &scan.codes,
                        spots: &spots,
                        duplicates: plan.duplicates,
                        mapping: inspection.head(chunk.sheet).mapping,
                        locale: plan.locale,
                    };
                    settler.settle(&mut chunk);
                }
                // Committed by an earlier attempt: read again for the codes seen, not loaded again.
                if chunk.seq < first {
                    ControlFlow::Continue(())
                } else {
                    maker.give(chunk)
                }
            })
        });
        (loader, reader)
    }

    /// Moves the run on. Where a crash of the server took back chunks whose commits had not waited for
    /// the disk, the attempt ends, and the next one does them again.
    pub(crate) async fn advance(
        &self,
        conn: &mut PgConnection,
        place: &Place,
        progress: &Progress,
    ) -> Result<Place, JobError> {
        let n_chunks = |cursor: Option<Value>| chunks_committed(cursor).map_or(0, |(n, _)| n);
        match runs::advance(conn, self.run_id, place, progress).await {
            Err(Unmoved::Elsewhere(found))
                if n_chunks(found.clone()) < n_chunks(place.cursor().cloned()) =>
            {
                tracing::warn!(
                    "the server has lost the last chunks in a crash; they are done again"
                );
                Err(JobError::Snooze(db::AWAY_PAUSE))
            }
            moved => Ok(moved?),
        }
    }

    /// Commits, and waits no longer for the answer than twice what a statement may take: a network
    /// that swallows it would hold the import up for as long as the system tries.
    pub(crate) async fn commit_tx(&self, tx: Transaction<'_, Postgres>) -> sqlx::Result<()> {
        let longest = 2 * self.ctx.state().config.database.statement_timeout;
        let answer = tokio::time::timeout(longest, tx.commit()).await;
        answer.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }

    /// Completes run, import and job in one transaction; then the file is kept only for downloads.
    async fn finish(&self, n_rows: u64) -> Result<Done, JobError> {
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        if let (true, Some(n_missing)) = (self.plan.dry_run, self.cursor.may_archive) {
            store::count_archived(&mut tx, self.run_id.0, n_missing).await?;
        }
        let total = Progress {
            items_total: Some(i64::try_from(n_rows)?),
            details: self.book.details(self.plan)?,
            ..Progress::default()
        };
        self.advance(&mut tx, &self.book.place, &total).await?;
        runs::complete(&mut tx, self.run_id).await?;
        if !self.plan.dry_run {
            search::after_import(&mut tx, &self.ctx.state().config, self.run_id.0).await?;
        }
        if !self.plan.dry_run && self.ctx.state().config.mail.is_on() {
            mail::after_import(&mut tx, self.run_id.0).await?;
        }
        let done = self.ctx.complete_in(&mut tx).await?;
        self.commit_tx(tx).await?;
        let Context { blobs, config, .. } = self.ctx.state();
        if config.product_import.keep_files {
            return Ok(done); // `system.sweep_blobs` deletes it
        }
        if let Err(error) = blobs.delete(&self.params.blob).await {
            tracing::warn!(error = %error, "the imported file stays in the store");
        }
        Ok(done)
    }
}
