//! The HTTP server: probes, metrics, the admin API, the systems' own endpoints.
//!
//! A request passes `serve` (the connection), `layer` (id, span, admission, time limit, panics)
//! and one line of [`ROUTES`] or [`PAGES`]. Who is let in is decided in `admit`, from the table, before any
//! handler runs; a path that is not in the table asks for the token too.

mod admit;
mod api;
mod audit;
mod caller;
mod input;
mod layer;
mod live;
mod once;
mod openapi;
mod origin;
mod page;
mod problem;
mod reach;
mod ready;
mod route;
mod scrape;
mod serve;
mod state;
mod trouble;
mod upload;

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, middleware};

use api::{
    dead, enqueue, gate, health, job, log, queue, run, schedule, search, session, source, stats,
    token, webhook,
};
use route::route;

use crate::ingest::product_import::routes::{
    self as product_import, dealers, export, imports, mappings,
};

pub use audit::record;
pub use caller::Caller;
pub use input::{ByName, Cursor, Json, Limit, Page, Path, Query, TextCursor};
pub(crate) use live::View;
pub use once::is_repeated;
pub use openapi::document as openapi;
pub use page::PAGES;
pub use problem::{Fault, Problem};
pub use route::{Access, Payload, Reach, Route, docs};
pub use serve::{bind, serve};
pub use state::{AppState, Health};
pub use trouble::Trouble;
pub use upload::{Upload, UploadError, receive};

