//! The health of the database, as the queue needs it.

use std::sync::Arc;

use axum::extract::State;
use serde_json::{Value, json};

use super::super::{AppState, Problem};
use crate::queue::watch;

/// `GET /health/database`: who holds the xmin horizon, the live table's dead rows, the partitions
/// ahead, the plans of the hot statements.
pub(in crate::http) async fn database(
    State(app): State<Arc<AppState>>,
) -> Result<axum::Json<Value>, Problem> {
    let holders = watch::holders(&app.db).await?;
    let table = watch::live_table(&app.db).await?;
    let partitions = watch::partitions(&app.db).await?;
    let mut conn = app.db.acquire().await?;
    let plans = watch::plans(&mut conn).await;
    if plans.is_err() {
        conn.close_on_drop(); // a prepared statement may be left on it
    }
    Ok(axum::Json(json!({
        "xmin_horizon": holders,
        "jobs_table": table,
        "partitions": partitions,
        "plans": plans?,
    })))
}
