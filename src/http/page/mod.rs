//! The pages: what a person does in a browser, rendered here and readable without a script.
//!
//! A page shows what the functions of the rooms return and acts by calling what `/api/v1` calls, so
//! that whatever happens is in the audit log as it would be there. Everything that is shown goes
//! through the templates, which escape it; nothing else writes HTML. The one script and the one
//! style sheet are files of the daemon's own, and the content policy allows no others.

mod asset;
mod dead;
mod form;
mod frame;
mod import;
mod preview;
mod queue;
mod run;
mod schedule;
mod show;
mod sign;

use askama::Template;
use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY},
    },
    response::{IntoResponse as _, Response},
};

use super::{
    Problem,
    api::schedule::change::in_path,
    route::{Route, route},
    trouble::Trouble,
};
use frame::Frame;

/// Every page, and what they post.
#[rustfmt::skip]
pub const PAGES: &[Route] = &[
    route!(GET  "/"                   Viewer Filtered queue::overview,  "The queues, the last hour, the newest imports."),
    route!(GET  "/sign-in"            Open            sign::ask,        "Asks for a token; `?next=` is where to go then."),
    route!(POST "/sign-in"            Open            sign::sign_in,    "Sets it as the cookie `token`, as `POST /api/v1/session`."),
    route!(POST "/sign-out"           Open            sign::sign_out,   "Deletes the cookie."),
    route!(GET  "/imports"            Viewer Filtered import::list,     "The imports, and the form to upload a file with."),
    route!(UPLOAD "/imports"          Operator Filtered import::upload, "Imports products, as `POST /import/products`."),
    route!(GET  "/imports/{id}"       Viewer Run      import::show,     "One import as it goes on, its results, what was wrong with which row."),
    route!(POST "/imports/{id}"       Operator Run    import::act,      "`act` is pause, resume, cancel, reset or undo."),
    route!(GET  "/imports/{id}/undo"  Viewer Run      import::undo,     "What undoing it would come to, or came to."),
    route!(GET  "/runs"               Viewer Filtered run::list,        "Runs of every system."),
    route!(GET  "/runs/{id}"          Viewer Run      run::show,        "One run."),
    route!(POST "/runs/{id}"          Operator Run    run::act,         "`act` is pause, resume, cancel or reset."),
    route!(GET  "/queues"             Viewer Whole    queue::list,      "What is in each queue."),
    route!(POST "/queues"             Operator Whole  queue::act,       "`act` is pause or resume, of `queue`."),
    route!(GET  "/dead"               Viewer Filtered dead::list,       "Dead letters in groups of what failed alike, with `?fingerprint=` those of one, with `&kind=` what retrying all comes to."),
    route!(POST "/dead"               Operator Filtered dead::retry_group, "Replays those of `kind` and `fingerprint`, as a run."),
    route!(POST "/dead/{id}"          Operator Job    dead::retry,      "Replays one."),
    route!(GET  "/schedules"          Viewer Filtered schedule::list,   "Schedules with their next ticks."),
    route!(POST "/schedules"          Operator Filtered schedule::act,    "`act` is run, pause or resume, of `name`."),
    route!(GET  "/assets/page.css"    Open            asset::css,       "How the pages look."),
    route!(GET  "/assets/page.js"     Open            asset::js,        "What they do beyond HTML."),
    route!(GET  "/assets/icon.svg"    Open            asset::icon,      "Their icon."),
];

/// What a page may load: what the daemon serves, and nothing that stands in the page itself.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; object-src 'none'";

/// Writes a page.
fn render(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    let text = page.render().map_err(|error| {
        tracing::error!(%error, "a page cannot be rendered");
        Problem::new(Trouble::Internal)
    })?;
    let mut response = (status, text).into_response();
    dress(response.headers_mut());
    Ok(response)
}

fn ok(page: &impl Template) -> Result<Response, Problem> {
    render(StatusCode::OK, page)
}

/// Gives a page its headers.
fn dress(headers: &mut HeaderMap) {
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
        // Without a referrer a browser sends `Origin: null` with forms, as another site's would.
        (REFERRER_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

type Redirect = (StatusCode, [(HeaderName, String); 1]);

/// Leads a browser that has posted to a page. `to` is a path of ours.
fn see(to: impl Into<String>) -> Redirect {
    (StatusCode::SEE_OTHER, [(LOCATION, to.into())])
}

/// Says whether a page is what is asked for.
pub(super) fn is_wanted(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

#[derive(Template)]
#[template(path = "trouble.html")]
struct TroublePage<'a> {
    frame: Frame,
    title: &'a str,
    detail: Option<&'a str>,
    faults: &'a [String],
    status: u16,
    request_id: &'a str,
}

/// Tells a problem as a page: to who is not known, where to sign in before going to `asked`.
pub(super) fn told(problem: Problem, asked: &str, request_id: &str) -> Response {
    let trouble = problem.trouble();
    if trouble == Trouble::Unauthorized {
        return see(format!("/sign-in?next={}", in_path(asked))).into_response();
    }
    let detail = problem.told().map(str::to_owned);
    let faults: Vec<String> = problem.errors().iter().map(ToString::to_string).collect();
    let page = TroublePage {
        frame: Frame::nobodys(),
        title: trouble.title(),
        detail: detail.as_deref(),
        faults: &faults,
        status: trouble.status().as_u16(),
        request_id,
    };
    let text = page.render();
    let mut response = problem.render(request_id);
    if let Ok(text) = text {
        *response.body_mut() = Body::from(text);
        dress(response.headers_mut());
    }
    response
}

#[cfg(test)]
mod tests;
