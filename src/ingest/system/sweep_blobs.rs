//! `system.sweep_blobs`: once a day deletes uploads that nobody will import any more.

use std::{collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    ingest::Context,
    queue::{Done, Job, JobContext, JobError, Retry},
};

/// An upload younger than this may still be on its way to its run.
const YOUNG: Duration = Duration::from_hours(24);

/// Blobs of unfinished runs, and of runs that ended within the retention and may be reset.
const WANTED: &str = "
    SELECT params ->> 'blob' FROM ingestd.runs
    WHERE params ->> 'blob' = ANY ($1)
      AND (finished_at IS NULL OR finished_at > now() - make_interval(days => $2))";

/// Deletes uploads that were broken off, and those whose run ended longer ago than
/// `queue.retention_days` or was never made. A completed import deletes its own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepBlobs {}

impl Job for SweepBlobs {
    const KIND: &'static str = "system.sweep_blobs";
    const QUEUE: &'static str = "system";
    const RETRY: Retry = Retry::STANDARD.attempts(3);
    const TIMEOUT: Duration = Duration::from_mins(10);
    const SCHEDULE: Option<&'static str> = Some("0 40 3 * * *");
    type Context = Context;

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Context {
            db, blobs, config, ..
        } = ctx.state();
        let old = blobs.older_than(YOUNG).await?;
        let wanted: HashSet<String> = sqlx::query_scalar(WANTED)
            .bind(&old)
            .bind(i32::from(config.queue.retention_days))
            .fetch_all(db)
            .await?
            .into_iter()
            .collect();
        let mut n_deleted = 0;
        for name in old.iter().filter(|name| !wanted.contains(*name)) {
            blobs.delete(name).await?;
            n_deleted += 1;
        }
        tracing::info!(n_deleted, "uploads swept");
        Ok(Done::new())
    }
}
