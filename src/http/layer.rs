//! What happens around every handler, in this order: id, span, admission, whose object it is,
//! whether it was answered before, time limit, panics;
//! and on the way out: problems, headers, the event.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::Next,
    response::Response,
};
use futures::FutureExt as _;
use tracing::Instrument as _;

use super::{
    AppState, Caller, Problem,
    admit::admit,
    once::{self, Begun},
    origin, page, reach,
    route::{self, Access, Payload, Reach, Route},
    trouble::Trouble,
};
use crate::{
    access::{
        Role,
        limit::{self, Budget},
    },
    observe::HttpServed,
};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// When the request must be answered; none for uploads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) Instant);

/// Answers a request through its handler.
pub(super) async fn around(
    State(app): State<Arc<AppState>>,
    matched: Option<MatchedPath>,
    params: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let template = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!("http", request_id, %method, route = template);
    let found = route::find(&method, template);
    let voice = Voice::of(found, &request);
    let origins = &app.config.auth.allowed_origins;
    let origin = origin::allowed(request.headers(), origins).cloned();
    let asked = Asked {
        // What is not there is nobody's business but a caller's.
        access: found.map_or(UNKNOWN, |route| route.access),
        payload: found.map_or(Payload::Small, |route| route.payload),
        id: params.ok().and_then(|params| {
            let first = params.iter().next()?;
            Some(first.1.to_owned())
        }),
    };
    let mut budget = None;
    let answered = if let Some(response) = origin::preflight(&method, request.headers(), origins) {
        Ok(response)
    } else {
        let answer = through(&app, request, &request_id, asked, &mut budget, next, began);
        answer.instrument(span.clone()).await
    };
    span.in_scope(|| {
        let mut response = finish(answered, &request_id, &voice);
        tell_budget(response.headers_mut(), budget);
        origin::share(response.headers_mut(), origin.as_ref(), origins);
        let (status, duration) = (response.status().as_u16(), began.elapsed());
        HttpServed {
            method: method.as_str(),
            route: template,
            status,
            duration,
        }
        .emit();
        response
    })
}

/// In what form it is told what went wrong.
#[derive(Debug)]
enum Voice {
    Problem,
    /// As the systems' documents do.
    Document,
    /// As a page; with what was asked for, to come back to.
    Page(String),
}

impl Voice {
    fn of(found: Option<&Route>, request: &Request) -> Self {
        let is_page = match found {
            Some(route) if route.is_document() => return Self::Document,
            Some(route) => route.is_page(),
            // A mistyped path has no table to say so.
            None => page::is_wanted(request.headers()),
        };
        if !is_page {
            return Self::Problem;
        }
        let asked = request.uri().path_and_query();
        Self::Page(asked.map_or_else(|| "/".to_owned(), ToString::to_string))
    }

    fn tell(&self, problem: Problem, request_id: &str) -> Response {
        match self {
            Self::Problem => problem.render(request_id),
            Self::Document => problem.render_as_document(request_id),
            Self::Page(asked) => page::told(problem, asked, request_id),
        }
    }
}

/// What is needed of who asks for a path that no route has.
const UNKNOWN: Access = Access::Role(Role::Viewer, Reach::Filtered);

/// What a request asks for, by the table.
struct Asked {
    access: Access,
    payload: Payload,
    /// The first parameter of the path.
    id: Option<String>,
}

/// Lets a request in, sees whether it was answered before, and passes it on.
async fn through(
    app: &AppState,
    request: Request,
    request_id: &str,
    asked: Asked,
    budget: &mut Option<Budget>,
    next: Next,
    began: Instant,
) -> Result<Response, Problem> {
    let deadline = match asked.payload {
        Payload::Upload => None,
        _ => Some(Deadline(began + app.config.http.request_timeout)),
    };
    let (parts, body) = request.into_parts();
    let mut caller = admit(app, asked.access, &parts, request_id, budget).await?;
    let request = Request::from_parts(parts, body);
    let Access::Role(_, reach) = asked.access else {
        return run(request, caller, next, deadline).await;
    };
    reach::check(app, &caller, reach, asked.id.as_deref()).await?;
    match once::begin(app, &caller.actor, asked.payload, deadline, request).await? {
        Begun::Plain(request) => run(request, caller, next, deadline).await,
        Begun::Known(response) => Ok(response),
        Begun::New(request, once) => {
            caller.once = Some(Arc::clone(&once));
            let response = run(request, caller, next, deadline).await?;
            Ok(once.keep(&app.db, response).await)
        }
    }
}

