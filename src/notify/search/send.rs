//! One batch: read what is to be told, send it, settle what became of it.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    index, outbox,
    outbox::{Settled, Told},
    server::{Line, MOST_REMOVED, Server, Trouble},
};
use crate::{
    config, db,
    ingest::Context,
    observe::{SearchDocuments, SearchResult},
    queue::{JobContext, JobError},
};

/// What a job that sends works with.
pub(super) struct Sender<'a> {
    pub(super) ctx: &'a JobContext<Context>,
    pub(super) server: Server,
    pub(super) settings: &'a config::Search,
}

/// Batches that one drain sends at most.
const MOST_BATCHES: u32 = 2000;

/// Which products a batch is about.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    /// Those noted behind a place of the outbox.
    Notes(i64),
    /// Those refused before that are due again.
    Due,
    /// Those with ids behind one, for a rebuild.
    Page(i64),
}

/// What was read, and when.
pub(super) struct Batch {
    pub(super) told: Vec<Told>,
    version: i64,
    now: DateTime<Utc>,
}

impl Batch {
    /// Returns the place of the last note; `None` where nothing was read.
    pub(super) fn last(&self) -> Option<i64> {
        let last = self.told.last()?;
        Some(last.seq.unwrap_or(last.product_id))
    }
}

/// One request's worth of documents: the products, each once, and their lines.
#[derive(Default)]
struct Lines {
    ids: Vec<i64>,
    body: String,
}

impl<'a> Sender<'a> {
    /// Makes one where a server is configured.
    pub(super) fn new(ctx: &'a JobContext<Context>) -> Option<Self> {
        let config = &ctx.state().config;
        Some(Self {
            ctx,
            server: Server::new(config)?,
            settings: &config.search,
        })
    }