/// Everything that can be asked for, one line each.
#[rustfmt::skip]
pub const ROUTES: &[Route] = &[
    route!(GET  "/healthz"                      Open    ready::healthz,   "Says that the process answers; asks nobody else."),
    route!(GET  "/readyz"                       Open    ready::readyz,    "200 where work may be sent here, else 503, with each check; `?verbose` adds times and the version."),
    route!(GET  "/metrics"                      Open    scrape::metrics,  "All metrics as Prometheus text."),
    route!(GET  "/openapi.json"                 Open    openapi::show,    "This interface as an OpenAPI 3.1 document."),
    route!(GET  "/api/v1/queues"                Viewer Whole queue::list,      "What is in each queue, by state, each counted up to 10001; its oldest ages; whether it is paused."),
    route!(POST "/api/v1/queues/{queue}/pause"  Operator Whole queue::pause,     "Nothing more is claimed from the queue; what runs goes on."),
    route!(POST "/api/v1/queues/{queue}/resume" Operator Whole queue::resume,    "The queue goes on."),
    route!(GET  "/api/v1/health/database"       Viewer Whole health::database,  "Who holds the xmin horizon, by name and with the last statement's shape; the live table's dead rows and sizes; the days ahead that have partitions; what is wrong with the plans of hot statements."),
    route!(GET  "/api/v1/stats"                 Viewer Whole stats::show,      "What ended in the last `?minutes=` (60, at most 1440), by queue and kind and minute by minute: outcomes, mean wait, run times; `?queue=`, `?kind=`. Daemons write it every few seconds."),
    route!(GET  "/api/v1/jobs"                  Viewer Filtered job::list,        "Jobs, unfinished, finished and dead: `?queue=`, `?kind=`, `?state=`; running ones with their `progress`."),
    route!(POST "/api/v1/queues/{queue}/limit"  Admin Whole queue::limit,     "At most `{max_running}` jobs of the queue run at once across all daemons; null: no limit."),
    route!(POST "/api/v1/queues/{queue}/fair"   Admin Whole queue::fair,      "With `{fair: true}` the queue's tenants take turns."),
    route!(GET  "/api/v1/gates"                 Viewer Whole gate::list,       "The gates by pattern with their limits and the jobs behind them; last, with a null pattern, what no gate fits."),
    route!(PUT  "/api/v1/gates/{pattern}"       Admin Whole gate::set,        "Sets `{max_running, rate_per_sec, burst}` of a key, or with `*` at its end of each key that begins so; what is left out is not limited."),
    route!(DELETE "/api/v1/gates/{pattern}"     Admin Whole gate::remove,     "Removes a gate: its keys fall to the next pattern that fits, or to one job at a time."),
    route!(POST "/api/v1/gates/{pattern}/pause" Operator Whole gate::pause,      "No job of its keys starts any more; what runs goes on. Where there is no such gate, one is made with the limits of now."),
    route!(POST "/api/v1/gates/{pattern}/resume" Operator Whole gate::resume,    "The gate goes on."),
    route!(POST "/api/v1/jobs"                  Operator Filtered enqueue::enqueue, "Enqueues `{kind, args, queue, priority, run_at, max_attempts, unique_key, unique_for_secs, tenant, meta}`, of which only `kind` is required: 201, or 200 with the job that has the unique key: an unfinished one, or with `unique_for_secs` that of the same period, finished or not. Kinds that a route of its own or ingestd itself makes (`catalog.*`, `product_import.*`, `search.sync`, `search.rebuild`, `system.bulk`, `system.mail`, `system.webhook`) are 403 for everybody, and here as in schedules and in a retry with `args`; the other built-in ones for callers bound to tenants, whose keys are stored as `api:LENGTH:TENANT:KEY`."),
    route!(GET  "/api/v1/jobs/{id}"             Viewer Job job::show,        "One job: how far it has come, the steps it has done, its failed attempts."),
    route!(GET  "/api/v1/jobs/{id}/logs"        Operator Job log::list,         "What its attempts said, oldest first. `next_cursor` is where later lines will begin; `ended` says that no attempt is to come: its last lines are there a second later."),
    route!(GET  "/api/v1/jobs/{id}/why"         Viewer Job job::why,         "What keeps the job from running: reasons, the most decisive first, each a `code`, a `text` and an `advice`."),
    route!(PATCH "/api/v1/jobs/{id}"            Operator Job job::change,      "Changes `{priority, run_at}` of an unfinished job; of a running one the priority only, for its next attempt."),
    route!(POST "/api/v1/jobs/{id}/snooze"      Operator Job job::snooze,      "Puts a waiting job off by `{delay_secs}`, from now or from its `run_at`, whichever is later."),
    route!(POST "/api/v1/jobs/{id}/cancel"      Operator Job job::cancel,      "200 where it waited and will not run, 202 where its handler was told to stop."),
    route!(POST "/api/v1/jobs/{id}/retry"       Operator Job job::retry,       "200 where it waited and is due now, 201 with the new job where it was a dead letter, with a body's `{args}` in place of its own; with `{afresh: true}` as if nothing had been done, under new idempotency keys."),
    route!(GET  "/api/v1/dead"                  Viewer Filtered dead::list,       "Dead letters nobody replayed: `?queue=`, `?kind=`, `?reason=`, `?fingerprint=`, `?error=` (contains), `?tenant=`, `?run_id=`, `?died_after=`, `?died_before=`; `?replayed=true` for all."),
    route!(GET  "/api/v1/dead/groups"           Viewer Whole dead::groups,     "Dead letters nobody replayed by kind and fingerprint, the largest group first, counted up to 10,001, with an example: `?kind=`. Of one that grows while pages are turned nothing is promised."),
    route!(POST "/api/v1/bulk"                  Operator Filtered api::bulk::submit,   "Does `{action, filter, all, rate_per_sec, dry_run}` to many, as a run: `cancel` or `retry` to unfinished jobs by `{queue, kind, state, tenant, run_id, error, created_after, created_before, is_later}`, `replay`, `replay_afresh` (as if nothing had been done) or `purge` to dead letters by the members of `GET /api/v1/dead`; 202 with the run, or with `dry_run` 200 with how many there are and the first few. An empty filter needs `all`."),
    route!(GET  "/api/v1/runs"                  Viewer Filtered run::list,        "Runs: `?system=`."),
    route!(GET  "/api/v1/runs/{id}"             Viewer Run run::show,        "One run."),
    route!(GET  "/api/v1/runs/{id}/events"      Viewer Run run::events,      "The run as it changes, until it has ended: `text/event-stream`, each event's data what `GET /api/v1/runs/{id}` answers, its id the same for the same data. 204 to a `Last-Event-ID` that saw the end; 503 `busy` where `http.max_event_streams` are open."),
    route!(POST "/api/v1/runs/{id}/pause"       Operator Run run::pause,       "A batch run stops after what is committed, until it is resumed."),
    route!(POST "/api/v1/runs/{id}/resume"      Operator Run run::resume,      "A paused run goes on from where it was."),
    route!(POST "/api/v1/runs/{id}/cancel"      Operator Run run::cancel,      "The run and its jobs stop; what was committed stays."),
    route!(POST "/api/v1/runs/{id}/reset"       Operator Run run::reset,       "A failed, cancelled or stuck run goes on from where it was."),
    route!(GET  "/api/v1/schedules"             Viewer Filtered schedule::list,   "Schedules by name, in words too, with their next and last ticks: `?tenant=`."),
    route!(POST "/api/v1/schedules"             Admin Filtered schedule::change::create, "Makes a schedule `{name, cron, kind, timezone, args, queue, priority, missed, missed_max, overlap, jitter_ms, tenant, paused}`, of which `name`, `cron` and `kind` are required: 201, 409 where the name is taken. It and its jobs are `tenant`'s; without one it is the whole installation's."),
    route!(GET  "/api/v1/schedules/{name}"      Viewer Schedule schedule::show,   "One schedule: its next due times (`?n=10`) in its zone and in UTC, its last ticks, what a tick now would come to."),
    route!(PUT  "/api/v1/schedules/{name}"      Admin Filtered schedule::change::put, "Replaces what a user's schedule says, as in POST without `name` and `paused`: 200, or 201 where there was none; 409 where it is the configuration's or built in."),
    route!(DELETE "/api/v1/schedules/{name}"    Admin Schedule schedule::change::remove, "Removes a user's schedule; its jobs stay."),
    route!(POST "/api/v1/schedules/{name}/pause"  Operator Schedule schedule::act::pause, "Its ticks pass without a job, until a person lets it go on."),
    route!(POST "/api/v1/schedules/{name}/resume" Operator Schedule schedule::act::resume, "It goes on with its next tick; what passed is not made up for. 409 where the configuration pauses it."),
    route!(POST "/api/v1/schedules/{name}/run"  Operator Schedule schedule::act::run, "One job now, beside its ticks: 201; 409 where its jobs must not overlap and one is unfinished, unless `?force=true`."),
    route!(POST "/api/v1/schedules/{name}/backfill" Operator Schedule schedule::act::backfill, "A job for each tick from `from` on and before `to` that has none: `{from, to, limit, spacing_ms, priority, force, dry_run}`; at most 10000 at once."),
    route!(GET    "/api/v1/webhooks"                 Admin Filtered webhook::list,       "Webhooks: who is told of what."),
    route!(POST   "/api/v1/webhooks"                 Admin Filtered webhook::add,        "Makes a webhook of `{url, events, secret_ref, tenant, kinds, queues}`, of which the first three are required: 201."),
    route!(GET    "/api/v1/webhooks/{id}"            Admin Webhook webhook::show,       "One webhook."),
    route!(DELETE "/api/v1/webhooks/{id}"            Admin Webhook webhook::remove,     "The webhook is told nothing more, and the list of its deliveries goes with it."),
    route!(POST   "/api/v1/webhooks/{id}/pause"      Admin Webhook webhook::pause,      "What happens meanwhile is not told."),
    route!(POST   "/api/v1/webhooks/{id}/resume"     Admin Webhook webhook::resume,     "The webhook goes on."),
    route!(POST   "/api/v1/webhooks/{id}/test"       Admin Webhook webhook::test,       "202 with the job that delivers `webhook.test`."),
    route!(GET    "/api/v1/webhooks/{id}/deliveries" Admin Webhook webhook::deliveries, "The last 200 attempts to deliver, with status, time and error."),
    route!(POST   "/api/v1/session"                  Open              session::open,      "Takes `{token}` and sets it as the cookie `token` (HttpOnly, SameSite=Strict) of this browser: 200 with who it is, 401 where it proves nothing."),
    route!(GET    "/api/v1/session"                  Viewer Filtered   session::show,      "Who asks: `actor`, `role` and `tenants`, which are null for all."),
    route!(DELETE "/api/v1/session"                  Open              session::close,     "Deletes the cookie: 204."),
    route!(GET    "/api/v1/tokens"                   Admin Whole       token::list,        "The API tokens, the revoked ones among them; never their secrets."),
    route!(SECRET "/api/v1/tokens"                   Admin Whole       token::create,      "Makes a token of `{name, role, tenants, expires_secs}`, of which the first two are required: 201, with the `token` itself, which is shown this once."),
    route!(DELETE "/api/v1/tokens/{id}"              Admin Whole       token::revoke,      "Revokes a token: from now on it opens nothing. 409 where it was revoked before."),
    route!(UPLOAD "/import/products"               Operator Filtered product_import::upload, "Imports the products of an uploaded workbook or CSV, the form's field `file`: 202 with the job's id, 400 where it cannot be imported. Options are further fields or parameters: `tenant` (whose products they become; 422 where it is missing and the caller has several, 403 where it is none of theirs), `mode` (upsert, insert_only, update_only, replace_all), `dry_run`, `duplicates` (first_wins, last_wins, reject), `max_drop_percent` (20), `on_duplicate_file` (import, reject: 409), `priority` (0 to 3), `sheet`, `sheet_number`, `sheets` (several in one import: all, or names and places with commas between, or a JSON list), `include_hidden_sheets`, `skip_hidden_rows`, `merged_cells` (first, fill), `mapping` (what headers mean: header=field with commas between, a JSON object, or @ and the name of a saved mapping; a field is code, name, description, brand, category, price, currency, stock, ean, url, weight, updated_at, or attribute), `delimiter` (a sign, or tab), `quote` (double, single, none), `encoding` (utf8, utf16_le, utf16_be, or a name that browsers know, as windows-1250, windows-1251, iso-8859-2, shift_jis), `decimal` (plain, point, comma), `dates` (iso, dmy, mdy, ymd)."),
    route!(UPLOAD "/api/v1/import/products"        Operator Filtered product_import::upload, "The same."),
    route!(GET    "/import/status/{jobId}"         Viewer Run product_import::status, "How far an import is."),
    route!(GET    "/api/v1/import/status/{jobId}"  Viewer Run product_import::status, "The same."),
    route!(GET    "/api/v1/import/{id}/events"     Viewer Run product_import::events, "How far an import is as it changes, until it has ended: `text/event-stream`, each event's data what `GET /api/v1/import/status/{jobId}` answers; as `GET /api/v1/runs/{id}/events` otherwise."),
    route!(UPLOAD "/import/dealers" Operator Filtered dealers::upload, "Imports the dealers of an uploaded workbook or CSV, the form's field `file`, while the caller waits; `tenant`, a further field or parameter, as for products: 200 with what came of its rows; 400 where it cannot be imported or has more than `product_import.max_dealer_rows` or takes more than 16 MiB of memory."),
    route!(UPLOAD "/api/v1/import/dealers" Operator Filtered dealers::upload, "The same."),
    route!(GET "/api/v1/imports" Viewer Filtered imports::list, "Imports with what came of their rows: `?tenant=`, `?state=`, `?type=` (PARTS, DEALERS)."),
    route!(GET "/api/v1/imports/{id}" Viewer Run imports::show, "One import."),
    route!(GET "/api/v1/imports/{id}/rollback" Viewer Run imports::preview, "What undoing the import would come to now, with the products that would stay and why; once it was asked for, its run and what it came to."),
    route!(POST "/api/v1/imports/{id}/rollback" Operator Run imports::roll_back, "Undoes an import that has ended, as a run: what it created is archived, what it changed or archived gets back what it was, what something newer touched stays and is named. 202 with the run; 409 where it has not ended, was a dry run, or somebody asked before."),
    route!(GET "/api/v1/import/{id}/errors.csv" Operator Run export::errors_csv, "The rejected rows of an import in their file's columns, and behind them what is wrong with each: mended, the file can be imported as it is."),
    route!(GET "/api/v1/import/{id}/errors.xlsx" Operator Run export::errors_xlsx, "The same as a workbook."),
    route!(GET "/api/v1/import/{id}/results.csv" Operator Run export::results_csv, "The rows of an import that were imported, in their file's columns; 404 once the file is not kept any more."),
    route!(GET "/api/v1/import/{id}/results.xlsx" Operator Run export::results_xlsx, "The same as a workbook."),
    route!(GET "/api/v1/mappings" Viewer Filtered mappings::list, "Saved mappings of headers, which an import names as `mapping=@name`: `?tenant=`."),
    route!(GET "/api/v1/mappings/{name}" Viewer Filtered mappings::show, "One saved mapping: `?tenant=`, where the caller has several."),
    route!(PUT "/api/v1/mappings/{name}" Operator Filtered mappings::save, "Saves `{headers}`, an object of headers and the fields they mean (or `attribute`), under a name: `?tenant=`. 201 where it is new, 200 where it takes the place of another."),
    route!(DELETE "/api/v1/mappings/{name}" Operator Filtered mappings::remove, "Removes a saved mapping: `?tenant=`; imports that were accepted go on with it."),
    route!(GET "/api/v1/search" Viewer Whole search::show, "How far the search server is: what it was not told of yet, what it refused, the collections, the last trouble."),
    route!(POST "/api/v1/search/sync" Operator Whole search::sync, "202 with the job that sends what is noted and due again; 409 where no search server is configured."),
    route!(POST "/api/v1/search/rebuild" Admin Whole search::rebuild, "202 with the job that fills a new collection and leads the alias to it; one that was begun goes on."),
    route!(GET "/api/v1/search/failures" Operator Whole search::failures, "Products that the search server refused, with its reasons, by id."),
    route!(POST "/api/v1/search/retry" Operator Whole search::retry, "All of these are due now: 202 with how many, and the job that sends them."),
    route!(GET "/api/v1/sources" Viewer Whole source::list, "Sources of imports by name, with their schedules and what the last look came to: `?limit=`, `?after=` (a name)."),
    route!(POST "/api/v1/sources" Admin Whole source::add, "Makes a source `{name, location, tenant, pattern, ready, endpoint, region, secret_ref, options, cron, timezone, paused}`, of which `name` and `location`, a path, an http, https, ftp or ftps URL or `s3://BUCKET/KEY`, are required: 201, 409 where the name is taken."),
    route!(GET "/api/v1/sources/{name}" Viewer Whole source::show, "One source; of a watched folder with its `files`, those in the folder first."),
    route!(DELETE "/api/v1/sources/{name}" Admin Whole source::remove, "Removes a user's source with its schedule; its imports stay. 409 where it is the configuration's."),
    route!(POST "/api/v1/sources/{name}/pause" Operator Whole source::pause, "Its ticks pass without a look."),
    route!(POST "/api/v1/sources/{name}/resume" Operator Whole source::resume, "The source goes on; 409 where the configuration pauses it."),
    route!(POST "/api/v1/sources/{name}/run" Operator Whole source::run, "202 with the job that looks at it now, paused or not; with `?force=true` the file is imported even if it is the version that was seen last."),
    route!(POST "/api/v1/import/fetch" Operator Filtered source::fetch, "Imports a file once from `{location, tenant, endpoint, region, secret_ref, options}`, of which `location` is required, as of a source: 202 with the job that fetches it, whose output names the run. Callers bound to tenants name URLs and S3 objects, and secrets whose file says `tenant` and theirs; `tenant` where they have several."),
];

