//! The webhooks' rows, and what came of their deliveries.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::{PgConnection, PgExecutor};

use super::{Deliver, Event};
use crate::queue::{self, JobId, NewJob};

/// Most webhooks of one tenant: each is a job more for every event.
pub const MOST_WEBHOOKS: i64 = 50;

/// Attempts that are kept of each webhook.
const KEPT_DELIVERIES: i64 = 200;

/// One webhook as the database has it.
#[derive(Debug, Clone, sqlx::FromRow, Serialize)]
pub struct Webhook {
    /// Identifies the webhook.
    pub id: i64,
    /// Owner of the data it tells of.
    pub tenant: String,
    /// Where to POST.
    pub url: String,
    /// Names of [`Event`]s.
    pub events: Vec<String>,
    /// Only jobs of these kinds, or of all of a system, written `system.*`; `None`: all.
    pub kinds: Option<Vec<String>>,
    /// Only jobs of these queues; `None`: all.
    pub queues: Option<Vec<String>>,
    /// Name of the secret that signs; never the secret.
    pub secret_ref: String,
    /// Set while paused.
    pub paused_at: Option<DateTime<Utc>>,
    /// Why it is paused.
    pub pause_reason: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A webhook to be.
#[derive(Debug, Clone)]
pub struct NewWebhook {
    /// Owner of the data it tells of; jobs without a tenant are `default`'s.
    pub tenant: String,
    /// Where to POST; judge it by [`crate::fetch::check`] first.
    pub url: String,
    /// What to tell.
    pub events: Vec<Event>,
    /// As [`Webhook::kinds`].
    pub kinds: Option<Vec<String>>,
    /// As [`Webhook::queues`].
    pub queues: Option<Vec<String>>,
    /// Name of the secret that signs.
    pub secret_ref: String,
}

/// Makes a webhook; `None` where the tenant has [`MOST_WEBHOOKS`] already.
///
/// # Errors
///
/// What Postgres says: a name of a secret that is none, no events.
pub async fn add(conn: &mut PgConnection, new: &NewWebhook) -> sqlx::Result<Option<Webhook>> {
    let events: Vec<&str> = new.events.iter().map(|event| event.as_str()).collect();
    sqlx::query_as(
        "INSERT INTO ingestd.webhooks (tenant, url, events, kinds, queues, secret_ref)
         SELECT $1, $2, $3, $4, $5, $6
         WHERE (SELECT count(*) FROM ingestd.webhooks WHERE tenant = $1) < $7
         RETURNING *",
    )
    .bind(&new.tenant)
    .bind(&new.url)
    .bind(events)
    .bind(&new.kinds)
    .bind(&new.queues)
    .bind(&new.secret_ref)
    .bind(MOST_WEBHOOKS)
    .fetch_optional(conn)
    .await
}

/// Reads one webhook.
///
/// # Errors
///
/// What Postgres says.
pub async fn get(db: impl PgExecutor<'_>, id: i64) -> sqlx::Result<Option<Webhook>> {
    sqlx::query_as("SELECT * FROM ingestd.webhooks WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await
}

/// Reads the newest webhooks before `before`, newest first.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(
    db: impl PgExecutor<'_>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Webhook>> {
    list_of(db, None, before, limit).await
}

/// As [`list`], of these tenants only; `None` is all.
///
/// # Errors
///
/// What Postgres says.
pub async fn list_of(
    db: impl PgExecutor<'_>,
    tenants: Option<&[String]>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Webhook>> {
    sqlx::query_as(
        "SELECT * FROM ingestd.webhooks
         WHERE ($1::bigint IS NULL OR id < $1) AND ($3::text[] IS NULL OR tenant = ANY ($3))
         ORDER BY id DESC LIMIT $2",
    )
    .bind(before)
    .bind(limit)
    .bind(tenants)
    .fetch_all(db)
    .await
}

/// Removes a webhook and the list of its deliveries; returns its tenant where there was one.
///
/// Deliveries that wait have nobody to go to any more and complete without a request.
///
/// # Errors
///
/// What Postgres says.
pub async fn remove(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar("DELETE FROM ingestd.webhooks WHERE id = $1 RETURNING tenant")
        .bind(id)
        .fetch_optional(conn)
        .await
}

/// Pauses a webhook; returns its tenant, `None` where it was paused already or is not there.
///
/// What happens while it is paused is not told; deliveries that wait are tried at their next times.
///
/// # Errors
///
/// What Postgres says.
pub async fn pause(conn: &mut PgConnection, id: i64, reason: &str) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "UPDATE ingestd.webhooks SET paused_at = now(), pause_reason = $2
         WHERE id = $1 AND paused_at IS NULL RETURNING tenant",
    )
    .bind(id)
    .bind(reason)
    .fetch_optional(conn)
    .await
}

