//! `search.sync` sends what is noted; `search.look` sees to it that it does.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{GATE, Rebuild, index, send::Sender};
use crate::{
    config::Config,
    ingest::Context,
    queue::{self, ByName, Done, Job, JobContext, JobError, NewJob, Retry},
};

/// 5 s, 15 s, 45 s, 2 min, 7 min, then every 15 min: given up after about two hours, and taken up
/// again by the next import or [`Look`].
pub(super) const RETRY: Retry = Retry {
    first: Duration::from_secs(5),
    factor: 3.0,
    cap: Duration::from_mins(15),
    jitter: 0.5,
    max_attempts: 12,
};

/// Tells the search server of every product that is noted.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncSearch {
    /// The import that it follows; none: somebody asked for it, or [`Look`] found something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import: Option<i64>,
}

impl Job for SyncSearch {
    const KIND: &'static str = "search.sync";
    const QUEUE: &'static str = "search";
    const RETRY: Retry = RETRY;
    const TIMEOUT: Duration = Duration::from_hours(1);
    const BY_NAME: ByName = ByName::Nobody("POST /api/v1/search/sync");
    type Context = Context;

    /// One for each import: were they one, an import that ends while the last one's sync is just
    /// ending would find it unfinished, and nobody would look again.
    fn unique_key(&self) -> Option<String> {
        Some(match self.import {
            Some(id) => format!("search.sync:{id}"),
            None => "search.sync".to_owned(),
        })
    }

    fn gate_key(&self) -> Option<String> {
        Some(GATE.to_owned())
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Some(sender) = Sender::new(ctx) else {
            return Ok(Done::new()); // no server is configured any more
        };
        let found = index::find(&ctx.state().db, sender.alias()).await?;
        let index = found.unwrap_or_default();
        if let Some(until) = index.wait_until
            && let Ok(wait) = (until - index.now).to_std()
            && !wait.is_zero()
        {
            return Err(JobError::Snooze(wait));
        }
        let targets = index.targets();
        let mut tx = ctx.state().db.begin().await?;
        if targets.is_empty() {
            // Nothing was built yet, or it is gone from the server: then all of it is needed.
            ctx.fence(&mut tx).await?;
            queue::enqueue(&mut tx, &Rebuild {}).await?;
        } else {
            tx.rollback().await?;
            sender.drain(&targets).await?;
            tx = ctx.state().db.begin().await?;
            ctx.fence(&mut tx).await?;
            index::caught_up(&mut tx, sender.alias()).await?;
        }
        let done = ctx.complete_in(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    }
}

/// Enqueues what follows an import that succeeded, in the transaction that completes it. Nothing
/// where no search server is configured.
///
/// # Errors
///
/// What Postgres says.
pub async fn after_import(
    conn: &mut PgConnection,
    config: &Config,
    import: i64,
) -> sqlx::Result<()> {
    if config.search.is_on() {
        let import = Some(import);
        let job = NewJob::of(&SyncSearch { import });
        let job = job.map_err(|error| sqlx::Error::Encode(error.into()))?;
        // Its key taken, by whatever job, is no reason to fail the import: [`Look`] sees to the rest.
        queue::enqueue_raw(conn, &job).await?;
    }
    Ok(())
}

/// Looks every five minutes whether something is left: notes of an import that did not end well,
/// products that are due again, a server that nothing was ever sent to.
///
/// A kind of its own, since the jobs of a schedule have no gate.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {}

impl Job for Look {
    const KIND: &'static str = "search.look";
    const QUEUE: &'static str = "search";
    const RETRY: Retry = Retry::STANDARD.attempts(3);
    const TIMEOUT: Duration = Duration::from_mins(1);
    const SCHEDULE: Option<&'static str> = Some("20 */5 * * * *");
    type Context = Context;

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Context { db, config, .. } = ctx.state();
        if !config.search.is_on() {
            return Ok(Done::new());
        }
        let mut tx = db.begin().await?;
        ctx.fence(&mut tx).await?;
        if is_anything_left(&mut tx, &config.search.collection).await? {
            queue::enqueue(&mut tx, &SyncSearch::default()).await?;
        }
        let done = ctx.complete_in(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    }
}

async fn is_anything_left(conn: &mut PgConnection, alias: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM catalog.search_outbox)
             OR EXISTS (SELECT FROM catalog.search_failures
                        WHERE collection = $1 AND retry_at <= now())
             OR NOT EXISTS (SELECT FROM catalog.search_indexes
                            WHERE alias = $1 AND (live IS NOT NULL OR building IS NOT NULL))",
    )
    .bind(alias)
    .fetch_one(conn)
    .await
}
