//! `ingestd jobs`: single jobs, wherever they are.

mod change;
mod logs;
mod why;

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use serde::Serialize;
use serde_json::{Value, json};

use super::{
    Exit, Failure, Session,
    audit::{self, Change},
    bulk::{self, BulkArgs, LiveArgs},
    output::{Listed, at, at_or_none, brief, or_none},
};
use crate::{
    ingest::system::bulk::Action,
    queue::{
        JobId,
        control::{Cancelled, Retried},
        filter::LiveFilter,
        read::{self, Attempt, JobDetail, JobFilter, JobState},
        record::{self, JobLine, ProgressRow, StepRow},
    },
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd jobs ls --state running
  ingestd jobs show 42
  ingestd jobs logs 42 --follow
  ingestd jobs why 42
  ingestd jobs priority 42 0
  ingestd jobs snooze 42 1h
  ingestd jobs cancel 42";

/// How often a job that is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, Subcommand)]
pub(super) enum JobsCommand {
    /// Lists jobs, newest first.
    #[command(after_help = "Examples:
  ingestd jobs ls
  ingestd jobs ls --queue import --state dead
  ingestd jobs ls --json --limit 1000 | jq '.[] | select(.attempt > 3)'")]
    Ls(LsArgs),
    /// Shows everything about one job: how far it has come, its steps, its failed attempts.
    #[command(after_help = "Examples:\n  ingestd jobs show 42")]
    Show {
        /// The job's id.
        id: i64,
    },
    /// Prints what a job's attempts said, oldest first; with --json, one document per line.
    #[command(after_help = "Examples:
  ingestd jobs logs 42
  ingestd jobs logs 42 --follow
  ingestd jobs logs 42 --json | jq -r 'select(.level == \"error\") | .message'")]
    Logs(logs::LogsArgs),
    /// Cancels a job: at once where it waits, by telling its handler where it runs.
    ///
    /// With flags instead of an id, the daemon cancels all that fit, as a run.
    #[command(after_help = "Examples:
  ingestd jobs cancel 42
  ingestd jobs cancel --queue import --kind product_import.run --yes
  ingestd jobs cancel --state queued --error timeout --dry-run")]
    Cancel(ManyArgs),
    /// Tries a job again now: a waiting one becomes due, a dead letter becomes a new job.
    ///
    /// With flags instead of an id, the daemon makes all due that fit and wait for a later time,
    /// as a run; for dead letters there is `ingestd dead retry --all`.
    #[command(after_help = "Examples:
  ingestd jobs retry 42
  ingestd jobs retry --queue import --rate 50 --wait")]
    Retry(ManyArgs),
    /// Says what keeps a job from running, the most decisive first, and what to do about it.
    #[command(after_help = "Examples:
  ingestd jobs why 42
  ingestd jobs why 42 --json | jq -r '.reasons[0].code'")]
    Why {
        /// The job's id.
        id: i64,
    },
    /// Gives a job another priority; one that runs has it from its next attempt on.
    #[command(after_help = "Examples:
  ingestd jobs priority 42 0")]
    Priority {
        /// The job's id.
        id: i64,
        /// 0 urgent, 1 normal, 2 low, 3 background.
        #[arg(value_parser = clap::value_parser!(i16).range(0..=3))]
        priority: i16,
    },
    /// Puts a waiting job off, from now or from the time it waits for, whichever is later.
    #[command(after_help = "Examples:
  ingestd jobs snooze 42 1h
  ingestd jobs snooze 42 '2days 30min'")]
    Snooze {
        /// The job's id.
        id: i64,
        /// How much later.
        #[arg(value_name = "DURATION", value_parser = change::parse_delay)]
        delay: Duration,
    },
    /// Has a waiting job run at another time, sooner or later.
    #[command(after_help = "Examples:
  ingestd jobs reschedule 42 2027-01-31T06:00:00Z")]
    Reschedule {
        /// The job's id.
        id: i64,
        /// Not before this time.
        #[arg(value_name = "TIME")]
        run_at: DateTime<Utc>,
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
    /// Only this state: queued, held, running, completed, cancelled or dead.
    #[arg(long, value_parser = parse_state)]
    state: Option<JobState>,
    /// At most this many.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=100_000))]
    limit: i64,
}

/// One job, or those that fit.
#[derive(Debug, Args)]
pub(super) struct ManyArgs {
    /// The job's id.
    id: Option<i64>,
    /// Yes, cancel all that fit.
    #[arg(long, conflicts_with = "id")]
    yes: bool,
    #[command(flatten)]
    which: LiveArgs,
    #[command(flatten)]
    bulk: BulkArgs,
}

impl ManyArgs {
    /// Returns the one id, or the filter where flags were given instead; never neither, never both.
    fn one_or_many(&self) -> Result<Result<JobId, LiveFilter>, Failure> {
        let filter = self.which.clone().filter();
        let is_one = filter == LiveFilter::default();
        match self.id {
            Some(id) if is_one && !self.bulk.is_given() => Ok(Ok(JobId(id))),
            Some(_) => Err(Failure::say(Exit::Usage, "an id or flags, not both")),
            None if is_one => {
                let failure = Failure::say(Exit::Usage, "which jobs?");
                Err(failure.hint("say an id, or flags such as --queue or --kind"))
            }
            None => Ok(Err(filter)),
        }
    }
}

/// Takes a state by the word that the database and JSON have for it.
fn parse_state(word: &str) -> Result<JobState, String> {
    let known = serde_json::from_value(Value::String(word.to_owned()));
    known.map_err(|_| "one of queued, held, running, completed, cancelled, dead".to_owned())
}

/// Returns the word of a state, as the database and JSON have it.
fn word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Held => "held",
        JobState::Running => "running",
        JobState::Completed => "completed",
        JobState::Cancelled => "cancelled",
        JobState::Dead => "dead",
    }
}

