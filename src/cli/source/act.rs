//! What is done to a source as it is: run, pause, resume, remove.

use serde_json::json;
use sqlx::PgConnection;

use super::{find, unknown};
use crate::{
    cli::{Exit, Failure, Session, audit::Change, output::or_none},
    queue::schedule::control::{self, Paused},
    source::{self, Removed, schedule_name},
};

pub(super) async fn remove(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let tenant = match source::remove(&mut tx, name).await? {
        Removed::Gone(tenant) => tenant,
        Removed::NotFound => return Err(unknown(name)),
        Removed::InConfig => {
            let text = format!("source {name} is the configuration's");
            let failure = Failure::say(Exit::Data, text);
            return Err(failure.hint(format!(
                "take [sources.{name}] out of the file and start a daemon again"
            )));
        }
    };
    note(&mut tx, &actor, "source.remove", (name, &tenant)).await?;
    tx.commit().await?;
    let report = json!({ "source": name, "removed": true });
    session
        .output
        .done(&report, &format!("source {name} is removed"))?;
    Ok(Exit::Ok)
}

pub(super) async fn run_now(
    name: &str,
    force: bool,
    session: &mut Session,
) -> Result<Exit, Failure> {
    let found = find(name, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let enqueued = source::run_now(&mut tx, &found, force).await?;
    let change = Change {
        tenant: Some(&found.definition.tenant),
        detail: json!({ "job_id": enqueued.id, "force": force }),
        ..Change::of("source.run", format!("source/{name}"))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let id = enqueued.id.map(|id| id.0);
    let text = if enqueued.inserted {
        format!("job {} looks at source {name}", or_none(id.as_ref()))
    } else {
        format!(
            "job {} looks at source {name} already",
            or_none(id.as_ref())
        )
    };
    let report = json!({ "source": name, "job_id": id, "new": enqueued.inserted });
    session.output.done(&report, &text)?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}

pub(super) async fn pause(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let found = find(name, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let paused = control::pause(&mut tx, &schedule_name(name)).await?;
    if paused == Paused::Changed {
        let whose = (name, found.definition.tenant.as_str());
        note(&mut tx, &actor, "source.pause", whose).await?;
    }
    tx.commit().await?;
    let text = match paused {
        Paused::NotFound => return Err(by_hand(name)),
        Paused::Changed => "is paused; its ticks pass without a look",
        Paused::AsBefore | Paused::InConfig(_) => "was paused already",
    };
    let report = json!({ "source": name, "paused": true, "changed": paused == Paused::Changed });
    session
        .output
        .done(&report, &format!("source {name} {text}"))?;
    Ok(Exit::Ok)
}

pub(super) async fn resume(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let found = find(name, session).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let resumed = control::resume(&mut tx, &schedule_name(name)).await?;
    if matches!(resumed, Paused::Changed | Paused::InConfig(true)) {
        let whose = (name, found.definition.tenant.as_str());
        note(&mut tx, &actor, "source.resume", whose).await?;
    }
    tx.commit().await?;
    let text = match resumed {
        Paused::NotFound => return Err(by_hand(name)),
        Paused::InConfig(_) => {
            let text = format!("source {name} is paused by the configuration");
            let failure = Failure::say(Exit::Data, text);
            return Err(failure.hint(format!(
                "take `paused` out of [sources.{name}] and start a daemon again"
            )));
        }
        Paused::Changed => "goes on",
        Paused::AsBefore => "was not paused",
    };
    let report = json!({ "source": name, "paused": false, "changed": resumed == Paused::Changed });
    session
        .output
        .done(&report, &format!("source {name} {text}"))?;
    Ok(Exit::Ok)
}

fn by_hand(name: &str) -> Failure {
    let text = format!("source {name} has no schedule: it is looked at by hand only");
    Failure::say(Exit::Data, text)
}

async fn note(
    tx: &mut PgConnection,
    actor: &str,
    action: &'static str,
    (name, tenant): (&str, &str),
) -> sqlx::Result<()> {
    let change = Change {
        tenant: Some(tenant),
        ..Change::of(action, format!("source/{name}"))
    };
    change.note(tx, actor).await
}
