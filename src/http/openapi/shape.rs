//! What each route takes and answers, one line each; a test compares it with what handlers read.

/// What a route takes and answers beyond what the table of routes says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// `METHOD /path`, as in the table.
    pub(super) route: &'static str,
    /// Query parameters: names with a type, see [`super::schema`].
    pub(super) query: &'static str,
    /// Members of the JSON body, in the same way; empty: none is read.
    pub(super) body: &'static str,
    /// Statuses of answers that went well.
    pub(super) answers: &'static [u16],
}

const fn shape(
    route: &'static str,
    query: &'static str,
    body: &'static str,
    answers: &'static [u16],
) -> Shape {
    Shape {
        route,
        query,
        body,
        answers,
    }
}

const SCHEDULE: &str = "cron! kind! timezone args:object queue? priority:int? \
    missed:skip|once|all missed_max:int overlap:allow|skip|queue jitter_ms:int tenant?";

/// What an import may be asked for beside its file, as parameters or as fields of the form.
const IMPORT: &str = "tenant mode:upsert|insert_only|update_only|replace_all dry_run:bool \
    duplicates:first_wins|last_wins|reject max_drop_percent:int on_duplicate_file:import|reject \
    priority:int sheet sheet_number:int sheets include_hidden_sheets:bool skip_hidden_rows:bool \
    merged_cells:first|fill mapping delimiter quote:double|single|none encoding \
    decimal:plain|point|comma dates:iso|dmy|mdy|ymd";

/// The routes whose answer is not simply 200, or that read a query or a body.
#[rustfmt::skip]
pub(super) const SHAPES: &[Shape] = &[
    shape("GET /readyz", "verbose", "", &[200, 503]),
    shape("GET /api/v1/stats", "minutes:int queue kind", "", &[200]),
    shape("GET /api/v1/jobs", "queue kind state:queued|held|running|completed|cancelled|dead limit:limit cursor", "", &[200]),
    shape("POST /api/v1/jobs", "", "kind! args:object queue? priority:int? run_at:time? max_attempts:int? unique_key? unique_for_secs:int? tenant? meta:object?", &[200, 201]),
    shape("POST /api/v1/queues/{queue}/limit", "", "max_running:int?", &[200]),
    shape("POST /api/v1/queues/{queue}/fair", "", "fair:bool!", &[200]),
    shape("PUT /api/v1/gates/{pattern}", "", "max_running:int? rate_per_sec:number? burst:int?", &[200]),
    shape("GET /api/v1/jobs/{id}/logs", "limit:limit cursor", "", &[200]),
    shape("PATCH /api/v1/jobs/{id}", "", "priority:int? run_at:time?", &[200]),
    shape("POST /api/v1/jobs/{id}/snooze", "", "delay_secs:int!", &[200]),
    shape("POST /api/v1/jobs/{id}/cancel", "", "", &[200, 202]),
    shape("POST /api/v1/jobs/{id}/retry", "", "args:object? afresh:bool", &[200, 201]),
    shape("GET /api/v1/dead", "queue kind reason fingerprint error tenant run_id:int died_after:time died_before:time replayed:bool limit:limit cursor", "", &[200]),
    shape("GET /api/v1/queues", "limit:limit cursor", "", &[200]),
    shape("GET /api/v1/gates", "limit:limit cursor", "", &[200]),
    shape("GET /api/v1/dead/groups", "kind limit:limit cursor", "", &[200]),
    shape("POST /api/v1/bulk", "", "action:cancel|retry|replay|replay_afresh|purge! filter:object all:bool rate_per_sec:int? dry_run:bool", &[200, 202]),
    shape("GET /api/v1/runs", "system limit:limit cursor", "", &[200]),
    shape("GET /api/v1/runs/{id}/events", "", "", &[200, 204]),
    shape("GET /api/v1/import/{id}/events", "", "", &[200, 204]),
    shape("GET /api/v1/schedules", "tenant limit:limit cursor", "", &[200]),
    shape("POST /api/v1/schedules", "", "name! paused:bool SCHEDULE", &[201]),
    shape("GET /api/v1/schedules/{name}", "n:int", "", &[200]),
    shape("PUT /api/v1/schedules/{name}", "", "SCHEDULE", &[200, 201]),
    shape("POST /api/v1/schedules/{name}/run", "force:bool", "", &[201]),
    shape("POST /api/v1/schedules/{name}/backfill", "", "from:time! to:time! limit:int? spacing_ms:int priority:int? force:bool dry_run:bool", &[200]),
    shape("GET /api/v1/webhooks", "limit:limit cursor", "", &[200]),
    shape("POST /api/v1/webhooks", "", "url! events:strings! secret_ref! tenant? kinds:strings? queues:strings?", &[201]),
    shape("POST /api/v1/webhooks/{id}/test", "", "", &[202]),
    shape("GET /api/v1/webhooks/{id}/deliveries", "limit:limit cursor", "", &[200]),
    shape("POST /api/v1/session", "", "token!", &[200]),
    shape("DELETE /api/v1/session", "", "", &[204]),
    shape("GET /api/v1/tokens", "limit:limit cursor", "", &[200]),
    shape("POST /api/v1/tokens", "", "name! role:viewer|operator|admin! tenants:strings? expires_secs:int?", &[201]),
    shape("GET /api/v1/imports", "tenant state:pending|running|paused|completed|failed|cancelled type:PARTS|DEALERS limit:limit cursor", "", &[200]),
    shape("POST /api/v1/imports/{id}/rollback", "", "", &[202]),
    shape("POST /api/v1/search/sync", "", "", &[202]),
    shape("POST /api/v1/search/rebuild", "", "", &[202]),
    shape("GET /api/v1/search/failures", "limit:limit cursor", "", &[200]),
    shape("POST /api/v1/search/retry", "", "", &[202]),
    shape("GET /api/v1/sources", "limit:limit after", "", &[200]),
    shape("POST /api/v1/sources", "", "name! location! tenant? pattern? ready:stable|marker|at_once? endpoint? region? secret_ref? options:object cron? timezone? paused:bool", &[201]),
    shape("POST /api/v1/sources/{name}/run", "force:bool", "", &[202]),
    shape("POST /api/v1/import/fetch", "", "location! tenant? endpoint? region? secret_ref? options:object", &[202]),
    shape("GET /api/v1/mappings", "tenant limit:limit cursor", "", &[200]),
    shape("GET /api/v1/mappings/{name}", "tenant", "", &[200]),
    shape("PUT /api/v1/mappings/{name}", "tenant", "headers:object!", &[200, 201]),
    shape("DELETE /api/v1/mappings/{name}", "tenant", "", &[200]),
    shape("POST /import/products", IMPORT, IMPORT, &[202]),
    shape("POST /api/v1/import/products", IMPORT, IMPORT, &[202]),
    shape("POST /import/dealers", "tenant", "tenant", &[200]),
    shape("POST /api/v1/import/dealers", "tenant", "tenant", &[200]),
];

/// Returns the members of a body, with what schedules share written out.
pub(super) fn written_out(body: &str) -> String {
    body.replace("SCHEDULE", SCHEDULE)
}

/// What holds for a route without a line of its own.
pub(super) const PLAIN: Shape = shape("", "", "", &[200]);
