//! `ingestd schedules`: cron lines and what becomes of their ticks.

mod change;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};

use super::{
    Exit, Failure, Session,
    output::{Listed, at, at_or_none, brief, or_none},
};
use crate::queue::{JobId, Timetable};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd schedules ls
  ingestd schedules next nightly -n 5
  ingestd schedules add nightly '0 3 * * *' system.noop --timezone Europe/Prague";

#[derive(Debug, Subcommand)]
pub(super) enum SchedulesCommand {
    /// Lists the schedules with their next and last ticks.
    #[command(after_help = "Examples:\n  ingestd schedules ls")]
    Ls,
    /// Prints the next due times of a schedule, in UTC and in its own zone.
    #[command(after_help = "Examples:\n  ingestd schedules next nightly -n 5")]
    Next {
        /// The schedule's name.
        name: String,
        /// How many.
        #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
        n: u16,
    },
    /// Says in words when a schedule is due, what its job is, and what became of its last ticks.
    #[command(after_help = "Examples:\n  ingestd schedules explain nightly")]
    Explain {
        /// The schedule's name.
        name: String,
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
    #[command(after_help = "Examples:\n  ingestd schedules run nightly")]
    Run {
        /// The schedule's name.
        name: String,
    },
    /// Adds a schedule.
    #[command(after_help = r#"Examples:
  ingestd schedules add nightly '0 3 * * *' system.noop --timezone Europe/Prague
  ingestd schedules add often '*/10 * * * * *' system.noop --args '{"sleep_ms": 5}' --overlap skip"#)]
    Add(AddArgs),
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

/// A schedule to be.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Its name.
    name: String,
    /// When it is due: five fields, or six with seconds first.
    cron: String,
    /// The kind to enqueue.
    kind: String,
    /// The job's arguments, a JSON object.
    #[arg(long, default_value = "{}", value_name = "JSON")]
    args: String,
    /// The zone that the cron line is read in, an IANA name.
    #[arg(long, default_value = "UTC", value_name = "ZONE")]
    timezone: String,
    /// Queue instead of the kind's own.
    #[arg(long)]
    queue: Option<String>,
    /// 0 urgent, 1 normal, 2 low, 3 background.
    #[arg(long, value_parser = clap::value_parser!(i16).range(0..=3))]
    priority: Option<i16>,
    /// What to do about ticks that passed while no daemon ran.
    #[arg(long, default_value = "once")]
    missed: Missed,
    /// What to do about a tick while the last one's job is unfinished.
    #[arg(long, default_value = "allow")]
    overlap: Overlap,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Missed {
    /// Leave them out.
    Skip,
    /// Run once for all of them.
    Once,
    /// Make up for each.
    All,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Overlap {
    /// Run another beside it.
    Allow,
    /// Leave the tick out.
    Skip,
    /// Wait until it has finished.
    Queue,
}

/// One schedule as the database has it.
#[derive(Debug, Serialize, FromRow)]
struct Schedule {
    name: String,
    cron: String,
    timezone: String,
    kind: String,
    args: Value,
    queue: Option<String>,
    priority: Option<i16>,
    missed: String,
    missed_max: i32,
    overlap: String,
    origin: String,
    paused_at: Option<DateTime<Utc>>,
    next_at: Option<DateTime<Utc>>,
    last_at: Option<DateTime<Utc>>,
    last_error: Option<String>,
}

const SELECT: &str = "
    SELECT name, cron, timezone, kind, args, queue, priority, missed, missed_max, overlap, origin,
           paused_at, next_at, last_at, last_error
    FROM ingestd.schedules WHERE $1::text IS NULL OR name = $1 ORDER BY name";

pub(super) async fn run(command: SchedulesCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        SchedulesCommand::Ls => {
            let rows: Vec<Schedule> = sqlx::query_as(SELECT)
                .bind(None::<&str>)
                .fetch_all(&mut session.conn)
                .await?;
            session.output.list(&rows, "no schedules")?;
            Ok(Exit::Ok)
        }
        SchedulesCommand::Next { name, n } => next(&name, n.into(), session).await,
        SchedulesCommand::Explain { name } => explain(&name, session).await,
        SchedulesCommand::Pause { name } => change::pause(&name, session).await,
        SchedulesCommand::Resume { name } => change::resume(&name, session).await,
        SchedulesCommand::Run { name } => change::run_now(&name, session).await,
        SchedulesCommand::Add(args) => change::add(args, session).await,
        SchedulesCommand::Rm { name, yes } => change::remove(&name, yes, session).await,
    }
}

impl Listed for Schedule {
    const HEADERS: &'static [&'static str] = &[
        "name",
        "cron",
        "zone",
        "kind",
        "next (UTC)",
        "last (UTC)",
        "origin",
        "error",
    ];

    fn cells(&self) -> Vec<String> {
        let next = match (self.paused_at, self.next_at) {
            (Some(_), _) => "paused".to_owned(),
            (None, next) => at_or_none(next),
        };
        vec![
            self.name.clone(),
            self.cron.clone(),
            self.timezone.clone(),
            self.kind.clone(),
            next,
            at_or_none(self.last_at),
            self.origin.clone(),
            brief(self.last_error.as_deref().unwrap_or_default()),
        ]
    }
}

/// Finds a schedule by its name.
async fn find(conn: &mut PgConnection, name: &str) -> Result<Schedule, Failure> {
    let found = sqlx::query_as(SELECT)
        .bind(name)
        .fetch_optional(conn)
        .await?;
    found.ok_or_else(|| {
        let failure = Failure::say(Exit::NoInput, format!("there is no schedule \"{name}\""));
        failure.hint("`ingestd schedules ls` lists them")
    })
}

impl Schedule {
    fn timetable(&self) -> Result<Timetable, Failure> {
        let parsed = Timetable::parse(&self.cron, &self.timezone);
        parsed.map_err(|error| Failure::new(Exit::Data, error))
    }
}

/// Returns the next `n` due times after `now`; fewer where there are no more.
fn due_times(timetable: &Timetable, now: DateTime<Utc>, n: usize) -> Vec<DateTime<Utc>> {
    let first = timetable.next_after(now);
    std::iter::successors(first, |last| timetable.next_after(*last))
        .take(n)
        .collect()
}

#[derive(Debug, Serialize)]
struct DueTime {
    utc: DateTime<Utc>,
    /// The wall clock in the schedule's zone.
    local: String,
}

impl Listed for DueTime {
    const HEADERS: &'static [&'static str] = &["UTC", "in the schedule's zone"];

