//! What happens around every handler, in this order: id, span, admission, time limit, panics;
//! and on the way out: problems, headers, the event.

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
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
    AppState, Problem, ROUTES,
    admit::{Caller, admit},
    route::{self, Access, Payload},
    trouble::Trouble,
};
use crate::observe::HttpServed;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// When the request must be answered; none for uploads.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(pub(super) Instant);

/// Answers a request through its handler.
pub(super) async fn around(
    State(app): State<Arc<AppState>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let began = Instant::now();
    let request_id = request_id(request.headers());
    let method = request.method().clone();
    let template = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    let span = tracing::info_span!("http", request_id, %method, route = template);
    let found = route::find(ROUTES, &method, template);
    let access = found.map_or(Access::Guarded, |route| route.access);
    let limit = match found.map(|route| route.payload) {
        Some(Payload::Upload) => None,
        _ => Some(app.config.http.request_timeout),
    };
    let answer = async {
        let (mut parts, body) = request.into_parts();
        let actor = admit(app.token.as_ref(), access, &parts)?;
        parts.extensions.insert(Caller {
            actor,
            request_id: request_id.clone(),
        });
        let request = Request::from_parts(parts, body);
        answer(request, next, limit.map(|limit| Deadline(began + limit))).await
    };
    let answered = answer.instrument(span.clone()).await;
    span.in_scope(|| {
        let response = finish(answered, &request_id);
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
fn finish(answered: Result<Response, Problem>, request_id: &str) -> Response {
    let mut response = match answered {
        Ok(mut response) => match problem_of(&mut response) {
            Some(problem) => {
                let mut rendered = problem.render(request_id);
                keep(response.headers(), rendered.headers_mut());
                rendered
            }
            None => response,
        },
        Err(problem) => problem.render(request_id),
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
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|of| of == "application/json");
    (is_error && !is_json).then(|| Problem::new(Trouble::of_status(status)))
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
