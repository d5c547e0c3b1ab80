//! Imports: the form, the list, one as it goes on and what came of it, undoing it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use super::{
    super::{AppState, Caller, Cursor, Limit, Page, Path, Problem, Query, receive},
    Redirect,
    form::Form,
    frame::Frame,
    preview, render,
    run::{self, Wish},
    see,
    show::{At, Count, Size, older},
};
use crate::{
    ingest::product_import::{
        load::tally::{self, Tally},
        routes::{FIELD, Order, Refused, imports as api},
        sheet::SkippedSheet,
        status,
        store::{self, Filter, Import, ImportType, RowFault},
        undo::{self, Outcome, UndoError},
    },
    runs::{self, RunId, RunState},
};

/// As many errors are shown; the downloads have all.
const N_FAULTS: i64 = 100;

/// An import as pages show it.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each decides about a piece of the page"
)]
pub(super) struct Shown {
    pub(super) id: i64,
    pub(super) file_name: String,
    pub(super) holds: &'static str,
    pub(super) state: &'static str,
    pub(super) mode: String,
    pub(super) dry_run: bool,
    /// Whether it would have been refused, had it been no dry run.
    pub(super) is_refused: bool,
    pub(super) created: Count,
    pub(super) updated: Count,
    pub(super) unchanged: Count,
    pub(super) archived: Count,
    pub(super) rejected: Count,
    pub(super) tenant: String,
    pub(super) created_at: At,
    pub(super) size: Size,
    pub(super) sha256: String,
    pub(super) undone_by: Option<i64>,
    pub(super) has_rejected: bool,
    pub(super) has_results: bool,
    pub(super) is_undoable: bool,
}

impl From<Import> for Shown {
    fn from(import: Import) -> Self {
        let is_parts = import.import_type == ImportType::Parts;
        let is_kept = import.traces == "kept";
        Self {
            id: import.id,
            holds: if is_parts { "products" } else { "dealers" },
            state: import.state.as_str(),
            dry_run: import.dry_run,
            is_refused: import.refusal.is_some(),
            created: Count(import.created_count),
            updated: Count(import.updated_count),
            unchanged: Count(import.unchanged_count),
            archived: Count(import.archived_count),
            rejected: Count(import.error_count),
            created_at: At(import.created_at),
            size: Size(import.file_size_bytes),
            undone_by: import.rollback_run_id,
            has_rejected: is_parts && is_kept && import.error_count > 0,
            has_results: is_parts && is_kept && import.success_count > 0 && !import.dry_run,
            is_undoable: is_parts
                && is_kept
                && !import.dry_run
                && import.rollback_run_id.is_none()
                && import.created_count + import.updated_count + import.archived_count > 0,
            mode: import.mode.replace('_', " "),
            file_name: import.file_name,
            tenant: import.tenant,
            sha256: import.file_sha256,
        }
    }
}

/// Reads the newest imports that `caller` may see.
pub(super) async fn newest(
    app: &AppState,
    caller: &Caller,
    before: Option<i64>,
    n: i64,
) -> Result<Vec<Import>, Problem> {
    let mut conn = app.db.acquire().await?;
    let filter = Filter {
        tenants: caller.tenants.list(),
        before,
        ..Filter::default()
    };
    Ok(store::list(&mut conn, filter, n).await?)
}

#[derive(Template)]
#[template(path = "imports.html")]
struct ListPage {
    frame: Frame,
    trouble: Option<String>,
    max_drop_percent: u8,
    /// Of a caller who has several: one is to be chosen.
    tenants: Vec<String>,
    imports: Vec<Shown>,
    next: Option<String>,
}

/// `GET /imports`: the newest first.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<run::Params>,
) -> Result<Response, Problem> {
    page(&app, &caller, params.cursor, StatusCode::OK, None).await
}

/// Renders the list and the form; `trouble` says why a file was refused.
async fn page(
    app: &AppState,
    caller: &Caller,
    cursor: Option<Cursor>,
    status: StatusCode,
    trouble: Option<String>,
) -> Result<Response, Problem> {
    let limit = Limit::default();
    let before = cursor.map(|Cursor(id)| id);
    let rows = newest(app, caller, before, limit.n_read()).await?;
    let (rows, next) = Page::new(rows, limit, |import| import.id).into_parts();
    let page = ListPage {
        frame: Frame::of(caller, "/imports"),
        trouble,
        tenants: caller
            .tenants
            .list()
            .map(<[String]>::to_vec)
            .unwrap_or_default(),
        max_drop_percent: app.config.product_import.max_drop_percent,
        imports: rows.into_iter().map(Shown::from).collect(),
        next: older("/imports", next),
    };
    render(status, &page)
}

/// `POST /imports`: leads to the import, or says on the form what is wrong with the file.
pub(in crate::http) async fn upload(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    match take(&app, &caller, request).await {
        Ok(to) => Ok(see(to).into_response()),
        Err(refused) => {
            let (status, message) = refused.told();
            page(&app, &caller, None, status, Some(message)).await
        }
    }
}

