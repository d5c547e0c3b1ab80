//! `ingestd schedules`: cron lines and what becomes of their ticks.

mod act;
mod args;
mod backfill;
mod change;
mod explain;

use clap::Subcommand;
use sqlx::PgConnection;

use super::{
    Exit, Failure, Session,
    output::{Listed, at_or_none, brief, or_none},
};
use crate::queue::{
    Timetable,
    schedule::{Wrong, explain as known, explain::ScheduleRow},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd schedules ls
  ingestd schedules explain nightly
  ingestd schedules add nightly '0 3 * * *' system.noop --timezone Europe/Prague
  ingestd schedules backfill nightly --from 2026-01-01 --to 2026-02-01 --dry-run";

#[derive(Debug, Subcommand)]
pub(super) enum SchedulesCommand {
    /// Lists the schedules with their next and last ticks.
    #[command(after_help = "Examples:
  ingestd schedules ls
  ingestd schedules ls --tenant acme --json")]
    Ls {
        /// Only those of this owner.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Prints the next due times of a schedule, in UTC and in its own zone.
    #[command(after_help = "Examples:\n  ingestd schedules next nightly -n 5")]
    Next {
        /// The schedule's name.
        name: String,
        /// How many.
        #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        n: u16,
    },
    /// Says when a schedule is due, what its job is, what became of its last ticks and why one
    /// failed, and what a tick now would come to.
    #[command(after_help = "Examples:
  ingestd schedules explain nightly
  ingestd schedules explain nightly -n 3 --json")]
    Explain {
        /// The schedule's name.
        name: String,
        /// How many due times.
        #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1000))]
        n: u16,
    },
    /// Pauses a schedule: its ticks pass without a job.
    #[command(after_help = "Examples:\n  ingestd schedules pause nightly")]
    Pause {
        /// The schedule's name.
        name: String,
    },
    /// Lets a paused schedule go on with its next tick; those that passed are not made up for.
    #[command(after_help = "Examples:\n  ingestd schedules resume nightly")]
    Resume {
        /// The schedule's name.
        name: String,
    },
    /// Enqueues a schedule's job now, beside its ticks.
    #[command(after_help = "Examples:
  ingestd schedules run nightly
  ingestd schedules run nightly --force")]
    Run {
        /// The schedule's name.
        name: String,
        /// Also while an earlier job is unfinished and the schedule allows one only.
        #[arg(long)]
        force: bool,
    },
    /// Enqueues a job for each tick of a time in the past that has none.
    Backfill(backfill::BackfillArgs),
    /// Adds a schedule.
    Add(args::AddArgs),
    /// Changes what a schedule says; what is not given stays.
    Set(args::SetArgs),
    /// Removes a schedule for good; the jobs it made stay.
    #[command(after_help = "Examples:\n  ingestd schedules rm nightly --yes")]
    Rm {
        /// The schedule's name.
        name: String,
        /// Yes, remove it.
        #[arg(long)]
        yes: bool,
    },
}

pub(super) async fn run(command: SchedulesCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        SchedulesCommand::Ls { tenant } => list(tenant, session).await,
        SchedulesCommand::Next { name, n } => explain::next(&name, n.into(), session).await,
        SchedulesCommand::Explain { name, n } => explain::run(&name, n.into(), session).await,
        SchedulesCommand::Pause { name } => act::pause(&name, session).await,
        SchedulesCommand::Resume { name } => act::resume(&name, session).await,
        SchedulesCommand::Run { name, force } => act::run_now(&name, force, session).await,
        SchedulesCommand::Backfill(args) => backfill::run(args, session).await,
        SchedulesCommand::Add(args) => change::add(args, session).await,
        SchedulesCommand::Set(args) => change::set(args, session).await,
        SchedulesCommand::Rm { name, yes } => change::remove(&name, yes, session).await,
    }
}

impl Listed for ScheduleRow {
    const HEADERS: &'static [&'static str] = &[
        "name",
        "cron",
        "zone",
        "kind",
        "next (UTC)",
        "last (UTC)",
        "tenant",
        "origin",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        let next = if self.is_paused() {
            "paused".to_owned()
        } else {
            at_or_none(self.next_at)
        };
        vec![
            self.name.clone(),
            self.definition.cron.clone(),
            self.definition.timezone.clone(),
            self.definition.kind.clone(),
            next,
            at_or_none(self.last_at),
            or_none(self.definition.tenant.as_ref()),
            self.origin.clone(),
            brief(self.last_error.as_deref().unwrap_or_default()),
        ]
    }
}

async fn list(tenant: Option<String>, session: &mut Session) -> Result<Exit, Failure> {
    let tenants = tenant.map(|tenant| vec![tenant]);
    let rows = known::page(&mut session.conn, tenants.as_deref(), None, known::MOST).await?;
    session.output.list(&rows, "no schedules")?;
    for row in &rows {
        if let Some(text) = shadowed(row) {
            session.output.hint(&text);
        }
    }
    Ok(Exit::Ok)
}

/// Says that the configuration's schedule of a row's name is not in force, where that is so.
pub(super) fn shadowed(row: &ScheduleRow) -> Option<String> {
    let (name, set) = (&row.name, row.shadows_set.as_ref()?);
    let to_do = if row.origin == "user" {
        format!("`ingestd schedules rm {name} --yes` and the start of a daemon put it in force")
    } else {
        "one of the two needs another name".to_owned()
    };
    Some(format!(
        "the configuration of set \"{set}\" has a schedule \"{name}\", too; it is not in force, \
         because this one, of origin {}, was here first: {to_do}",
        row.origin
    ))
}

/// Finds a schedule by its name.
async fn find(conn: &mut PgConnection, name: &str) -> Result<ScheduleRow, Failure> {
    let found = known::find(conn, name).await?;
    found.ok_or_else(|| no_schedule(name))
}

fn no_schedule(name: &str) -> Failure {
    let failure = Failure::say(Exit::NoInput, format!("there is no schedule \"{name}\""));
    failure.hint("`ingestd schedules ls` lists them")
}

fn timetable(row: &ScheduleRow) -> Result<Timetable, Failure> {
    let parsed = Timetable::parse(&row.definition.cron, &row.definition.timezone);
    parsed.map_err(|error| Failure::new(Exit::Data, error))
}

/// Tells all that is wrong with a schedule to be.
fn refuse(wrong: &[Wrong]) -> Result<(), Failure> {
    if wrong.is_empty() {
        return Ok(());
    }
    let told = wrong.iter().map(|wrong| match wrong.field {
        "cron" | "timezone" => wrong.why.clone(),
        field => format!("{field} {}", wrong.why),
    });
    let told: Vec<_> = told.collect();
    Err(Failure::say(Exit::Data, told.join("; ")))
}

fn object(name: &str) -> String {
    format!("schedule/{name}")
}
