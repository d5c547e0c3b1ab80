//! `search.rebuild`: fills a new collection, then leads the alias to it.
//!
//! Where it stands is kept in `catalog.search_indexes`, committed page by page, so that an attempt
//! goes on where the last one ended, and a later job where one was given up. While it is under way
//! every change goes to both collections, by its own drains and, between its attempts, by those of
//! `search.sync`; all of them take turns at one gate. Nobody who searches sees any of it before the
//! alias moves.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{
    GATE,
    index::{self, Index},
    send::{Sender, Which},
    sync::RETRY,
};
use crate::{
    ingest::Context,
    queue::{ByName, Done, Job, JobContext, JobError, Retry},
};

/// Fills a new collection with every live product and leads the alias to it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rebuild {}

impl Job for Rebuild {
    const KIND: &'static str = "search.rebuild";
    const QUEUE: &'static str = "search";
    const RETRY: Retry = RETRY;
    const TIMEOUT: Duration = Duration::from_hours(12);
    const BY_NAME: ByName = ByName::Nobody("POST /api/v1/search/rebuild");
    type Context = Context;

    fn unique_key(&self) -> Option<String> {
        Some("search.rebuild".to_owned())
    }

    fn gate_key(&self) -> Option<String> {
        Some(GATE.to_owned())
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Some(sender) = Sender::new(ctx) else {
            return Ok(Done::new()); // no server is configured any more
        };
        let (index, building) = begin(&sender).await?;
        if let Some(until) = index.wait_until
            && let Ok(wait) = (until - index.now).to_std()
            && !wait.is_zero()
        {
            return Err(JobError::Snooze(wait));
        }
        make(&sender, &index, &building).await?;
        fill(&sender, &index, &building).await?;
        switch(&sender, &building).await?;
        let index = state(&sender).await?;
        drop_retired(&sender, &index).await?;
        let mut tx = ctx.state().db.begin().await?;
        ctx.fence(&mut tx).await?;
        index::caught_up(&mut tx, sender.alias()).await?;
        let done = ctx.complete_in(&mut tx).await?;
        tx.commit().await?;
        Ok(done)
    }
}

async fn state(sender: &Sender<'_>) -> Result<Index, JobError> {
    let found = index::find(&sender.ctx.state().db, sender.alias()).await?;
    Ok(found.unwrap_or_default())
}

/// Names the new collection, or finds the one that was begun.
async fn begin(sender: &Sender<'_>) -> Result<(Index, String), JobError> {
    let mut tx = sender.ctx.state().db.begin().await?;
    sender.ctx.fence(&mut tx).await?;
    index::begin_build(&mut tx, sender.alias(), &sender.settings.fields).await?;
    tx.commit().await?;
    let index = state(sender).await?;
    let building = index.building.clone();
    let building = building.ok_or_else(|| anyhow::anyhow!("the rebuild that was begun is gone"))?;
    Ok((index, building))
}

/// Makes the collection, once it is sure that the alias's name is none's.
async fn make(sender: &Sender<'_>, index: &Index, building: &str) -> Result<(), JobError> {
    let alias = sender.alias();
    let leads_to = sender.server.resolve(alias, index.now).await;
    if sender.hope(leads_to).await?.as_deref() == Some(alias) {
        return Err(JobError::Fatal(anyhow::anyhow!(
            "the search server has a collection named {alias}, and ingestd needs an alias of that \
             name: choose another search.collection, or drop the collection"
        )));
    }
    let made = sender
        .server
        .create(building, sender.settings, index.now)
        .await;
    sender.hope(made).await
}

/// Sends every live product, page by page, and between two pages what changed meanwhile.
async fn fill(sender: &Sender<'_>, index: &Index, building: &str) -> Result<(), JobError> {
    let pages = [building.to_owned()];
    let targets = index.targets();
    let (mut after, mut n_rows) = (index.build_after, index.build_rows);
    loop {
        sender.stop_if_cancelled()?;
        let page = sender.read(Which::Page(after)).await?;
        let Some(last) = page.last() else { break };
        let step = (after, last);
        let n = page.told.len();
        let alias = sender.alias();
        sender
            .tell(&pages, &page, async |conn: &mut PgConnection| {
                if index::advance_build(conn, alias, building, step, n).await? {
                    Ok(())
                } else {
                    Err(anyhow::anyhow!("another rebuild went on meanwhile").into())
                }
            })
            .await?;
        after = last;
        n_rows += i64::try_from(n).unwrap_or_default();
        let note = format!("products in {building}");
        sender
            .ctx
            .progress(n_rows.unsigned_abs(), None::<u64>, &note);
        sender.drain(&targets).await?;
    }
    sender.drain(&targets).await?;
    Ok(())
}

/// Leads the alias to the new collection. A crash between the two does it again, to the same end;
/// until it is noted changes go to both.
async fn switch(sender: &Sender<'_>, building: &str) -> Result<(), JobError> {
    let index = state(sender).await?;
    let led = sender
        .server
        .point(sender.alias(), building, index.now)
        .await;
    sender.hope(led).await?;
    let mut tx = sender.ctx.state().db.begin().await?;
    sender.ctx.fence(&mut tx).await?;
    if !index::switch(&mut tx, sender.alias(), building).await? {
        return Err(anyhow::anyhow!("another rebuild went on meanwhile").into());
    }
    tx.commit().await?;
    Ok(())
}

/// Drops the collections that are not used any more.
async fn drop_retired(sender: &Sender<'_>, index: &Index) -> Result<(), JobError> {
    for name in &index.retired {
        let dropped = sender.server.drop(name, index.now).await;
        sender.hope(dropped).await?;
        let mut tx = sender.ctx.state().db.begin().await?;
        sender.ctx.fence(&mut tx).await?;
        index::dropped(&mut tx, sender.alias(), name).await?;
        tx.commit().await?;
    }
    Ok(())
}
