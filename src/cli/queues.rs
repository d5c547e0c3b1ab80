//! `ingestd queues`: what waits and runs in each queue; pausing.

use clap::Subcommand;
use serde_json::json;

use super::{
    Exit, Failure, Session,
    audit::Change,
    output::{Listed, seconds},
};
use crate::{
    observe::{QueueDepth, gauge},
    queue::{
        control, rule,
        stats::{self, KindStats, StatsFilter},
    },
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd queues ls
  ingestd queues stats
  ingestd queues pause import
  ingestd queues resume import
  ingestd queues limit import 4
  ingestd queues fair mail on";

#[derive(Debug, Subcommand)]
pub(super) enum QueuesCommand {
    /// Lists the queues with their numbers of jobs by state.
    #[command(after_help = "Examples:\n  ingestd queues ls\n  ingestd queues ls --json")]
    Ls,
    /// Shows what ended lately by queue and kind: rates, failures, run times.
    #[command(after_help = "Examples:
  ingestd queues stats
  ingestd queues stats import --minutes 1440
  ingestd queues stats --kind product_import.run --json

Daemons write the figures every few seconds. Run times are estimated from buckets.")]
    Stats {
        /// Only this queue.
        queue: Option<String>,
        /// Only this kind.
        #[arg(long)]
        kind: Option<String>,
        /// Of so many minutes up to now, at most a day.
        #[arg(long, default_value_t = 60, value_name = "N",
              value_parser = clap::value_parser!(i32).range(1..=i64::from(stats::LONGEST_MINUTES)))]
        minutes: i32,
    },
    /// Pauses a queue: nothing is claimed from it any more; what runs goes on.
    #[command(after_help = "Examples:\n  ingestd queues pause import")]
    Pause {
        /// The queue's name.
        queue: String,
    },
    /// Limits how many jobs of a queue run at once across all daemons.
    #[command(
        after_help = "Examples:\n  ingestd queues limit import 4\n  ingestd queues limit import --none"
    )]
    Limit {
        /// The queue's name.
        queue: String,
        /// Most jobs at once, across all daemons.
        #[arg(value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
        #[arg(required_unless_present = "none", conflicts_with = "none")]
        most: Option<i32>,
        /// Takes the limit away.
        #[arg(long)]
        none: bool,
    },
    /// Lets the tenants of a queue take turns, or no longer.
    #[command(
        after_help = "Examples:\n  ingestd queues fair mail on\n  ingestd queues fair mail off"
    )]
    Fair {
        /// The queue's name.
        queue: String,
        /// Whether they do.
        #[arg(value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set)]
        on: bool,
    },
    /// Lets a paused queue go on.
    #[command(after_help = "Examples:\n  ingestd queues resume import")]
    Resume {
        /// The queue's name.
        queue: String,
    },
}

pub(super) async fn run(command: QueuesCommand, session: &mut Session) -> Result<Exit, Failure> {
    match command {
        QueuesCommand::Ls => {
            let queues = gauge::queues(&mut session.conn).await?;
            session
                .output
                .list(&queues, "no queues: no kind is registered yet")?;
            Ok(Exit::Ok)
        }
        QueuesCommand::Stats {
            queue,
            kind,
            minutes,
        } => {
            let filter = StatsFilter {
                queue: queue.as_deref(),
                kind: kind.as_deref(),
                minutes,
            };
            let stats = stats::by_kind(&mut session.conn, filter).await?;
            let none = "nothing ended in that time";
            session.output.list(&stats, none)?;
            Ok(Exit::Ok)
        }
        QueuesCommand::Pause { queue } => pause(&queue, session).await,
        QueuesCommand::Limit { queue, most, .. } => limit(&queue, most, session).await,
        QueuesCommand::Fair { queue, on } => fair(&queue, on, session).await,
        QueuesCommand::Resume { queue } => resume(&queue, session).await,
    }
}

impl Listed for QueueDepth {
    const HEADERS: &'static [&'static str] = &[
        "queue",
        "claims",
        "at most",
        "turns",
        "queued",
        "scheduled",
        "retrying",
        "held",
        "running",
        "dead",
        "oldest waits",
    ];

    fn cells(&self) -> Vec<String> {
        let counts = [
            self.queued,
            self.scheduled,
            self.retrying,
            self.held,
            self.running,
            self.dead,
        ];
        let mut cells = vec![
            self.queue.clone(),
            if self.paused { "paused" } else { "yes" }.into(),
            self.max_running.map(|n| n.to_string()).unwrap_or_default(),
            if self.fair { "by tenant" } else { "" }.into(),
        ];
        cells.extend(counts.into_iter().map(count));
        cells.push(
            self.oldest_ready_age_seconds
                .map(seconds)
                .unwrap_or_default(),
        );
        cells
    }
}