/// Lets a paused webhook go on; returns its tenant, `None` where it was not paused or is not there.
///
/// # Errors
///
/// What Postgres says.
pub async fn resume(conn: &mut PgConnection, id: i64) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar(
        "UPDATE ingestd.webhooks SET paused_at = NULL, pause_reason = NULL
         WHERE id = $1 AND paused_at IS NOT NULL RETURNING tenant",
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// Enqueues a delivery of the event `webhook.test`, whatever the webhook asks for; returns its job.
///
/// # Errors
///
/// What Postgres says.
pub async fn test(conn: &mut PgConnection, webhook: &Webhook) -> sqlx::Result<Option<JobId>> {
    let (message, now): (String, DateTime<Utc>) = sqlx::query_as(
        "SELECT 'msg_test_' || replace(gen_random_uuid()::text, '-', ''), clock_timestamp()",
    )
    .fetch_one(&mut *conn)
    .await?;
    let delivery = Deliver {
        webhook: webhook.id,
        message,
        event: "webhook.test".to_owned(),
        timestamp: now,
        data: json!({ "webhook": { "id": webhook.id, "tenant": webhook.tenant } }),
    };
    let job = NewJob::of(&delivery).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let job = NewJob {
        tenant: Some(webhook.tenant.clone()),
        ..job
    };
    Ok(queue::enqueue_raw(conn, &job).await?.id)
}

/// Where a delivery goes, as of now.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct Target {
    pub(super) tenant: String,
    pub(super) url: String,
    pub(super) secret_ref: String,
    pub(super) pause_reason: Option<String>,
    /// The database's time.
    pub(super) now: DateTime<Utc>,
}

/// Reads where a delivery goes; `None` where its webhook is gone.
pub(super) async fn target(db: impl PgExecutor<'_>, id: i64) -> sqlx::Result<Option<Target>> {
    sqlx::query_as(
        "SELECT tenant, url, secret_ref, pause_reason, clock_timestamp() AS now
         FROM ingestd.webhooks WHERE id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .await
}

/// What came of one attempt to deliver.
#[derive(Debug, Clone, sqlx::FromRow, Serialize)]
pub struct Delivery {
    /// Order of the attempts.
    pub id: i64,
    /// The webhook.
    pub webhook_id: i64,
    /// The header `webhook-id`.
    pub message: String,
    /// What it told of.
    pub event: String,
    /// The job that delivers it.
    pub job_id: i64,
    /// Which attempt of that job, from 1.
    pub attempt: i16,
    /// The answer's HTTP status; `None`: no answer.
    pub status: Option<i16>,
    /// Why it was not delivered; `None`: it was.
    pub error: Option<String>,
    /// How long it took, in milliseconds.
    pub duration_ms: i32,
    /// When the attempt ended.
    pub at: DateTime<Utc>,
}

/// Reads the newest attempts of a webhook before `before`, newest first.
///
/// # Errors
///
/// What Postgres says.
pub async fn deliveries(
    db: impl PgExecutor<'_>,
    webhook: i64,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Delivery>> {
    sqlx::query_as(
        "SELECT * FROM ingestd.webhook_deliveries
         WHERE webhook_id = $1 AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3",
    )
    .bind(webhook)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Notes what came of an attempt and forgets those beyond the last [`KEPT_DELIVERIES`]; does
/// nothing where the webhook is gone.
pub(super) async fn note(conn: &mut PgConnection, delivery: &Delivery) -> sqlx::Result<()> {
    sqlx::query(
        "WITH noted AS (
           INSERT INTO ingestd.webhook_deliveries
             (webhook_id, message, event, job_id, attempt, status, error, duration_ms)
           SELECT id, $2, $3, $4, $5, $6, $7, $8 FROM ingestd.webhooks WHERE id = $1)
         DELETE FROM ingestd.webhook_deliveries
         WHERE webhook_id = $1 AND id <= (
           SELECT id FROM ingestd.webhook_deliveries
           WHERE webhook_id = $1 ORDER BY id DESC OFFSET $9 LIMIT 1)",
    )
    .bind(delivery.webhook_id)
    .bind(&delivery.message)
    .bind(&delivery.event)
    .bind(delivery.job_id)
    .bind(delivery.attempt)
    .bind(delivery.status)
    .bind(&delivery.error)
    .bind(delivery.duration_ms)
    .bind(KEPT_DELIVERIES - 1)
    .execute(conn)
    .await?;
    Ok(())
}
