//! Webhooks: who is told of what, and what came of it.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderName, StatusCode, header::LOCATION},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{
    AppState, Caller, Cursor, Json, Limit, Page, Path, Problem, Query, Trouble, audit,
};
use crate::{
    access::Tenants,
    fetch,
    notify::webhook::{self, Delivery, Event, MOST_WEBHOOKS, NewWebhook, Webhook},
};

/// Where a page of a list begins, and how long it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Ask {
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

impl Ask {
    fn before(&self) -> Option<i64> {
        self.cursor.map(|cursor| cursor.0)
    }
}

/// `GET /webhooks`.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(ask): Query<Ask>,
) -> Result<axum::Json<Page<Webhook>>, Problem> {
    let (tenants, n_read) = (caller.tenants.list(), ask.limit.n_read());
    let rows = webhook::list_of(&app.db, tenants, ask.before(), n_read).await?;
    Ok(axum::Json(Page::new(rows, ask.limit, |row| row.id)))
}

/// `GET /webhooks/{id}`.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Path(id): Path<i64>,
) -> Result<axum::Json<Webhook>, Problem> {
    Ok(axum::Json(find(&app, id).await?))
}

/// `GET /webhooks/{id}/deliveries`: the last attempts.
pub(in crate::http) async fn deliveries(
    State(app): State<Arc<AppState>>,
    Path(id): Path<i64>,
    Query(ask): Query<Ask>,
) -> Result<axum::Json<Page<Delivery>>, Problem> {
    find(&app, id).await?;
    let rows = webhook::deliveries(&app.db, id, ask.before(), ask.limit.n_read()).await?;
    Ok(axum::Json(Page::new(rows, ask.limit, |row| row.id)))
}

async fn find(app: &AppState, id: i64) -> Result<Webhook, Problem> {
    webhook::get(&app.db, id).await?.ok_or_else(|| unknown(id))
}

fn unknown(id: i64) -> Problem {
    Problem::new(Trouble::NotFound).detail(format!("no webhook {id}, or no longer"))
}

/// The webhook to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    url: String,
    events: Vec<String>,
    secret_ref: String,
    tenant: Option<String>,
    kinds: Option<Vec<String>>,
    queues: Option<Vec<String>>,
}

type Located = (StatusCode, [(HeaderName, String); 1], axum::Json<Webhook>);

/// `POST /webhooks`: 201 and the webhook.
pub(in crate::http) async fn add(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Json(mut body): Json<Body>,
) -> Result<Located, Problem> {
    body.tenant = caller.owner(body.tenant)?;
    let new = new_webhook(&app, body)?;
    may_sign(&app, &caller, &new)?;
    let mut tx = app.db.begin().await?;
    let Some(made) = webhook::add(&mut tx, &new).await? else {
        let text = format!("a tenant has at most {MOST_WEBHOOKS} webhooks");
        return Err(Problem::new(Trouble::Conflict).detail(text));
    };
    let detail = json!({ "events": made.events, "secret_ref": made.secret_ref });
    note(
        &mut tx,
        &caller,
        "webhook.add",
        (made.id, &made.tenant),
        Some(detail),
    )
    .await?;
    tx.commit().await?;
    let location = format!("/api/v1/webhooks/{}", made.id);
    Ok((
        StatusCode::CREATED,
        [(LOCATION, location)],
        axum::Json(made),
    ))
}

/// Keeps callers that are bound to tenants from having others' secrets sign what they choose.
fn may_sign(app: &AppState, caller: &Caller, new: &NewWebhook) -> Result<(), Problem> {
    let folder = app.config.webhooks.secrets_dir.as_deref();
    if caller.tenants == Tenants::All || webhook::is_secret_of(folder, &new.secret_ref, &new.tenant)
    {
        return Ok(());
    }
    let rule = format!("a secret whose file has the line `tenant {}`", new.tenant);
    Err(Problem::new(Trouble::Invalid).at("/secret_ref", rule))
}

