//! The flags that say which jobs or dead letters are meant.

use chrono::{DateTime, Utc};
use clap::Args;

use crate::queue::{
    Reason,
    filter::{DeadFilter, Fingerprint, LiveFilter},
    read::JobState,
};

/// Which unfinished jobs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which jobs")]
pub(in crate::cli) struct LiveArgs {
    /// In this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// In this state: queued, held or running.
    #[arg(long, value_parser = parse_unfinished)]
    state: Option<JobState>,
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this run.
    #[arg(long, value_name = "ID")]
    run: Option<i64>,
    /// Whose last error contains this text.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Enqueued at this time or later.
    #[arg(long, value_name = "TIME")]
    created_after: Option<DateTime<Utc>>,
    /// Enqueued before this time.
    #[arg(long, value_name = "TIME")]
    created_before: Option<DateTime<Utc>>,
}

impl LiveArgs {
    pub(in crate::cli) fn filter(self) -> LiveFilter {
        LiveFilter {
            queue: self.queue,
            kind: self.kind,
            state: self.state,
            tenant: self.tenant,
            run_id: self.run,
            error: self.error,
            created_after: self.created_after,
            created_before: self.created_before,
            is_later: false,
        }
    }
}

/// Which dead letters.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which letters")]
pub(in crate::cli) struct DeadArgs {
    /// Of this queue.
    #[arg(long)]
    queue: Option<String>,
    /// Of this kind.
    #[arg(long)]
    kind: Option<String>,
    /// Given up for this reason: exhausted, fatal or poison.
    #[arg(long, value_parser = parse_reason)]
    reason: Option<Reason>,
    /// Of this group of alike failures; `ingestd dead groups` lists them.
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<Fingerprint>,
    /// Whose error contains this text.
    #[arg(long, value_name = "TEXT")]
    error: Option<String>,
    /// Of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Of this run.
    #[arg(long, value_name = "ID")]
    run: Option<i64>,
    /// Given up at this time or later.
    #[arg(long, value_name = "TIME")]
    died_after: Option<DateTime<Utc>>,
    /// Given up before this time.
    #[arg(long, value_name = "TIME")]
    died_before: Option<DateTime<Utc>>,
}

impl DeadArgs {
    pub(in crate::cli) fn filter(self, replayed: bool) -> DeadFilter {
        DeadFilter {
            queue: self.queue,
            kind: self.kind,
            reason: self.reason,
            fingerprint: self.fingerprint,
            error: self.error,
            tenant: self.tenant,
            run_id: self.run,
            died_after: self.died_after,
            died_before: self.died_before,
            replayed,
        }
    }
}

fn parse_unfinished(word: &str) -> Result<JobState, String> {
    match word {
        "queued" => Ok(JobState::Queued),
        "held" => Ok(JobState::Held),
        "running" => Ok(JobState::Running),
        _ => Err("one of queued, held, running".to_owned()),
    }
}

fn parse_reason(word: &str) -> Result<Reason, String> {
    let known = serde_json::from_value(serde_json::Value::String(word.to_owned()));
    known.map_err(|_| "one of exhausted, fatal, poison".to_owned())
}
