//! The audit log: who changed what, written in the transaction of the change.

use serde_json::Value;
use sqlx::PgConnection;

use super::Caller;

/// Writes one entry in the connection's transaction, and the request's Idempotency-Key, if any.
///
/// `action` is `noun.verb`, `object` is `noun/id`; `detail` says what changed.
///
/// # Errors
///
/// What Postgres says.
pub async fn record(
    conn: &mut PgConnection,
    caller: &Caller,
    action: &str,
    object: &str,
    tenant: Option<&str>,
    detail: Option<Value>,
) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO ingestd.audit_log (actor, action, object, tenant, request_id, detail)
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(&caller.actor)
    .bind(action)
    .bind(object)
    .bind(tenant)
    .bind(&caller.request_id)
    .bind(detail)
    .execute(&mut *conn)
    .await?;
    match &caller.once {
        Some(once) => once.write(conn, object).await,
        None => Ok(()),
    }
}
