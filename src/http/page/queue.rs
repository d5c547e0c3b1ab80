//! The overview, and the queues.

use std::sync::Arc;

use askama::Template;
use axum::{Extension, extract::State, response::Response};
use serde::Deserialize;

use super::{
    super::{AppState, Caller, Path, Problem, api::queue as api},
    Redirect,
    form::Form,
    frame::Frame,
    import, ok,
    run::unknown,
    see,
    show::{Capped, Count, Lasting},
};
use crate::{
    access::Tenants,
    observe::{QueueDepth, gauge},
    queue::stats::{self, KindStats, StatsFilter},
};

/// As many imports stand on the overview.
const N_IMPORTS: i64 = 8;

/// A queue as pages show it.
#[derive(Debug)]
struct Shown {
    name: String,
    is_paused: bool,
    queued: Capped,
    scheduled: Capped,
    retrying: Capped,
    later: Capped,
    held: Capped,
    running: Count,
    dead: Capped,
    oldest_ready: Lasting,
    oldest_running: Lasting,
    max_running: String,
}

impl From<QueueDepth> for Shown {
    fn from(depth: QueueDepth) -> Self {
        let max_running = depth.max_running.map(|n| n.to_string());
        Self {
            is_paused: depth.paused,
            queued: Capped(depth.queued),
            scheduled: Capped(depth.scheduled),
            retrying: Capped(depth.retrying),
            later: Capped(depth.scheduled + depth.retrying + depth.held),
            held: Capped(depth.held),
            running: Count(depth.running),
            dead: Capped(depth.dead),
            oldest_ready: Lasting(depth.oldest_ready_age_seconds),
            oldest_running: Lasting(depth.oldest_running_age_seconds),
            max_running: max_running.unwrap_or_else(|| "any".to_owned()),
            name: depth.queue,
        }
    }
}

async fn queues(app: &AppState) -> Result<Vec<Shown>, Problem> {
    let depths = gauge::queues(&app.db).await?;
    Ok(depths.into_iter().map(Shown::from).collect())
}

/// What ended of a kind.
#[derive(Debug)]
struct Ended {
    queue: String,
    kind: String,
    completed: Count,
    retried: Count,
    dead: Count,
    wait: Lasting,
}

impl From<KindStats> for Ended {
    fn from(stats: KindStats) -> Self {
        let figures = stats.figures;
        Self {
            queue: stats.queue,
            kind: stats.kind,
            completed: Count(figures.success),
            retried: Count(figures.retry),
            dead: Count(figures.dead),
            wait: Lasting(Some(figures.mean_wait_seconds)),
        }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    /// `None` for callers that are bound to tenants: queues have none.
    queues: Option<Vec<Shown>>,
    kinds: Vec<Ended>,
    imports: Vec<import::Shown>,
}

/// `GET /`.
pub(in crate::http) async fn overview(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    let (queues, kinds) = if caller.tenants == Tenants::All {
        let hour = StatsFilter {
            queue: None,
            kind: None,
            minutes: 60,
        };
        (
            Some(queues(&app).await?),
            stats::by_kind(&app.db, hour).await?,
        )
    } else {
        (None, Vec::new())
    };
    let imports = import::newest(&app, &caller, None, N_IMPORTS).await?;
    ok(&Overview {
        frame: Frame::of(&caller, "/"),
        queues,
        kinds: kinds.into_iter().map(Ended::from).collect(),
        imports: imports.into_iter().map(import::Shown::from).collect(),
    })
}

#[derive(Template)]
#[template(path = "queues.html")]
struct ListPage {
    frame: Frame,
    queues: Vec<Shown>,
}

/// `GET /queues`.
pub(in crate::http) async fn list(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, Problem> {
    ok(&ListPage {
        frame: Frame::of(&caller, "/queues"),
        queues: queues(&app).await?,
    })
}

/// What is to be done to which queue.
#[derive(Debug, Deserialize)]
pub(in crate::http) struct Wish {
    queue: String,
    act: String,
}

/// `POST /queues`.
pub(in crate::http) async fn act(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    Form(Wish { queue, act }): Form<Wish>,
) -> Result<Redirect, Problem> {
    let (app, caller, queue) = (State(app), Extension(caller), Path(queue));
    match act.as_str() {
        "pause" => drop(api::pause(app, caller, queue).await?),
        "resume" => drop(api::resume(app, caller, queue).await?),
        _ => return Err(unknown(&act)),
    }
    Ok(see("/queues"))
}
