//! `ingestd import URL`: a daemon fetches the file, once.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use sqlx::PgConnection;

use super::{add::option, refused};
use crate::{
    cli::{Exit, Failure, Session, audit::Change, import::follow, interrupt::interrupted},
    source::FetchFile,
};

/// How often the job is read.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How a file that is fetched is reached.
#[derive(Debug, Args)]
pub(in crate::cli) struct Remote {
    /// Of a URL or an S3 object: how to log in, the name of a file in `sources.secrets_dir`.
    #[arg(long, value_name = "NAME")]
    secret: Option<String>,
    /// Of S3: scheme, host and port of the store, where it is not AWS.
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Of S3: the region that requests are signed for; us-east-1 where none is given.
    #[arg(long)]
    region: Option<String>,
    /// What the import of a URL is asked for: an option of an upload; may be given several times.
    #[arg(long = "option", value_name = "NAME=VALUE", value_parser = option)]
    options: Vec<(String, String)>,
}

/// Has a daemon fetch a file and shows the import's progress; `given` are options of the import, which
/// those of [`Remote`] come before.
pub(in crate::cli) async fn run(
    location: &str,
    remote: &Remote,
    given: Vec<(&'static str, String)>,
    tenant: &str,
    no_wait: bool,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let file = FetchFile {
        location: location.to_owned(),
        tenant: tenant.to_owned(),
        endpoint: remote.endpoint.clone(),
        region: remote.region.clone(),
        secret_ref: remote.secret.clone(),
        options: given
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .chain(remote.options.iter().cloned())
            .collect(),
    };
    let definition = file.definition();
    let config = &session.config;
    definition
        .check(&config.fetch, &config.sources)
        .map_err(|wrong| refused(&wrong))?;
    let shown = definition.shown_location();
    let job = enqueue(&file, &shown, session).await?;
    session.warn_without_worker().await?;
    if no_wait {
        let text = format!("job {job} fetches {shown}; `ingestd jobs show {job}` shows it");
        session.output.done(&json!({ "job_id": job }), &text)?;
        return Ok(Exit::Ok);
    }
    session.output.remark(&format!("job {job} fetches {shown}"));
    let run = fetched(job, session).await?;
    session.output.remark(&format!("run {run} imports it"));
    follow(crate::runs::RunId(run), session).await
}

async fn enqueue(file: &FetchFile, shown: &str, session: &mut Session) -> Result<i64, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let enqueued = file.enqueue(&mut tx).await?;
    // Without a unique key every enqueue inserts.
    let id = enqueued.id.map(|id| id.0).unwrap_or_default();
    let change = Change {
        tenant: Some(&file.tenant),
        detail: json!({ "location": shown }),
        ..Change::of("import.fetch", format!("job/{id}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    Ok(id)
}

/// Waits until a job has fetched its file; returns the run that imports it.
async fn fetched(job: i64, session: &mut Session) -> Result<i64, Failure> {
    let mut interrupted = Box::pin(interrupted());
    loop {
        if let Some(ended) = ended(&mut session.conn, job).await? {
            return ended.map_err(|why| {
                let failure = Failure::say(Exit::Failed, format!("job {job}: {why}"));
                failure.hint(format!("`ingestd jobs show {job}` shows its attempts"))
            });
        }
        tokio::select! {
            exit = &mut interrupted => {
                let failure = Failure::say(exit, format!("job {job} goes on unwatched"));
                return Err(failure.hint(format!("`ingestd jobs cancel {job}` stops it")));
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Returns how a job ended: with a run, or why not; `None` while it has not.
async fn ended(conn: &mut PgConnection, job: i64) -> sqlx::Result<Option<Result<i64, String>>> {
    let ended: Option<(Option<i64>, Option<String>)> = sqlx::query_as(
        "SELECT (output ->> 'run_id')::bigint, state FROM ingestd.job_history WHERE id = $1
         UNION ALL
         SELECT NULL, error FROM ingestd.dead_jobs WHERE id = $1",
    )
    .bind(job)
    .fetch_optional(conn)
    .await?;
    Ok(ended.map(|(run, why)| run.ok_or_else(|| why.unwrap_or_default())))
}
