//! `catalog.fetch_source`: one look at a source.

use std::time::Duration;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};

use super::{
    Kind, folder, options,
    store::{self, LookResult, Note, Target},
    take::{self, Seen, TakeError, Taken},
};
use crate::{
    blob,
    ingest::{
        Context,
        product_import::submit::{self, Accepted, Origin, SubmitError},
    },
    queue::{ByName, Done, Job, JobContext, JobError, Retry},
};

/// How soon a look follows that came too late with what it saw.
const AGAIN: Duration = Duration::from_secs(1);

/// Looks at a source and imports what has changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchSource {
    /// The source's name.
    pub source: String,
    /// Whether the file is imported even if it is the version seen last.
    #[serde(default)]
    pub force: bool,
}

impl Job for FetchSource {
    const KIND: &'static str = "catalog.fetch_source";
    const QUEUE: &'static str = "sources";
    const RETRY: Retry = Retry::STANDARD.attempts(4);
    const TIMEOUT: Duration = Duration::from_hours(1);
    const BY_NAME: ByName = ByName::Nobody("POST /api/v1/sources/{name}/run");
    type Context = Context;

    fn unique_key(&self) -> Option<String> {
        Some(format!("source:{}", self.source))
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Some(target) = store::target(&ctx.state().db, &self.source).await? else {
            return Ok(Done::new()); // nobody wants it any more
        };
        // Looks of a schedule may name no owner.
        if ctx.lease().tenant.is_some() && !ctx.lease().belongs_to(&target.definition.tenant) {
            return Err(JobError::Fatal(anyhow!(
                "source {} is not of the job's tenant; have it looked at anew",
                self.source
            )));
        }
        if target.definition.kind() == Kind::Folder {
            return folder::look(ctx, &target).await;
        }
        let known = if self.force {
            Seen::default()
        } else {
            target.seen.clone()
        };
        let taken = take::take(ctx.state(), &target.definition, &known, target.now).await;
        match taken {
            Ok(Taken::Unchanged(seen)) => unchanged(ctx, &target, &seen).await,
            Ok(Taken::File { file, name, seen }) => import(ctx, &target, *file, &name, &seen).await,
            Err(error) => {
                failed(ctx, &target, &error.to_string()).await?;
                Err(judged(&target.name, error))
            }
        }
    }
}

/// Turns what kept a file from being taken into what happens next.
pub(super) fn judged(what: &str, error: TakeError) -> JobError {
    let (is_transient, after) = (error.is_transient(), error.after());
    let error = anyhow!(error).context(what.to_owned());
    if is_transient {
        JobError::Retry { error, after }
    } else {
        JobError::Fatal(error)
    }
}

async fn unchanged(
    ctx: &JobContext<Context>,
    target: &Target,
    seen: &Seen,
) -> Result<Done, JobError> {
    let note = Note {
        seen: Some(seen),
        ..Note::default()
    };
    let mut tx = ctx.state().db.begin().await?;
    ctx.fence(&mut tx).await?;
    if !store::note(&mut tx, target, LookResult::Unchanged, &note).await? {
        return Err(JobError::Snooze(AGAIN));
    }
    let done = ctx.complete_in(&mut tx).await?;
    tx.commit().await?;
    Ok(done)
}

/// Writes why there is nothing new; what another look wrote meanwhile stays.
async fn failed(ctx: &JobContext<Context>, target: &Target, why: &str) -> Result<(), JobError> {
    let note = Note {
        error: Some(why),
        ..Note::default()
    };
    let mut tx = ctx.state().db.begin().await?;
    ctx.hold(&mut tx).await?;
    store::note(&mut tx, target, LookResult::Failed, &note).await?;
    tx.commit().await?;
    Ok(())
}

async fn import(
    ctx: &JobContext<Context>,
    target: &Target,
    file: blob::Writer,
    name: &str,
    seen: &Seen,
) -> Result<Done, JobError> {
    let (asked, tenant) = (&target.definition.options, &target.definition.tenant);
    match options::accept(ctx.state(), file, name, asked, tenant).await {
        Ok(accepted) => submit(ctx, target, accepted, seen).await,
        Err(SubmitError::Refused(refusal)) if !refusal.is_transient() => {
            refused(ctx, target, &refusal.message, seen).await?;
            Err(JobError::Fatal(
                anyhow!(refusal).context(target.name.clone()),
            ))
        }
        Err(error) => {
            failed(ctx, target, &error.to_string()).await?;
            Err(error.into())
        }
    }
}

/// Submits the import; it, what is remembered and the look's own end are one transaction.
async fn submit(
    ctx: &JobContext<Context>,
    target: &Target,
    accepted: Accepted,
    seen: &Seen,
) -> Result<Done, JobError> {
    let triggered_by = format!("source:{}", target.name);
    let origin = Origin {
        tenant: &target.definition.tenant,
        triggered_by: &triggered_by,
    };
    let mut tx = ctx.state().db.begin().await?;
    ctx.fence(&mut tx).await?;
    let import = accepted.submit(&mut tx, origin).await?;
    let note = Note {
        seen: Some(seen),
        import: Some(import),
        ..Note::default()
    };
    if !store::note(&mut tx, target, LookResult::Imported, &note).await? {
        return Err(JobError::Snooze(AGAIN));
    }
    let done = ctx.complete_in(&mut tx).await?;
    accepted.keep();
    tx.commit().await?;
    submit::report();
    Ok(done)
}

/// Remembers a version that cannot be imported, so that it is not fetched again and again.
async fn refused(
    ctx: &JobContext<Context>,
    target: &Target,
    why: &str,
    seen: &Seen,
) -> Result<(), JobError> {
    let note = Note {
        seen: Some(seen),
        error: Some(why),
        ..Note::default()
    };
    let mut tx = ctx.state().db.begin().await?;
    ctx.fence(&mut tx).await?;
    if !store::note(&mut tx, target, LookResult::Refused, &note).await? {
        return Err(JobError::Snooze(AGAIN));
    }
    tx.commit().await?;
    Ok(())
}
