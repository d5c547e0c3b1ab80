//! `ingestd jobs priority | snooze | reschedule`: changes to one job that is not finished.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Exit, Failure, Session, audit, impossible};
use crate::{
    cli::output::at,
    queue::{
        JobId,
        control::{self, Change},
        read::{self, JobState},
    },
};

/// Gives a job another priority.
pub(super) async fn priority(
    id: JobId,
    priority: i16,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let change = Change {
        priority: Some(priority),
        ..Change::default()
    };
    let detail = json!({ "priority": priority });
    let state = apply(id, &change, detail, session).await?;
    let when = match state {
        JobState::Running => ", from its next attempt on",
        _ => "",
    };
    let text = format!("job {id} has priority {priority} now{when}");
    let report = json!({ "id": id, "priority": priority, "state": state });
    session.output.done(&report, &text)?;
    Ok(Exit::Ok)
}

/// Has a waiting job run at another time.
pub(super) async fn reschedule(
    id: JobId,
    run_at: DateTime<Utc>,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let change = Change {
        run_at: Some(run_at),
        ..Change::default()
    };
    apply(id, &change, json!({ "run_at": run_at }), session).await?;
    let text = format!("job {id} waits until {} UTC", at(run_at));
    let report = json!({ "id": id, "run_at": run_at });
    session.output.done(&report, &text)?;
    Ok(Exit::Ok)
}

/// Changes the job and notes it; returns the state it is in.
async fn apply(
    id: JobId,
    change: &Change,
    detail: Value,
    session: &mut Session,
) -> Result<JobState, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let changed = control::change(&mut tx, id, change).await?;
    let job = read::find(&mut *tx, id).await?;
    let (true, Some(job)) = (changed, job) else {
        drop(tx);
        return Err(impossible(id, session).await?);
    };
    let note = audit::Change {
        tenant: job.row.tenant.as_deref(),
        detail,
        ..audit::Change::of("job.change", format!("job/{id}"))
    };
    note.note(&mut tx, &actor).await?;
    tx.commit().await?;
    Ok(job.row.state)
}

/// Puts a waiting job off.
pub(super) async fn snooze(
    id: JobId,
    delay: Duration,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let Some(run_at) = control::snooze(&mut tx, id, delay).await? else {
        drop(tx);
        return Err(impossible(id, session).await?);
    };
    let note = audit::Change {
        detail: json!({ "delay_secs": delay.as_secs() }),
        ..audit::Change::of("job.snooze", format!("job/{id}"))
    };
    note.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let text = format!("job {id} waits until {} UTC", at(run_at));
    let report = json!({ "id": id, "run_at": run_at });
    session.output.done(&report, &text)?;
    Ok(Exit::Ok)
}

/// Takes a delay of 1 s to ten years.
pub(super) fn parse_delay(text: &str) -> Result<Duration, String> {
    let delay = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=control::MAX_SNOOZE).contains(&delay) {
        Ok(delay)
    } else {
        Err("from 1s to ten years".to_owned())
    }
}
