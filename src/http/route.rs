//! [`Route`]: one line of the table of routes, and the docs made from it.

use std::{fmt::Write as _, sync::Arc};

use axum::{http::Method, routing::MethodRouter};

use super::{AppState, trouble::Trouble};

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone that can connect: probes and scrapers.
    Open,
    /// The holder of the token; without one configured, this machine.
    Guarded,
}

/// What may be sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Nothing, or JSON of at most `http.max_body_bytes`, within `http.request_timeout`.
    Small,
    /// A file of at most `http.max_upload_bytes`, for as long as it keeps coming.
    Upload,
}

/// One thing that can be asked for.
pub struct Route {
    /// GET (and so HEAD), POST, PUT, PATCH or DELETE.
    pub method: Method,
    /// The template of its path.
    pub path: &'static str,
    /// Who is let in.
    pub access: Access,
    /// What may be sent along.
    pub payload: Payload,
    /// One sentence for the docs.
    pub about: &'static str,
    pub(super) handler: fn() -> MethodRouter<Arc<AppState>>,
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Writes one [`Route`] from `GET "/path" Access [Upload] handler "About."`.
macro_rules! route {
    (@make $method:ident, $to:ident, $path:literal, $access:ident, $payload:ident, $handler:path, $about:literal) => {
        $crate::http::Route {
            method: axum::http::Method::$method,
            path: $path,
            access: $crate::http::Access::$access,
            payload: $crate::http::Payload::$payload,
            about: $about,
            handler: || axum::routing::$to($handler),
        }
    };
    (GET $path:literal $access:ident $handler:path, $about:literal) => {
        route!(@make GET, get, $path, $access, Small, $handler, $about)
    };
    (POST $path:literal $access:ident $handler:path, $about:literal) => {
        route!(@make POST, post, $path, $access, Small, $handler, $about)
    };
    (PATCH $path:literal $access:ident $handler:path, $about:literal) => {
        route!(@make PATCH, patch, $path, $access, Small, $handler, $about)
    };
    (PUT $path:literal $access:ident $handler:path, $about:literal) => {
        route!(@make PUT, put, $path, $access, Small, $handler, $about)
    };
    (DELETE $path:literal $access:ident $handler:path, $about:literal) => {
        route!(@make DELETE, delete, $path, $access, Small, $handler, $about)
    };
    (UPLOAD $path:literal $access:ident $handler:path, $about:literal) => {
        route!(@make POST, post, $path, $access, Upload, $handler, $about)
    };
}
pub(super) use route;

/// Finds the line of the table that a matched request belongs to.
pub(super) fn find<'a>(routes: &'a [Route], method: &Method, path: &str) -> Option<&'a Route> {
    let asked = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    routes
        .iter()
        .find(|route| route.path == path && route.method == *asked)
}

/// Returns the docs page `docs/http.md`.
#[must_use]
pub fn docs(routes: &[Route]) -> String {
    let mut page = String::from(
        "# HTTP\n\n\
         Made from the tables in `src/http`; a test fails when this page is stale.\n\
         Open routes need no token. All others need `Authorization: Bearer TOKEN` or the cookie \
         `token=TOKEN` once `http.token` is configured; until then they answer this machine only.\n\n\
         | route | access | what it does |\n| --- | --- | --- |\n",
    );
    for route in routes {
        let access = match route.access {
            Access::Open => "open",
            Access::Guarded => "token",
        };
        let Route {
            method,
            path,
            about,
            ..
        } = route;
        // Writing to a String cannot fail.
        writeln!(page, "| `{method} {path}` | {access} | {about} |").ok();
    }
    page.push_str(
        "\n## Lists\n\n\
         `?limit=` takes 1 to 200 (50). `next_cursor`, where it is not null, is the `?cursor=` of \
         the next page. Newest first. Nothing is counted.\n\n\
         ## Problems\n\n\
         Errors are `application/problem+json` (RFC 9457). `type` is `urn:ingestd:problem:` and one \
         of the names below, `instance` the request's id, which the log has too; `errors` points \
         into the body (`pointer`) or names the parameter (`parameter`).\n\n\
         | name | status | title |\n| --- | --- | --- |\n",
    );
    for trouble in Trouble::ALL {
        let (name, status, title) = (trouble.name(), trouble.status().as_u16(), trouble.title());
        writeln!(page, "| `{name}` | {status} | {title} |").ok();
    }
    page
}