/// Returns a count as people read it; counting stops at [`gauge::MOST_COUNTED`].
pub(super) fn count(n: i64) -> String {
    if n >= gauge::MOST_COUNTED {
        format!("{}+", gauge::MOST_COUNTED - 1)
    } else {
        n.to_string()
    }
}

impl Listed for KindStats {
    const HEADERS: &'static [&'static str] = &[
        "queue",
        "kind",
        "attempts",
        "a minute",
        "failed",
        "dead",
        "lost",
        "mean wait",
        "p50",
        "p95",
    ];

    fn cells(&self) -> Vec<String> {
        let figures = &self.figures;
        let run_time = |secs: Option<f64>| secs.map(short).unwrap_or_default();
        vec![
            self.queue.clone(),
            self.kind.clone(),
            figures.attempts.to_string(),
            format!("{:.1}", self.per_minute),
            figures.failed().to_string(),
            figures.dead.to_string(),
            figures.lost.to_string(),
            short(figures.mean_wait_seconds),
            run_time(figures.p50_seconds),
            run_time(figures.p95_seconds),
        ]
    }
}

/// Returns a time as short as its precision: `3 ms`, `1.2 s`, `2m 5s`.
fn short(secs: f64) -> String {
    match secs {
        secs if secs < 1.0 => format!("{:.0} ms", secs * 1000.0),
        secs if secs < 60.0 => format!("{secs:.1} s"),
        secs => seconds(secs),
    }
}

/// Says so where nothing names the queue: it may be misspelt.
async fn remark_unknown(queue: &str, session: &mut Session) -> Result<(), Failure> {
    let known = gauge::queues(&mut session.conn).await?;
    if !known.iter().any(|known| known.queue == queue) {
        session
            .output
            .remark(&format!("no job or kind names queue \"{queue}\" so far"));
    }
    Ok(())
}

async fn limit(queue: &str, most: Option<i32>, session: &mut Session) -> Result<Exit, Failure> {
    remark_unknown(queue, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    rule::limit(&mut tx, queue, most).await?;
    let change = Change {
        detail: json!({ "max_running": most }),
        ..Change::of("queue.limit", format!("queue/{queue}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let text = most.map_or_else(
        || format!("queue {queue} has no limit across daemons"),
        |n| format!("queue {queue} runs at most {n} jobs at once across all daemons"),
    );
    let report = json!({ "queue": queue, "max_running": most });
    session.output.done(&report, &text)?;
    Ok(Exit::Ok)
}

async fn fair(queue: &str, on: bool, session: &mut Session) -> Result<Exit, Failure> {
    remark_unknown(queue, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    rule::set_fair(&mut tx, queue, on).await?;
    let change = Change {
        detail: json!({ "fair": on }),
        ..Change::of("queue.fair", format!("queue/{queue}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let text = if on {
        "take turns"
    } else {
        "do not take turns"
    };
    let report = json!({ "queue": queue, "fair": on });
    session
        .output
        .done(&report, &format!("tenants of queue {queue} {text}"))?;
    Ok(Exit::Ok)
}

async fn pause(queue: &str, session: &mut Session) -> Result<Exit, Failure> {
    remark_unknown(queue, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    control::pause(&mut tx, queue).await?;
    Change::of("queue.pause", format!("queue/{queue}"))
        .note(&mut tx, &actor)
        .await?;
    tx.commit().await?;
    let text = format!("queue {queue} is paused; `ingestd queues resume {queue}` lets it go on");
    session
        .output
        .done(&json!({ "queue": queue, "paused": true }), &text)?;
    Ok(Exit::Ok)
}

async fn resume(queue: &str, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let resumed = control::resume(&mut tx, queue).await?;
    if resumed {
        Change::of("queue.resume", format!("queue/{queue}"))
            .note(&mut tx, &actor)
            .await?;
    }
    tx.commit().await?;
    let text = if resumed { "goes on" } else { "was not paused" };
    let report = json!({ "queue": queue, "paused": false, "resumed": resumed });
    session
        .output
        .done(&report, &format!("queue {queue} {text}"))?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_that_stopped_says_so() {
        assert_eq!(count(10_000), "10000");
        assert_eq!(count(gauge::MOST_COUNTED), "10000+");
    }

    #[test]
    fn times_are_as_short_as_their_precision() {
        let said = [0.0032, 0.9, 1.25, 125.0].map(short);
        assert_eq!(said, ["3 ms", "900 ms", "1.2 s", "2m 5s"]);
    }
}