pub(super) async fn run(command: JobsCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        JobsCommand::Ls(args) => ls(&args, session).await,
        JobsCommand::Show { id } => show(JobId(id), session).await,
        JobsCommand::Logs(args) => logs::run(&args, session).await,
        JobsCommand::Cancel(args) => match args.one_or_many()? {
            Ok(id) => cancel(id, session).await,
            Err(many) => bulk::run(Action::Cancel, many, &args.bulk, args.yes, session).await,
        },
        JobsCommand::Retry(args) => match args.one_or_many()? {
            Ok(id) => retry(id, session).await,
            Err(many) => bulk::run(Action::Retry, many, &args.bulk, true, session).await,
        },
        JobsCommand::Why { id } => why::run(JobId(id), session).await,
        JobsCommand::Priority { id, priority } => {
            change::priority(JobId(id), priority, session).await
        }
        JobsCommand::Snooze { id, delay } => change::snooze(JobId(id), delay, session).await,
        JobsCommand::Reschedule { id, run_at } => {
            change::reschedule(JobId(id), run_at, session).await
        }
    }
}

async fn ls(args: &LsArgs, session: &mut Session) -> Result<Exit, Failure> {
    let filter = JobFilter {
        queue: args.queue.as_deref(),
        kind: args.kind.as_deref(),
        state: args.state,
        tenants: None,
    };
    let rows = read::list(&mut session.conn, filter, None, args.limit).await?;
    let rows = record::with_progress(&mut session.conn, rows).await?;
    session.output.list(&rows, "no such jobs")?;
    Ok(Exit::Ok)
}

impl Listed for JobLine {
    const HEADERS: &'static [&'static str] = &[
        "id",
        "kind",
        "queue",
        "state",
        "attempt",
        "progress",
        "created (UTC)",
        "due (UTC)",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        let row = &self.row;
        vec![
            row.id.to_string(),
            row.kind.clone(),
            row.queue.clone(),
            word(row.state).to_owned(),
            row.attempt.to_string(),
            brief(&or_none(self.progress.as_ref())),
            at(row.created_at),
            at_or_none(row.run_at),
            brief(row.error.as_deref().unwrap_or_default()),
        ]
    }
}

/// Says that there is no such job.
fn not_found(id: JobId) -> Failure {
    let failure = Failure::say(Exit::NoInput, format!("there is no job {id}"));
    failure.hint("finished jobs are kept for queue.retention_days; `ingestd jobs ls` lists them")
}

#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    job: JobDetail,
    /// How far its last attempt has come, where it said so.
    progress: Option<ProgressRow>,
    /// What it has done already.
    steps: Vec<StepRow>,
    /// The attempts that did not end in success.
    attempts: Vec<Attempt>,
}

async fn show(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    let job = read::find(&mut session.conn, id)
        .await?
        .ok_or_else(|| not_found(id))?;
    let attempts = read::attempts(&mut session.conn, id).await?;
    let progress = record::progress(&mut session.conn, &[id]).await?;
    let shown = Shown {
        job,
        progress: progress.into_values().next(),
        steps: record::steps(&mut session.conn, id).await?,
        attempts,
    };
    session.output.record(&shown, &shown.fields())?;
    Ok(Exit::Ok)
}

impl Shown {
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = fields(&self.job);
        fields.extend(
            self.progress
                .iter()
                .map(|progress| ("progress", progress.to_string())),
        );
        fields.extend(self.steps.iter().map(|step| ("step done", done(step))));
        fields.extend(
            self.attempts
                .iter()
                .map(|attempt| ("failed attempt", line(attempt))),
        );
        fields
    }
}

