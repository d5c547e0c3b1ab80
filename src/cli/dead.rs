//! `ingestd dead`: what the queue gave up.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Exit, Failure, Session,
    audit::Change,
    jobs,
    output::{Listed, at, brief},
};
use crate::queue::{
    JobId, dead,
    read::{self, DeadLetter, JobFilter, JobState},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd dead ls
  ingestd dead show 42
  ingestd dead retry 42 43
  ingestd dead purge 42 --yes";

#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// Lists dead letters, newest first.
    #[command(after_help = "Examples:
  ingestd dead ls
  ingestd dead ls --kind product_import.run --all")]
    Ls(LsArgs),
    /// Shows everything about one dead letter.
    #[command(after_help = "Examples:\n  ingestd dead show 42")]
    Show {
        /// The job's id.
        id: i64,
    },
    /// Replays dead letters: each becomes a new job with all its attempts before it.
    #[command(after_help = "Examples:
  ingestd dead retry 42
  ingestd dead retry $(ingestd dead ls --json | jq '.[].id')")]
    Retry {
        /// The jobs' ids.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<i64>,
    },
    /// Deletes a dead letter for good.
    #[command(after_help = "Examples:\n  ingestd dead purge 42 --yes")]
    Purge {
        /// The job's id.
        id: i64,
        /// Yes, delete it.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Only this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Also those that were replayed.
    #[arg(long)]
    all: bool,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

pub(super) async fn run(command: DeadCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        DeadCommand::Ls(args) => {
            let filter = JobFilter {
                queue: args.queue.as_deref(),
                kind: args.kind.as_deref(),
                state: None,
            };
            let conn = &mut session.conn;
            let letters = read::dead_letters(conn, filter, args.all, None, args.limit).await?;
            session.output.list(&letters, "no dead letters")?;
            Ok(Exit::Ok)
        }
        DeadCommand::Show { id } => show(JobId(id), session).await,
        DeadCommand::Retry { ids } => retry(&ids, session).await,
        DeadCommand::Purge { id, yes } => {
            confirm(yes, &format!("delete dead letter {id} for good"))?;
            purge(JobId(id), session).await
        }
    }
}

/// Refuses what cannot be undone unless `--yes` was given.
pub(super) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    Err(Failure::say(Exit::Usage, format!("this would {what}")).hint("say --yes as well"))
}

impl Listed for DeadLetter {
    const HEADERS: &'static [&'static str] = &[
        "id",
        "kind",
        "queue",
        "reason",
        "attempts",
        "died (UTC)",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.kind.clone(),
            self.queue.clone(),
            self.reason.clone(),
            self.attempt.to_string(),
            at(self.died_at),
            brief(&self.error),
        ]
    }
}

async fn show(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    let job = read::find(&mut session.conn, id).await?;
    let dead = job.filter(|job| job.row.state == JobState::Dead);
    let letter = dead.ok_or_else(|| not_found(id))?;
    session.output.record(&letter, &jobs::fields(&letter))?;
    Ok(Exit::Ok)
}

fn not_found(id: JobId) -> Failure {
    Failure::say(Exit::NoInput, format!("there is no dead letter {id}"))
        .hint("`ingestd dead ls --all` lists them; `ingestd jobs show` finds jobs of any state")
}

/// Replays each letter in a transaction of its own: one that cannot be is no reason to leave others.
async fn retry(ids: &[i64], session: &mut Session) -> Result<Exit, Failure> {
    let (mut reports, mut lines, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for id in ids.iter().copied().map(JobId) {
        let new = replay(id, session).await?;
        reports.push(json!({ "id": id, "new_id": new }));
        match new {
            Some(new) => lines.push(format!("dead letter {id} is job {new} now")),
            None => refused.push(id.to_string()),
        }
    }
    if session.output.is_json() || !lines.is_empty() {
        session.output.done(&reports, &lines.join("\n"))?;
        session.warn_without_worker().await?;
    }
    if refused.is_empty() {
        return Ok(Exit::Ok);
    }
    let text = format!("not replayed: {}", refused.join(", "));
    Err(Failure::say(Exit::Failed, text).hint(
        "no such letter, replayed before, or an unfinished job has its unique key: \
         `ingestd dead show ID` tells",
    ))
}

async fn replay(id: JobId, session: &mut Session) -> sqlx::Result<Option<JobId>> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let new = crate::runs::replay(&mut tx, id).await?;
    if let Some(new) = new {
        let change = Change {
            detail: json!({ "new_id": new }),
            ..Change::of("dead.retry", format!("job/{id}"))
        };
        change.note(&mut tx, &actor).await?;
    }
    tx.commit().await?;
    Ok(new)
}

async fn purge(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    if !dead::purge(&mut tx, id).await? {
        return Err(not_found(id));
    }
    Change::of("dead.purge", format!("job/{id}"))
        .note(&mut tx, &actor)
        .await?;
    tx.commit().await?;
    session.output.done(
        &json!({ "id": id, "purged": true }),
        &format!("dead letter {id} is deleted"),
    )?;
    Ok(Exit::Ok)
}
