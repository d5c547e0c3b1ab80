//! Saved mappings of headers: list, save, remove.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{
    row::header_map::HeaderMap,
    saved_map::{self, SavedMap},
};
use crate::{
    access::DEFAULT_TENANT,
    http::{self, AppState, Caller, Cursor, Limit, Page, Path, Problem, Query, Trouble},
};

/// Which mappings are listed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ask {
    tenant: Option<String>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<Cursor>,
}

/// `GET /mappings`: the newest first.
pub(crate) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(ask): Query<Ask>,
) -> Result<Json<Page<SavedMap>>, Problem> {
    let before = ask.cursor.map(|Cursor(id)| id);
    let theirs = ask.tenant.map(|asked| {
        let may = caller.tenants.has(Some(&asked));
        Vec::from_iter(may.then_some(asked))
    });
    let tenants = theirs.as_deref().or(caller.tenants.list());
    let mut conn = app.db.acquire().await?;
    let rows = saved_map::list(&mut conn, tenants, before, ask.limit.n_read()).await?;
    Ok(Json(Page::new(rows, ask.limit, |row| row.id)))
}

/// Whose a mapping is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Whose {
    tenant: Option<String>,
}

/// `GET /mappings/{name}`.
pub(crate) async fn show(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(whose): Query<Whose>,
) -> Result<Json<SavedMap>, Problem> {
    let tenant = owner(&caller, whose.tenant)?;
    let mut conn = app.db.acquire().await?;
    let found = saved_map::find(&mut conn, &tenant, &name).await?;
    found.map(Json).ok_or_else(|| unknown(&name))
}

/// The mapping to be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Body {
    headers: BTreeMap<String, String>,
}

/// `PUT /mappings/{name}`: 201 where it is new, 200 where it takes the place of another.
pub(crate) async fn save(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(whose): Query<Whose>,
    http::Json(body): http::Json<Body>,
) -> Result<(StatusCode, Json<SavedMap>), Problem> {
    let tenant = owner(&caller, whose.tenant)?;
    let invalid = || Problem::new(Trouble::Invalid);
    saved_map::check_name(&name).map_err(|rule| invalid().at("/name", rule))?;
    let checked = HeaderMap::saved(body.headers.clone());
    checked.map_err(|why| invalid().at("/headers", why))?;
    let mut tx = app.db.begin().await?;
    let Some((saved, is_new)) = saved_map::save(&mut tx, &tenant, &name, &body.headers).await?
    else {
        let text = format!("a tenant has at most {} saved mappings", saved_map::MOST);
        return Err(Problem::new(Trouble::Conflict).detail(text));
    };
    let detail = Some(json!({ "headers": saved.headers }));
    let object = format!("mapping/{name}");
    http::record(
        &mut tx,
        &caller,
        "mapping.save",
        &object,
        Some(&tenant),
        detail,
    )
    .await?;
    tx.commit().await?;
    let status = if is_new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(saved)))
}

/// `DELETE /mappings/{name}`.
pub(crate) async fn remove(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    Query(whose): Query<Whose>,
) -> Result<Json<Value>, Problem> {
    let tenant = owner(&caller, whose.tenant)?;
    let mut tx = app.db.begin().await?;
    if !saved_map::remove(&mut tx, &tenant, &name).await? {
        return Err(unknown(&name));
    }
    let object = format!("mapping/{name}");
    http::record(
        &mut tx,
        &caller,
        "mapping.remove",
        &object,
        Some(&tenant),
        None,
    )
    .await?;
    tx.commit().await?;
    Ok(Json(json!({ "name": name, "removed": true })))
}

fn owner(caller: &Caller, asked: Option<String>) -> Result<String, Problem> {
    let owner = caller.owner(asked)?;
    Ok(owner.unwrap_or_else(|| DEFAULT_TENANT.to_owned()))
}

fn unknown(name: &str) -> Problem {
    Problem::new(Trouble::NotFound).detail(format!("no saved mapping {name:?}"))
}
