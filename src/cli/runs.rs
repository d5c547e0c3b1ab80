//! `ingestd runs`: pieces of ingestion with progress.

use clap::{Args, Subcommand};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    Exit, Failure, Session,
    audit::Change,
    output::{Listed, at, at_or_none, brief, or_none},
    progress,
};
use crate::{
    ingest::product_import,
    runs::{self, Run, RunId, RunState},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd runs ls --system product_import
  ingestd runs watch 7
  ingestd runs reset 7";

#[derive(Debug, Subcommand)]
pub(super) enum RunsCommand {
    /// Lists runs, newest first.
    #[command(after_help = "Examples:
  ingestd runs ls
  ingestd runs ls --system product_import --limit 5")]
    Ls(LsArgs),
    /// Shows everything about one run.
    #[command(after_help = "Examples:\n  ingestd runs show 7")]
    Show {
        /// The run's id.
        id: i64,
    },
    /// Shows a run's progress until it has ended; Ctrl-C stops the watching, not the run.
    #[command(after_help = "Examples:
  ingestd runs watch 7
  ingestd runs watch 7 --json | jq .items_done

The exit code is 0 where the run completed and 1 where it failed or was cancelled.")]
    Watch {
        /// The run's id.
        id: i64,
    },
    /// Pauses a run: what was committed stays, nothing more is done until it is resumed.
    #[command(after_help = "Examples:\n  ingestd runs pause 7")]
    Pause {
        /// The run's id.
        id: i64,
    },
    /// Lets a paused run go on where it stopped.
    #[command(after_help = "Examples:\n  ingestd runs resume 7")]
    Resume {
        /// The run's id.
        id: i64,
    },
    /// Cancels a run and its jobs; what was committed stays.
    #[command(after_help = "Examples:\n  ingestd runs cancel 7")]
    Cancel {
        /// The run's id.
        id: i64,
    },
    /// Puts a failed, cancelled or stuck run back to work where it stopped.
    #[command(after_help = "Examples:\n  ingestd runs reset 7")]
    Reset {
        /// The run's id.
        id: i64,
    },
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only this system, such as `product_import`.
    #[arg(long)]
    system: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

pub(super) async fn run(command: RunsCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        RunsCommand::Ls(args) => {
            let system = args.system.as_deref();
            let found = runs::list(&mut session.conn, system, None, args.limit).await?;
            session.output.list(&found, "no such runs")?;
            Ok(Exit::Ok)
        }
        RunsCommand::Show { id } => show(RunId(id), session).await,
        RunsCommand::Watch { id } => watch(RunId(id), session).await,
        RunsCommand::Pause { id } => pause(RunId(id), session).await,
        RunsCommand::Resume { id } => resume(RunId(id), session).await,
        RunsCommand::Cancel { id } => cancel(RunId(id), session).await,
        RunsCommand::Reset { id } => reset(RunId(id), session).await,
    }
}

impl Listed for Run {
    const HEADERS: &'static [&'static str] = &[
        "id",
        "system",
        "state",
        "stage",
        "items",
        "failed",
        "tenant",
        "created (UTC)",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        let items = match self.items_total {
            Some(total) => format!("{}/{total}", self.items_done()),
            None => self.items_done().to_string(),
        };
        vec![
            self.id.to_string(),
            self.system.clone(),
            self.state.as_str().to_owned(),
            or_none(self.stage.as_ref()),
            items,
            self.items_failed.to_string(),
            self.tenant.clone(),
            at(self.created_at),
            brief(self.error.as_deref().unwrap_or_default()),
        ]
    }
}

pub(super) async fn find(id: RunId, session: &mut Session) -> Result<Run, Failure> {
    runs::get(&mut session.conn, id).await?.ok_or_else(|| {
        let failure = Failure::say(Exit::NoInput, format!("there is no run {id}"));
        failure.hint("`ingestd runs ls` lists them")
    })
}

async fn show(id: RunId, session: &mut Session) -> Result<Exit, Failure> {
    let run = find(id, session).await?;
    let fields = [
        ("id", run.id.to_string()),
        ("system", run.system.clone()),
        ("state", run.state.as_str().to_owned()),
        ("stage", or_none(run.stage.as_ref())),
        ("items", or_none(run.items_total.as_ref())),
        ("ok", run.items_ok.to_string()),
        ("failed", run.items_failed.to_string()),
        ("skipped", run.items_skipped.to_string()),
        ("tenant", run.tenant.clone()),
        ("triggered by", run.triggered_by.clone()),
        ("params", run.params.to_string()),
        ("details", run.details.to_string()),
        ("cursor", or_none(run.cursor.as_ref())),
        ("retries", run.retry_count.to_string()),
        ("created", at(run.created_at)),
        ("started", at_or_none(run.started_at)),
        ("heartbeat", at_or_none(run.heartbeat_at)),
        ("finished", at_or_none(run.finished_at)),
        ("error", or_none(run.error.as_ref())),
    ];
    session.output.record(&run, &fields)?;
    Ok(Exit::Ok)
}

