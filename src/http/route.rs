//! [`Route`]: one line of the table of routes, and the docs made from it.

use std::{fmt::Write as _, sync::Arc};

use axum::{http::Method, routing::MethodRouter};

use super::{AppState, trouble::Trouble};
use crate::access::Role;

/// Who is let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everyone that can connect: probes, scrapers, who has no session yet.
    Open,
    /// Callers of this role or a higher one, as far as their tenants reach.
    Role(Role, Reach),
}

/// What of it callers see that are bound to tenants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Nothing: it belongs to the whole installation, and they are told 403.
    Whole,
    /// What the handler filters by [`super::Caller::tenants`].
    Filtered,
    /// The job that the path's id names, where it is theirs.
    Job,
    /// The run that the path's id names, where it is theirs.
    Run,
    /// The webhook that the path's id names, where it is theirs.
    Webhook,
    /// The schedule that the path names, where it is theirs.
    Schedule,
}

/// What may be sent along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Nothing, or JSON of at most `http.max_body_bytes`, within `http.request_timeout`.
    Small,
    /// The same, and the answer holds a secret: it is kept for no Idempotency-Key.
    Secret,
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

/// Where the paths of the systems' documents begin: what goes wrong there is told in their form.
const DOCUMENTS: [&str; 2] = ["/import/", "/api/v1/import/"];

impl Route {
    /// Says whether it is a path of a system's document, whose errors have the document's form.
    #[must_use]
    pub fn is_document(&self) -> bool {
        DOCUMENTS.iter().any(|start| self.path.starts_with(start))
    }

    /// Says whether it is one of [`PAGES`](super::PAGES), whose errors are pages too, and which
    /// leads who is not known to where one signs in.
    #[must_use]
    pub fn is_page(&self) -> bool {
        let is_self = |page: &Self| page.path == self.path && page.method == self.method;
        super::PAGES.iter().any(is_self)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

/// Writes one [`Route`] from `METHOD "/path" Role Reach handler "About."`, where `Open` stands for
/// role and reach, and for the method `UPLOAD` and `SECRET` for a POST with that [`Payload`].
///
/// A line without a role does not compile.
macro_rules! route {
    (@make $method:ident, $path:literal, $access:expr, $payload:ident, $handler:path, $about:literal) => {
        $crate::http::Route {
            method: axum::http::Method::$method,
            path: $path,
            access: $access,
            payload: $crate::http::Payload::$payload,
            about: $about,
            handler: || axum::routing::on(axum::routing::MethodFilter::$method, $handler),
        }
    };
    (@role $role:ident $reach:ident) => {
        $crate::http::Access::Role($crate::access::Role::$role, $crate::http::Reach::$reach)
    };
    (UPLOAD $path:literal $role:ident $reach:ident $handler:path, $about:literal) => {
        route!(@make POST, $path, route!(@role $role $reach), Upload, $handler, $about)
    };
    (SECRET $path:literal $role:ident $reach:ident $handler:path, $about:literal) => {
        route!(@make POST, $path, route!(@role $role $reach), Secret, $handler, $about)
    };
    ($method:ident $path:literal Open $handler:path, $about:literal) => {
        route!(@make $method, $path, $crate::http::Access::Open, Small, $handler, $about)
    };
    ($method:ident $path:literal $role:ident $reach:ident $handler:path, $about:literal) => {
        route!(@make $method, $path, route!(@role $role $reach), Small, $handler, $about)
    };
}
pub(super) use route;

/// Finds the line of the tables that a matched request belongs to.
pub(super) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let asked = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    super::ROUTES
        .iter()
        .chain(super::PAGES)
        .find(|route| route.path == path && route.method == *asked)
}

/// Returns the docs page `docs/http.md`.
#[must_use]
pub fn docs(routes: &[Route], pages: &[Route]) -> String {
    let mut page = String::from(
        "# HTTP\n\n\
         Made from the tables in `src/http`; a test fails when this page is stale.\n\
         Open routes need no credential. All others need one of these roles or a higher one: \
         viewer, operator, admin. Arguments and results are null to viewers.\n\n\
         The credential is a token of `ingestd token create`, `http.token`, or a user's token \
         (JWT, see `[auth]` of the configuration), as `Authorization: Bearer TOKEN` or in the \
         cookie `token`. Where none of these is configured and no token was made, this machine \
         alone is served, as admin.\n\n\
         A caller bound to tenants sees and changes what is theirs; what is another's is 404. What \
         is marked *whole* belongs to the whole installation and is 403 to them.\n\n\
         A POST may carry an `Idempotency-Key` (1 to 255 characters, kept for 24 hours, each \
         caller's own): sent again it is answered as before and not done again, with \
         `Idempotency-Replayed: true`; with another request it is 422, while the first is still \
         being carried out 409. A request that was refused keeps no key. Of an upload the length \
         is compared and not the bytes; `POST /api/v1/tokens` keeps nothing.\n\n\
         `RateLimit` and `RateLimit-Policy` tell what is left of a minute's requests; who has none \
         left is told 429 with `Retry-After`. Each daemon counts for itself.\n\n",
    );
    table(&mut page, routes);
    page.push_str(
        "\n## Pages\n\n\
         For people with a browser. Who is not known is led to `/sign-in`; what goes wrong is told \
         as a page. Forms post, and lead to the page that shows what they did; each does what the \
         route of the same name above does, and is in the audit log as that.\n\n",
    );
    table(&mut page, pages);
    page.push_str(
        "\n## Lists\n\n\
         `?limit=` takes 1 to 200 (50). `next_cursor`, where it is not null, is the `?cursor=` of \
         the next page. Newest first; by name what has names. Nothing is counted.\n\n\
         ## Problems\n\n\
         Errors are `application/problem+json` (RFC 9457). `type` is `urn:ingestd:problem:` and one \
         of the names below, `instance` the request's id, which the log has too; `errors` points \
         into the body (`pointer`) or names the parameter (`parameter`). Under `/import/` and \
         `/api/v1/import/` they have the form of the product import's document instead: `success`, \
         `message`, `error.code`, which is the name with underscores.\n\n\
         | name | status | title |\n| --- | --- | --- |\n",
    );
    for trouble in Trouble::ALL {
        let (name, status, title) = (trouble.name(), trouble.status().as_u16(), trouble.title());
        writeln!(page, "| `{name}` | {status} | {title} |").ok();
    }
    page
}

/// Writes a table of routes, one line each.
fn table(page: &mut String, routes: &[Route]) {
    page.push_str("| route | role | what it does |\n| --- | --- | --- |\n");
    for route in routes {
        let access = match route.access {
            Access::Open => "open".to_owned(),
            Access::Role(role, Reach::Whole) => format!("{role}, whole"),
            Access::Role(role, _) => role.to_string(),
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
}
