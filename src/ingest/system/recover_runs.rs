//! `system.recover_runs`: every five minutes, once among all daemons, looks for runs nobody works on.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    ingest::Context,
    notify::mail,
    queue::{Done, Job, JobContext, JobError, Retry},
    runs,
};

/// Starts stale runs again or fails them, and counts what fan-outs left over.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecoverRuns {}

impl Job for RecoverRuns {
    const KIND: &'static str = "system.recover_runs";
    const QUEUE: &'static str = "system";
    const RETRY: Retry = Retry::STANDARD.attempts(3);
    const TIMEOUT: Duration = Duration::from_mins(2);
    const SCHEDULE: Option<&'static str> = Some("0 */5 * * * *");
    type Context = Context;

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Context { db, config, .. } = ctx.state();
        let folded = runs::fan_out::fold_left_over(db).await;
        let settings = &config.runs;
        let recovered = runs::recover_stale(
            db,
            settings.stale_after,
            settings.max_retries,
            |conn, run| Box::pin(mail::after_import(conn, run.0)),
        )
        .await?;
        folded?;
        tracing::debug!(?recovered, "looked for stale runs");
        Ok(Done::new())
    }
}
