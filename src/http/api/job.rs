//! Jobs: list, show, change, put off, cancel, retry.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderName, StatusCode, header::LOCATION},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use super::super::{
    self as http, AppState, Caller, Cursor, Limit, Page, Path, Problem, Query, Trouble, audit,
};
use super::{enqueue, made};
use crate::queue::{
    JobId,
    control::{self, Cancelled, Change, MAX_SNOOZE, Retried},
    dead::Begin,
    read::{self, Attempt, JobDetail, JobFilter, JobState},
    record::{self, JobLine, ProgressRow, StepRow},
    why::{self, Why},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Params {
    queue: Option<String>,
    kind: Option<String>,
    state: Option<JobState>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// `GET /jobs`: unfinished, finished and dead ones, newest first.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<Params>,
) -> Result<Json<Page<JobLine>>, Problem> {
    let filter = JobFilter {
        queue: params.queue.as_deref(),
        kind: params.kind.as_deref(),
        state: params.state,
        tenants: caller.tenants.list(),
    };
    let before = params.cursor.map(|Cursor(id)| JobId(id));
    let rows = read::list(&app.db, filter, before, params.limit.n_read()).await?;
    let rows = record::with_progress(&app.db, rows).await?;
    Ok(Json(Page::new(rows, params.limit, |job| job.row.id.0)))
}

#[derive(Debug, Serialize)]
pub(in crate::http) struct Shown {
    #[serde(flatten)]
    job: JobDetail,
    /// How far its last attempt has come, where it said so.
    progress: Option<ProgressRow>,
    /// What it has done already.
    steps: Vec<StepRow>,
    /// The attempts that did not end in success.
    attempts: Vec<Attempt>,
}

/// `GET /jobs/{id}`: one job, wherever it is, with its failed attempts.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let job = read::find(&app.db, JobId(id))
        .await?
        .ok_or_else(|| no_job(id))?;
    let attempts = read::attempts(&app.db, JobId(id)).await?;
    let steps = record::steps(&app.db, JobId(id)).await?;
    let progress = record::progress(&app.db, &[JobId(id)]).await?;
    let shown = Shown {
        job,
        progress: progress.into_values().next(),
        steps,
        attempts,
    };
    caller.seen(shown).map(Json)
}

/// `POST /jobs/{id}/cancel`: 200 where it waited and is gone, 202 where its handler was told.
pub(in crate::http) async fn cancel(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<(StatusCode, Json<JobDetail>), Problem> {
    let mut tx = app.db.begin().await?;
    let status = match crate::runs::cancel_job(&mut tx, JobId(id)).await? {
        Cancelled::Done => StatusCode::OK,
        Cancelled::Requested => StatusCode::ACCEPTED,
        Cancelled::NotFound => return Err(impossible(&mut tx, id, "cancelled").await?),
    };
    let job = read::find(&mut *tx, JobId(id))
        .await?
        .ok_or_else(|| no_job(id))?;
    note(&mut tx, &caller, "job.cancel", &job).await?;
    tx.commit().await?;
    Ok((status, Json(job)))
}

/// `GET /jobs/{id}/why`: what keeps it from running.
pub(in crate::http) async fn why(
    State(app): State<Arc<AppState>>,
    Path(id): Path<i64>,
) -> Result<Json<Why>, Problem> {
    let mut conn = app.db.acquire().await?;
    let why = why::explain(&mut conn, JobId(id)).await?;
    Ok(Json(why.ok_or_else(|| no_job(id))?))
}

/// What `PATCH /jobs/{id}` changes; what is left out or null stays.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Changes {
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_at: Option<DateTime<Utc>>,
}

/// `PATCH /jobs/{id}`: another priority, another time; 409 where its state does not allow it.
pub(in crate::http) async fn change(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    http::Json(changes): http::Json<Changes>,
) -> Result<Json<JobDetail>, Problem> {
    let Changes { priority, run_at } = changes;
    if priority.is_none() && run_at.is_none() {
        return Err(Problem::new(Trouble::Invalid).at("", "priority, run_at or both"));
    }
    if priority.is_some_and(|priority| !(0..=3).contains(&priority)) {
        return Err(Problem::new(Trouble::Invalid).at("/priority", "0 urgent to 3 background"));
    }
    let mut tx = app.db.begin().await?;
    if !control::change(&mut tx, JobId(id), &Change { priority, run_at }).await? {
        return Err(impossible(&mut tx, id, "changed so").await?);
    }
    let job = noted(&mut tx, &caller, "job.change", id, json!(changes)).await?;
    tx.commit().await?;
    Ok(Json(job))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Delay {
    delay_secs: u64,
}

/// `POST /jobs/{id}/snooze`: it waits that much longer.
pub(in crate::http) async fn snooze(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    http::Json(Delay { delay_secs }): http::Json<Delay>,
) -> Result<Json<JobDetail>, Problem> {
    if !(1..=MAX_SNOOZE.as_secs()).contains(&delay_secs) {
        return Err(Problem::new(Trouble::Invalid).at("/delay_secs", "1 s to ten years"));
    }
    let mut tx = app.db.begin().await?;
    let delay = Duration::from_secs(delay_secs);
    if control::snooze(&mut tx, JobId(id), delay).await?.is_none() {
        return Err(impossible(&mut tx, id, "put off").await?);
    }
    let detail = json!({ "delay_secs": delay_secs });
    let job = noted(&mut tx, &caller, "job.snooze", id, detail).await?;
    tx.commit().await?;
    Ok(Json(job))
}

/// Writes the audit log's line for a change to one job, and returns the job as it is now.
async fn noted(
    tx: &mut PgConnection,
    caller: &Caller,
    action: &str,
    id: i64,
    detail: Value,
) -> Result<JobDetail, Problem> {
    let job = read::find(&mut *tx, JobId(id))
        .await?
        .ok_or_else(|| no_job(id))?;
    let (object, tenant) = (format!("job/{id}"), job.row.tenant.as_deref());
    audit::record(tx, caller, action, &object, tenant, Some(detail)).await?;
    Ok(job)
}

type Located = (StatusCode, [(HeaderName, String); 1], Json<JobDetail>);

/// What a dead letter is replayed with: one of the two at least.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Edited {
    args: Option<Map<String, Value>>,
    /// As if nothing had been done.
    #[serde(default)]
    afresh: bool,
}

