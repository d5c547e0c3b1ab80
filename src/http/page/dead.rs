//! Dead letters: groups of what failed alike, the letters of one group, replaying either.

use std::sync::Arc;

use askama::Template;
use axum::{Extension, extract::State, response::Response};
use serde::Deserialize;
use serde_json::json;

use super::{
    super::{
        AppState, Caller, Cursor, Json, Limit, Page, Path, Problem, Query, Trouble,
        api::{bulk, job},
    },
    Redirect,
    form::Form,
    frame::Frame,
    ok, see,
    show::{At, Capped, older},
};
use crate::{
    access::Tenants,
    queue::{
        JobId,
        dead::{self, DeadGroup, DeadLetter},
        filter::{DeadFilter, Fingerprint},
    },
};

/// A group as the page shows it.
#[derive(Debug)]
struct Group {
    n_letters: Capped,
    kind: String,
    fingerprint: Fingerprint,
    error: String,
    first: At,
    last: At,
}

impl From<DeadGroup> for Group {
    fn from(group: DeadGroup) -> Self {
        Self {
            n_letters: Capped(group.n_letters),
            kind: group.kind,
            fingerprint: group.fingerprint,
            error: group.example_error,
            first: At(group.first_died_at),
            last: At(group.last_died_at),
        }
    }
}

/// A letter as the page shows it.
#[derive(Debug)]
struct Letter {
    id: JobId,
    kind: String,
    queue: String,
    reason: String,
    attempts: i16,
    error: String,
    tenant: String,
    died_at: At,
}

impl From<DeadLetter> for Letter {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            kind: letter.kind,
            queue: letter.queue,
            reason: letter.reason,
            attempts: letter.attempt,
            error: letter.error,
            tenant: letter.tenant.unwrap_or_default(),
            died_at: At(letter.died_at),
        }
    }
}

#[derive(Template)]
#[template(path = "dead.html")]
struct Dead {
    frame: Frame,
    /// `None` where letters are shown.
    groups: Option<Vec<Group>>,
    is_group: bool,
    letters: Vec<Letter>,
    next: Option<String>,
}

/// Which letters; without a fingerprint, groups of them.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Params {
    fingerprint: Option<Fingerprint>,
    cursor: Option<Cursor>,
}

/// `GET /dead`. Groups count the letters of all tenants, so who is bound to some sees letters only.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    let limit = Limit::default();
    let frame = Frame::of(&caller, "/dead");
    if params.fingerprint.is_none() && caller.tenants == Tenants::All {
        let groups = dead::groups(&app.db, None, limit.n_items()).await?;
        return ok(&Dead {
            frame,
            groups: Some(groups.into_iter().map(Group::from).collect()),
            is_group: false,
            letters: Vec::new(),
            next: None,
        });
    }
    let filter = DeadFilter {
        fingerprint: params.fingerprint,
        ..DeadFilter::default()
    };
    let before = params.cursor.map(|Cursor(id)| JobId(id));
    let tenants = caller.tenants.list();
    let rows = dead::list_of(&app.db, &filter, tenants, before, limit.n_read()).await?;
    let (rows, next) = Page::new(rows, limit, |letter| letter.id.0).into_parts();
    let path = params.fingerprint.map_or_else(
        || "/dead".to_owned(),
        |fingerprint| format!("/dead?fingerprint={fingerprint}"),
    );
    ok(&Dead {
        frame,
        groups: None,
        is_group: params.fingerprint.is_some(),
        letters: rows.into_iter().map(Letter::from).collect(),
        next: older(&path, next),
    })
}

/// Which group is to be replayed.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Wish {
    kind: String,
    fingerprint: Fingerprint,
}

/// `POST /dead`: leads to the run that replays them.
pub(in crate::http) async fn retry_group(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Form(Wish { kind, fingerprint }): Form<Wish>,
) -> Result<Redirect, Problem> {
    let order = json!({ "action": "replay",
                        "filter": { "kind": kind, "fingerprint": fingerprint } });
    let order = serde_json::from_value(order).map_err(|error| {
        tracing::error!(%error, "a bulk order of ours cannot be read");
        Problem::new(Trouble::Internal)
    })?;
    let (_, _, run) = bulk::submit(State(app), Extension(caller), Json(order)).await?;
    let id = run.get("id").and_then(serde_json::Value::as_i64);
    Ok(see(id.map_or_else(
        || "/runs".to_owned(),
        |id| format!("/runs/{id}"),
    )))
}

/// `POST /dead/{id}`.
pub(in crate::http) async fn retry(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Redirect, Problem> {
    drop(job::retry(State(app), Extension(caller), Path(id), None).await?);
    Ok(see("/dead"))
}
