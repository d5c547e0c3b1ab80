//! Schedules: list, explain; `act` pauses and runs them, `change` makes and removes them.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::{AppState, Caller, Limit, Page, Path, Problem, Query, TextCursor, Trouble};
use crate::queue::schedule::explain::{self, ScheduleRow};

pub(in crate::http) mod act;
pub(in crate::http) mod change;

#[derive(Debug, Serialize)]
struct Schedule {
    /// The cron line in words, or what is wrong with it.
    description: String,
    #[serde(flatten)]
    row: ScheduleRow,
}

/// Which schedules are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Which {
    tenant: Option<String>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<TextCursor>,
}

/// `GET /schedules`: the caller's, by name.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(which): Query<Which>,
) -> Result<Json<Value>, Problem> {
    let tenants = caller.tenants.among(which.tenant);
    let after = which.cursor.as_ref().map(|TextCursor(name)| name.as_str());
    let n_read = which.limit.n_read();
    let rows = explain::page(&app.db, tenants.as_deref(), after, n_read).await?;
    let described = rows.into_iter().map(|row| Schedule {
        description: row.describe(),
        row,
    });
    let place = |schedule: &Schedule| TextCursor(schedule.row.name.clone());
    let page = Page::by(described.collect(), which.limit, place);
    caller.seen(page).map(Json)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct Params {
    /// How many due times to tell, at most 1,000; ten where nothing is said.
    n: Option<usize>,
}

/// `GET /schedules/{name}`: what it says, when it is due, what became of its ticks.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Value>, Problem> {
    let n = params.n.unwrap_or(10);
    if n > 1000 {
        return Err(Problem::new(Trouble::Invalid).parameter("n", "at most 1000"));
    }
    let explained = explain::explain(&mut *app.db.acquire().await?, &name, n).await?;
    let explained = explained.ok_or_else(|| no_schedule(&name))?;
    caller.seen(explained).map(Json)
}

fn no_schedule(name: &str) -> Problem {
    Problem::new(Trouble::NotFound).detail(format!("no schedule {name:?}"))
}

fn object(name: &str) -> String {
    format!("schedule/{name}")
}
