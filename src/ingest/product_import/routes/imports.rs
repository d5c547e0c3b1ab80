//! Imports under `/api/v1`: list, show, undo.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{
    store::{self, Filter, Import, ImportType},
    undo::{self, UndoError},
};
use crate::{
    http::{self, AppState, Caller, Cursor, Limit, Page, Path, Problem, Query, Trouble},
    runs::{self, RunId, RunState},
};

/// Which imports are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    tenant: Option<String>,
    state: Option<RunState>,
    r#type: Option<ImportType>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// `GET /imports`: the newest first.
pub(crate) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<Params>,
) -> Result<Json<Page<Import>>, Problem> {
    let tenants = caller.tenants.among(params.tenant);
    let filter = Filter {
        tenants: tenants.as_deref(),
        id: None,
        state: params.state,
        import_type: params.r#type,
        before: params.cursor.map(|Cursor(id)| id),
    };
    let mut conn = app.db.acquire().await?;
    let rows = store::list(&mut conn, filter, params.limit.n_read()).await?;
    Ok(Json(Page::new(rows, params.limit, |import| import.id)))
}

/// `GET /imports/{id}`.
pub(crate) async fn show(
    State(app): State<Arc<AppState>>,
    Path(id): Path<i64>,
) -> Result<Json<Import>, Problem> {
    let mut conn = app.db.acquire().await?;
    let import = store::find(&mut conn, id).await?;
    Ok(Json(import.ok_or(UndoError::NotFound(RunId(id)))?))
}

/// `GET /imports/{id}/rollback`: what undoing it would come to, or has come to.
pub(crate) async fn preview(
    State(app): State<Arc<AppState>>,
    Path(id): Path<i64>,
) -> Result<Json<Value>, Problem> {
    let mut tx = app.db.begin().await?;
    let run_id = match undo::preview(&mut tx, RunId(id)).await {
        Ok(outcome) => {
            let would_be =
                json!({ "import_id": id, "run_id": null, "state": null, "outcome": outcome });
            return Ok(Json(would_be));
        }
        Err(UndoError::Asked { run, .. }) => run,
        Err(error) => return Err(error.into()),
    };
    let outcome = undo::outcome(&mut tx, run_id).await?;
    let run = runs::get(&mut *tx, run_id).await?;
    let state = run.map(|run| run.state);
    Ok(Json(
        json!({ "import_id": id, "run_id": run_id, "state": state, "outcome": outcome }),
    ))
}

/// `POST /imports/{id}/rollback`: 202 and the run that undoes it.
pub(crate) async fn roll_back(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<(StatusCode, Json<Value>), Problem> {
    let mut tx = app.db.begin().await?;
    let run_id = undo::submit(&mut tx, RunId(id), "api").await?;
    let import = store::find(&mut tx, id).await?;
    let tenant = import.as_ref().map(|import| import.tenant.as_str());
    let (object, detail) = (format!("run/{id}"), json!({ "run_id": run_id }));
    http::record(
        &mut tx,
        &caller,
        "import.rollback",
        &object,
        tenant,
        Some(detail),
    )
    .await?;
    tx.commit().await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(json!({ "import_id": id, "run_id": run_id })),
    ))
}

impl From<UndoError> for Problem {
    fn from(error: UndoError) -> Self {
        let trouble = match error {
            UndoError::Database(error) => return error.into(),
            UndoError::NotFound(_) => Trouble::NotFound,
            UndoError::Unfinished(_)
            | UndoError::DryRun(_)
            | UndoError::Forgotten(_)
            | UndoError::Asked { .. } => Trouble::Conflict,
        };
        Self::new(trouble).detail(error.to_string())
    }
}
