//! Chunks are loaded two at a time, each over a connection of its own, and committed one after the
//! other in the order of the file.
//!
//! One connection is one backend, and a backend uses one core; the rows of two chunks have no code
//! in common. Two things pass from each chunk to the next:
//! * the *turn*: a chunk asks for the owner's lock once the one before it has it. Otherwise somebody
//!   could come between them who waits for the second, while the first waits for him and the second
//!   for the first, and no server sees such a circle;
//! * the *[`Book`]*, once the chunk is committed: who has it is the one to commit.
//!
//! The fence comes last, before what moves the run: a chunk is committed only by who holds the lease,
//! and whatever another attempt did meanwhile is refused there. Where the process dies, the cursor
//! says what is committed, and the rest never was.

use std::{pin::pin, time::Duration};

use futures::{
    future::maybe_done,
    stream::{FuturesOrdered, StreamExt as _},
};
use sqlx::{PgConnection, Postgres, Transaction};
use tokio::sync::{mpsc, oneshot};

use super::{
    columns::Columns,
    job::Import,
    load::{self, Loaded, Target, Turn, Written},
    plan::Plan,
    preview::Preview,
    row::Chunk,
    store,
    tally::Tallies,
};
use crate::{
    observe::{RowResult, RowsIngested},
    queue::{Job as _, JobError},
    runs::{self, Place, Progress},
};

/// So many chunks of nothing but new products in a row, and those of the next are not looked for any
/// more before they are inserted. A chunk that was expected to be new and is not is written twice.
const NEW_CHUNKS: u32 = 4;

/// How long a loaded chunk waits for the one before it. It keeps its rows locked meanwhile, and
/// somebody may wait for them who has the other's: after that it lets go and is loaded again.
const PATIENCE: Duration = Duration::from_secs(5);

/// A chunk's commit does not wait for the disk. A crash of the server may take back the last chunks,
/// less than a second of them, each as a whole and with its cursor, so that the next attempt does
/// them again. The run's end does wait, and whatever was committed before it is then on the disk, too.
const DO_NOT_WAIT: &str = "SET LOCAL synchronous_commit = off";

/// What is known of a run at the end of its last committed chunk.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) place: Place,
    pub(super) preview: Preview,
    pub(super) tallies: Tallies,
}

impl Book {
    /// Returns what a dry run and an import of several sheets show, for the run's details.
    pub(super) fn details(&self, plan: Plan) -> serde_json::Result<Option<serde_json::Value>> {
        let mut details = serde_json::Map::new();
        if plan.dry_run {
            details.insert("preview".to_owned(), serde_json::to_value(&self.preview)?);
        }
        self.tallies.show(&mut details)?;
        Ok((!details.is_empty()).then_some(details.into()))
    }
}

/// What a chunk gets from the one before it.
struct Before {
    turn: oneshot::Receiver<()>,
    book: oneshot::Receiver<Book>,
}

/// What a chunk gives to the next one.
struct After {
    turn: oneshot::Sender<()>,
    book: oneshot::Sender<Book>,
}

fn link() -> (After, Before) {
    let ((give_turn, turn), (give_book, book)) = (oneshot::channel(), oneshot::channel());
    let after = After {
        turn: give_turn,
        book: give_book,
    };
    (after, Before { turn, book })
}

/// The chunk before was not committed, and its error is the one that counts.
fn left_behind() -> JobError {
    anyhow::anyhow!("the chunk before was not committed").into()
}