    pub(super) fn alias(&self) -> &'a str {
        &self.settings.collection
    }

    /// Reads a batch while the lease is held.
    pub(super) async fn read(&self, which: Which) -> Result<Batch, JobError> {
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        // Statistics of an outbox that was empty a moment ago would have the products read whole.
        db::one_plan(&mut tx).await?;
        let version = outbox::version(&mut tx).await?;
        let limit = self.settings.batch_rows;
        let told = match which {
            Which::Notes(after) => outbox::notes(&mut tx, after, limit).await?,
            Which::Due => outbox::due(&mut tx, self.alias(), limit).await?,
            Which::Page(after) => outbox::page(&mut tx, after, limit).await?,
        };
        let now = sqlx::query_scalar("SELECT clock_timestamp()")
            .fetch_one(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Batch { told, version, now })
    }

    /// Sends a batch to the collections and settles what became of each product; `and` goes into
    /// the transaction that settles. A product counts as taken once all collections took it.
    ///
    /// # Errors
    ///
    /// Trouble comes back once what went well before it is settled: that is not sent again.
    pub(super) async fn tell(
        &self,
        targets: &[String],
        batch: &Batch,
        and: impl AsyncFnOnce(&mut PgConnection) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        let mut settled = Settled::default();
        let sent = self.send(targets, batch, &mut settled).await;
        settled.sort_notes(&batch.told);
        if let Err(error) = self.settle(batch, &settled, sent.is_ok(), and).await {
            if matches!(error, JobError::LeaseLost) {
                self.note_again(batch).await;
            }
            return Err(error);
        }
        count(&settled);
        match sent {
            Ok(()) => Ok(()),
            Err(trouble) => Err(self.troubled(trouble).await?),
        }
    }

    async fn settle(
        &self,
        batch: &Batch,
        settled: &Settled,
        is_whole: bool,
        and: impl AsyncFnOnce(&mut PgConnection) -> Result<(), JobError>,
    ) -> Result<(), JobError> {
        if settled.taken.is_empty() && settled.refused.is_empty() && !batch.told.is_empty() {
            return Ok(()); // nothing went well
        }
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        db::one_plan(&mut tx).await?;
        outbox::settle(&mut tx, self.alias(), settled).await?;
        let n_upserted = settled.taken.len() - settled.n_deleted;
        index::count(&mut tx, self.alias(), n_upserted, settled.n_deleted).await?;
        if is_whole {
            and(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Another worker may have sent newer documents before ours arrived: the products are noted
    /// again, which needs no lease, and whoever has it now mends them. Best effort: a process that
    /// dies first leaves them as they are until they change again.
    async fn note_again(&self, batch: &Batch) {
        let ids: Vec<i64> = batch.told.iter().map(|told| told.product_id).collect();
        let noted = async {
            let mut conn = self.ctx.state().db.acquire().await?;
            outbox::note(&mut conn, &ids).await
        };
        if let Err(error) = noted.await {
            tracing::warn!(%error, n = ids.len(), "products sent under a lost lease are not noted again");
        }
    }

    async fn send(
        &self,
        targets: &[String],
        batch: &Batch,
        settled: &mut Settled,
    ) -> Result<(), Trouble> {
        let mut seen = HashSet::with_capacity(batch.told.len());
        let (mut lines, mut gone) = (Lines::default(), Vec::new());
        let most_bytes = usize::try_from(self.settings.batch_bytes).unwrap_or(usize::MAX);
        let most_rows = usize::try_from(self.settings.batch_rows).unwrap_or(usize::MAX);
        for told in &batch.told {
            let id = told.product_id;
            if !seen.insert(id) {
                continue; // noted twice: all were read at once, so one document will do
            }
            if !told.is_live {
                gone.push(id);
                continue;
            }
            let line = told.product.line(id, batch.version, self.settings);
            let is_full =
                lines.body.len() + line.len() > most_bytes || lines.ids.len() >= most_rows;
            if is_full && !lines.ids.is_empty() {
                let full = std::mem::take(&mut lines);
                self.upsert(targets, full, batch.now, settled).await?;
            }
            lines.ids.push(id);
            lines.body.push_str(&line);
        }
        self.upsert(targets, lines, batch.now, settled).await?;
        for ids in gone.chunks(MOST_REMOVED) {
            for target in targets {
                self.server.remove(target, ids, batch.now).await?;
            }
            settled.n_deleted += ids.len();
            settled.taken.extend(ids);
        }
        Ok(())
    }

    async fn upsert(
        &self,
        targets: &[String],
        lines: Lines,
        now: DateTime<Utc>,
        settled: &mut Settled,
    ) -> Result<(), Trouble> {
        if lines.ids.is_empty() {
            return Ok(());
        }
        let mut verdicts = vec![Line::Taken; lines.ids.len()];
        for target in targets {
            let body = lines.body.clone();
            let found = self.server.import(target, body, verdicts.len(), now);
            for (verdict, found) in verdicts.iter_mut().zip(found.await?) {
                if *verdict == Line::Taken {
                    *verdict = found;
                }
            }
        }
        let mut is_busy = false;
        for (id, verdict) in lines.ids.into_iter().zip(verdicts) {
            match verdict {
                Line::Busy => is_busy = true, // its note stays
                Line::Taken => settled.taken.push(id),
                Line::Refused(why) => settled.refused.push((id, why)),
            }
        }
        if is_busy {
            return Err(Trouble::some_busy());
        }
        Ok(())
    }

    /// Notes trouble for people, and says how the job goes on.
    async fn troubled(&self, trouble: Trouble) -> Result<JobError, JobError> {
        let mut conn = self.ctx.state().db.acquire().await?;
        let wait = match &trouble {
            Trouble::Busy { wait, .. } => Some(*wait),
            _ => None,
        };
        let text = trouble.to_string();
        let secs = wait.map(|wait| wait.as_secs_f64());
        index::trouble(&mut *conn, self.alias(), &text, secs).await?;
        drop(conn);
        if let Trouble::Missing(name) = &trouble {
            let mut tx = self.ctx.state().db.begin().await?;
            self.ctx.fence(&mut tx).await?;
            index::lost(&mut tx, self.alias(), name).await?;
            tx.commit().await?;
        }
        Ok(match wait {
            Some(wait) => JobError::Snooze(wait),
            None => anyhow::Error::from(trouble)
                .context(format!("search.collection {}", self.alias()))
                .into(),
        })
    }

    /// Turns an exchange's trouble into what the job is to do.
    pub(super) async fn hope<T>(&self, exchanged: Result<T, Trouble>) -> Result<T, JobError> {
        match exchanged {
            Ok(value) => Ok(value),
            Err(trouble) => Err(self.troubled(trouble).await?),
        }
    }

    /// Sends what is noted, from the first note to the last, and what is due again.
    ///
    /// At most [`MOST_BATCHES`]: under imports that never end the rest is for the next job.
    pub(super) async fn drain(&self, targets: &[String]) -> Result<u64, JobError> {
        let (mut after, mut n_told) = (0, 0_u64);
        for _ in 0..MOST_BATCHES {
            self.stop_if_cancelled()?;
            let batch = self.read(Which::Notes(after)).await?;
            let Some(last) = batch.last() else {
                if after == 0 {
                    break;
                }
                after = 0; // a transaction that committed late may have left notes behind us
                continue;
            };
            self.tell(targets, &batch, async |_: &mut PgConnection| Ok(()))
                .await?;
            (after, n_told) = (last, n_told + batch.told.len() as u64);
        }
        let due = self.read(Which::Due).await?;
        if !due.told.is_empty() {
            self.tell(targets, &due, async |_: &mut PgConnection| Ok(()))
                .await?;
        }
        Ok(n_told)
    }

    pub(super) fn stop_if_cancelled(&self) -> Result<(), JobError> {
        if self.ctx.cancelled().is_cancelled() {
            return Err(JobError::Cancelled);
        }
        Ok(())
    }
}

fn count(settled: &Settled) {
    for (result, n) in [
        (
            SearchResult::Upserted,
            settled.taken.len() - settled.n_deleted,
        ),
        (SearchResult::Deleted, settled.n_deleted),
        (SearchResult::Refused, settled.refused.len()),
    ] {
        SearchDocuments {
            result,
            n: n as u64,
        }
        .emit();
    }
}