async fn watch(id: RunId, session: &mut Session) -> Result<Exit, Failure> {
    find(id, session).await?;
    session.warn_without_worker().await?;
    let run = progress::follow(id, session).await?;
    if !session.output.is_json() {
        let (done, failed) = (run.items_done(), run.items_failed);
        let text = format!(
            "run {id} is {}: {done} items, {failed} failed",
            run.state.as_str()
        );
        session.output.line(&text)?;
    }
    progress::conclude(&run)
}

async fn pause(id: RunId, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    if !runs::pause(&mut tx, id).await? {
        drop(tx);
        let run = find(id, session).await?;
        let text = match run.state {
            RunState::Pending | RunState::Running => {
                format!("run {id} has a job per item; pause their queue: ingestd queues pause")
            }
            state => format!("run {id} is {} already", state.as_str()),
        };
        return Err(Failure::say(Exit::Failed, text));
    }
    Change::of("run.pause", format!("run/{id}"))
        .note(&mut tx, &actor)
        .await?;
    tx.commit().await?;
    let text = format!("run {id} is paused; `ingestd runs resume {id}` lets it go on");
    session
        .output
        .done(&json!({ "id": id, "paused": true }), &text)?;
    Ok(Exit::Ok)
}

async fn resume(id: RunId, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let newer = overtaken(&mut tx, id).await?;
    if !runs::resume(&mut tx, id).await? {
        drop(tx);
        let run = find(id, session).await?;
        let text = format!("run {id} is not paused, it is {}", run.state.as_str());
        return Err(Failure::say(Exit::Failed, text));
    }
    Change::of("run.resume", format!("run/{id}"))
        .note(&mut tx, &actor)
        .await?;
    tx.commit().await?;
    let text = format!("run {id} goes on; `ingestd runs watch {id}` shows how");
    let done = json!({ "id": id, "paused": false, "overtaken_by": newer });
    session.output.done(&done, &(text + &of_newer(newer)))?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}

/// Returns the import that has written to the same catalog since one that stopped was uploaded.
async fn overtaken(conn: &mut PgConnection, id: RunId) -> Result<Option<i64>, Failure> {
    match runs::get(&mut *conn, id).await? {
        Some(run) if product_import::is_import(&run) => {
            Ok(product_import::status::overtaken(conn, &run).await?)
        }
        _ => Ok(None),
    }
}

fn of_newer(newer: Option<i64>) -> String {
    let newer = newer.map(|newer| {
        format!(
            "\nimport {newer} came later and has written to the same catalog since: the rows that are \
             left of this one go over those"
        )
    });
    newer.unwrap_or_default()
}

async fn cancel(id: RunId, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let cancelled = runs::cancel(&mut tx, id).await?;
    if cancelled {
        Change::of("run.cancel", format!("run/{id}"))
            .note(&mut tx, &actor)
            .await?;
    }
    tx.commit().await?;
    if !cancelled {
        let run = find(id, session).await?;
        let text = format!("run {id} is {} already", run.state.as_str());
        return Err(Failure::say(Exit::Failed, text));
    }
    let text = format!("run {id} is cancelled; what was committed stays");
    session
        .output
        .done(&json!({ "id": id, "cancelled": true }), &text)?;
    Ok(Exit::Ok)
}

async fn reset(id: RunId, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let newer = overtaken(&mut tx, id).await?;
    let reset = runs::reset(&mut tx, id).await?;
    if reset {
        Change::of("run.reset", format!("run/{id}"))
            .note(&mut tx, &actor)
            .await?;
    }
    tx.commit().await?;
    if !reset {
        let run = find(id, session).await?;
        let text = match (run.state, run.undone_by()) {
            (RunState::Completed, _) => {
                format!("run {id} completed; there is nothing to go on with")
            }
            (_, Some(by)) => format!("run {id} does not go on: run {by} takes back what it did"),
            _ => format!("run {id} has a job per item; retry those: ingestd jobs retry ID"),
        };
        return Err(Failure::say(Exit::Failed, text));
    }
    let text = format!("run {id} goes on where it stopped; `ingestd runs watch {id}` shows how");
    let done = json!({ "id": id, "reset": true, "overtaken_by": newer });
    session.output.done(&done, &(text + &of_newer(newer)))?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}
