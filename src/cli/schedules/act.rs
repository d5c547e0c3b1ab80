//! What is done to a schedule as it is: pause, resume, run now.

use serde_json::json;

use super::{no_schedule, object};
use crate::{
    cli::{Exit, Failure, Session, audit::Change},
    queue::schedule::control::{self, Paused, RunNow},
};

pub(super) async fn pause(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let paused = control::pause(&mut tx, name).await?;
    if paused == Paused::Changed {
        let change = Change::of("schedule.pause", object(name));
        change.note(&mut tx, &actor).await?;
    }
    tx.commit().await?;
    let text = match paused {
        Paused::NotFound => return Err(no_schedule(name)),
        Paused::Changed => "is paused; its ticks pass without a job",
        Paused::AsBefore | Paused::InConfig(_) => "was paused already",
    };
    let changed = paused == Paused::Changed;
    let report = json!({ "schedule": name, "paused": true, "changed": changed });
    session
        .output
        .done(&report, &format!("schedule {name} {text}"))?;
    Ok(Exit::Ok)
}

pub(super) async fn resume(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let resumed = control::resume(&mut tx, name).await?;
    if matches!(resumed, Paused::Changed | Paused::InConfig(true)) {
        let change = Change::of("schedule.resume", object(name));
        change.note(&mut tx, &actor).await?;
    }
    tx.commit().await?;
    let text = match resumed {
        Paused::NotFound => return Err(no_schedule(name)),
        Paused::InConfig(_) => {
            let text = format!("schedule {name} is paused by the configuration");
            let failure = Failure::say(Exit::Data, text);
            return Err(failure.hint(format!(
                "take `paused` out of [schedules.{name}] and start a daemon again"
            )));
        }
        Paused::Changed => "goes on",
        Paused::AsBefore => "was not paused",
    };
    let changed = resumed == Paused::Changed;
    let report = json!({ "schedule": name, "paused": false, "changed": changed });
    session
        .output
        .done(&report, &format!("schedule {name} {text}"))?;
    Ok(Exit::Ok)
}

pub(super) async fn run_now(
    name: &str,
    force: bool,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let id = match control::run_now(&mut tx, name, &actor, force).await? {
        RunNow::Enqueued(id) => id,
        RunNow::NotFound => return Err(no_schedule(name)),
        RunNow::Overlaps(job) => {
            let text =
                format!("jobs of schedule {name} must not overlap, and job {job} is unfinished");
            return Err(
                Failure::say(Exit::Temporary, text).hint("--force runs another all the same")
            );
        }
    };
    let change = Change {
        detail: json!({ "job_id": id, "force": force }),
        ..Change::of("schedule.run", object(name))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    session.output.done(
        &json!({ "schedule": name, "job_id": id }),
        &format!("job {id}"),
    )?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}
