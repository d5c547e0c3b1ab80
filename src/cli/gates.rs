//! `ingestd gates`: limits of gate keys, and what waits behind them.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{
    Exit, Failure, Session,
    audit::Change,
    output::{Listed, at},
};
use crate::{
    observe::{GateDepth, gauge},
    queue::gate::define::{self, Limits},
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd gates ls
  ingestd gates set 'host:*' --max-running 2
  ingestd gates set 'api:shop' --rate 5 --burst 10
  ingestd gates pause 'host:www.example.com'";

#[derive(Debug, Subcommand)]
pub(super) enum GatesCommand {
    /// Lists the gates with their numbers of jobs.
    #[command(after_help = "Examples:\n  ingestd gates ls\n  ingestd gates ls --json")]
    Ls,
    /// Sets the limits of a key, or with * at its end of each key that begins so.
    #[command(after_help = "Examples:
  ingestd gates set 'host:*' --max-running 2
  ingestd gates set 'host:slow.example.com' --max-running 1 --rate 0.5
  ingestd gates set 'free:*'      no limit")]
    Set(SetArgs),
    /// Removes a gate: its keys fall to the next pattern that fits, or to one job at a time.
    #[command(after_help = "Examples:\n  ingestd gates rm 'host:*'")]
    Rm {
        /// The gate's pattern.
        pattern: String,
    },
    /// Pauses a gate: no job of its keys starts any more; what runs goes on.
    #[command(after_help = "Examples:\n  ingestd gates pause 'host:*'")]
    Pause {
        /// The gate's pattern; where there is none, one is made with the limits of now.
        pattern: String,
    },
    /// Lets a paused gate go on.
    #[command(after_help = "Examples:\n  ingestd gates resume 'host:*'")]
    Resume {
        /// The gate's pattern.
        pattern: String,
    },
}

/// What `gates set` takes.
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// A key, or with * at its end the prefix of keys.
    pattern: String,
    /// Most jobs of a key at once across all daemons; without it, no limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    max_running: Option<i32>,
    /// Jobs of a key that start per second in the long run; without it, no limit.
    #[arg(long, value_name = "PER_SECOND", value_parser = parse_rate)]
    rate: Option<f64>,
    /// Jobs that may start at once after a quiet time; without it, the rate of one second.
    #[arg(long, value_name = "N", requires = "rate",
          value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    burst: Option<i32>,
}

fn parse_rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if define::RATES.contains(&rate) {
        return Ok(rate);
    }
    let (from, to) = define::RATES.into_inner();
    Err(format!("must be from {from} to {to}"))
}

pub(super) async fn run(command: GatesCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        GatesCommand::Ls => {
            let gates = gauge::gates(&mut session.conn).await?;
            session
                .output
                .list(&gates, "no gates: each key runs one job at a time")?;
            Ok(Exit::Ok)
        }
        GatesCommand::Set(args) => set(&args, session).await,
        GatesCommand::Rm { pattern } => remove(&pattern, session).await,
        GatesCommand::Pause { pattern } => pause(&pattern, session).await,
        GatesCommand::Resume { pattern } => resume(&pattern, session).await,
    }
}

impl Listed for GateDepth {
    const HEADERS: &'static [&'static str] = &[
        "gate",
        "running at most",
        "per second",
        "burst",
        "admits",
        "keys",
        "held",
        "admitted",
        "running",
        "origin",
    ];

    fn cells(&self) -> Vec<String> {
        let limit = |n: Option<String>| n.unwrap_or_else(|| "any".to_owned());
        let admits = self.paused_at.map_or("yes".to_owned(), |since| {
            format!("paused since {}", at(since))
        });
        let mut cells = vec![
            self.pattern
                .clone()
                .unwrap_or_else(|| "(no gate)".to_owned()),
            limit(self.max_running.map(|n| n.to_string())),
            limit(self.rate_per_sec.map(|rate| rate.to_string())),
            self.burst.map(|n| n.to_string()).unwrap_or_default(),
            admits,
        ];
        let counts = [self.keys, self.held, self.admitted, self.running];
        cells.extend(counts.iter().map(ToString::to_string));
        cells.push(self.origin.clone().unwrap_or_default());
        cells
    }
}

fn object(pattern: &str) -> String {
    format!("gate/{pattern}")
}

async fn set(args: &SetArgs, session: &mut Session) -> Result<Exit, Failure> {
    check(&args.pattern)?;
    let limits = Limits {
        max_running: args.max_running,
        rate_per_sec: args.rate,
        burst: args.burst,
    };
    let report = json!({ "pattern": args.pattern, "limits": limits });
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    define::set(&mut tx, &args.pattern, &limits).await?;
    let change = Change {
        detail: json!(limits),
        ..Change::of("gate.set", object(&args.pattern))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    session
        .output
        .done(&report, &format!("gate {} is set", args.pattern))?;
    Ok(Exit::Ok)
}

async fn remove(pattern: &str, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    if !define::remove(&mut tx, pattern).await? {
        let failure = Failure::say(Exit::NoInput, format!("there is no gate \"{pattern}\""));
        return Err(failure.hint("ingestd gates ls lists them"));
    }
    Change::of("gate.remove", object(pattern))
        .note(&mut tx, &actor)
        .await?;
    tx.commit().await?;
    session.output.done(
        &json!({ "pattern": pattern, "removed": true }),
        &format!("gate {pattern} is removed"),
    )?;
    Ok(Exit::Ok)
}

async fn pause(pattern: &str, session: &mut Session) -> Result<Exit, Failure> {
    check(pattern)?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let n_held = define::pause(&mut tx, pattern).await?;
    Change::of("gate.pause", object(pattern))
        .note(&mut tx, &actor)
        .await?;
    tx.commit().await?;
    let text = format!(
        "gate {pattern} is paused, {n_held} admitted jobs are held again; `ingestd gates resume \
         '{pattern}'` lets it go on"
    );
    let report = json!({ "pattern": pattern, "paused": true, "held_again": n_held });
    session.output.done(&report, &text)?;
    Ok(Exit::Ok)
}

async fn resume(pattern: &str, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let resumed = define::resume(&mut tx, pattern).await?;
    if resumed {
        Change::of("gate.resume", object(pattern))
            .note(&mut tx, &actor)
            .await?;
    }
    tx.commit().await?;
    let text = if resumed { "goes on" } else { "was not paused" };
    let report = json!({ "pattern": pattern, "paused": false, "resumed": resumed });
    session
        .output
        .done(&report, &format!("gate {pattern} {text}"))?;
    Ok(Exit::Ok)
}

/// The database would say it less clearly.
fn check(pattern: &str) -> Result<(), Failure> {
    if (1..=define::LONGEST_PATTERN).contains(&pattern.chars().count()) {
        return Ok(());
    }
    let text = format!("a pattern has 1 to {} characters", define::LONGEST_PATTERN);
    Err(Failure::say(Exit::Data, text))
}
