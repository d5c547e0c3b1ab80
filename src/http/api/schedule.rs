//! Schedules, with what their cron line means.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};

use super::super::{AppState, Problem};
use crate::queue::{
    Timetable,
    read::{self, ScheduleRow},
};

#[derive(Debug, Serialize)]
struct Schedule {
    #[serde(flatten)]
    row: ScheduleRow,
    /// The cron line in words, or what is wrong with it.
    description: String,
}

/// `GET /schedules`: all of them, by name.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
) -> Result<axum::Json<Value>, Problem> {
    let rows = read::schedules(&app.db).await?;
    let schedules: Vec<Schedule> = rows.into_iter().map(describe).collect();
    Ok(axum::Json(json!({ "items": schedules })))
}

fn describe(row: ScheduleRow) -> Schedule {
    let description = match Timetable::parse(&row.cron, &row.timezone) {
        Ok(timetable) => timetable.describe(),
        Err(error) => error.to_string(),
    };
    Schedule { row, description }
}