async fn take(app: &AppState, caller: &Caller, request: Request) -> Result<String, Refused> {
    let order = Order::new(app, caller, request.uri())?;
    let mut upload = receive(app, request, FIELD).await?;
    // A browser sends every field of a form, the empty ones too.
    upload.fields.retain(|(_, value)| !value.is_empty());
    let taken = order.take(app, caller, upload).await?;
    let same = taken.same.map(|same| format!("?same={same}"));
    Ok(format!("/imports/{}{}", taken.id, same.unwrap_or_default()))
}

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    frame: Frame,
    import: Shown,
    run: run::Shown,
    same: Option<i64>,
    /// An import that has written to the same catalog since this one was uploaded, which stopped.
    overtaken: Option<i64>,
    /// The file has headers and no rows.
    is_without_rows: bool,
    preview: Option<preview::Shown>,
    /// What came of each sheet; empty where one is read.
    sheets: Vec<Tally>,
    /// Sheets that are not read, unless one was asked for.
    skipped: Vec<SkippedSheet>,
    hidden_rows: Option<u64>,
    faults: Vec<RowFault>,
    faults_cut: bool,
}

/// What is said of an import that was just uploaded.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Params {
    /// The same file was imported before as this one.
    same: Option<i64>,
}

/// `GET /imports/{id}`.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    Query(Params { same }): Query<Params>,
) -> Result<Response, Problem> {
    let mut conn = app.db.acquire().await?;
    let gone = || Problem::from(UndoError::NotFound(RunId(id)));
    let run = runs::get(&mut *conn, RunId(id)).await?.ok_or_else(gone)?;
    let import = store::find(&mut conn, id).await?.ok_or_else(gone)?;
    let faults = store::row_faults(&mut conn, id, N_FAULTS).await?;
    let overtaken = status::overtaken(&mut conn, &run).await?;
    drop(conn);
    super::ok(&ImportPage {
        frame: Frame::of(&caller, "/imports"),
        preview: preview::Shown::of(&run.details),
        sheets: tally::sheets(&run.details).unwrap_or_default(),
        skipped: tally::skipped(&run.details),
        hidden_rows: tally::hidden(&run.details),
        faults_cut: i64::try_from(faults.len()).is_ok_and(|n| n >= N_FAULTS),
        faults,
        overtaken,
        is_without_rows: run.state == RunState::Completed && run.items_done() == 0,
        import: import.into(),
        run: run::Shown::of(run, &caller)?,
        same,
    })
}

/// `POST /imports/{id}`.
pub(in crate::http) async fn act(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    Form(Wish { act }): Form<Wish>,
) -> Result<Redirect, Problem> {
    if act == "undo" {
        drop(api::roll_back(State(app), Extension(caller), Path(id)).await?);
        return Ok(see(format!("/imports/{id}/undo")));
    }
    run::change(app, caller, id, &act).await?;
    Ok(see(format!("/imports/{id}")))
}

#[derive(Template)]
#[template(path = "undo.html")]
struct UndoPage {
    frame: Frame,
    id: i64,
    file_name: String,
    /// The run that undoes it; `None` where nobody asked for it.
    run: Option<run::Shown>,
    is_going: bool,
    restored: Count,
    archived: Count,
    n_kept: Count,
    kept: Vec<Kept>,
}

/// A product that stays.
#[derive(Debug)]
struct Kept {
    code: String,
    reason: String,
}

/// `GET /imports/{id}/undo`.
pub(in crate::http) async fn undo(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let mut tx = app.db.begin().await?;
    let (outcome, run): (Outcome, _) = match undo::preview(&mut tx, RunId(id)).await {
        Ok(outcome) => (outcome, None),
        Err(UndoError::Asked { run, .. }) => {
            let outcome = undo::outcome(&mut tx, run).await?;
            (outcome, runs::get(&mut *tx, run).await?)
        }
        Err(error) => return Err(error.into()),
    };
    let import = store::find(&mut tx, id).await?;
    let import = import.ok_or(UndoError::NotFound(RunId(id)))?;
    tx.rollback().await?;
    let run = run.map(|run| run::Shown::of(run, &caller)).transpose()?;
    let kept = outcome.kept.into_iter().map(|kept| Kept {
        code: kept
            .code
            .unwrap_or_else(|| format!("product {}", kept.product_id)),
        reason: kept.reason.replace('_', " "),
    });
    super::ok(&UndoPage {
        frame: Frame::of(&caller, "/imports"),
        id,
        file_name: import.file_name,
        is_going: run.as_ref().is_some_and(run::Shown::is_going),
        run,
        restored: Count(outcome.n_restored),
        archived: Count(outcome.n_archived),
        n_kept: Count(outcome.n_kept),
        kept: kept.collect(),
    })
}