    fn cells(&self) -> Vec<String> {
        vec![at(self.utc), self.local.clone()]
    }
}

async fn next(name: &str, n: usize, session: &mut Session) -> Result<Exit, Failure> {
    let schedule = find(&mut session.conn, name).await?;
    let timetable = schedule.timetable()?;
    let now = session.now().await?;
    let times: Vec<DueTime> = due_times(&timetable, now, n)
        .into_iter()
        .map(|utc| DueTime {
            utc,
            local: local(&timetable, utc),
        })
        .collect();
    session.output.list(&times, "it is not due for decades")?;
    if schedule.paused_at.is_some() {
        session.output.hint(&format!(
            "it is paused; `ingestd schedules resume {name}` lets it go on"
        ));
    }
    Ok(Exit::Ok)
}

/// Returns a time as a clock in the schedule's zone shows it.
fn local(timetable: &Timetable, time: DateTime<Utc>) -> String {
    time.with_timezone(&timetable.zone())
        .format("%a %Y-%m-%d %H:%M:%S %Z")
        .to_string()
}

/// One tick that was handled.
#[derive(Debug, Serialize, FromRow)]
struct Tick {
    at: DateTime<Utc>,
    result: String,
    job_id: Option<JobId>,
}

async fn explain(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let schedule = find(&mut session.conn, name).await?;
    let timetable = schedule.timetable()?;
    let now = session.now().await?;
    let ticks: Vec<Tick> = sqlx::query_as(
        "SELECT tick_at AS at, result, job_id FROM ingestd.schedule_ticks
         WHERE schedule = $1 ORDER BY tick_at DESC LIMIT 5",
    )
    .bind(name)
    .fetch_all(&mut session.conn)
    .await?;
    let (words, next) = (timetable.describe(), due_times(&timetable, now, 1).pop());
    let report = json!({
        "schedule": schedule, "in_words": words, "due_next": next, "last_ticks": ticks,
    });
    session
        .output
        .record(&report, &schedule.fields(&words, next, &ticks))?;
    Ok(Exit::Ok)
}

impl Schedule {
    fn fields(
        &self,
        words: &str,
        next: Option<DateTime<Utc>>,
        ticks: &[Tick],
    ) -> Vec<(&'static str, String)> {
        let next = match self.paused_at {
            Some(since) => format!("never: paused since {}", at(since)),
            None => next.map_or_else(|| "not for decades".to_owned(), at),
        };
        let mut fields = vec![
            ("name", self.name.clone()),
            ("due", format!("{words}: {}", self.cron)),
            ("next", next),
            ("job", format!("{} {}", self.kind, self.args)),
            ("queue", or_none(self.queue.as_ref())),
            ("missed", self.missed_in_words()),
            ("overlap", self.overlap_in_words().to_owned()),
            ("origin", self.origin.clone()),
            ("error", or_none(self.last_error.as_ref())),
        ];
        fields.extend(ticks.iter().map(|tick| {
            let job = tick
                .job_id
                .map(|id| format!(" as job {id}"))
                .unwrap_or_default();
            ("tick", format!("{} {}{job}", at(tick.at), tick.result))
        }));
        fields
    }

    fn missed_in_words(&self) -> String {
        match self.missed.as_str() {
            "skip" => "ticks that pass while no daemon runs are left out".to_owned(),
            "all" => format!(
                "ticks that pass while no daemon runs are made up for, the last {} of them",
                self.missed_max
            ),
            _ => "ticks that pass while no daemon runs are made up for by one job".to_owned(),
        }
    }

    fn overlap_in_words(&self) -> &'static str {
        match self.overlap.as_str() {
            "skip" => "a tick is left out while the last one's job is unfinished",
            "queue" => "a tick waits until the last one's job has finished",
            _ => "a tick makes its job even while the last one's is unfinished",
        }
    }
}
