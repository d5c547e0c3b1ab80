//! Runs: list, one as it goes on, and what can be done to it.

use std::sync::Arc;

use askama::Template;
use axum::{Extension, extract::State, response::Response};
use serde::Deserialize;
use serde_json::Value;

use super::{
    super::{
        AppState, Caller, Cursor, Limit, Page, Path, Problem, Query, Trouble, api::run as api,
    },
    Redirect,
    form::Form,
    frame::Frame,
    ok, see,
    show::{At, Count, older},
};
use crate::{
    ingest::product_import,
    runs::{self, Run, RunId, RunState},
};

/// A run as pages show it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) id: RunId,
    pub(super) system: String,
    pub(super) state: &'static str,
    at: RunState,
    pub(super) stage: String,
    done: i64,
    total: Option<i64>,
    pub(super) ok: Count,
    pub(super) failed: Count,
    pub(super) skipped: Count,
    pub(super) tenant: String,
    pub(super) triggered_by: String,
    pub(super) created_at: At,
    pub(super) started_at: Option<At>,
    pub(super) finished_at: Option<At>,
    pub(super) error: Option<String>,
    /// Where its progress comes in; while it goes on.
    pub(super) events: Option<String>,
    pub(super) is_import: bool,
    /// Whether another run takes back, or has taken back, what it did.
    is_undone: bool,
    /// What of it is JSON, and so shown as it is.
    pub(super) json: Vec<(&'static str, String)>,
}

/// Something to do to a run: the form's word, and what it says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act {
    pub(super) word: &'static str,
    pub(super) text: &'static str,
}

impl Shown {
    /// Shows a run as `caller` may see it.
    pub(super) fn of(run: Run, caller: &Caller) -> Result<Self, Problem> {
        let seen = caller.seen(&run)?;
        let json = ["params", "details"].into_iter().filter_map(|member| {
            let value = seen.get(member)?;
            let is_empty =
                value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
            (!is_empty).then(|| (member, format!("{value:#}")))
        });
        Ok(Self {
            json: json.collect(),
            is_import: product_import::is_import(&run),
            is_undone: run.undone_by().is_some(),
            events: (!run.state.is_final()).then(|| format!("/api/v1/runs/{}/events", run.id)),
            id: run.id,
            state: run.state.as_str(),
            at: run.state,
            done: run.items_done(),
            total: run.items_total,
            ok: Count(run.items_ok),
            failed: Count(run.items_failed),
            skipped: Count(run.items_skipped),
            created_at: At(run.created_at),
            started_at: run.started_at.map(At),
            finished_at: run.finished_at.map(At),
            stage: run.stage.unwrap_or_default(),
            system: run.system,
            tenant: run.tenant,
            triggered_by: run.triggered_by,
            error: run.error,
        })
    }

    pub(super) const fn is_going(&self) -> bool {
        !self.at.is_final()
    }

    /// Returns how long the bar is: never shorter than what is done.
    pub(super) fn max(&self) -> i64 {
        let total = match self.at {
            RunState::Completed => self.done,
            _ => self.total.unwrap_or(0).max(self.done),
        };
        total.max(1)
    }

    /// Returns how much of the bar is full; `None` where that cannot be told.
    pub(super) fn value(&self) -> Option<i64> {
        match self.at {
            RunState::Completed => Some(self.max()),
            _ if self.is_going() && self.total.is_none() => None,
            _ => Some(self.done),
        }
    }

    pub(super) fn text(&self) -> String {
        let (done, is_completed) = (Count(self.done), self.at == RunState::Completed);
        if self.total.is_none() && !is_completed {
            return done.to_string();
        }
        // The script writes the same.
        let total = if is_completed { self.done } else { self.max() };
        let percent = (self.done * 100 / self.max()).min(99);
        let percent = if is_completed { 100 } else { percent };
        format!("{done} of {} ({percent} %)", Count(total))
    }

