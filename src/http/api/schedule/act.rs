//! What is done to schedules as they are: pause, resume, run now, backfill.

use std::{sync::Arc, time::Duration};

use axum::{Extension, Json, extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        super::{AppState, Caller, Json as Body, Path, Problem, Query, Trouble, audit},
        enqueue::refused,
    },
    no_schedule, object,
};
use crate::queue::schedule::{
    backfill::{self, Backfill, BackfillError, Range},
    control::{self, Paused, RunNow},
};

/// `POST /schedules/{name}/pause`: its ticks pass without a job. Again is no error.
pub(in crate::http) async fn pause(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    let paused = control::pause(&mut tx, &name).await?;
    match paused {
        Paused::NotFound => return Err(no_schedule(&name)),
        Paused::Changed => {
            audit::record(
                &mut tx,
                &caller,
                "schedule.pause",
                &object(&name),
                None,
                None,
            )
            .await?;
        }
        Paused::AsBefore | Paused::InConfig(_) => {}
    }
    tx.commit().await?;
    let changed = paused == Paused::Changed;
    Ok(Json(
        json!({ "schedule": name, "paused": true, "changed": changed }),
    ))
}

/// `POST /schedules/{name}/resume`: it goes on with its next tick. Again is no error; 409 where
/// the configuration pauses it.
pub(in crate::http) async fn resume(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    let resumed = control::resume(&mut tx, &name).await?;
    if matches!(resumed, Paused::Changed | Paused::InConfig(true)) {
        audit::record(
            &mut tx,
            &caller,
            "schedule.resume",
            &object(&name),
            None,
            None,
        )
        .await?;
    }
    tx.commit().await?;
    match resumed {
        Paused::NotFound => Err(no_schedule(&name)),
        Paused::InConfig(_) => Err(Problem::new(Trouble::Conflict)
            .with("state", "paused_in_config")
            .detail("no person pauses it, but the configuration does: change `paused` there")),
        Paused::Changed | Paused::AsBefore => {
            let changed = resumed == Paused::Changed;
            Ok(Json(
                json!({ "schedule": name, "paused": false, "changed": changed }),
            ))
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Force {
    #[serde(default)]
    force: bool,
}

/// `POST /schedules/{name}/run`: 201 and the id of its job; 409 where an unfinished one is in the
/// way.
pub(in crate::http) async fn run(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(Force { force }): Query<Force>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut tx = app.db.begin().await?;
    let ran = control::run_now(&mut tx, &name, &caller.actor, force).await;
    let id = match ran.map_err(refused)? {
        RunNow::Enqueued(id) => id,
        RunNow::NotFound => return Err(no_schedule(&name)),
        RunNow::Overlaps(job) => {
            let conflict = Problem::new(Trouble::Conflict).with("job_id", job);
            return Err(conflict.detail(format!(
                "its jobs must not overlap, and job {job} is unfinished; ?force=true runs another"
            )));
        }
    };
    let detail = json!({ "job_id": id, "force": force });
    let object = object(&name);
    audit::record(
        &mut tx,
        &caller,
        "schedule.run",
        &object,
        None,
        Some(detail),
    )
    .await?;
    tx.commit().await?;
    Ok((
        StatusCode::CREATED,
        Json(json!({ "schedule": name, "job_id": id })),
    ))
}

/// The range to make up for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Wish {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    limit: Option<usize>,
    #[serde(default)]
    spacing_ms: u64,
    priority: Option<i16>,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    dry_run: bool,
}

/// `POST /schedules/{name}/backfill`: a job for each tick of a range that has none.
pub(in crate::http) async fn backfill(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Body(wish): Body<Wish>,
) -> Result<Json<Backfill>, Problem> {
    if wish.priority.is_some_and(|p| !(0..=3).contains(&p)) {
        return Err(Problem::new(Trouble::Invalid).at("/priority", "0 urgent to 3 background"));
    }
    let range = Range {
        from: wish.from,
        to: wish.to,
        limit: wish.limit,
        spacing: Duration::from_millis(wish.spacing_ms),
        priority: wish.priority,
        force: wish.force,
        retention_days: app.config.queue.retention_days,
    };
    let mut tx = app.db.begin().await?;
    if wish.dry_run {
        let plan = backfill::plan(&mut tx, &name, &range).await;
        return plan.map(Json).map_err(|error| not_filled(&name, error));
    }
    let filled = backfill::backfill(&mut tx, &name, &range, &caller.actor).await;
    let filled = filled.map_err(|error| not_filled(&name, error))?;
    let detail = json!({
        "from": wish.from, "to": wish.to, "n_jobs": filled.n_jobs, "n_skipped": filled.n_skipped,
    });
    let object = object(&name);
    audit::record(
        &mut tx,
        &caller,
        "schedule.backfill",
        &object,
        None,
        Some(detail),
    )
    .await?;
    tx.commit().await?;
    Ok(Json(filled))
}

fn not_filled(name: &str, error: BackfillError) -> Problem {
    let invalid = Problem::new(Trouble::Invalid);
    let text = error.to_string();
    match error {
        BackfillError::NotFound => no_schedule(name),
        BackfillError::Backwards => invalid.at("/from", text),
        BackfillError::Future(_) | BackfillError::TooLong(_) => invalid.at("/to", text),
        BackfillError::OutOfRange | BackfillError::TooMany(_) => invalid.at("/limit", text),
        BackfillError::Overlaps | BackfillError::Forgotten { .. } | BackfillError::Line(_) => {
            Problem::new(Trouble::Conflict).detail(text)
        }
        BackfillError::Db(error) => refused(error),
    }
}
