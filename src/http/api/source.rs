//! Sources of imports: files that are fetched, and watched folders.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderName, StatusCode, header::LOCATION},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{AppState, Caller, Json, Limit, Path, Problem, Query, Trouble, audit};
use crate::{
    access::Tenants,
    queue::schedule::{
        Wrong,
        control::{self, Paused},
    },
    source::{
        self, Added, Definition, FetchFile, Kind, MOST_SOURCES, Options, Ready, Removed, Source,
        SourceFile, check_name, default_tenant, schedule_name,
    },
};

/// How many files of a watched folder are shown.
const N_FILES: i64 = 200;

/// Where a list begins, and how long it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Ask {
    #[serde(default)]
    limit: Limit,
    after: Option<String>,
}

/// `GET /sources`.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Query(ask): Query<Ask>,
) -> Result<axum::Json<Value>, Problem> {
    let mut rows = source::list(&app.db, ask.after.as_deref(), ask.limit.n_read()).await?;
    let n_items = usize::try_from(ask.limit.n_items()).unwrap_or(usize::MAX);
    let is_more = rows.len() > n_items;
    rows.truncate(n_items);
    let next = rows.last().filter(|_| is_more).map(|row| row.name.clone());
    Ok(axum::Json(json!({ "items": rows, "next_after": next })))
}

/// A source with its files.
#[derive(Debug, Serialize)]
pub(in crate::http) struct Shown {
    #[serde(flatten)]
    source: Source,
    files: Vec<SourceFile>,
}

/// `GET /sources/{name}`.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Path(name): Path<String>,
) -> Result<axum::Json<Shown>, Problem> {
    let source = find(&app, &name).await?;
    let files = source::files(&app.db, &name, N_FILES).await?;
    Ok(axum::Json(Shown { source, files }))
}

async fn find(app: &AppState, name: &str) -> Result<Source, Problem> {
    source::get(&app.db, name)
        .await?
        .ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Problem {
    Problem::new(Trouble::NotFound).detail(format!("no source {name}"))
}

/// The source to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    name: String,
    location: String,
    tenant: Option<String>,
    pattern: Option<String>,
    ready: Option<Ready>,
    endpoint: Option<String>,
    region: Option<String>,
    secret_ref: Option<String>,
    #[serde(default)]
    options: Options,
    cron: Option<String>,
    timezone: Option<String>,
    #[serde(default)]
    paused: bool,
}

type Located = (StatusCode, [(HeaderName, String); 1], axum::Json<Source>);

/// `POST /sources`: 201 and the source.
pub(in crate::http) async fn add(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Body>,
) -> Result<Located, Problem> {
    let (name, is_paused) = (body.name.clone(), body.paused);
    let definition = definition(body);
    let named = check_name(&name).map_err(|wrong| vec![wrong]);
    named
        .and_then(|()| definition.check(&app.config.fetch, &app.config.sources))
        .map_err(|wrong| invalid(&wrong))?;
    let mut tx = app.db.begin().await?;
    let conflict = match source::add(&mut tx, &name, &definition, is_paused).await? {
        Added::Made => None,
        Added::Taken(owner) => Some(format!(
            "there is a source {name} already, of origin {owner}"
        )),
        Added::ScheduleTaken => Some(format!("there is a schedule source:{name} already")),
        Added::TooMany => Some(format!("a tenant has at most {MOST_SOURCES} sources")),
    };
    if let Some(text) = conflict {
        return Err(Problem::new(Trouble::Conflict).detail(text));
    }
    let detail = json!({ "location": definition.shown_location(), "cron": definition.cron });
    let whose = (name.as_str(), definition.tenant.as_str());
    note(&mut tx, &caller, "source.add", whose, Some(detail)).await?;
    tx.commit().await?;
    let location = format!("/api/v1/sources/{name}");
    let made = find(&app, &name).await?;
    Ok((
        StatusCode::CREATED,
        [(LOCATION, location)],
        axum::Json(made),
    ))
}

fn definition(body: Body) -> Definition {
    let defaults = Definition::new(body.location);
    Definition {
        tenant: body.tenant.unwrap_or(defaults.tenant),
        pattern: body.pattern,
        ready: body.ready,
        endpoint: body.endpoint,
        region: body.region,
        secret_ref: body.secret_ref,
        options: body.options,
        cron: body.cron,
        timezone: body.timezone.unwrap_or(defaults.timezone),
        location: defaults.location,
    }
}

/// Points to everything that is wrong.
fn invalid(wrong: &[Wrong]) -> Problem {
    let problem = Problem::new(Trouble::Invalid);
    wrong.iter().fold(problem, |problem, wrong| {
        problem.at(format!("/{}", wrong.field), wrong.why.clone())
    })
}

/// `DELETE /sources/{name}`.
pub(in crate::http) async fn remove(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    let tenant = match source::remove(&mut tx, &name).await? {
        Removed::Gone(tenant) => tenant,
        Removed::NotFound => return Err(unknown(&name)),
        Removed::InConfig => {
            let text = format!("source {name} is the configuration's");
            return Err(Problem::new(Trouble::Conflict).detail(text));
        }
    };
    note(&mut tx, &caller, "source.remove", (&name, &tenant), None).await?;
    tx.commit().await?;
    Ok(axum::Json(json!({ "name": name, "removed": true })))
}

