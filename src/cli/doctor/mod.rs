//! `ingestd doctor`: looks for what is wrong and says what to do about it.

mod database;
mod health;
mod machine;
mod schedule;

use clap::Args;
use serde::Serialize;

use super::{
    Exit, Failure, Output,
    output::{Colour, printable},
    session,
};
use crate::config::{ConfigError, Loaded};

/// Checks configuration, database, queues, storage and HTTP of this machine.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd doctor
  ingestd doctor --json | jq '.[] | select(.status != \"ok\")'

The exit code is 1 where any check fails; warnings do not count.")]
pub(super) struct DoctorArgs {}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Status {
    /// As it should be.
    Ok,
    /// It works, but somebody should look at it.
    Warn,
    /// It does not work.
    Fail,
}

/// What one check found.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    status: Status,
    message: String,
    /// What to do about it.
    hint: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Ok,
            message: message.into(),
            hint: None,
        }
    }

    fn warn(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Warn,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }

    fn fail(check: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Fail,
            message: message.into(),
            hint: Some(hint.into()),
        }
    }
}

pub(super) async fn run(
    _args: &DoctorArgs,
    loaded: Result<Loaded, ConfigError>,
    output: &Output,
) -> Result<Exit, Failure> {
    let findings = examine(loaded).await;
    if output.is_json() {
        output.document(&findings)?;
    } else {
        for finding in &findings {
            print(finding, output)?;
        }
    }
    let failed = findings
        .iter()
        .any(|finding| finding.status == Status::Fail);
    Ok(if failed { Exit::Failed } else { Exit::Ok })
}

async fn examine(loaded: Result<Loaded, ConfigError>) -> Vec<Finding> {
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            let hint = "`ingestd config check` says the same; nothing else was looked at";
            return vec![Finding::fail("configuration", error.to_string(), hint)];
        }
    };
    let read = match loaded.files.len() {
        0 => "loads; no file, environment and flags only".to_owned(),
        n => format!("loads; {n} files read"),
    };
    let mut findings = vec![Finding::ok("configuration", read)];
    let config = &loaded.config;
    let mut has_daemon = false;
    match session::connect(config).await {
        Ok(mut conn) => {
            findings.extend(database::examine(&mut conn, config).await);
            has_daemon = database::has_daemon_here(&mut conn).await.unwrap_or(false);
        }
        Err(failure) => findings.push(Finding::fail(
            "database",
            failure.text(),
            failure
                .hint_text()
                .unwrap_or("is Postgres running, and database.url right?"),
        )),
    }
    findings.push(machine::storage(&config.storage.dir));
    findings.push(machine::http(&config.http, has_daemon).await);
    findings
}

fn print(finding: &Finding, output: &Output) -> std::io::Result<()> {
    let (word, colour) = match finding.status {
        Status::Ok => ("ok  ", Colour::Green),
        Status::Warn => ("warn", Colour::Yellow),
        Status::Fail => ("fail", Colour::Red),
    };
    if output.is_quiet() && finding.status == Status::Ok {
        return Ok(());
    }
    let word = output.coloured(colour, word);
    let message = printable(&finding.message).replace('\n', "\n      ");
    output.coloured_line(&format!("{word}  {}: {message}", finding.check))?;
    match &finding.hint {
        Some(hint) => output.coloured_line(&format!("      hint: {}", printable(hint))),
        None => Ok(()),
    }
}
