//! Chunks are loaded two at a time, each over a connection of its own, and committed one after the
//! other in the order of the file.
//!
//! One connection is one backend, and a backend uses one core; no code is in two chunks. Two things
//! pass from each chunk to the next:
//! * the word to *go*, once a chunk has the owner's lock: the next one asks for it then. Otherwise
//!   somebody could come between them who waits for the second, while the first waits for him and
//!   the second for the first, and no server sees such a circle;
//! * the *[`Book`]*, once a chunk is committed: who has it is the one to commit.
//!
//! The fence comes last, before what moves the run: a chunk is committed only by who holds the lease,
//! and whatever another attempt did meanwhile is refused there. Where the process dies, the cursor
//! says what is committed, and the rest never was.

use std::{
    pin::{Pin, pin},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use futures::{
    future::{MaybeDone, maybe_done},
    stream::{FuturesOrdered, StreamExt as _},
};
use sqlx::{PgConnection, Postgres, Transaction, error::DatabaseError};
use tokio::sync::oneshot;

use super::super::{job::Import, plan::Plan, row::Chunk, store};
use super::{
    Loaded, Target, Turn, Written, columns::Columns, handover::LoaderEnd, load_chunk,
    preview::Preview, rehearse_chunk, take_turn, tally::Tallies,
};
use crate::{
    observe::{RowResult, RowsIngested},
    queue::{Job as _, JobError},
    runs::{Place, Progress},
};

/// So many chunks of nothing but new products in a row, and those of the next are not looked for any
/// more before they are inserted. A chunk that was expected to be new and is not is written twice,
/// and so is the one loaded beside it.
const NEW_CHUNKS: u32 = 4;

/// How often a loaded chunk that waits for the one before looks whether somebody waits for its rows.
const LOOK: Duration = Duration::from_secs(1);

/// Whether somebody waits for a row of this transaction. It may be who holds up the chunk before, or
/// that chunk itself, by a trigger of the owner's own: then neither would ever go on.
const IS_IN_THE_WAY: &str = "SELECT EXISTS (SELECT FROM pg_locks
    WHERE NOT granted AND locktype IN ('transactionid', 'tuple')
      AND pg_backend_pid() = ANY (pg_blocking_pids(pid)))";

/// A chunk's commit does not wait for the disk. A crash of the server may take back the last chunks,
/// less than a second of them, each as a whole and with its cursor; an attempt that finds the cursor
/// set back ends, and the next one does them again. The run's end does wait, and whatever was
/// committed before it is then on the disk, too.
const DO_NOT_WAIT: &str = "SET LOCAL synchronous_commit = off";

/// What is known of a run at the end of its last committed chunk.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub(crate) place: Place,
    pub(crate) preview: Preview,
    pub(crate) tallies: Tallies,
}

impl Book {
    /// Returns what a dry run and an import of several sheets show, for the run's details.
    pub(crate) fn details(&self, plan: Plan) -> serde_json::Result<Option<serde_json::Value>> {
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
    go: oneshot::Receiver<()>,
    book: oneshot::Receiver<Book>,
}

/// What a chunk gives to the next one.
struct After {
    go: oneshot::Sender<()>,
    book: oneshot::Sender<Book>,
}

fn link() -> (After, Before) {
    let ((give_go, go), (give_book, book)) = (oneshot::channel(), oneshot::channel());
    let after = After {
        go: give_go,
        book: give_book,
    };
    (after, Before { go, book })
}

type Tx = Transaction<'static, Postgres>;
/// For the book of the chunk before; done once it is there, or never will be.
type Waits<'w> = Pin<&'w mut MaybeDone<oneshot::Receiver<Book>>>;

/// How the chunks of an attempt are loaded.
struct Way {
    turn: Turn,
    /// Two of them met, or stood in somebody's way: from then on it is one at a time.
    is_narrow: AtomicBool,
    /// For chunks that are committed.
    back: mpsc::Sender<Chunk>,
}

impl Way {
    fn n_at_once(&self) -> usize {
        let is_wide = self.turn == Turn::Shared && !self.is_narrow.load(Ordering::Relaxed);
        if is_wide { 2 } else { 1 }
    }
}

/// One chunk, and what is done with it.
struct Load<'l> {
    chunk: &'l Chunk,
    target: Target<'l>,
    way: &'l Way,
}

/// The chunk before was not committed. Nobody hears of it: the error of that one comes first.
fn left_behind() -> JobError {
    anyhow::anyhow!("the chunk before was not committed").into()
}

