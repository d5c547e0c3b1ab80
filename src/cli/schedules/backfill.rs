//! `ingestd schedules backfill`: jobs for the ticks of a time in the past.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _, Utc};
use clap::Args;
use serde_json::json;

use super::{find, no_schedule, object, timetable};
use crate::{
    cli::{Exit, Failure, Session, audit::Change, output::at},
    queue::{
        Timetable,
        schedule::backfill::{self, Backfill, BackfillError, Range},
    },
};

/// Ticks that are named to people; a program gets more.
const MOST_SHOWN: usize = 20;

/// The range to make up for.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd schedules backfill nightly --from 2026-01-01 --to 2026-02-01 --dry-run
  ingestd schedules backfill nightly --from 2026-01-01T00:00:00Z --spacing 30s --priority 3
  ingestd schedules backfill often --from 2026-01-01 --limit 1000   (again for the next 1000)

Each tick gets one job, however often this is run: those that have one already are left alone and
named. Ticks that were missed, left out or refused count as having none. All of it is one
transaction. At most 10000 jobs at once.")]
pub(in crate::cli) struct BackfillArgs {
    /// The schedule's name.
    name: String,
    /// From this time on: 2026-01-31T06:00:00Z, or a date, or date and time in the schedule's zone.
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Before this time; now where nothing is said.
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,
    /// At most this many jobs, those of the oldest ticks.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: Option<u16>,
    /// How far apart the jobs are due, such as 30s, at most a day; all at once where nothing is said.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    spacing: Duration,
    /// Priority instead of the schedule's: 3 lets everything else go first.
    #[arg(long, value_parser = clap::value_parser!(i16).range(0..=3))]
    priority: Option<i16>,
    /// Also where the schedule does not allow its jobs to overlap, and for ticks so old that what
    /// became of them is no longer recorded.
    #[arg(long)]
    force: bool,
}

pub(super) async fn run(args: BackfillArgs, session: &mut Session) -> Result<Exit, Failure> {
    let row = find(&mut session.conn, &args.name).await?;
    let timetable = timetable(&row)?;
    let to = match &args.to {
        Some(text) => read_time(text, &timetable)?,
        None => session.now().await?,
    };
    let range = Range {
        from: read_time(&args.from, &timetable)?,
        to,
        limit: args.limit.map(Into::into),
        spacing: args.spacing,
        priority: args.priority,
        force: args.force,
        retention_days: session.config.queue.retention_days,
    };
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let failed = |error| refused(&args.name, error);
    let report = if args.dry_run {
        let planned = backfill::plan(&mut tx, &args.name, &range).await;
        planned.map_err(failed)?
    } else {
        let filled = backfill::backfill(&mut tx, &args.name, &range, &actor).await;
        let filled = filled.map_err(failed)?;
        let (n_jobs, n_skipped) = (filled.n_jobs, filled.n_skipped);
        let change = Change {
            detail: json!({
                "from": range.from, "to": range.to, "n_jobs": n_jobs, "n_skipped": n_skipped,
            }),
            ..Change::of("schedule.backfill", object(&args.name))
        };
        change.note(&mut tx, &actor).await?;
        filled
    };
    tx.commit().await?;
    say(&args, &report, session)?;
    if !args.dry_run {
        session.warn_without_worker().await?;
    }
    Ok(Exit::Ok)
}

fn refused(name: &str, error: BackfillError) -> Failure {
    match error {
        BackfillError::NotFound => no_schedule(name),
        BackfillError::Db(error) => error.into(),
        BackfillError::Overlaps => {
            Failure::new(Exit::Data, error).hint("--spacing 10m, or --force")
        }
        BackfillError::TooMany(_) => Failure::new(Exit::Data, error).hint("--limit 10000"),
        BackfillError::Forgotten { .. } => {
            Failure::new(Exit::Data, error).hint("--from, or --force")
        }
        error => Failure::new(Exit::Data, error),
    }
}

fn say(args: &BackfillArgs, report: &Backfill, session: &Session) -> Result<(), Failure> {
    let output = &session.output;
    if output.is_json() {
        output.document(report)?;
        return Ok(());
    }
    let (made, n) = (if args.dry_run { "would be" } else { "are" }, report.n_jobs);
    output.line(&format!(
        "{n} ticks {made} made up for, {} have a job already",
        report.n_skipped
    ))?;
    for tick in report.ticks.iter().take(MOST_SHOWN) {
        output.line(&format!("  {}", at(*tick)))?;
    }
    if n > MOST_SHOWN {
        output.line(&format!("  … and {} more", n - MOST_SHOWN))?;
    }
    for tick in report.skipped.iter().take(MOST_SHOWN) {
        output.remark(&format!("  {} is job {} already", at(tick.at), tick.job_id));
    }
    if report.n_skipped > MOST_SHOWN {
        let n_more = report.n_skipped - MOST_SHOWN;
        output.remark(&format!("  … and {n_more} more; --json names 1000"));
    }
    if let Some(left) = report.left_from {
        output.hint(&format!("the same again goes on with {}", at(left)));
    }
    Ok(())
}

/// Reads a time: with its offset, or else as a clock in the schedule's zone shows it.
fn read_time(text: &str, timetable: &Timetable) -> Result<DateTime<Utc>, Failure> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let date = |text: &str| text.parse::<NaiveDate>().ok();
    let local = date(text)
        .map(|date| date.and_time(NaiveTime::MIN))
        .or_else(|| {
            let formats = [
                "%Y-%m-%dT%H:%M:%S",
                "%Y-%m-%dT%H:%M",
                "%Y-%m-%d %H:%M:%S",
                "%Y-%m-%d %H:%M",
            ];
            let mut formats = formats.iter();
            formats.find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        });
    let Some(local) = local else {
        let failure = Failure::say(Exit::Usage, format!("\"{text}\" is no time"));
        return Err(failure.hint("a time looks like 2026-01-31T06:00:00Z or 2026-01-31"));
    };
    let zone = timetable.zone();
    let time = zone.from_local_datetime(&local).earliest();
    let time = time.ok_or_else(|| {
        let text = format!("{text} does not exist in {zone}: the clocks leave it out");
        Failure::say(Exit::Usage, text)
    })?;
    Ok(time.to_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_schedules_zone() {
        let timetable = Timetable::parse("0 3 * * *", "Europe/Prague").unwrap();
        for (text, utc) in [
            ("2026-01-31T06:00:00Z", "2026-01-31T06:00:00Z"),
            ("2026-01-31T06:00:00+01:00", "2026-01-31T05:00:00Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("2026-01-31 06:00", "2026-01-31T05:00:00Z"),
            ("2026-01-31T06:00:01", "2026-01-31T05:00:01Z"),
        ] {
            let read = read_time(text, &timetable).unwrap();
            assert_eq!(read, utc.parse::<DateTime<Utc>>().unwrap(), "{text}");
        }
        for wrong in ["yesterday", "2026-02-30", "2026-03-29 02:30"] {
            assert_eq!(
                read_time(wrong, &timetable).unwrap_err().exit(),
                Exit::Usage,
                "{wrong}"
            );
        }
    }
}
