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
    queue::control,
};

pub(super) const EXAMPLES: &str = "Examples:
  ingestd queues ls
  ingestd queues pause import
  ingestd queues resume import";

#[derive(Debug, Subcommand)]
pub(super) enum QueuesCommand {
    /// Lists the queues with their numbers of jobs by state.
    #[command(after_help = "Examples:\n  ingestd queues ls\n  ingestd queues ls --json")]
    Ls,
    /// Pauses a queue: nothing is claimed from it any more; what runs goes on.
    #[command(after_help = "Examples:\n  ingestd queues pause import")]
    Pause {
        /// The queue's name.
        queue: String,
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
        QueuesCommand::Pause { queue } => pause(&queue, session).await,
        QueuesCommand::Resume { queue } => resume(&queue, session).await,
    }
}

impl Listed for QueueDepth {
    const HEADERS: &'static [&'static str] = &[
        "queue",
        "claims",
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

async fn pause(queue: &str, session: &mut Session) -> Result<Exit, Failure> {
    let known = gauge::queues(&mut session.conn).await?;
    if !known.iter().any(|known| known.queue == queue) {
        session
            .output
            .remark(&format!("no job or kind names queue \"{queue}\" so far"));
    }
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
