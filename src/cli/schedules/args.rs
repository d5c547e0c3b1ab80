//! What is said about a schedule on the command line.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    cli::{Failure, enqueue::parse_args},
    queue::schedule::{Definition, Missed, Overlap},
};

/// A schedule to be.
#[derive(Debug, Args)]
#[command(after_help = r#"Examples:
  ingestd schedules add nightly '0 3 * * *' system.noop --timezone Europe/Prague
  ingestd schedules add often '*/10 * * * * *' system.noop --args '{"sleep_ms": 5}' --overlap skip
  ingestd schedules add hourly '@hourly' system.noop --jitter 5m --missed all --missed-max 24
  ingestd schedules add acmes '@daily' acme.report --tenant acme"#)]
pub(in crate::cli) struct AddArgs {
    /// Its name.
    pub(super) name: String,
    /// When it is due: five fields, or six with seconds first.
    cron: String,
    /// The kind to enqueue.
    kind: String,
    #[command(flatten)]
    details: Details,
    /// Begin paused.
    #[arg(long)]
    pub(super) paused: bool,
}

impl AddArgs {
    pub(super) fn definition(&self) -> Result<Definition, Failure> {
        self.details.apply(Definition::new(&self.cron, &self.kind))
    }
}

/// What is to change.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  ingestd schedules set nightly --cron '30 3 * * *'
  ingestd schedules set nightly --overlap skip --jitter 10m
  ingestd schedules set nightly --tenant acme

Where line and zone stay, so does the next due time. A schedule of the configuration is changed
there.")]
pub(in crate::cli) struct SetArgs {
    /// The schedule's name.
    pub(super) name: String,
    /// When it is due: five fields, or six with seconds first.
    #[arg(long)]
    cron: Option<String>,
    /// The kind to enqueue.
    #[arg(long)]
    kind: Option<String>,
    #[command(flatten)]
    details: Details,
}

impl SetArgs {
    pub(super) fn apply(&self, before: Definition) -> Result<Definition, Failure> {
        let mut definition = before;
        definition.cron = self.cron.clone().unwrap_or(definition.cron);
        definition.kind = self.kind.clone().unwrap_or(definition.kind);
        self.details.apply(definition)
    }
}

/// What has a default, or stays.
#[derive(Debug, Args)]
struct Details {
    /// The job's arguments, a JSON object.
    #[arg(long, value_name = "JSON")]
    args: Option<String>,
    /// The zone that the cron line is read in, an IANA name; UTC where none is given.
    #[arg(long, value_name = "ZONE")]
    timezone: Option<String>,
    /// Queue instead of the kind's own; an empty one takes that back.
    #[arg(long)]
    queue: Option<String>,
    /// 0 urgent, 1 normal, 2 low, 3 background.
    #[arg(long, value_parser = clap::value_parser!(i16).range(0..=3))]
    priority: Option<i16>,
    /// What to do about ticks that passed while no daemon ran; once where nothing is said.
    #[arg(long)]
    missed: Option<MissedArg>,
    /// Most missed ticks that "all" makes up for; 100 where nothing is said.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    missed_max: Option<i32>,
    /// What to do about a tick while an earlier one's job is unfinished; allow where nothing is
    /// said.
    #[arg(long)]
    overlap: Option<OverlapArg>,
    /// Each job is due up to this much after its tick, at most a day.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    jitter: Option<Duration>,
    /// Owner of the schedule and of its jobs; an empty one makes it the whole installation's.
    #[arg(long)]
    tenant: Option<String>,
}

impl Details {
    fn apply(&self, before: Definition) -> Result<Definition, Failure> {
        let mut definition = before;
        if let Some(args) = &self.args
            && let Value::Object(args) = parse_args(args)?
        {
            definition.args = args;
        }
        definition.timezone = self.timezone.clone().unwrap_or(definition.timezone);
        definition.queue = match &self.queue {
            Some(none) if none.is_empty() => None,
            queue => queue.clone().or(definition.queue),
        };
        definition.tenant = match &self.tenant {
            Some(none) if none.is_empty() => None,
            tenant => tenant.clone().or(definition.tenant),
        };
        definition.priority = self.priority.or(definition.priority);
        definition.missed = self.missed.map_or(definition.missed, Into::into);
        definition.missed_max = self.missed_max.unwrap_or(definition.missed_max);
        definition.overlap = self.overlap.map_or(definition.overlap, Into::into);
        let in_ms = |jitter: Duration| i32::try_from(jitter.as_millis()).unwrap_or(i32::MAX);
        definition.jitter_ms = self.jitter.map_or(definition.jitter_ms, in_ms);
        Ok(definition)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MissedArg {
    /// Leave them out.
    Skip,
    /// Run once for all of them.
    Once,
    /// Make up for each.
    All,
}

impl From<MissedArg> for Missed {
    fn from(arg: MissedArg) -> Self {
        match arg {
            MissedArg::Skip => Self::Skip,
            MissedArg::Once => Self::Once,
            MissedArg::All => Self::All,
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OverlapArg {
    /// Run another beside it.
    Allow,
    /// Leave the tick out.
    Skip,
    /// Wait until it has finished.
    Queue,
}

impl From<OverlapArg> for Overlap {
    fn from(arg: OverlapArg) -> Self {
        match arg {
            OverlapArg::Allow => Self::Allow,
            OverlapArg::Skip => Self::Skip,
            OverlapArg::Queue => Self::Queue,
        }
    }
}
