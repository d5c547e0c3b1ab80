//! `ingestd dead`: what the queue gave up.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    Exit, Failure, Session,
    audit::Change,
    bulk::{self, BulkArgs, DeadArgs},
    enqueue::parse_args,
    jobs,
    output::{Listed, at, brief},
};
use crate::{
    ingest::system::bulk::Action,
    queue::{
        JobId,
        dead::{self, Begin, DeadGroup, DeadLetter},
        read::{self, JobState},
    },
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd dead groups
  ingestd dead ls --kind product_import.run
  ingestd dead retry 42 43
  ingestd dead retry --all --kind product_import.run --rate 50
  ingestd dead purge 42 --yes";

#[derive(Debug, Subcommand)]
pub(super) enum DeadCommand {
    /// Lists dead letters, newest first.
    #[command(after_help = "Examples:
  ingestd dead ls
  ingestd dead ls --kind product_import.run --all
  ingestd dead ls --error 'connection refused' --died-after 2026-11-27T06:00:00Z")]
    Ls(LsArgs),
    /// Groups the dead letters that nobody replayed by what failed alike, the largest group first.
    #[command(after_help = "Examples:
  ingestd dead groups
  ingestd dead groups --kind product_import.run --json")]
    Groups {
        /// Only this kind.
        #[arg(long)]
        kind: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=1_000))]
        limit: i64,
    },
    /// Shows everything about one dead letter.
    #[command(after_help = "Examples:\n  ingestd dead show 42")]
    Show {
        /// The job's id.
        id: i64,
    },
    /// Replays dead letters: each becomes a new job with all its attempts before it.
    ///
    /// With --all, the daemon replays all that fit, as a run; what dies after that is left.
    #[command(after_help = r#"Examples:
  ingestd dead retry 42
  ingestd dead retry 42 --args '{"sleep_ms": 5}'
  ingestd dead retry 42 --afresh
  ingestd dead retry --all --kind product_import.run --dry-run
  ingestd dead retry --all --fingerprint 8f14e45fceea167a --rate 50 --wait"#)]
    Retry(RetryArgs),
    /// Deletes dead letters for good.
    ///
    /// With --all, the daemon deletes all that fit, as a run.
    #[command(after_help = "Examples:
  ingestd dead purge 42 --yes
  ingestd dead purge --all --died-before 2026-10-01T00:00:00Z --replayed --yes")]
    Purge(PurgeArgs),
}

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    #[command(flatten)]
    which: DeadArgs,
    /// Also those that were replayed.
    #[arg(long)]
    all: bool,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    /// The jobs' ids.
    #[arg(
        required_unless_present = "all",
        conflicts_with = "all",
        value_name = "ID"
    )]
    ids: Vec<i64>,
    /// Other arguments for the new job, a JSON object of at most 256 KiB; the letter keeps its own.
    #[arg(long, value_name = "JSON", conflicts_with = "all")]
    args: Option<String>,
    /// Begin as if nothing had been done: without the steps that are, under new idempotency keys, so
    /// that effects outside are had again.
    #[arg(long)]
    afresh: bool,
    /// All that fit the flags below.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    which: DeadArgs,
    #[command(flatten)]
    bulk: BulkArgs,
}

#[derive(Debug, Args)]
pub(super) struct PurgeArgs {
    /// The job's id.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    id: Option<i64>,
    /// Yes, delete.
    #[arg(long)]
    yes: bool,
    /// All that fit the flags below.
    #[arg(long)]
    all: bool,
    /// With --all: also those that were replayed.
    #[arg(long, requires = "all")]
    replayed: bool,
    #[command(flatten)]
    which: DeadArgs,
    #[command(flatten)]
    bulk: BulkArgs,
}

pub(super) async fn run(command: DeadCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        DeadCommand::Ls(args) => {
            let filter = args.which.filter(args.all);
            let letters = dead::list(&mut session.conn, &filter, None, args.limit).await?;
            session.output.list(&letters, "no dead letters")?;
            Ok(Exit::Ok)
        }
        DeadCommand::Groups { kind, limit } => {
            let groups = dead::groups(&mut session.conn, kind.as_deref(), limit).await?;
            session.output.list(&groups, "no dead letters")?;
            Ok(Exit::Ok)
        }
        DeadCommand::Show { id } => show(JobId(id), session).await,
        DeadCommand::Retry(args) if args.all => {
            let filter = args.which.filter(false);
            let action = if args.afresh {
                Action::ReplayAfresh
            } else {
                Action::Replay
            };
            bulk::run(action, filter, &args.bulk, true, session).await
        }
        DeadCommand::Retry(args) => {
            one_by_one(&args.bulk)?;
            let begin = if args.afresh {
                Begin::Afresh
            } else {
                Begin::AfterItsSteps
            };
            retry(&args.ids, args.args.as_deref(), begin, session).await
        }
        DeadCommand::Purge(args) => purge(args, session).await,
    }
}

async fn purge(args: PurgeArgs, session: &mut Session) -> Result<Exit, Failure> {
    if let Some(id) = args.id {
        one_by_one(&args.bulk)?;
        confirm(args.yes, &format!("delete dead letter {id} for good"))?;
        return purge_one(JobId(id), session).await;
    }
    let filter = args.which.filter(args.replayed);
    bulk::run(Action::Purge, filter, &args.bulk, args.yes, session).await
}

/// Refuses flags that would do nothing.
fn one_by_one(bulk: &BulkArgs) -> Result<(), Failure> {
    if bulk.is_given() {
        return Err(Failure::say(
            Exit::Usage,
            "--rate, --dry-run and --wait go with --all",
        ));
    }
    Ok(())
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

impl Listed for DeadGroup {
    const HEADERS: &'static [&'static str] = &[
        "kind",
        "fingerprint",
        "letters",
        "first (UTC)",
        "last (UTC)",
        "example",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        let n_letters = match self.n_letters {
            n if n > 10_000 => "> 10000".to_owned(),
            n => n.to_string(),
        };
        vec![
            self.kind.clone(),
            self.fingerprint.to_string(),
            n_letters,
            at(self.first_died_at),
            at(self.last_died_at),
            self.example_id.to_string(),
            brief(&self.example_error),
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
async fn retry(
    ids: &[i64],
    args: Option<&str>,
    begin: Begin,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let args = args.map(parse_args).transpose()?;
    if args.is_some() && ids.len() > 1 {
        return Err(Failure::say(Exit::Usage, "--args are those of one job").hint("say one ID"));
    }
    let (mut reports, mut lines, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    for id in ids.iter().copied().map(JobId) {
        let new = replay(id, args.as_ref(), begin, session).await?;
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

async fn replay(
    id: JobId,
    args: Option<&Value>,
    begin: Begin,
    session: &mut Session,
) -> sqlx::Result<Option<JobId>> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let new = crate::runs::replay_with(&mut tx, id, args, begin).await?;
    if let Some(new) = new {
        let (args_edited, afresh) = (args.is_some(), begin == Begin::Afresh);
        let change = Change {
            detail: json!({ "new_id": new, "args_edited": args_edited, "afresh": afresh }),
            ..Change::of("dead.retry", format!("job/{id}"))
        };
        change.note(&mut tx, &actor).await?;
    }
    tx.commit().await?;
    Ok(new)
}

async fn purge_one(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
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
