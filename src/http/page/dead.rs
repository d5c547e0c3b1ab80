//! Dead letters: groups of what failed alike, the letters of one group with what replaying all of
//! them comes to, replaying either.

use std::sync::Arc;

use askama::Template;
use axum::{Extension, extract::State, response::Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{
        AppState, Caller, Cursor, Json, Limit, Page, Path, Problem, Query, Trouble,
        api::{bulk, job, schedule::change::in_path},
    },
    Redirect,
    form::Form,
    frame::Frame,
    ok, see,
    show::{At, Capped, Count, older},
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

impl Group {
    /// Where its letters are shown, before anything is done to them.
    fn letters(&self) -> String {
        path_of(Some(&self.kind), self.fingerprint)
    }
}

fn path_of(kind: Option<&str>, fingerprint: Fingerprint) -> String {
    let kind = kind.map(|kind| format!("&kind={}", in_path(kind)));
    format!(
        "/dead?fingerprint={fingerprint}{}",
        kind.unwrap_or_default()
    )
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
    /// What replaying the group would come to; `None` where nothing would be, or who asks may not.
    retry: Option<Retry>,
    letters: Vec<Letter>,
    next: Option<String>,
}

/// What is shown before a group is replayed.
#[derive(Debug)]
struct Retry {
    n_letters: String,
    kind: String,
    fingerprint: Fingerprint,
}

/// Which letters; without a fingerprint, groups of them.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Params {
    kind: Option<String>,
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
            retry: None,
            letters: Vec::new(),
            next: None,
        });
    }
    let retry = match (&params.kind, params.fingerprint) {
        (Some(kind), Some(fingerprint)) if frame.may_act() => {
            let wish = Wish {
                kind: kind.clone(),
                fingerprint,
            };
            rehearse(&app, &caller, wish).await?
        }
        _ => None,
    };
    let filter = DeadFilter {
        kind: params.kind.clone(),
        fingerprint: params.fingerprint,
        ..DeadFilter::default()
    };
    let before = params.cursor.map(|Cursor(id)| JobId(id));
    let tenants = caller.tenants.list();
    let rows = dead::list_of(&app.db, &filter, tenants, before, limit.n_read()).await?;
    let (rows, next) = Page::new(rows, limit, |letter| letter.id.0).into_parts();
    let path = params.fingerprint.map_or_else(
        || "/dead".to_owned(),
        |fingerprint| path_of(params.kind.as_deref(), fingerprint),
    );
    ok(&Dead {
        frame,
        groups: None,
        is_group: params.fingerprint.is_some(),
        retry,
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

impl Wish {
    fn order(&self, dry_run: bool) -> Result<bulk::Body, Problem> {
        let order = json!({ "action": "replay", "dry_run": dry_run,
            "filter": { "kind": self.kind, "fingerprint": self.fingerprint } });
        serde_json::from_value(order).map_err(|error| {
            tracing::error!(%error, "a bulk order of ours cannot be read");
            Problem::new(Trouble::Internal)
        })
    }
}

/// Counts what replaying a group comes to now. `None` where that is nothing, or where it is not
/// for one order: who is bound to several tenants replays letter by letter.
async fn rehearse(
    app: &Arc<AppState>,
    caller: &Caller,
    wish: Wish,
) -> Result<Option<Retry>, Problem> {
    let (app, caller) = (State(Arc::clone(app)), Extension(caller.clone()));
    let found = match bulk::submit(app, caller, Json(wish.order(true)?)).await {
        Ok((_, _, found)) => found,
        Err(problem) if problem.trouble() == Trouble::Invalid => return Ok(None),
        Err(problem) => return Err(problem),
    };
    let n_found = found.get("n_found").and_then(Value::as_i64).unwrap_or(0);
    let is_all = found.get("is_all").and_then(Value::as_bool) == Some(true);
    let more = if is_all { "" } else { "+" };
    Ok((n_found > 0).then(|| Retry {
        n_letters: format!("{}{more}", Count(n_found)),
        kind: wish.kind,
        fingerprint: wish.fingerprint,
    }))
}

/// `POST /dead`: leads to the run that replays them.
pub(in crate::http) async fn retry_group(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Form(wish): Form<Wish>,
) -> Result<Redirect, Problem> {
    let order = wish.order(false)?;
    let (_, _, run) = bulk::submit(State(app), Extension(caller), Json(order)).await?;
    let id = run.get("id").and_then(Value::as_i64);
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
