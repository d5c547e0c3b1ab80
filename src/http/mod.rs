//! The HTTP server: probes, metrics, the admin API, the systems' own endpoints.
//!
//! A request passes `serve` (the connection), `layer` (id, span, admission, time limit, panics)
//! and one line of [`ROUTES`]. Who is let in is decided in `admit`, from the table, before any
//! handler runs; a path that is not in the table asks for the token too.

mod admit;
mod audit;
mod input;
mod layer;
mod problem;
mod ready;
mod route;
mod scrape;
mod serve;
mod state;
mod trouble;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware};

use route::route;

pub use admit::Caller;
pub use audit::record;
pub use input::{Cursor, Json, Limit, Page, Path, Query};
pub use problem::{Fault, Problem};
pub use route::{Access, Payload, Route, docs};
pub use serve::{bind, serve};
pub use state::{AppState, Health};
pub use trouble::Trouble;

/// Everything that can be asked for, one line each.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route!(GET  "/healthz"                      Open    ready::healthz,   "Says that the process answers; asks nobody else."),
    route!(GET  "/readyz"                       Open    ready::readyz,    "200 where work may be sent here, else 503, with each check; `?verbose` adds times and the version."),
    route!(GET  "/metrics"                      Open    scrape::metrics,  "All metrics as Prometheus text."),
];

/// Makes the router of every route in the table.
fn router(app: Arc<AppState>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.handler)());
    }
    router
        .fallback(|| async { Problem::new(Trouble::NotFound) })
        .method_not_allowed_fallback(|| async { Problem::new(Trouble::MethodNotAllowed) })
        // `Json` and the uploads count for themselves, by the configuration.
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            layer::around,
        ))
        .with_state(app)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_route_is_there_twice_and_each_is_explained() {
        let mut seen = HashSet::new();
        for route in ROUTES {
            assert!(seen.insert((&route.method, route.path)), "{route:?}");
            assert!(route.about.ends_with('.'), "{route:?}");
        }
    }

    #[test]
    fn only_probes_and_metrics_are_open() {
        let open = ROUTES.iter().filter(|route| route.access == Access::Open);
        let open: Vec<_> = open.map(|route| route.path).collect();
        assert_eq!(open, ["/healthz", "/readyz", "/metrics"]);
    }

    #[test]
    fn docs_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md");
        if std::env::var_os("INGESTD_BLESS").is_some() {
            std::fs::write(path, docs(ROUTES)).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == docs(ROUTES),
            "docs/http.md is stale; run: INGESTD_BLESS=1 cargo test docs_page"
        );
    }
}
