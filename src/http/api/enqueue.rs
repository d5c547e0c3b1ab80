//! `POST /jobs`: a job from outside.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderName, StatusCode, header::LOCATION},
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::{PgConnection, postgres::PgDatabaseError};

use super::{
    super::{AppState, Caller, Json, Problem, Trouble},
    job::{location, note},
    made::{self, LONGEST_KEY, LONGEST_PERIODIC_KEY},
};
use crate::{
    observe::{EnqueueSource, JobEnqueued},
    queue::{
        Enqueued, JobId, NewJob, enqueue_raw,
        read::{self, JobDetail},
    },
};

/// The job to be; only `kind` is required.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    kind: String,
    #[serde(default)]
    args: Map<String, Value>,
    queue: Option<String>,
    priority: Option<i16>,
    run_at: Option<DateTime<Utc>>,
    max_attempts: Option<i16>,
    unique_key: Option<String>,
    unique_for_secs: Option<u64>,
    tenant: Option<String>,
    meta: Option<Map<String, Value>>,
}

/// The longest period of uniqueness, 366 days.
const MAX_PERIOD_SECS: u64 = 366 * 86_400;

type Located = (StatusCode, [(HeaderName, String); 1], axum::Json<JobDetail>);

/// `POST /jobs`: 201 and the job; 200 and the other one where an unfinished job, or one of the same
/// period, has the unique key.
pub(in crate::http) async fn enqueue(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Body>,
) -> Result<Located, Problem> {
    let job = made::job(&app, &caller, new_job(body)?).await?;
    let mut tx = app.db.begin().await?;
    let (inserted, shown) = insert(&mut tx, &job).await?;
    if !caller.tenants.has(shown.row.tenant.as_deref()) {
        // Only the one that has the unique key can be another's; of it nothing is told.
        let text = "another tenant's job has this unique key";
        return Err(Problem::new(Trouble::Conflict).detail(text));
    }
    if inserted {
        note(&mut tx, &caller, "job.enqueue", &shown).await?;
    }
    tx.commit().await?;
    let (queue, kind) = (&shown.row.queue, &shown.row.kind);
    let status = if inserted {
        JobEnqueued {
            queue,
            kind,
            source: EnqueueSource::Api,
            n: 1,
        }
        .emit();
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((
        status,
        [(LOCATION, location(shown.row.id))],
        axum::Json(shown),
    ))
}

/// Inserts the job, or finds the one that has its key.
async fn insert(tx: &mut PgConnection, job: &NewJob) -> Result<(bool, JobDetail), Problem> {
    // The other job may finish between the two looks; then the key is free again, unless it is
    // taken for the period.
    for _ in 0..3 {
        let enqueued = enqueue_raw(&mut *tx, job).await.map_err(refused)?;
        let Enqueued {
            id: Some(id),
            inserted,
        } = enqueued
        else {
            continue;
        };
        match read::find(&mut *tx, id).await? {
            Some(shown) => return Ok((inserted, shown)),
            None if job.unique_for.is_some() => return Err(kept_no_longer(id)),
            None => {}
        }
    }
    Err(Problem::new(Trouble::Unavailable).detail("jobs with this unique key come and go"))
}

/// Says that the period's job has come and gone.
fn kept_no_longer(id: JobId) -> Problem {
    let text = format!("job {id} had this key in this period, and is kept no longer");
    Problem::new(Trouble::Conflict).detail(text).with("job", id)
}

/// Checks what the database would refuse with less to say.
fn new_job(body: Body) -> Result<NewJob, Problem> {
    let mut faults = Vec::new();
    let mut demand = |is_fine: bool, pointer: &'static str, rule: &'static str| {
        if !is_fine {
            faults.push((pointer, rule));
        }
    };
    let chars = |text: &Option<String>| text.as_ref().map_or(1, |text| text.chars().count());
    let Body {
        priority,
        max_attempts,
        unique_for_secs,
        ..
    } = &body;
    demand(
        (1..=63).contains(&chars(&body.queue)),
        "/queue",
        "1 to 63 characters",
    );
    demand(
        priority.is_none_or(|p| (0..=3).contains(&p)),
        "/priority",
        "0 urgent to 3 background",
    );
    demand(
        max_attempts.is_none_or(|n| n > 0),
        "/max_attempts",
        "at least 1",
    );
    demand(
        (1..=LONGEST_KEY).contains(&chars(&body.unique_key)),
        "/unique_key",
        "1 to 1024 characters",
    );
    demand(
        unique_for_secs.is_none_or(|secs| (1..=MAX_PERIOD_SECS).contains(&secs)),
        "/unique_for_secs",
        "1 to 31622400, which is 366 days",
    );
    // The period's start and length are written behind the key.
    demand(
        unique_for_secs.is_none()
            || (1..=LONGEST_PERIODIC_KEY).contains(
                &body
                    .unique_key
                    .as_ref()
                    .map_or(0, |key| key.chars().count()),
            ),
        "/unique_key",
        "1 to 980 characters with unique_for_secs",
    );
    demand(
        (1..=200).contains(&chars(&body.tenant)),
        "/tenant",
        "1 to 200 characters",
    );
    if !faults.is_empty() {
        let problem = Problem::new(Trouble::Invalid);
        return Err(faults
            .into_iter()
            .fold(problem, |problem, (at, rule)| problem.at(at, rule)));
    }
    Ok(NewJob {
        kind: body.kind,
        args: Value::Object(body.args),
        queue: body.queue,
        priority: body.priority,
        run_at: body.run_at,
        max_attempts: body.max_attempts,
        unique_key: body.unique_key,
        unique_for: body.unique_for_secs.map(Duration::from_secs),
        tenant: body.tenant,
        meta: body.meta.map(Value::Object),
        ..NewJob::default()
    })
}

/// Says what the queue refused: a kind nobody registered, arguments that are too large.
pub(in crate::http) fn refused(error: sqlx::Error) -> Problem {
    let sqlx::Error::Database(refusal) = &error else {
        return error.into();
    };
    match (refusal.code().as_deref(), refusal.constraint()) {
        (Some("23514"), Some("args_at_most_256_kib")) => Problem::new(Trouble::Invalid)
            .at("/args", "at most 256 KiB; larger inputs go by reference"),
        (Some("23514"), None) => {
            let hint = refusal
                .try_downcast_ref::<PgDatabaseError>()
                .and_then(PgDatabaseError::hint);
            // The rest of the hint is a statement, for people who ask in SQL.
            let near = hint
                .and_then(|hint| hint.split(" All: ").next())
                .unwrap_or_default();
            let problem = Problem::new(Trouble::UnknownKind).at("/kind", refusal.message());
            problem.detail(near)
        }
        _ => error.into(),
    }
}