/// Describes a job, a line per thing that is known of it.
pub(super) fn fields(job: &JobDetail) -> Vec<(&'static str, String)> {
    let row = &job.row;
    vec![
        ("id", row.id.to_string()),
        ("kind", row.kind.clone()),
        ("queue", row.queue.clone()),
        ("state", word(row.state).to_owned()),
        ("reason", or_none(job.reason.as_ref())),
        ("priority", row.priority.to_string()),
        ("attempt", row.attempt.to_string()),
        ("max attempts", or_none(row.max_attempts.as_ref())),
        ("crashes", job.crashes.to_string()),
        ("args", or_none(job.args.as_ref())),
        ("unique key", or_none(job.unique_key.as_ref())),
        ("gate key", or_none(job.gate_key.as_ref())),
        ("run", or_none(row.run_id.as_ref())),
        ("tenant", or_none(row.tenant.as_ref())),
        ("meta", or_none(job.meta.as_ref())),
        ("created", at(row.created_at)),
        ("due", at_or_none(row.run_at)),
        ("started", at_or_none(row.started_at)),
        ("finished", at_or_none(row.finished_at)),
        ("fingerprint", or_none(job.fingerprint.as_ref())),
        ("replay of", or_none(job.replayed_from.as_ref())),
        ("replayed to", or_none(job.replayed_to.as_ref())),
        ("output", or_none(job.output.as_ref())),
        ("error", or_none(row.error.as_ref())),
    ]
}

fn done(step: &StepRow) -> String {
    let StepRow {
        step,
        attempt,
        finished_at,
        result,
    } = step;
    let result = result
        .as_ref()
        .map_or_else(|| "large".to_owned(), ToString::to_string);
    format!(
        "{step}: in attempt {attempt}, at {}: {}",
        at(*finished_at),
        brief(&result)
    )
}

fn line(attempt: &Attempt) -> String {
    let Attempt {
        attempt,
        outcome,
        error_kind,
        error,
        finished_at,
        ..
    } = attempt;
    format!(
        "{attempt}: {outcome} ({error_kind}) at {}: {error}",
        at(*finished_at)
    )
}

async fn cancel(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let cancelled = crate::runs::cancel_job(&mut tx, id).await?;
    let (what, text) = match cancelled {
        Cancelled::Done => ("cancelled", format!("job {id} is cancelled")),
        Cancelled::Requested => ("requested", format!("job {id} runs; its handler was told")),
        Cancelled::NotFound => {
            drop(tx);
            return Err(impossible(id, session).await?);
        }
    };
    Change::of("job.cancel", format!("job/{id}"))
        .note(&mut tx, &actor)
        .await?;
    tx.commit().await?;
    session
        .output
        .done(&json!({ "id": id, "cancel": what }), &text)?;
    Ok(Exit::Ok)
}

async fn retry(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let retried = crate::runs::retry_job(&mut tx, id).await?;
    let (report, text) = match retried {
        Retried::DueNow => (
            json!({ "id": id, "retry": "due_now" }),
            format!("job {id} is due now"),
        ),
        Retried::Replayed(new) => (
            json!({ "id": id, "retry": "replayed", "new_id": new }),
            format!("dead letter {id} is job {new} now"),
        ),
        Retried::NotFound => {
            drop(tx);
            return Err(impossible(id, session).await?);
        }
    };
    let change = Change {
        detail: report.clone(),
        ..Change::of("job.retry", format!("job/{id}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    session.output.done(&report, &text)?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}

/// Says why nothing can be done about a job: what state it is in, or that there is none.
async fn impossible(id: JobId, session: &mut Session) -> Result<Failure, Failure> {
    let Some(job) = read::find(&mut session.conn, id).await? else {
        return Ok(not_found(id));
    };
    let failure = Failure::say(Exit::Failed, format!("job {id} is {}", word(job.row.state)));
    Ok(match (job.row.state, job.replayed_to) {
        (JobState::Dead, Some(to)) => failure.hint(format!("it was replayed as job {to}")),
        (JobState::Dead, None) => {
            failure.hint("another unfinished job may have its unique key; `ingestd jobs show`")
        }
        _ => failure,
    })
}

/// Waits until a job has ended; returns 0 where it completed and 1 where it did not.
pub(super) async fn wait(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    session.warn_without_worker().await?;
    let job = loop {
        let job = read::find(&mut session.conn, id)
            .await?
            .ok_or_else(|| not_found(id))?;
        match job.row.state {
            JobState::Completed | JobState::Cancelled | JobState::Dead => break job,
            _ => tokio::time::sleep(LOOK_EVERY).await,
        }
    };
    if session.output.is_json() {
        session.output.json_line(&job)?;
    }
    let (state, error) = (job.row.state, job.row.error.unwrap_or_default());
    match state {
        JobState::Completed => {
            session.output.remark(&format!("job {id} completed"));
            Ok(Exit::Ok)
        }
        JobState::Dead => Err(
            Failure::say(Exit::Failed, format!("job {id} is dead: {error}"))
                .hint(format!("try it again with `ingestd dead retry {id}`")),
        ),
        _ => Err(Failure::say(
            Exit::Failed,
            format!("job {id} is {}", word(state)),
        )),
    }
}
