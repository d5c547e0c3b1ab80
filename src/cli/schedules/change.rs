//! What people change about schedules. Each change and its audit entry are one transaction.

use clap::ValueEnum;
use serde_json::json;
use sqlx::PgConnection;

use super::{AddArgs, find};
use crate::{
    cli::{Exit, Failure, Session, audit::Change, dead::confirm, enqueue::parse_args, output::at},
    queue::{self, NewJob, Timetable},
};

pub(super) async fn pause(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    find(&mut session.conn, name).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let paused = sqlx::query(
        "UPDATE ingestd.schedules SET paused_at = now() WHERE name = $1 AND paused_at IS NULL",
    )
    .bind(name)
    .execute(&mut *tx)
    .await?
    .rows_affected()
        == 1;
    if paused {
        Change::of("schedule.pause", object(name))
            .note(&mut tx, &actor)
            .await?;
    }
    tx.commit().await?;
    let text = if paused {
        "is paused; its ticks pass without a job"
    } else {
        "was paused already"
    };
    let report = json!({ "schedule": name, "paused": true, "changed": paused });
    session
        .output
        .done(&report, &format!("schedule {name} {text}"))?;
    Ok(Exit::Ok)
}

/// Lets a schedule go on from now: its next time is computed anew, so that nothing is made up for.
pub(super) async fn resume(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    find(&mut session.conn, name).await?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let resumed = sqlx::query(
        "UPDATE ingestd.schedules SET paused_at = NULL, next_at = NULL, last_error = NULL
         WHERE name = $1 AND paused_at IS NOT NULL",
    )
    .bind(name)
    .execute(&mut *tx)
    .await?
    .rows_affected()
        == 1;
    if resumed {
        Change::of("schedule.resume", object(name))
            .note(&mut tx, &actor)
            .await?;
    }
    tx.commit().await?;
    let text = if resumed { "goes on" } else { "was not paused" };
    let report = json!({ "schedule": name, "paused": false, "changed": resumed });
    session
        .output
        .done(&report, &format!("schedule {name} {text}"))?;
    Ok(Exit::Ok)
}

pub(super) async fn run_now(name: &str, session: &mut Session) -> Result<Exit, Failure> {
    let schedule = find(&mut session.conn, name).await?;
    let actor = session.actor.clone();
    let new = NewJob {
        kind: schedule.kind,
        args: schedule.args,
        queue: schedule.queue,
        priority: schedule.priority,
        meta: Some(json!({ "enqueued_by": actor, "schedule": name })),
        ..NewJob::default()
    };
    let mut tx = session.begin().await?;
    let id = queue::enqueue_raw(&mut tx, &new).await?.id;
    let change = Change {
        detail: json!({ "job_id": id }),
        ..Change::of("schedule.run", object(name))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let job = id.map(|id| id.to_string()).unwrap_or_default();
    session.output.done(
        &json!({ "schedule": name, "job_id": id }),
        &format!("job {job}"),
    )?;
    session.warn_without_worker().await?;
    Ok(Exit::Ok)
}

pub(super) async fn add(args: AddArgs, session: &mut Session) -> Result<Exit, Failure> {
    let timetable = Timetable::parse(&args.cron, &args.timezone)
        .map_err(|error| Failure::new(Exit::Data, error))?;
    let next = timetable.next_after(session.now().await?);
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    refuse_unknown(&mut tx, &args.kind).await?;
    if !insert(&args, &mut tx).await? {
        let failure = Failure::say(
            Exit::Data,
            format!("there is a schedule \"{}\" already", args.name),
        );
        return Err(failure.hint(format!(
            "remove it first: ingestd schedules rm {} --yes",
            args.name
        )));
    }
    let change = Change {
        detail: json!({ "cron": args.cron, "timezone": args.timezone, "kind": args.kind }),
        ..Change::of("schedule.add", object(&args.name))
    };
    change.note(&mut tx, &actor).await?;
    tx.commit().await?;
    let when = next.map_or_else(|| "not for decades".to_owned(), at);
    let report =
        json!({ "schedule": args.name, "in_words": timetable.describe(), "due_next": next });
    let text = format!(
        "schedule {}: {}; next {when} UTC",
        args.name,
        timetable.describe()
    );
    session.output.done(&report, &text)?;
    Ok(Exit::Ok)
}

/// Refuses a kind that nobody registered, in the database's own words.
async fn refuse_unknown(conn: &mut PgConnection, kind: &str) -> sqlx::Result<()> {
    sqlx::query(
        "SELECT ingestd.refuse_kind($1)
         WHERE NOT EXISTS (SELECT FROM ingestd.job_kinds WHERE kind = $1)",
    )
    .bind(kind)
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert(args: &AddArgs, conn: &mut PgConnection) -> Result<bool, Failure> {
    let done = sqlx::query(
        "INSERT INTO ingestd.schedules
           (name, cron, timezone, kind, args, queue, priority, missed, overlap)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (name) DO NOTHING",
    )
    .bind(&args.name)
    .bind(&args.cron)
    .bind(&args.timezone)
    .bind(&args.kind)
    .bind(parse_args(&args.args)?)
    .bind(&args.queue)
    .bind(args.priority)
    .bind(word(&args.missed))
    .bind(word(&args.overlap))
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the word of a choice, the same on the command line and in the table.
fn word(choice: &impl ValueEnum) -> String {
    choice
        .to_possible_value()
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

pub(super) async fn remove(name: &str, yes: bool, session: &mut Session) -> Result<Exit, Failure> {
    let schedule = find(&mut session.conn, name).await?;
    if schedule.origin != "user" {
        let text = format!(
            "schedule {name} comes with {}",
            match schedule.origin.as_str() {
                "config" => "the configuration",
                _ => "ingestd itself and would come back",
            }
        );
        let failure = Failure::say(Exit::Data, text);
        return Err(failure.hint(format!("pause it instead: ingestd schedules pause {name}")));
    }
    confirm(yes, &format!("remove schedule {name} for good"))?;
    let actor = session.actor.clone();
    let mut tx = session.begin().await?;
    let removed = sqlx::query("DELETE FROM ingestd.schedules WHERE name = $1 AND origin = 'user'")
        .bind(name)
        .execute(&mut *tx)
        .await?;
    if removed.rows_affected() == 1 {
        let change = Change {
            detail: json!({ "cron": schedule.cron, "kind": schedule.kind }),
            ..Change::of("schedule.remove", object(name))
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

fn object(name: &str) -> String {
    format!("schedule/{name}")
}
