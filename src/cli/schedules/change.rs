//! What people change about schedules. Each change and its audit entry are one transaction.

use serde_json::json;

use super::{
    args::{AddArgs, SetArgs},
    find, no_schedule, object, refuse,
};
use crate::{
    cli::{Exit, Failure, Session, audit::Change as Noted, dead::confirm, output::at},
    queue::{
        Timetable,
        schedule::{
            Definition, check_name,
            control::{self, Change},
            explain::ScheduleRow,
        },
    },
};

pub(super) async fn add(args: AddArgs, session: &mut Session) -> Result<Exit, Failure> {
    refuse(check_name(&args.name).err().as_slice())?;
    let definition = args.definition()?;
    let timetable = checked(&definition)?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    match control::create(&mut tx, &args.name, &definition, args.paused).await? {
        Change::Taken(origin) => return Err(taken(&args.name, &origin)),
        Change::Made | Change::NotFound | Change::Owned(_) => {}
    }
    let change = Noted {
        detail: json!(definition),
        ..Noted::of("schedule.add", object(&args.name))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    report(&args.name, &timetable, session).await
}

pub(super) async fn set(args: SetArgs, session: &mut Session) -> Result<Exit, Failure> {
    let before = find(&mut session.conn, &args.name).await?;
    if before.origin != "user" {
        return Err(owned(&before));
    }
    let definition = args.apply(before.definition.clone())?;
    let timetable = checked(&definition)?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    match control::change(&mut tx, &args.name, &definition).await? {
        Change::Made => {}
        // It was there a moment ago.
        _ => return Err(no_schedule(&args.name)),
    }
    let change = Noted {
        detail: json!({ "before": before.definition, "now": definition }),
        ..Noted::of("schedule.change", object(&args.name))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    report(&args.name, &timetable, session).await
}

fn checked(definition: &Definition) -> Result<Timetable, Failure> {
    definition.check().map_err(|wrong| {
        let failed = refuse(&wrong).err();
        failed.unwrap_or_else(|| Failure::say(Exit::Data, "the schedule is not valid"))
    })
}

/// Says when a schedule is due next.
async fn report(name: &str, timetable: &Timetable, session: &mut Session) -> Result<Exit, Failure> {
    let next = timetable.next_after(session.now().await?);
    let when = next.map_or_else(|| "not for decades".to_owned(), at);
    let words = timetable.describe();
    let report = json!({ "schedule": name, "in_words": words, "due_next": next });
    let text = format!("schedule {name}: {words}; next {when} UTC");
    session.output.done(&report, &text)?;
    Ok(Exit::Ok)
}

fn taken(name: &str, origin: &str) -> Failure {
    let text = format!("there is a schedule \"{name}\" already");
    let hint = match origin {
        "user" => format!("change it: ingestd schedules set {name} …"),
        "config" => "it comes with the configuration and is changed there".to_owned(),
        _ => format!(
            "it is built in; [schedules.\"{name}\"] of the configuration can take its place"
        ),
    };
    Failure::say(Exit::Data, text).hint(hint)
}

fn owned(schedule: &ScheduleRow) -> Failure {
    let name = &schedule.name;
    let (text, change) = match schedule.origin.as_str() {
        "config" => (
            "comes with the configuration",
            format!("change [schedules.{name}] and start a daemon"),
        ),
        _ => (
            "comes with ingestd itself and would come back",
            format!("write [schedules.\"{name}\"] into the configuration to change it"),
        ),
    };
    let failure = Failure::say(Exit::Data, format!("schedule {name} {text}"));
    failure.hint(format!(
        "pause it instead: ingestd schedules pause {name}; or {change}"
    ))
}

pub(super) async fn remove(name: &str, yes: bool, session: &mut Session) -> Result<Exit, Failure> {
    let schedule = find(&mut session.conn, name).await?;
    if schedule.origin != "user" {
        return Err(owned(&schedule));
    }
    confirm(yes, &format!("remove schedule {name} for good"))?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    if control::remove(&mut tx, name).await? == Change::Made {
        let change = Noted {
            detail: json!(schedule.definition),
            ..Noted::of("schedule.remove", object(name))
        };
        change.note(&mut tx, &actor).await?;
    }
    tx.commit().await?;
    let report = json!({ "schedule": name, "removed": true });
    session
        .output
        .done(&report, &format!("schedule {name} is removed"))?;
    Ok(Exit::Ok)
}
