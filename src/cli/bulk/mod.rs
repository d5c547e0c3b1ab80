//! One action on many jobs or dead letters, which the daemon carries out: shared by `jobs` and `dead`.

mod filter;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Exit, Failure, Session, audit::Change, dead::confirm, output::brief, progress};
pub(super) use filter::{DeadArgs, LiveArgs};

use crate::{
    ingest::system::bulk::{self, Action, BadOrder, MAX_RATE, Order},
    queue::filter::Preview,
};

/// How it is carried out.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Many at once")]
pub(super) struct BulkArgs {
    /// At most this many a second.
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_RATE)))]
    rate: Option<u32>,
    /// Say how many there are and show the first few; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Wait until it is done, with progress.
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
}

impl BulkArgs {
    /// Says whether any of its flags was given.
    pub(super) const fn is_given(&self) -> bool {
        self.rate.is_some() || self.dry_run || self.wait
    }
}

/// Has the daemon carry an action out on everything that fits a filter.
///
/// Cancelling and purging ask for `--yes`.
pub(super) async fn run(
    action: Action,
    filter: impl Serialize,
    args: &BulkArgs,
    yes: bool,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let order = Order::new(action, serde_json::to_value(filter)?, args.rate).map_err(refused)?;
    if args.dry_run {
        let found = bulk::preview(&mut session.conn, &order).await?;
        show(action, &found, session)?;
        return Ok(Exit::Ok);
    }
    if matches!(action, Action::Cancel | Action::Purge) {
        let found = bulk::preview(&mut session.conn, &order).await?;
        confirm(
            yes,
            &format!("{} {}", action.as_str(), count(action, &found)),
        )?;
    }
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let (id, found) = bulk::submit(&mut tx, &order, "cli", &actor).await?;
    let change = Change {
        detail: json!({ "order": order, "found": found.n_found }),
        ..Change::of(word(action), format!("run/{id}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    if args.wait {
        session.warn_without_worker().await?;
        let run = progress::follow(id, session).await?;
        return progress::conclude(&run);
    }
    let text = format!(
        "run {id}: {} {}; `ingestd runs watch {id}` shows how far it is",
        action.as_str(),
        count(action, &found)
    );
    let report = json!({ "run_id": id, "found": found.n_found, "is_all": found.is_all });
    session.output.done(&report, &text)?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}

/// The audit log's word.
const fn word(action: Action) -> &'static str {
    match action {
        Action::Cancel => "bulk.cancel",
        Action::Retry => "bulk.retry",
        Action::Replay => "bulk.replay",
        Action::ReplayAfresh => "bulk.replay_afresh",
        Action::Purge => "bulk.purge",
    }
}

fn refused(error: BadOrder) -> Failure {
    Failure::new(Exit::Usage, error)
}

/// Says how many were found: `3 jobs`, `more than 100000 dead letters`.
fn count(action: Action, found: &Preview) -> String {
    let what = match action {
        Action::Cancel | Action::Retry => "jobs",
        Action::Replay | Action::ReplayAfresh | Action::Purge => "dead letters",
    };
    let least = if found.is_all { "" } else { "at least " };
    format!("{least}{} {what}", found.n_found)
}

fn show(action: Action, found: &Preview, session: &Session) -> Result<(), Failure> {
    if session.output.is_json() {
        let mut report = serde_json::to_value(found)?;
        if let Value::Object(members) = &mut report {
            members.insert("dry_run".to_owned(), true.into());
        }
        session.output.document(&report)?;
        return Ok(());
    }
    let text = format!("would {} {}", action.as_str(), count(action, found));
    session.output.line(&text)?;
    for job in &found.first {
        let error = brief(job.error.as_deref().unwrap_or_default());
        let line = format!("  {}  {}  {}  {error}", job.id, job.kind, job.queue);
        session.output.line(line.trim_end())?;
    }
    Ok(())
}
