//! `ingestd enqueue`: one job by its kind's name.

use std::{io::Read as _, time::Duration};

use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Exit, Failure, Session, audit::Change, jobs};
use crate::queue::{self, JobId, NewJob};

/// Enqueues a job and prints its id.
///
/// The job is a row of ingestd.jobs; whatever can INSERT can enqueue as well.
#[derive(Debug, Args)]
#[command(after_help = r#"Examples:
  ingestd enqueue system.noop
  ingestd enqueue system.noop '{"sleep_ms": 500}' --wait
  ingestd enqueue system.noop --in 5m --unique-key nightly --priority 0
  ingestd enqueue system.noop --unique-key report:42 --unique-for 1h
  generate-args | ingestd enqueue system.noop -

With --wait the exit code is 0 where the job completed and 1 where it did not."#)]
pub(super) struct EnqueueArgs {
    /// The kind, such as system.noop.
    kind: String,
    /// Its arguments, a JSON object of at most 256 KiB; - reads them from stdin.
    #[arg(default_value = "{}", value_name = "ARGS_JSON")]
    args: String,
    /// Queue instead of the kind's own.
    #[arg(long)]
    queue: Option<String>,
    /// 0 urgent, 1 normal, 2 low, 3 background.
    #[arg(long, value_parser = clap::value_parser!(i16).range(0..=3))]
    priority: Option<i16>,
    /// Not before this time, such as 2026-01-31T06:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "wait_first")]
    run_at: Option<DateTime<Utc>>,
    /// Not before this much time has passed, such as 5m.
    #[arg(long = "in", id = "wait_first", value_name = "DURATION", value_parser = humantime::parse_duration)]
    wait_first: Option<Duration>,
    /// Attempts in all, instead of the kind's.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    max_attempts: Option<i16>,
    /// At most one unfinished job may have this key: a second one is not inserted.
    #[arg(long, value_name = "KEY")]
    unique_key: Option<String>,
    /// At most one job, finished or not, may have the key in each period of this length, such as
    /// 1h: hours begin on the hour, days at midnight UTC, weeks on Monday.
    #[arg(long, value_name = "DURATION", requires = "unique_key", value_parser = humantime::parse_duration)]
    unique_for: Option<Duration>,
    /// Owner of the data.
    #[arg(long)]
    tenant: Option<String>,
    /// Wait until the job has ended.
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Null where the job that has the unique key finished in the meantime.
    id: Option<JobId>,
    /// False: an unfinished job, or one of the same period, has the unique key already.
    inserted: bool,
}

pub(super) async fn run(args: EnqueueArgs, session: &mut Session) -> Result<Exit, Failure> {
    let wait = args.wait;
    let new = new_job(args, session).await?;
    let report = insert(&new, session).await?;
    say(&report, &new, session)?;
    match report.id {
        Some(id) if wait => jobs::wait(id, session).await,
        _ => Ok(Exit::Ok),
    }
}

async fn new_job(args: EnqueueArgs, session: &mut Session) -> Result<NewJob, Failure> {
    let run_at = match (args.run_at, args.wait_first) {
        (None, Some(delay)) => Some(session.now().await? + delay),
        (run_at, _) => run_at,
    };
    Ok(NewJob {
        kind: args.kind,
        args: read_args(args.args)?,
        queue: args.queue,
        priority: args.priority,
        run_at,
        max_attempts: args.max_attempts,
        unique_key: args.unique_key,
        unique_for: args.unique_for,
        tenant: args.tenant,
        meta: Some(json!({ "enqueued_by": session.actor })),
        ..NewJob::default()
    })
}

/// Takes arguments from the command line, or from stdin for `-`.
fn read_args(given: String) -> Result<Value, Failure> {
    let mut text = given;
    if text == "-" {
        text.clear();
        std::io::stdin().lock().read_to_string(&mut text)?;
    }
    parse_args(&text)
}

/// Parses arguments, which are a JSON object.
pub(super) fn parse_args(text: &str) -> Result<Value, Failure> {
    match serde_json::from_str(text) {
        Ok(Value::Object(args)) => Ok(Value::Object(args)),
        Ok(_) => Err(
            Failure::say(Exit::Data, "the arguments are JSON, but no object")
                .hint("arguments look like '{\"name\": \"value\"}'"),
        ),
        Err(error) => Err(
            Failure::say(Exit::Data, format!("the arguments are no JSON: {error}"))
                .hint("quote them for the shell: '{\"name\": \"value\"}'"),
        ),
    }
}

async fn insert(new: &NewJob, session: &mut Session) -> Result<Report, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let enqueued = queue::enqueue_raw(&mut tx, new).await?;
    if let (Some(id), true) = (enqueued.id, enqueued.inserted) {
        let change = Change {
            tenant: new.tenant.as_deref(),
            detail: json!({ "kind": new.kind }),
            ..Change::of("job.enqueue", format!("job/{id}"))
        };
        change.note(&mut tx, &actor).await?;
    }
    tx.commit().await?;
    Ok(Report {
        id: enqueued.id,
        inserted: enqueued.inserted,
    })
}

fn say(report: &Report, new: &NewJob, session: &Session) -> Result<(), Failure> {
    let output = &session.output;
    if output.is_json() {
        output.json_line(report)?;
        return Ok(());
    }
    let key = new.unique_key.as_deref().unwrap_or_default();
    match (report.id, report.inserted) {
        (Some(id), true) => output.line(&id.to_string())?,
        (Some(id), false) => {
            output.line(&id.to_string())?;
            output.remark(&format!(
                "not inserted: job {id} has unique key \"{key}\" already"
            ));
        }
        (None, _) => output.remark(&format!(
            "not inserted: a job with unique key \"{key}\" was unfinished a moment ago; try again"
        )),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_a_json_object() {
        assert_eq!(parse_args("{\"a\": 1}").unwrap(), json!({ "a": 1 }));
        for wrong in ["[1]", "1", "{a: 1}", ""] {
            assert_eq!(parse_args(wrong).unwrap_err().exit(), Exit::Data, "{wrong}");
        }
    }
}