impl Import<'_> {
    /// Commits the chunks. Once the attempt is cancelled no other is begun, and those that are
    /// being loaded are committed.
    pub(super) async fn load(&mut self, chunks: mpsc::Receiver<Chunk>) -> Result<(), JobError> {
        let (After { turn, book }, first) = link();
        _ = turn.send(());
        _ = book.send(std::mem::take(&mut self.book));
        self.book = self.load_behind(first, chunks).await?;
        if self.ctx.cancelled().is_cancelled() {
            return Err(JobError::Cancelled);
        }
        Ok(())
    }

    async fn load_behind(
        &self,
        mut before: Before,
        mut chunks: mpsc::Receiver<Chunk>,
    ) -> Result<Book, JobError> {
        let turn = self.turn().await?;
        let at_once = if turn == Turn::Shared { 2 } else { 1 };
        let mut loading = FuturesOrdered::new();
        let (mut goes_on, mut n_new_chunks) = (true, 0);
        while goes_on || !loading.is_empty() {
            let has_room = loading.len() < at_once;
            tokio::select! {
                biased;
                () = self.ctx.cancelled().cancelled(), if goes_on => goes_on = false,
                Some(loaded) = loading.next() => {
                    let loaded: Loaded = loaded?;
                    n_new_chunks = if is_new(&loaded) { n_new_chunks + 1 } else { 0 };
                }
                chunk = chunks.recv(), if goes_on && has_room => match chunk {
                    Some(chunk) => {
                        let (after, next) = link();
                        let before = std::mem::replace(&mut before, next);
                        let expects_new = n_new_chunks >= NEW_CHUNKS;
                        loading.push_back(self.commit(chunk, turn, expects_new, before, after));
                    }
                    None => goes_on = false,
                }
            }
        }
        drop(loading);
        before.book.await.map_err(|_| left_behind())
    }

    /// Says whether two chunks may be loaded at once: not while another import of the owner runs,
    /// with which this one must take turns chunk by chunk. Each is called running before it looks, so
    /// that of two at most one shares the owner's lock. A dry run keeps nothing and shows its rows in
    /// their order.
    async fn turn(&self) -> sqlx::Result<Turn> {
        // runs_unfinished
        const IS_ALONE: &str = "SELECT NOT EXISTS (SELECT FROM ingestd.runs r
            JOIN catalog.imports i ON i.id = r.id
            WHERE r.finished_at IS NULL AND r.state = 'running' AND i.tenant = $1 AND r.id <> $2)";
        if self.plan.dry_run || self.ctx.state().config.product_import.connections < 2 {
            return Ok(Turn::Alone);
        }
        let is_alone: bool = sqlx::query_scalar(IS_ALONE)
            .bind(&self.tenant)
            .bind(self.run_id)
            .fetch_one(&self.ctx.state().db)
            .await?;
        Ok(if is_alone { Turn::Shared } else { Turn::Alone })
    }

    /// Says whether there is a connection for a second chunk, now that the first one has its own:
    /// half of them are left to others.
    fn has_connections(&self) -> bool {
        let db = &self.ctx.state().db;
        let n_idle = u32::try_from(db.num_idle()).unwrap_or(u32::MAX);
        let n_taken = db.size().saturating_sub(n_idle);
        n_taken < db.options().get_max_connections().div_ceil(2)
    }

    /// Loads one chunk, and commits it with its progress once the one before is committed.
    async fn commit(
        &self,
        chunk: Chunk,
        turn: Turn,
        expects_new: bool,
        before: Before,
        after: After,
    ) -> Result<Loaded, JobError> {
        let target = self.target(&chunk, expects_new);
        before.turn.await.map_err(|_| left_behind())?;
        let mut waits = pin!(maybe_done(before.book));
        if self.plan.dry_run || !self.has_connections() {
            waits.as_mut().await;
        }
        let mut tx = self.open(&target, turn).await?;
        _ = after.turn.send(()); // nobody may wait for it
        let written = if self.plan.dry_run {
            let book = waits.as_mut().output_mut();
            let Some(Ok(book)) = book else {
                return Err(left_behind());
            };
            load::rehearse_chunk(&mut tx, &target, &chunk, &mut book.preview).await?
        } else {
            let mut loaded = load::load_rows(&mut tx, &target, &chunk).await?;
            if tokio::time::timeout(PATIENCE, waits.as_mut())
                .await
                .is_err()
            {
                tx.rollback().await?;
                waits.as_mut().await;
                tx = self.open(&target, turn).await?;
                loaded = load::load_rows(&mut tx, &target, &chunk).await?;
            }
            let (written, rejects) = loaded;
            rejects.write(&mut tx, &target, &chunk).await?; // as they are ordered by
            written
        };
        let book = waits.as_mut().take_output();
        let Some(Ok(mut book)) = book else {
            return Err(left_behind());
        };
        self.note(&mut tx, &chunk, &written, &mut book).await?;
        tx.commit().await?;
        _ = after.book.send(book);
        if !self.plan.dry_run {
            report(&written.loaded);
        }
        Ok(written.loaded)
    }

    fn target<'t>(&'t self, chunk: &Chunk, expects_new: bool) -> Target<'t> {
        let head = self.params.inspection.head(chunk.sheet);
        Target {
            import_id: self.run_id.0,
            tenant: &self.tenant,
            sheet: head.sheet,
            columns: Columns::of(head.mapping),
            mode: self.plan.mode,
            mapping: Some(head.mapping),
            locale: self.plan.locale,
            notes_search: !self.plan.dry_run && self.ctx.state().config.search.is_on(),
            expects_new,
        }
    }

    /// Begins a chunk's transaction and waits for the owner's lock.
    async fn open(
        &self,
        target: &Target<'_>,
        turn: Turn,
    ) -> sqlx::Result<Transaction<'static, Postgres>> {
        let mut tx = self.ctx.state().db.begin().await?;
        if !target.notes_search {
            // else the search server might be told what a crash takes back
            sqlx::query(DO_NOT_WAIT).execute(&mut *tx).await?;
        }
        load::take_turn(&mut tx, target.tenant, turn).await?;
        Ok(tx)
    }

    /// Fences a loaded chunk, and moves the run on behind it.
    async fn note(
        &self,
        conn: &mut PgConnection,
        chunk: &Chunk,
        written: &Written,
        book: &mut Book,
    ) -> Result<(), JobError> {
        let loaded = &written.loaded;
        self.ctx.fence(&mut *conn).await?;
        store::count(&mut *conn, self.run_id.0, written).await?;
        book.tallies.count(chunk, loaded);
        let cursor = self.cursor.behind(chunk);
        let progress = Progress {
            ok: i64::from(loaded.inserted + loaded.updated),
            skipped: i64::from(loaded.unchanged),
            failed: i64::from(loaded.n_failed()),
            cursor: Some(serde_json::to_value(&cursor)?),
            stage: book.tallies.stage(chunk.sheet),
            details: book.details(self.plan)?,
            ..Progress::default()
        };
        book.place = runs::advance(conn, self.run_id, &book.place, &progress).await?;
        Ok(())
    }
}

/// Says whether a chunk held new products and nothing else that is good.
const fn is_new(loaded: &Loaded) -> bool {
    loaded.inserted > 0 && loaded.inserted == loaded.n_ok() && loaded.refused == 0
}

fn report(loaded: &Loaded) {
    for (result, n) in [
        (RowResult::Inserted, loaded.inserted),
        (RowResult::Updated, loaded.updated),
        (RowResult::Unchanged, loaded.unchanged),
        (RowResult::Rejected, loaded.n_failed()),
    ] {
        RowsIngested {
            kind: super::RunImport::KIND,
            result,
            n: n.into(),
        }
        .emit();
    }
}
