//! `catalog.fetch_file`: one file from a URL, an object store or an allowed path, without a source.

use std::time::Duration;

use anyhow::anyhow;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Definition, Kind, Options,
    definition::default_tenant,
    job::judged,
    options,
    take::{self, Seen, Taken},
};
use crate::{
    ingest::{
        Context,
        product_import::submit::{self, Origin, SubmitError},
    },
    queue::{self, ByName, Done, Enqueued, Job, JobContext, JobError, NewJob, Retry},
};

/// Fetches a file once and imports it; its output is `{"run_id": N}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FetchFile {
    /// As [`Definition::location`].
    pub location: String,
    /// Owner of what is imported.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// As [`Definition::endpoint`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// As [`Definition::region`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// As [`Definition::secret_ref`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<String>,
    /// As [`Definition::options`].
    #[serde(default, skip_serializing_if = "Options::is_empty")]
    pub options: Options,
}

impl FetchFile {
    /// Returns it as a source without a schedule, to be checked.
    #[must_use]
    pub fn definition(&self) -> Definition {
        let source = Definition {
            tenant: self.tenant.clone(),
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            secret_ref: self.secret_ref.clone(),
            options: options::but_dry_run(&self.options),
            ..Definition::new(self.location.clone())
        };
        source.filled()
    }

    /// Enqueues it in the connection's transaction; check its definition before.
    ///
    /// # Errors
    ///
    /// What Postgres says.
    pub async fn enqueue(&self, conn: &mut PgConnection) -> sqlx::Result<Enqueued> {
        let job = NewJob::of(self).map_err(|error| sqlx::Error::Encode(error.into()))?;
        let job = NewJob {
            tenant: Some(self.tenant.clone()),
            ..job
        };
        queue::enqueue_raw(conn, &job).await
    }
}

impl Job for FetchFile {
    const KIND: &'static str = "catalog.fetch_file";
    const QUEUE: &'static str = "sources";
    const RETRY: Retry = Retry::STANDARD.attempts(4);
    const TIMEOUT: Duration = Duration::from_hours(1);
    const KEEP_OUTPUT: bool = true;
    const BY_NAME: ByName = ByName::Nobody("POST /api/v1/import/fetch");
    type Context = Context;

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Context { db, config, .. } = ctx.state();
        let source = self.definition();
        // Whoever made the job was let in for its owner, not for the one in its arguments.
        if !ctx.lease().belongs_to(&self.tenant) {
            return Err(JobError::Fatal(anyhow!(
                "the job's tenant is not that of its arguments, {}; enqueue it as that tenant's",
                self.tenant
            )));
        }
        if let Err(wrong) = source.check(&config.fetch, &config.sources) {
            let told = wrong.iter().map(|w| format!("{} {}", w.field, w.why));
            return Err(JobError::Fatal(anyhow!(
                told.collect::<Vec<_>>().join("; ")
            )));
        }
        if source.kind() == Kind::Folder {
            return Err(JobError::Fatal(anyhow!("a folder is no file")));
        }
        let now = sqlx::query_scalar("SELECT clock_timestamp()");
        let now = now.fetch_one(db).await?;
        let taken = take::take(ctx.state(), &source, &Seen::default(), now).await;
        let (file, name) = match taken {
            Ok(Taken::File { file, name, .. }) => (file, name),
            Ok(Taken::Unchanged(_)) => return Ok(Done::new()), // nothing was seen before
            Err(error) => return Err(judged(&source.shown_location(), error)),
        };
        let (asked, tenant) = (&self.options, self.tenant.as_str());
        let accepted = match options::accept(ctx.state(), *file, &name, asked, tenant).await {
            Err(SubmitError::Refused(refusal)) if !refusal.is_transient() => {
                return Err(JobError::fatal(refusal));
            }
            accepted => accepted?,
        };
        let origin = Origin {
            tenant: &self.tenant,
            triggered_by: "fetch",
        };
        let mut tx = db.begin().await?;
        ctx.fence(&mut tx).await?;
        let run = accepted.submit(&mut tx, origin).await?;
        let done = ctx
            .complete_in_with(&mut tx, &json!({ "run_id": run }))
            .await?;
        accepted.keep();
        tx.commit().await?;
        submit::report();
        Ok(done)
    }
}
