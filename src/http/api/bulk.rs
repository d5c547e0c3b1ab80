//! `POST /bulk`: one action on many jobs or dead letters.

use std::sync::Arc;

use axum::{
    Extension,
    extract::State,
    http::{HeaderName, StatusCode, header::LOCATION},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::{AppState, Caller, Json, Problem, Trouble, audit};
use crate::{
    access::Tenants,
    ingest::system::bulk::{self, Action, BadOrder, Order},
    runs,
};

/// What is to be done to which.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Body {
    action: Action,
    #[serde(default)]
    filter: Map<String, Value>,
    /// Yes, everything: needed where the filter is empty.
    #[serde(default)]
    all: bool,
    rate_per_sec: Option<u32>,
    #[serde(default)]
    dry_run: bool,
}

type Answer = (StatusCode, [(HeaderName, String); 1], axum::Json<Value>);

/// `POST /bulk`: 202 and the run that carries it out; with `dry_run` 200, how many and the first.
pub(in crate::http) async fn submit(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Json(body): Json<Body>,
) -> Result<Answer, Problem> {
    let order = Order::new(
        body.action,
        Value::Object(own(&caller, body.filter)?),
        body.rate_per_sec,
    )
    .map_err(|error| refused(&error))?;
    if order.is_any() && !body.all {
        let rule = "at least one condition, or \"all\": true";
        return Err(Problem::new(Trouble::Invalid).at("/filter", rule));
    }
    let mut tx = app.db.begin().await?;
    if body.dry_run {
        let found = bulk::preview(&mut tx, &order).await?;
        let report = json!({ "dry_run": true, "n_found": found.n_found, "is_all": found.is_all,
                             "first": found.first });
        let here = "/api/v1/bulk".to_owned();
        return Ok((StatusCode::OK, [(LOCATION, here)], axum::Json(report)));
    }
    let (id, found) = bulk::submit(&mut tx, &order, "api", &caller.actor).await?;
    let run = runs::get(&mut *tx, id).await?;
    let action = format!("bulk.{}", body.action.as_str());
    let detail = json!({ "order": order, "found": found.n_found });
    let tenant = run.as_ref().map(|run| run.tenant.as_str());
    audit::record(
        &mut tx,
        &caller,
        &action,
        &format!("run/{id}"),
        tenant,
        Some(detail),
    )
    .await?;
    tx.commit().await?;
    let location = format!("/api/v1/runs/{id}");
    Ok((
        StatusCode::ACCEPTED,
        [(LOCATION, location)],
        axum::Json(json!(run)),
    ))
}

/// Narrows a filter to what the caller owns: one tenant, which is named where there are several.
fn own(caller: &Caller, mut filter: Map<String, Value>) -> Result<Map<String, Value>, Problem> {
    if caller.tenants == Tenants::All {
        return Ok(filter);
    }
    let asked = filter.get("tenant").and_then(Value::as_str);
    let owner = caller.tenants.owner(asked.map(str::to_owned));
    let owner = owner.map_err(|mine| {
        let rule = format!("one of yours: {}", mine.join(", "));
        Problem::new(Trouble::Invalid).at("/filter/tenant", rule)
    })?;
    filter.insert("tenant".to_owned(), owner.into());
    Ok(filter)
}

fn refused(error: &BadOrder) -> Problem {
    let pointer = match error {
        BadOrder::Filter(_) => "/filter",
        BadOrder::State => "/filter/state",
        BadOrder::Rate => "/rate_per_sec",
    };
    Problem::new(Trouble::Invalid).at(pointer, error.to_string())
}
