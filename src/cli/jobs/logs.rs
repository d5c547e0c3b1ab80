//! `ingestd jobs logs`: what a job's attempts said.

use std::time::Duration;

use clap::Args;

use super::not_found;
use crate::{
    cli::{Exit, Failure, Session, interrupt::unless_interrupted, output::at},
    queue::{
        JobId,
        read::{self, JobState},
        record::{self, LogLine, LogPlace},
    },
};

/// How often new lines are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long after a job has ended its last lines may still come.
const LAST_WORDS: Duration = Duration::from_millis(1500);
/// Lines read at once.
const PAGE: i64 = 1000;

#[derive(Debug, Args)]
pub(in crate::cli) struct LogsArgs {
    /// The job's id.
    id: i64,
    /// Goes on with new lines until the job has ended; Ctrl-C stops the watching, not the job.
    #[arg(long)]
    follow: bool,
}

/// Prints the lines, oldest first; where JSON is asked for, each as one document.
pub(super) async fn run(args: &LogsArgs, session: &mut Session) -> Result<Exit, Failure> {
    let id = JobId(args.id);
    if !args.follow {
        let (is_there, _) = look(id, session).await?;
        let last = print(id, LogPlace::default(), session).await?;
        if !is_there && last == LogPlace::default() {
            return Err(not_found(id));
        }
        return Ok(Exit::Ok);
    }
    unless_interrupted(follow(id, session)).await
}

async fn follow(id: JobId, session: &mut Session) -> Result<Exit, Failure> {
    let mut place = LogPlace::default();
    loop {
        // First the state: what was said before the job ended is not missed.
        let (is_there, is_over) = look(id, session).await?;
        if is_over {
            tokio::time::sleep(LAST_WORDS).await;
        }
        place = print(id, place, session).await?;
        if !is_there && place == LogPlace::default() {
            return Err(not_found(id));
        }
        if is_over {
            return Ok(Exit::Ok);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Says whether the job is known, and whether no more attempts of it are to come.
async fn look(id: JobId, session: &mut Session) -> Result<(bool, bool), Failure> {
    let job = read::find(&mut session.conn, id).await?;
    let state = job.map(|job| job.row.state);
    let is_unfinished = matches!(
        state,
        Some(JobState::Queued | JobState::Held | JobState::Running)
    );
    Ok((state.is_some(), !is_unfinished))
}

/// Prints what there is after a place; returns the place after it.
async fn print(id: JobId, mut place: LogPlace, session: &mut Session) -> Result<LogPlace, Failure> {
    loop {
        let lines = record::lines(&mut session.conn, id, place, PAGE).await?;
        let Some(last) = lines.last() else {
            return Ok(place);
        };
        place = last.place();
        for line in &lines {
            if session.output.is_json() {
                session.output.json_line(line)?;
            } else {
                session.output.line(&text(line))?;
            }
        }
    }
}

fn text(line: &LogLine) -> String {
    let LogLine {
        attempt,
        level,
        message,
        logged_at,
        ..
    } = line;
    format!(
        "{} {attempt} {:5} {message}",
        at(*logged_at),
        level.as_str()
    )
}