/// Checks what the database would refuse with less to say, and where the URL leads.
fn new_webhook(app: &AppState, body: Body) -> Result<NewWebhook, Problem> {
    let invalid = || Problem::new(Trouble::Invalid);
    fetch::check(&app.config.fetch, &body.url)
        .map_err(|error| invalid().at("/url", error.to_string()))?;
    let mut events = Vec::with_capacity(body.events.len().min(Event::ALL.len()));
    for (place, name) in body.events.iter().enumerate() {
        let parsed = name.parse::<Event>();
        let pointer = format!("/events/{place}");
        events.push(parsed.map_err(|error| invalid().at(pointer, error.to_string()))?);
    }
    if events.is_empty() {
        return Err(invalid().at("/events", "at least one"));
    }
    if !webhook::is_secret_name(&body.secret_ref) {
        let rule =
            "1 to 100 letters, digits, '.', '_' and '-': the name of the secret, not the secret";
        return Err(invalid().at("/secret_ref", rule));
    }
    for (list, pointer) in [(&body.kinds, "/kinds"), (&body.queues, "/queues")] {
        if list
            .as_ref()
            .is_some_and(|list| !(1..=100).contains(&list.len()))
        {
            return Err(invalid().at(pointer, "1 to 100 names, or null for all"));
        }
    }
    let tenant = body.tenant.unwrap_or_else(|| "default".to_owned());
    if !(1..=200).contains(&tenant.chars().count()) {
        return Err(invalid().at("/tenant", "1 to 200 characters"));
    }
    Ok(NewWebhook {
        tenant,
        url: body.url,
        events,
        kinds: body.kinds,
        queues: body.queues,
        secret_ref: body.secret_ref,
    })
}

/// `DELETE /webhooks/{id}`.
pub(in crate::http) async fn remove(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<axum::Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    let tenant = webhook::remove(&mut tx, id).await?;
    let tenant = tenant.ok_or_else(|| unknown(id))?;
    note(&mut tx, &caller, "webhook.remove", (id, &tenant), None).await?;
    tx.commit().await?;
    Ok(axum::Json(json!({ "id": id, "removed": true })))
}

/// `POST /webhooks/{id}/pause`. Again is no error.
pub(in crate::http) async fn pause(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<axum::Json<Value>, Problem> {
    find(&app, id).await?;
    let mut tx = app.db.begin().await?;
    let reason = format!("paused by {}", caller.actor);
    if let Some(tenant) = webhook::pause(&mut tx, id, &reason).await? {
        note(&mut tx, &caller, "webhook.pause", (id, &tenant), None).await?;
    }
    tx.commit().await?;
    Ok(axum::Json(json!({ "id": id, "paused": true })))
}

/// `POST /webhooks/{id}/resume`. Again is no error.
pub(in crate::http) async fn resume(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<axum::Json<Value>, Problem> {
    find(&app, id).await?;
    let mut tx = app.db.begin().await?;
    if let Some(tenant) = webhook::resume(&mut tx, id).await? {
        note(&mut tx, &caller, "webhook.resume", (id, &tenant), None).await?;
    }
    tx.commit().await?;
    Ok(axum::Json(json!({ "id": id, "paused": false })))
}

/// `POST /webhooks/{id}/test`: 202 and the job that delivers `webhook.test`.
pub(in crate::http) async fn test(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<(StatusCode, axum::Json<Value>), Problem> {
    let found = find(&app, id).await?;
    let mut tx = app.db.begin().await?;
    let job = webhook::test(&mut tx, &found).await?;
    let detail = json!({ "job": job });
    note(
        &mut tx,
        &caller,
        "webhook.test",
        (id, &found.tenant),
        Some(detail),
    )
    .await?;
    tx.commit().await?;
    Ok((
        StatusCode::ACCEPTED,
        axum::Json(json!({ "id": id, "job": job })),
    ))
}

async fn note(
    tx: &mut sqlx::PgConnection,
    caller: &Caller,
    action: &str,
    (id, tenant): (i64, &str),
    detail: Option<Value>,
) -> sqlx::Result<()> {
    let object = format!("webhook/{id}");
    audit::record(tx, caller, action, &object, Some(tenant), detail).await
}