    pub(super) fn done_text(&self) -> Count {
        Count(self.done)
    }

    pub(super) fn total_text(&self) -> String {
        self.total
            .map(|total| Count(total).to_string())
            .unwrap_or_default()
    }

    /// Returns what can be done to it now.
    pub(super) fn acts(&self) -> &'static [Act] {
        const PAUSE: Act = Act {
            word: "pause",
            text: "Pause",
        };
        const RESUME: Act = Act {
            word: "resume",
            text: "Go on",
        };
        const CANCEL: Act = Act {
            word: "cancel",
            text: "Cancel",
        };
        const RESET: Act = Act {
            word: "reset",
            text: "Go on from where it stopped",
        };
        match self.at {
            RunState::Pending | RunState::Running => &[PAUSE, CANCEL],
            RunState::Paused => &[RESUME, CANCEL],
            RunState::Failed | RunState::Cancelled if !self.is_undone => &[RESET],
            RunState::Failed | RunState::Cancelled | RunState::Completed => &[],
        }
    }
}

#[derive(Template)]
#[template(path = "runs.html")]
struct ListPage {
    frame: Frame,
    runs: Vec<Shown>,
    next: Option<String>,
}

/// Which part of a list.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Params {
    pub(super) cursor: Option<Cursor>,
}

/// `GET /runs`: the newest first.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(params): Query<Params>,
) -> Result<Response, Problem> {
    let before = params.cursor.map(|Cursor(id)| RunId(id));
    let limit = Limit::default();
    let tenants = caller.tenants.list();
    let rows = runs::list_of(&app.db, None, tenants, before, limit.n_read()).await?;
    let (rows, next) = Page::new(rows, limit, |run| run.id.0).into_parts();
    let shown: Result<Vec<Shown>, Problem> = rows
        .into_iter()
        .map(|run| Shown::of(run, &caller))
        .collect();
    ok(&ListPage {
        frame: Frame::of(&caller, "/runs"),
        runs: shown?,
        next: older("/runs", next),
    })
}

#[derive(Template)]
#[template(path = "run.html")]
struct RunPage {
    frame: Frame,
    run: Shown,
}

/// `GET /runs/{id}`.
pub(in crate::http) async fn show(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    let run = runs::get(&app.db, RunId(id)).await?;
    let run = run.ok_or_else(|| api::no_run(id))?;
    ok(&RunPage {
        frame: Frame::of(&caller, "/runs"),
        run: Shown::of(run, &caller)?,
    })
}

/// What a button says.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Wish {
    pub(super) act: String,
}

/// `POST /runs/{id}`.
pub(in crate::http) async fn act(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i64>,
    Form(Wish { act }): Form<Wish>,
) -> Result<Redirect, Problem> {
    change(app, caller, id, &act).await?;
    Ok(see(format!("/runs/{id}")))
}

/// Does to a run what `/api/v1/runs/{id}/ACT` does.
pub(super) async fn change(
    app: Arc<AppState>,
    caller: Caller,
    id: i64,
    act: &str,
) -> Result<(), Problem> {
    let (app, caller, id) = (State(app), Extension(caller), Path(id));
    match act {
        "pause" => drop(api::pause(app, caller, id).await?),
        "resume" => drop(api::resume(app, caller, id).await?),
        "cancel" => drop(api::cancel(app, caller, id).await?),
        "reset" => drop(api::reset(app, caller, id).await?),
        _ => return Err(unknown(act)),
    }
    Ok(())
}

/// A button that no page has.
pub(super) fn unknown(act: &str) -> Problem {
    Problem::new(Trouble::Invalid).detail(format!("there is no act {act:?} here"))
}

/// Returns the members of an object as a line: `name: Hammer, price: 2`.
pub(super) fn in_words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "nothing".to_owned(),
        Value::Object(members) => {
            let members = members.iter();
            let members = members.map(|(name, value)| format!("{name}: {}", in_words(value)));
            members.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}