/// `POST /jobs/{id}/retry`: 200 where it waited and is due now, 201 where it was a dead letter and
/// is a new job, which is shown; with a body it has other arguments, and the letter keeps its own,
/// or begins afresh.
pub(in crate::http) async fn retry(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    edited: Option<http::Json<Edited>>,
) -> Result<Located, Problem> {
    let is_edited = edited.is_some();
    let (args, begin) = edited.map_or(Ok((None, Begin::AfterItsSteps)), how)?;
    if let Some(args) = &args {
        let letter = read::find(&app.db, JobId(id)).await?;
        let letter = letter.ok_or_else(|| no_job(id))?;
        made::with_args(&app, &caller, &letter.row.kind, args).await?;
    }
    let mut tx = app.db.begin().await?;
    let retried = if is_edited {
        // Only of a dead letter: a waiting job may have begun with what it has.
        crate::runs::replay_with(&mut tx, JobId(id), args.as_ref(), begin)
            .await
            .map(|new| new.map_or(Retried::NotFound, Retried::Replayed))
    } else {
        crate::runs::retry_job(&mut tx, JobId(id)).await
    };
    let (status, now) = match retried.map_err(enqueue::refused)? {
        Retried::DueNow => (StatusCode::OK, JobId(id)),
        Retried::Replayed(job) => (StatusCode::CREATED, job),
        Retried::NotFound => return Err(impossible(&mut tx, id, "retried").await?),
    };
    let job = read::find(&mut *tx, now)
        .await?
        .ok_or_else(|| no_job(now.0))?;
    let (args_edited, afresh) = (args.is_some(), begin == Begin::Afresh);
    let detail = json!({ "job": now, "args_edited": args_edited, "afresh": afresh });
    let (object, tenant) = (format!("job/{id}"), job.row.tenant.as_deref());
    audit::record(&mut tx, &caller, "job.retry", &object, tenant, Some(detail)).await?;
    tx.commit().await?;
    Ok((status, [(LOCATION, location(now))], Json(job)))
}

/// Reads how a dead letter is to be replayed.
fn how(http::Json(edited): http::Json<Edited>) -> Result<(Option<Value>, Begin), Problem> {
    let begin = match edited {
        Edited { afresh: true, .. } => Begin::Afresh,
        Edited { args: Some(_), .. } => Begin::AfterItsSteps,
        Edited { .. } => {
            let problem = Problem::new(Trouble::BadJson);
            return Err(problem.detail("a body has args, or afresh: true, or both"));
        }
    };
    Ok((edited.args.map(Value::Object), begin))
}

/// Writes the audit log's line for a change to one job.
pub(in crate::http) async fn note(
    tx: &mut PgConnection,
    caller: &Caller,
    action: &str,
    job: &JobDetail,
) -> Result<(), Problem> {
    let (object, tenant) = (format!("job/{}", job.row.id), job.row.tenant.as_deref());
    let detail = json!({ "kind": job.row.kind, "queue": job.row.queue });
    audit::record(tx, caller, action, &object, tenant, Some(detail)).await?;
    Ok(())
}

/// Returns where a job is shown.
pub(in crate::http) fn location(id: JobId) -> String {
    format!("/api/v1/jobs/{id}")
}

/// Says why a job could not be changed: it is not there, or its state is in the way.
async fn impossible(tx: &mut PgConnection, id: i64, wish: &str) -> Result<Problem, Problem> {
    let Some(job) = read::find(tx, JobId(id)).await? else {
        return Ok(no_job(id));
    };
    let conflict = Problem::new(Trouble::Conflict).with("state", job.row.state);
    let conflict = conflict.detail(format!("this job cannot be {wish} now"));
    Ok(match job.replayed_to {
        Some(to) => conflict.with("replayed_to", to),
        None => conflict,
    })
}

pub(in crate::http) fn no_job(id: i64) -> Problem {
    Problem::new(Trouble::NotFound).detail(format!("no job {id}, or no longer"))
}
