//! `/healthz` and `/readyz`: is the process there, and may it be sent work.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{RawQuery, State},
    http::StatusCode,
};
use serde_json::{Value, json};

use super::AppState;
use crate::{db, observe::ReadinessChanged};

/// Longest wait for the database, for a connection of the pool included.
const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the last look at readiness came to, so that changes are events.
#[derive(Debug, Default)]
pub(super) struct LastAnswer(Mutex<Option<bool>>);

impl LastAnswer {
    fn note(&self, ready: bool) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.replace(ready) != Some(ready) {
            ReadinessChanged { ready }.emit();
        }
    }
}

/// `GET /healthz`: the process answers. Asks nobody, the database least of all: a probe that
/// restarts daemons because Postgres is away makes the outage longer.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: 200 where work may be sent here, else 503; what was checked either way.
///
/// With `?verbose` each check says how long it took, in milliseconds, and the version is named.
pub(super) async fn readyz(
    State(app): State<Arc<AppState>>,
    RawQuery(query): RawQuery,
) -> (StatusCode, axum::Json<Value>) {
    let checks = checks(&app).await;
    let is_ready = is_ready(&app, &checks);
    let is_verbose = query.is_some_and(|query| query.split('&').any(|q| q.starts_with("verbose")));
    let mut shown = BTreeMap::new();
    for check in &checks {
        let word = if check.is_ok { "ok" } else { check.failure };
        let took_ms = u64::try_from(check.took.as_millis()).unwrap_or(u64::MAX);
        let full = json!({ "status": word, "took_ms": took_ms });
        shown.insert(check.name, if is_verbose { full } else { word.into() });
    }
    let mut body = json!({
        "status": if is_ready { "ready" } else { "not ready" },
        "checks": shown,
    });
    if let (true, Some(body)) = (is_verbose, body.as_object_mut()) {
        body.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    }
    let status = if is_ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(body))
}

/// Looks whether work may be sent here, and publishes the answer.
pub(super) async fn refresh(app: &AppState) {
    let checks = checks(app).await;
    is_ready(app, &checks);
}

fn is_ready(app: &AppState, checks: &[Check]) -> bool {
    let is_ready = checks.iter().all(|check| check.is_ok);
    app.last_answer.note(is_ready);
    is_ready
}

/// One thing that must be so.
struct Check {
    name: &'static str,
    is_ok: bool,
    /// What is shown where it is not.
    failure: &'static str,
    took: Duration,
}

async fn checks(app: &AppState) -> [Check; 5] {
    let database = check("database", "unreachable", ping(app)).await;
    let migrations = if database.is_ok {
        check("migrations", "missing", migrated(app)).await
    } else {
        check("migrations", "unknown", std::future::ready(false)).await
    };
    let disk = if database.is_ok {
        check("disk", "cannot write", has_room(app)).await
    } else {
        check("disk", "unknown", std::future::ready(false)).await
    };
    let is_alive = std::future::ready(app.health.is_alive());
    let is_working = std::future::ready(!app.health.is_draining());
    [
        database,
        disk,
        migrations,
        check("worker", "no heartbeat", is_alive).await,
        check("shutdown", "draining", is_working).await,
    ]
}

async fn check(
    name: &'static str,
    failure: &'static str,
    probe: impl Future<Output = bool>,
) -> Check {
    let began = Instant::now();
    let is_ok = tokio::time::timeout(DATABASE_TIMEOUT, probe)
        .await
        .unwrap_or(false);
    Check {
        name,
        is_ok,
        failure,
        took: began.elapsed(),
    }
}

async fn ping(app: &AppState) -> bool {
    let answer: sqlx::Result<i32> = sqlx::query_scalar("SELECT 1").fetch_one(&app.db).await;
    answer.is_ok()
}

/// More than the server may hold in [`LITTLE_MEMORY`], so that it writes to its disk: no table, no
/// WAL, a third of a millisecond.
const SPILL: &str = "
    WITH heap AS MATERIALIZED (SELECT repeat('x', 1000) AS x FROM generate_series(1, 200))
    SELECT count(x) FROM heap";
const LITTLE_MEMORY: &str = "SET LOCAL work_mem = '64kB'";
/// Postgres's `disk_full`.
const DISK_FULL: &str = "53100";

/// Says whether the server's disk takes anything: while it is full the server answers whoever only
/// asks, and no job can be enqueued or end.
async fn has_room(app: &AppState) -> bool {
    let Err(error) = spill(app).await else {
        return true;
    };
    // What else goes wrong is for the other checks to say.
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    code.as_deref() != Some(DISK_FULL)
}

async fn spill(app: &AppState) -> sqlx::Result<()> {
    let mut tx = app.db.begin().await?;
    sqlx::query(LITTLE_MEMORY).execute(&mut *tx).await?;
    sqlx::query(SPILL).execute(&mut *tx).await?;
    tx.rollback().await
}

/// Says whether every migration of this binary was applied; those of a newer one do no harm.
async fn migrated(app: &AppState) -> bool {
    const APPLIED: &str =
        "SELECT count(*) FROM ingestd._migrations WHERE success AND version = ANY($1)";
    let versions: Vec<i64> = db::migrator()
        .iter()
        .map(|migration| migration.version)
        .collect();
    let n_applied: sqlx::Result<i64> = sqlx::query_scalar(APPLIED)
        .bind(&versions)
        .fetch_one(&app.db)
        .await;
    n_applied.is_ok_and(|n| usize::try_from(n) == Ok(versions.len()))
}