/// Makes the router of every route in the table.
fn router(app: Arc<AppState>) -> Router {
    let mut router = Router::new();
    for route in ROUTES.iter().chain(PAGES) {
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
        for route in ROUTES.iter().chain(PAGES) {
            assert!(seen.insert((&route.method, route.path)), "{route:?}");
            assert!(route.about.ends_with('.'), "{route:?}");
        }
    }

    #[test]
    fn only_probes_metrics_and_the_way_in_are_open() {
        let open = ROUTES.iter().filter(|route| route.access == Access::Open);
        let open: Vec<_> = open.map(|route| route.path).collect();
        let session = "/api/v1/session";
        assert_eq!(
            open,
            [
                "/healthz",
                "/readyz",
                "/metrics",
                "/openapi.json",
                session,
                session
            ]
        );
        let open = PAGES.iter().filter(|page| page.access == Access::Open);
        for page in open {
            let is_way_in = page.path.starts_with("/sign-");
            assert!(is_way_in || page.path.starts_with("/assets/"), "{page:?}");
        }
    }

    #[test]
    fn docs_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/http.md");
        if std::env::var_os("INGESTD_BLESS").is_some() {
            std::fs::write(path, docs(ROUTES, PAGES)).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == docs(ROUTES, PAGES),
            "docs/http.md is stale; run: INGESTD_BLESS=1 cargo test docs_page"
        );
    }
}
