//! Schedules: list, explain; `act` pauses and runs them, `change` makes and removes them.

use std::sync::Arc;

use axum::{Extension, Json, extract::State};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::{AppState, Caller, Path, Problem, Query, Trouble};
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

/// `GET /schedules`: all of them, by name.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Problem> {
    let rows = explain::list(&app.db).await?.into_iter();
    let described = rows.map(|row| Schedule {
        description: row.describe(),
        row,
    });
    let schedules: Vec<Schedule> = described.collect();
    caller.seen(json!({ "items": schedules })).map(Json)
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
