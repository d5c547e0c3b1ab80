//! Schedules: when they are due next, and a job of one now.

use std::sync::Arc;

use askama::Template;
use axum::{Extension, extract::State, response::Response};
use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::{
    super::{
        AppState, ByName, Caller, Page, Path, Problem, Query, Reach, TextCursor,
        api::schedule::act::{self as api, Force},
        reach,
    },
    Redirect,
    form::Form,
    frame::Frame,
    ok,
    run::unknown,
    see,
    show::At,
};
use crate::queue::{
    Timetable,
    schedule::explain::{self, ScheduleRow, due_times},
};

/// As many of its next ticks are told.
const N_NEXT: usize = 3;

/// A schedule as the page shows it.
#[derive(Debug)]
struct Shown {
    name: String,
    description: String,
    cron: String,
    timezone: String,
    kind: String,
    tenant: Option<String>,
    origin: String,
    is_paused: bool,
    next: Vec<String>,
    last_at: Option<At>,
    error: Option<String>,
}

impl Shown {
    fn of(row: ScheduleRow, now: DateTime<Utc>) -> Self {
        let definition = &row.definition;
        let next = match Timetable::parse(&definition.cron, &definition.timezone) {
            Ok(timetable) if !row.is_paused() => due_times(&timetable, &row, now, N_NEXT),
            _ => Vec::new(),
        };
        Self {
            description: row.describe(),
            next: next.into_iter().map(|time| time.local).collect(),
            is_paused: row.is_paused(),
            last_at: row.last_at.map(At),
            origin: row.origin.replace('_', " "),
            name: row.name,
            cron: row.definition.cron,
            timezone: row.definition.timezone,
            kind: row.definition.kind,
            tenant: row.definition.tenant,
            error: row.last_error,
        }
    }
}

#[derive(Template)]
#[template(path = "schedules.html")]
struct ListPage {
    frame: Frame,
    schedules: Vec<Shown>,
    next: Option<String>,
}

/// `GET /schedules`.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Query(ask): Query<ByName>,
) -> Result<Response, Problem> {
    let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(&app.db)
        .await?;
    let (tenants, n_read) = (caller.tenants.list(), ask.limit.n_read());
    let rows = explain::page(&app.db, tenants, ask.after(), n_read).await?;
    let page = Page::by(rows, ask.limit, |row| TextCursor(row.name.clone()));
    let (rows, next) = page.into_parts();
    ok(&ListPage {
        frame: Frame::of(&caller, "/schedules"),
        next: next.map(|cursor| format!("/schedules?cursor={cursor}")),
        schedules: rows.into_iter().map(|row| Shown::of(row, now)).collect(),
    })
}

/// What is to be done to which schedule.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Wish {
    name: String,
    act: String,
}

/// `POST /schedules`.
pub(in crate::http) async fn act(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Form(Wish { name, act }): Form<Wish>,
) -> Result<Redirect, Problem> {
    reach::check(&app, &caller, Reach::Schedule, Some(&name)).await?;
    let (app, caller, name) = (State(app), Extension(caller), Path(name));
    match act.as_str() {
        "run" => drop(api::run(app, caller, name, Query(Force::default())).await?),
        "pause" => drop(api::pause(app, caller, name).await?),
        "resume" => drop(api::resume(app, caller, name).await?),
        _ => return Err(unknown(&act)),
    }
    Ok(see("/schedules"))
}