/// `POST /sources/{name}/pause`. Again is no error.
pub(in crate::http) async fn pause(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let found = find(&app, &name).await?;
    let mut tx = app.db.begin().await?;
    let whose = (name.as_str(), found.definition.tenant.as_str());
    match control::pause(&mut tx, &schedule_name(&name)).await? {
        Paused::NotFound => return Err(by_hand(&name)),
        Paused::Changed => note(&mut tx, &caller, "source.pause", whose, None).await?,
        Paused::AsBefore | Paused::InConfig(_) => {}
    }
    tx.commit().await?;
    Ok(axum::Json(json!({ "name": name, "paused": true })))
}

/// `POST /sources/{name}/resume`. Again is no error.
pub(in crate::http) async fn resume(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
) -> Result<axum::Json<Value>, Problem> {
    let found = find(&app, &name).await?;
    let mut tx = app.db.begin().await?;
    let whose = (name.as_str(), found.definition.tenant.as_str());
    let resumed = control::resume(&mut tx, &schedule_name(&name)).await?;
    if matches!(resumed, Paused::Changed | Paused::InConfig(true)) {
        note(&mut tx, &caller, "source.resume", whose, None).await?;
    }
    tx.commit().await?;
    match resumed {
        Paused::NotFound => Err(by_hand(&name)),
        Paused::InConfig(_) => {
            let text = format!("source {name} is paused by the configuration");
            Err(Problem::new(Trouble::Conflict).detail(text))
        }
        Paused::Changed | Paused::AsBefore => {
            Ok(axum::Json(json!({ "name": name, "paused": false })))
        }
    }
}

fn by_hand(name: &str) -> Problem {
    let text = format!("source {name} has no schedule: it is looked at by hand only");
    Problem::new(Trouble::Conflict).detail(text)
}

/// How a source is run.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct How {
    #[serde(default)]
    force: bool,
}

/// `POST /sources/{name}/run`: 202 and the job that looks at it.
pub(in crate::http) async fn run(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(how): Query<How>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    let found = find(&app, &name).await?;
    let mut tx = app.db.begin().await?;
    let enqueued = source::run_now(&mut tx, &found, how.force).await?;
    let detail = json!({ "job_id": enqueued.id, "force": how.force });
    let whose = (name.as_str(), found.definition.tenant.as_str());
    note(&mut tx, &caller, "source.run", whose, Some(detail)).await?;
    tx.commit().await?;
    let answer = json!({ "name": name, "job_id": enqueued.id, "new": enqueued.inserted });
    Ok((StatusCode::ACCEPTED, axum::Json(answer)))
}

/// A file to be fetched once.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Once {
    location: String,
    tenant: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    secret_ref: Option<String>,
    #[serde(default)]
    options: Options,
}

/// Keeps callers bound to tenants from what the whole installation may fetch: files of its machines,
/// and secrets that are not their tenant's alone.
fn may_fetch(app: &AppState, caller: &Caller, wanted: &Definition) -> Result<(), Problem> {
    if caller.tenants == Tenants::All {
        return Ok(());
    }
    let forbidden = |text: String| Problem::new(Trouble::Forbidden).detail(text);
    if !matches!(wanted.kind(), Kind::Url | Kind::S3) {
        let text = "paths are fetched for callers of all tenants only; name a URL or an S3 object";
        return Err(forbidden(text.to_owned()));
    }
    let folder = app.config.sources.secrets_dir.as_deref();
    match &wanted.secret_ref {
        Some(name) if !source::is_secret_of(folder, name, &wanted.tenant) => {
            let tenant = &wanted.tenant;
            Err(forbidden(format!(
                "its secret is not that tenant's alone: its file needs a line `tenant {tenant}`"
            )))
        }
        _ => Ok(()),
    }
}

/// `POST /import/fetch`: 202 and the job that fetches the file.
pub(in crate::http) async fn fetch(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Json(once): Json<Once>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    let tenant = caller.owner(once.tenant)?.unwrap_or_else(default_tenant);
    let file = FetchFile {
        location: once.location,
        tenant,
        endpoint: once.endpoint,
        region: once.region,
        secret_ref: once.secret_ref,
        options: once.options,
    };
    let definition = file.definition();
    let checked = definition.check(&app.config.fetch, &app.config.sources);
    checked.map_err(|wrong| invalid(&wrong))?;
    may_fetch(&app, &caller, &definition)?;
    let mut tx = app.db.begin().await?;
    let enqueued = file.enqueue(&mut tx).await?;
    let id = enqueued.id.map(|id| id.0);
    let object = format!("job/{}", id.unwrap_or_default());
    let detail = json!({ "location": definition.shown_location() });
    let tenant = Some(file.tenant.as_str());
    audit::record(
        &mut tx,
        &caller,
        "import.fetch",
        &object,
        tenant,
        Some(detail),
    )
    .await?;
    tx.commit().await?;
    Ok((StatusCode::ACCEPTED, axum::Json(json!({ "job_id": id }))))
}

async fn note(
    tx: &mut sqlx::PgConnection,
    caller: &Caller,
    action: &str,
    (name, tenant): (&str, &str),
    detail: Option<Value>,
) -> sqlx::Result<()> {
    let object = format!("source/{name}");
    audit::record(tx, caller, action, &object, Some(tenant), detail).await
}