impl Import<'_> {
    /// Commits the chunks. Once the attempt is cancelled no other is begun, and those that are
    /// being loaded are committed.
    pub(crate) async fn load(&mut self, chunks: LoaderEnd) -> Result<(), JobError> {
        let (After { go, book }, first) = link();
        _ = go.send(());
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
        mut chunks: LoaderEnd,
    ) -> Result<Book, JobError> {
        let way = &Way {
            turn: self.shares().await?,
            is_narrow: AtomicBool::new(false),
            back: chunks.way_back(),
        };
        let mut loading = FuturesOrdered::new();
        let (mut goes_on, mut n_new_chunks) = (true, 0);
        while goes_on || !loading.is_empty() {
            let has_room = loading.len() < way.n_at_once();
            tokio::select! {
                biased;
                () = self.ctx.cancelled().cancelled(), if goes_on => goes_on = false,
                Some(loaded) = loading.next() => {
                    let loaded: Loaded = loaded?;
                    n_new_chunks = if is_new(&loaded) { n_new_chunks + 1 } else { 0 };
                }
                chunk = chunks.take(), if goes_on && has_room => match chunk {
                    Some(chunk) => {
                        let (after, next) = link();
                        let before = std::mem::replace(&mut before, next);
                        let expects_new = n_new_chunks >= NEW_CHUNKS;
                        loading.push_back(self.commit(chunk, way, expects_new, before, after));
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
    /// that of two at most one shares the owner's lock; and whatever becomes of a run meanwhile, a
    /// chunk is committed only under its lease. A dry run shows its rows in their order.
    async fn shares(&self) -> sqlx::Result<Turn> {
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
        way: &Way,
        expects_new: bool,
        before: Before,
        after: After,
    ) -> Result<Loaded, JobError> {
        let load = Load {
            chunk: &chunk,
            target: self.target(&chunk, expects_new),
            way,
        };
        before.go.await.map_err(|_| left_behind())?;
        let mut waits = pin!(maybe_done(before.book));
        if !self.has_connections() {
            waits.as_mut().await;
        }
        let tx = self.open(&load).await?;
        _ = after.go.send(()); // nobody may wait for it
        let (mut tx, mut book, written) = if self.plan.dry_run {
            rehearse(tx, &load, waits).await?
        } else {
            self.load_beside(tx, &load, waits).await?
        };
        self.note(&mut tx, &chunk, &written, &mut book).await?;
        self.commit_tx(tx).await?;
        if !self.plan.dry_run {
            report(&written.loaded);
        }
        tracing::info!(
            row = chunk.last_row,
            good = written.loaded.n_ok(),
            bad = written.loaded.n_failed(),
            "rows are done"
        );
        _ = after.book.send(book);
        _ = way.back.send(chunk);
        Ok(written.loaded)
    }

    /// Loads a chunk and waits for the one before. Where somebody waits for its rows meanwhile, it
    /// lets go of them and is loaded again behind the other.
    async fn load_beside(
        &self,
        mut tx: Tx,
        load: &Load<'_>,
        mut waits: Waits<'_>,
    ) -> Result<(Tx, Book, Written), JobError> {
        let mut loaded = load_chunk(&mut tx, &load.target, load.chunk).await;
        let lets_go = match &loaded {
            Ok(_) => is_in_the_way(&mut tx, waits.as_mut()).await?,
            Err(error) => is_deadlock(error),
        };
        if lets_go {
            load.way.is_narrow.store(true, Ordering::Relaxed);
            tx.rollback().await?;
            waits.as_mut().await;
            tx = self.open(load).await?;
            loaded = load_chunk(&mut tx, &load.target, load.chunk).await;
        }
        let (written, rejects) = loaded?;
        let book = book(waits).await?;
        rejects.write(&mut tx, &load.target, load.chunk).await?; // only now: in the file's order
        Ok((tx, book, written))
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
    async fn open(&self, load: &Load<'_>) -> sqlx::Result<Tx> {
        let mut tx = self.ctx.state().db.begin().await?;
        if !load.target.notes_search {
            // else the search server might be told what a crash takes back
            sqlx::query(DO_NOT_WAIT).execute(&mut *tx).await?;
        }
        take_turn(&mut tx, &self.tenant, load.way.turn).await?;
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
        book.place = self.advance(conn, &book.place, &progress).await?;
        Ok(())
    }
}

/// Waits until the chunk before is committed.
async fn book(mut waits: Waits<'_>) -> Result<Book, JobError> {
    waits.as_mut().await;
    let book = waits.take_output().and_then(Result::ok);
    book.ok_or_else(left_behind)
}

/// Loads a chunk and takes it back, once the one before is shown.
async fn rehearse(
    mut tx: Tx,
    load: &Load<'_>,
    waits: Waits<'_>,
) -> Result<(Tx, Book, Written), JobError> {
    let mut book = book(waits).await?;
    let preview = &mut book.preview;
    let written = rehearse_chunk(&mut tx, &load.target, load.chunk, preview).await?;
    Ok((tx, book, written))
}

/// Waits for the chunk before, and says whether somebody waits for a row of this one meanwhile.
async fn is_in_the_way(conn: &mut PgConnection, mut waits: Waits<'_>) -> sqlx::Result<bool> {
    while tokio::time::timeout(LOOK, waits.as_mut()).await.is_err() {
        let look = sqlx::query_scalar(IS_IN_THE_WAY);
        if look.fetch_one(&mut *conn).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Says whether the server ended a statement because two transactions wait for each other.
fn is_deadlock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.as_deref() == Some("40P01")
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
            kind: super::super::RunImport::KIND,
            result,
            n: n.into(),
        }
        .emit();
    }
}
