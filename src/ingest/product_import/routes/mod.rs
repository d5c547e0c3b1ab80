//! The import's endpoints: upload a file, ask how far it is. Paths and JSON are those of the
//! product import's document; its four words stand for the run's six states.

pub(crate) mod dealers;
pub(crate) mod export;
pub(crate) mod imports;
pub(crate) mod mappings;
mod turns;

use std::{io, sync::Arc};

use axum::{
    Extension, Json,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;

use super::{
    plan::{self, BadOption, NAMES, Wish},
    saved_map,
    sheet::{Inspection, Refusal, SkippedSheet},
    status,
    submit::{self, Origin, SYSTEM, SubmitError},
};
use crate::{
    access::{DEFAULT_TENANT, INSTALLATION, NO_TENANT},
    db,
    http::{self, AppState, Caller, Upload, UploadError},
    queue::KeyTaken,
    runs::{self, Run, RunId},
};

/// The field of the form that holds the file.
pub(crate) const FIELD: &str = "file";

/// `POST /import/products`: 202 and the job's id once the file is stored and can be imported.
///
/// The document's job is our run: its id outlives the job that drives it.
pub(crate) async fn upload(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let order = Order::new(&app, &caller, request.uri())?;
    let upload = http::receive(&app, request, FIELD).await?;
    let taken = order.take(&app, &caller, upload).await?;
    let id = taken.id;
    let mut data = Map::new();
    let mut tell = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
    tell("jobId", json!(id));
    tell("statusUrl", format!("/api/v1/import/status/{id}").into());
    if let Some(same) = taken.same {
        tell("sameFileAs", json!(same));
        tell(
            "note",
            format!("the same file came before, as import {same}").into(),
        );
    }
    if let Some(sheets) = taken.sheets {
        tell("sheets", json!(sheets.read));
        tell("skippedSheets", json!(sheets.skipped));
    }
    if !taken.ignored.is_empty() {
        tell("ignoredFields", json!(taken.ignored));
    }
    let answer = json!({
        "success": true,
        "message": "Product import started in background",
        "data": data,
    });
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// An import that is asked for before its file has come.
#[derive(Debug)]
pub(crate) struct Order {
    tenant: Option<String>,
    wish: Wish,
}

/// An import that was made.
#[derive(Debug)]
pub(crate) struct Taken {
    /// Its run.
    pub(crate) id: RunId,
    /// The import that the same file was before.
    pub(crate) same: Option<RunId>,
    /// Which sheets are read, where it was not one that was asked for of several.
    sheets: Option<TakenSheets>,
    /// Fields of the form that are no option; at most 100.
    ignored: Vec<String>,
}

/// The sheets of a workbook of several.
#[derive(Debug)]
struct TakenSheets {
    read: Vec<String>,
    skipped: Vec<SkippedSheet>,
}

impl TakenSheets {
    fn of(inspection: &Inspection) -> Option<Self> {
        let names = inspection.heads().filter_map(|head| head.sheet);
        let skipped = inspection.skipped.iter().chain(&inspection.left_out);
        let is_told = inspection.is_of_several() || !inspection.left_out.is_empty();
        is_told.then(|| Self {
            read: names.map(str::to_owned).collect(),
            skipped: skipped.cloned().collect(),
        })
    }
}

impl Order {
    /// Takes the options of the query string.
    pub(crate) fn new(app: &AppState, caller: &Caller, uri: &Uri) -> Result<Self, Refused> {
        let (tenant, options) = asked(uri)?;
        if tenant.is_some() {
            owner(caller, tenant.clone())?; // before the file comes
        }
        let mut wish = Wish::from(&app.config.product_import);
        ask(&mut wish, &options)?;
        Ok(Self { tenant, wish })
    }

    /// Takes the file, with the options among the form's other fields, and makes the run.
    pub(crate) async fn take(
        mut self,
        app: &AppState,
        caller: &Caller,
        upload: Upload,
    ) -> Result<Taken, Refused> {
        refuse_dropped(&upload.dropped)?;
        let ignored = take_fields(&mut self.wish, &upload.fields)?;
        let tenant = owner(caller, of_form(self.tenant, &upload.fields)?)?;
        let plan = self.wish.plan;
        if self.wish.look.saved_mapping.is_some() {
            let mut conn = app.db.acquire().await?;
            let resolved = saved_map::resolve(&mut conn, &tenant, &mut self.wish).await?;
            resolved.map_err(SubmitError::from)?;
        }
        let (name, file) = (&upload.file_name, upload.file);
        let accepted = submit::accept(&app.blobs, &app.config, file, name, self.wish).await?;
        let origin = Origin {
            tenant: &tenant,
            triggered_by: caller.asks_as(),
        };
        let mut tx = app.db.begin().await?;
        let same = accepted.same_before(&mut tx, &tenant).await?;
        let id = accepted.submit(&mut tx, origin).await?;
        let (object, detail) = (
            format!("run/{id}"),
            json!({ "file_name": name, "mode": plan.mode, "dry_run": plan.dry_run }),
        );
        let (action, detail) = ("import.submit", Some(detail));
        http::record(&mut tx, caller, action, &object, Some(&tenant), detail).await?;
        let sheets = TakenSheets::of(accepted.inspection());
        accepted.keep();
        tx.commit().await?;
        submit::report();
        Ok(Taken {
            id,
            same,
            sheets,
            ignored,
        })
    }
}

/// Whose data an upload becomes: a parameter of the query or a field of the form.
const TENANT: &str = "tenant";

/// Longest name of a tenant, in characters.
const LONGEST_TENANT: usize = 200;

/// Names and values, in their order.
pub(super) type Options = Vec<(String, String)>;

/// Reads a query string: the tenant in it, and what else it asks for.
pub(super) fn asked(uri: &Uri) -> Result<(Option<String>, Options), Refused> {
    let options = Query::<Options>::try_from_uri(uri);
    let Query(options) = options.map_err(|bad| bad_option(bad.body_text()))?;
    let (tenants, options): (Options, Options) =
        options.into_iter().partition(|(name, _)| name == TENANT);
    Ok((one(tenants.into_iter().map(|(_, tenant)| tenant))?, options))
}

/// Refuses a form of which an option was not kept: without it the import would be another one.
pub(super) fn refuse_dropped(names: &[String]) -> Result<(), Refused> {
    let is_option = |name: &&String| *name == TENANT || plan::known(name).is_some();
    match names.iter().find(is_option) {
        None => Ok(()),
        Some(name) => Err(bad_option(format!(
            "{name} is longer than 64 KiB, behind 100 other fields, or no text"
        ))),
    }
}

/// Returns the tenant that query and form name.
pub(super) fn of_form(
    asked: Option<String>,
    fields: &[(String, String)],
) -> Result<Option<String>, Refused> {
    let fields = fields.iter().filter(|(name, _)| name == TENANT);
    let fields = fields.map(|(_, tenant)| tenant.trim().to_owned());
    one(asked.into_iter().chain(fields))
}

fn one(mut tenants: impl Iterator<Item = String>) -> Result<Option<String>, Refused> {
    let first = tenants.next();
    let is_other = |other: String| first.as_ref() != Some(&other);
    if tenants.any(is_other) {
        return Err(bad_option(format!("two values for {TENANT}")));
    }
    Ok(first)
}

/// Returns whose data an upload becomes: the tenant that is asked for, or the only one that the
/// caller has; of a caller of all tenants who asks for none, `default`.
///
/// # Errors
///
/// 422 where the caller has several and names none, 403 where it is none of theirs or they have none.
pub(super) fn owner(caller: &Caller, asked: Option<String>) -> Result<String, Refused> {
    if let Some(asked) = &asked {
        let is_fine = (1..=LONGEST_TENANT).contains(&asked.chars().count());
        if !is_fine || asked == INSTALLATION || asked.contains('\0') {
            return Err(bad_option(format!(
                "{TENANT} is a tenant's name, 1 to {LONGEST_TENANT} characters"
            )));
        }
    }
    let is_named = asked.is_some();
    let owner = caller.tenants.owner(asked).map_err(|mine| {
        if mine.is_empty() {
            return Refused {
                status: StatusCode::FORBIDDEN,
                code: "forbidden",
                message: NO_TENANT.to_owned(),
            };
        }
        let mine = mine.join(", ");
        if is_named {
            return Refused {
                status: StatusCode::FORBIDDEN,
                code: "forbidden",
                message: format!("{TENANT} must be one of yours: {mine}"),
            };
        }
        Refused {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "ambiguous_tenant",
            message: format!("say whose data it is: {TENANT} is one of {mine}"),
        }
    })?;
    Ok(owner.unwrap_or_else(|| DEFAULT_TENANT.to_owned()))
}

/// Takes the options of a query string; one that is none is refused, since a dry run with a
/// misspelt name would write.
fn ask(wish: &mut Wish, options: &[(String, String)]) -> Result<(), Refused> {
    for (name, value) in options {
        if !wish.set(name, value)? {
            let known = NAMES.join(", ");
            return Err(bad_option(format!(
                "there is no option {name}; there are {TENANT}, {known}"
            )));
        }
    }
    Ok(())
}

/// Takes the options among the fields of a form, and returns the names of the others: forms have
/// fields of their own. One that is nearly an option is refused.
fn take_fields(wish: &mut Wish, fields: &[(String, String)]) -> Result<Vec<String>, Refused> {
    let mut ignored = Vec::new();
    for (name, value) in fields {
        if name == TENANT || wish.set(name, value)? {
            continue;
        }
        if let Some(meant) = plan::nearly(name) {
            return Err(bad_option(format!(
                "there is no option {name}; is {meant} meant?"
            )));
        }
        ignored.push(name.clone());
    }
    Ok(ignored)
}

pub(super) fn bad_option(message: String) -> Refused {
    Refused {
        status: StatusCode::BAD_REQUEST,
        code: "bad_option",
        message,
    }
}

impl From<BadOption> for Refused {
    fn from(bad: BadOption) -> Self {
        bad_option(bad.to_string())
    }
}

/// `GET /import/status/{jobId}`: how far an import is.
pub(crate) async fn status(
    State(app): State<Arc<AppState>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Refused> {
    let mut conn = app.db.acquire().await?;
    let run = import_run(&mut conn, &id).await?;
    let data = status::read(&mut conn, &run).await?;
    Ok(Json(shown(&data)))
}

/// `GET /import/{id}/events`: the same, as it changes.
pub(crate) async fn events(
    State(app): State<Arc<AppState>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> axum::response::Result<Response> {
    let run = {
        let mut conn = app.db.acquire().await.map_err(Refused::from)?;
        import_run(&mut conn, &id).await?
    };
    let db = app.db.clone();
    let view: http::View = Box::new(move |run| {
        let db = db.clone();
        Box::pin(async move {
            let data = if status::has_more(run.state) {
                status::read(&mut *db.acquire().await?, &run).await?
            } else {
                status::of(&run)
            };
            Ok(shown(&data).to_string())
        })
    });
    Ok(app.follow(run, &headers, view).await?)
}

fn shown(data: &status::Shown) -> Value {
    json!({ "success": true, "data": data })
}

/// Finds the run of an import.
async fn import_run(conn: &mut PgConnection, id: &str) -> Result<Run, Refused> {
    let unknown = || Refused {
        status: StatusCode::NOT_FOUND,
        code: "not_found",
        message: "there is no import of this id".to_owned(),
    };
    let id = RunId(id.parse().map_err(|_| unknown())?);
    let run = runs::get(conn, id).await?;
    run.filter(|run| run.system == SYSTEM).ok_or_else(unknown)
}

/// Why there is no import, in the document's form.
#[derive(Debug)]
pub(crate) struct Refused {
    status: StatusCode,
    /// A stable word for programs.
    code: &'static str,
    /// A sentence for people.
    message: String,
}

impl Refused {
    /// Returns its status and what it says to people.
    pub(crate) fn told(self) -> (StatusCode, String) {
        (self.status, self.message)
    }

    fn no_room() -> Self {
        Self {
            status: StatusCode::INSUFFICIENT_STORAGE,
            code: Refusal::STORAGE_FULL,
            message: "there is no room for the file".to_owned(),
        }
    }

    /// Something of ours is wrong; the log has it, the answer does not.
    fn internal(error: &dyn std::fmt::Display) -> Self {
        tracing::error!(error = %error, "an import could not be taken");
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "internal",
            message: "something is wrong inside; the log has it".to_owned(),
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self {
            status,
            code,
            message,
        } = self;
        let body = json!({ "success": false, "message": message, "error": { "code": code } });
        (status, Json(body)).into_response()
    }
}

impl From<UploadError> for Refused {
    fn from(error: UploadError) -> Self {
        let (status, code) = match error {
            UploadError::NotMultipart => (StatusCode::BAD_REQUEST, "not_multipart"),
            UploadError::NoFile(_) => (StatusCode::BAD_REQUEST, "no_file"),
            UploadError::SeveralFiles(_) => (StatusCode::BAD_REQUEST, "several_files"),
            UploadError::TooLarge { .. } => (StatusCode::BAD_REQUEST, Refusal::FILE_TOO_LARGE),
            UploadError::Broken(_) => (StatusCode::BAD_REQUEST, "broken_upload"),
            UploadError::Stalled => (StatusCode::REQUEST_TIMEOUT, "too_slow"),
            UploadError::Storage(error) => return error.into(),
        };
        Self {
            status,
            code,
            message: error.to_string(),
        }
    }
}

impl From<SubmitError> for Refused {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Refused(refusal) if refusal.code == Refusal::STORAGE_FULL => {
                tracing::error!(%refusal, "an import could not be taken");
                Self::no_room()
            }
            SubmitError::Refused(refusal) if refusal.is_transient() => Self::internal(&refusal),
            SubmitError::Refused(Refusal { code, message }) => Self {
                status: StatusCode::BAD_REQUEST,
                code,
                message,
            },
            SubmitError::SameFile(_) => Self {
                status: StatusCode::CONFLICT,
                code: "duplicate_file",
                message: error.to_string(),
            },
            SubmitError::Storage(error) => error.into(),
            SubmitError::Database(error) => error.into(),
        }
    }
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        let refused = Self::internal(&error);
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::no_room(),
            _ => refused,
        }
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        if http::is_repeated(&error) {
            return Self {
                status: StatusCode::CONFLICT,
                code: "conflict",
                message: "another request with this Idempotency-Key came first".to_owned(),
            };
        }
        if let Some(taken) = KeyTaken::from(&error) {
            return Self {
                status: StatusCode::CONFLICT,
                code: "conflict",
                message: taken.to_string(),
            };
        }
        let refused = Self::internal(&error);
        if db::is_transient(&error) || matches!(error, sqlx::Error::PoolClosed) {
            return Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                code: "unavailable",
                message: "the database cannot be reached now; try again".to_owned(),
            };
        }
        refused
    }
}