async fn run(
    mut request: Request,
    caller: Caller,
    next: Next,
    deadline: Option<Deadline>,
) -> Result<Response, Problem> {
    request.extensions_mut().insert(caller);
    answer(request, next, deadline).await
}

/// Tells what is left of the caller's minute (draft-ietf-httpapi-ratelimit-headers).
fn tell_budget(headers: &mut HeaderMap, budget: Option<Budget>) {
    let Some(budget) = budget else {
        return;
    };
    let (limit, left) = (budget.limit, budget.remaining);
    let (period, wait) = (limit::PERIOD.as_secs(), budget.wait.as_secs() + 1);
    for (name, text) in [
        (
            "ratelimit-policy",
            format!("\"minute\";q={limit};w={period}"),
        ),
        ("ratelimit", format!("\"minute\";r={left};t={wait}")),
    ] {
        let value = HeaderValue::from_str(&text).ok();
        headers.extend(value.map(|value| (HeaderName::from_static(name), value)));
    }
}

/// Runs the handler within its time; a panic in it is a problem, not a lost connection.
async fn answer(
    mut request: Request,
    next: Next,
    deadline: Option<Deadline>,
) -> Result<Response, Problem> {
    let ended = if let Some(deadline) = deadline {
        request.extensions_mut().insert(deadline);
        let handler = AssertUnwindSafe(next.run(request)).catch_unwind();
        tokio::time::timeout_at(deadline.0.into(), handler).await
    } else {
        Ok(AssertUnwindSafe(next.run(request)).catch_unwind().await)
    };
    match ended {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(panic)) => {
            tracing::error!(panic = message(&*panic), "a handler panicked");
            Err(Trouble::Internal.into())
        }
        Err(_) => Err(Trouble::Slow.into()),
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

/// Takes the caller's id for the request where it is fit for a log line, else makes one.
fn request_id(headers: &HeaderMap) -> String {
    let sent = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let is_fit = |id: &&str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        (1..=128).contains(&id.len()) && id.bytes().all(fits)
    };
    sent.filter(is_fit)
        .map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned)
}

/// Writes problems out and gives every response its headers.
fn finish(answered: Result<Response, Problem>, request_id: &str, voice: &Voice) -> Response {
    let render = |problem: Problem| voice.tell(problem, request_id);
    let mut response = match answered {
        Ok(mut response) => match problem_of(&mut response) {
            Some(problem) => {
                let mut rendered = render(problem);
                keep(response.headers(), rendered.headers_mut());
                rendered
            }
            None => response,
        },
        Err(problem) => render(problem),
    };
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(request_id) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in SECURITY {
        // A page may have said otherwise.
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Headers of every response that has no others: nobody frames it, sniffs it, keeps it.
const SECURITY: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
    (REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (CACHE_CONTROL, "no-store"),
];

/// Returns the problem that a handler left, or makes one of an error that the framework answered
/// in plain text: no route, no such method.
fn problem_of(response: &mut Response) -> Option<Problem> {
    if let Some(problem) = response.extensions_mut().remove() {
        return Some(problem);
    }
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let of = response.headers().get(CONTENT_TYPE);
    let is_told = of.is_some_and(|of| of == "application/json" || of == "text/html; charset=utf-8");
    (is_error && !is_told).then(|| Problem::new(Trouble::of_status(status)))
}

/// Keeps what the framework said in headers: `Allow` of a 405.
fn keep(from: &HeaderMap, to: &mut HeaderMap) {
    use axum::http::header::{ALLOW, LOCATION};
    for name in [ALLOW, LOCATION] {
        if let Some(value) = from.get(&name) {
            to.insert(name, value.clone());
        }
    }
}

#[cfg(test)]
#[path = "layer_tests.rs"]
mod tests;
