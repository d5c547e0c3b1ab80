//! What answers look like that went well: the types, and which route answers with which. A test
//! compares them with what a server really answers.

use serde_json::{Map, Value, json};

/// The types by name: their members, as of a body in [`super::shape`]. All members are there but
/// those with `~`; `?` may be null. A type may also be `@Name`, one of these, `[Name]`, a list of
/// them, `any`; and `+Name` stands for the members of another.
#[rustfmt::skip]
const TYPES: &[(&str, &str)] = &[
    ("Ready", "status checks:object version~"),
    ("QueueDepth", "queue paused:bool max_running:int? fair:bool queued:int scheduled:int retrying:int held:int running:int dead:int oldest_ready_age_seconds:number? oldest_running_age_seconds:number?"),
    ("QueuePaused", "queue paused:bool"),
    ("QueueLimited", "queue max_running:int?"),
    ("QueueFair", "queue fair:bool"),
    ("GateDepth", "pattern? max_running:int? rate_per_sec:number? burst:int? origin? paused_at:time? keys:int held:int admitted:int running:int"),
    ("GateLimits", "max_running:int? rate_per_sec:number? burst:int?"),
    ("GateSet", "pattern limits:@GateLimits"),
    ("GateRemoved", "pattern removed:bool"),
    ("GatePaused", "pattern paused:bool held_again:int"),
    ("GateResumed", "pattern paused:bool resumed:bool"),
    ("Health", "xmin_horizon:[HorizonHolder] jobs_table:@JobsTable partitions:[Partitions] plans:[PlanCheck]"),
    ("HorizonHolder", "holder pid:int? name owner? state? age_transactions:int age_seconds:number? since:time? query?"),
    ("JobsTable", "live_rows:int dead_rows:int table_bytes:int index_bytes:int vacuumed_at:time? in_vacuum:bool has_autovacuum:bool"),
    ("Partitions", "table ahead_days:int"),
    ("PlanCheck", "statement faults:strings"),
    ("Stats", "minutes:int kinds:[KindStats] series:[MinuteStats]"),
    ("Figures", "attempts:int success:int retry:int dead:int cancelled:int snoozed:int lost:int mean_wait_seconds:number mean_seconds:number p50_seconds:number? p95_seconds:number?"),
    ("KindStats", "queue kind +Figures per_minute:number"),
    ("MinuteStats", "minute:time +Figures"),
    ("Job", "id:int kind queue state:queued|held|running|completed|cancelled|dead priority:int attempt:int max_attempts:int? run_id:int? tenant? error? created_at:time run_at:time? started_at:time? finished_at:time?"),
    ("JobProgress", "attempt:int n_done:int n_total:int? note? noted_at:time"),
    ("JobLine", "+Job progress:@JobProgress?"),
    ("JobDetail", "+Job args:object? unique_key? gate_key? meta:object? crashes:int cancel_requested:bool reason? fingerprint? replayed_from:int? replayed_to:int? output:any"),
    ("JobStep", "step attempt:int finished_at:time result:any"),
    ("JobAttempt", "attempt:int outcome error_kind error started_at:time? finished_at:time"),
    ("JobShown", "+JobDetail progress:@JobProgress? steps:[JobStep] attempts:[JobAttempt]"),
    ("LogLine", "attempt:int lease_id:int line_no:int level:info|warn|error message logged_at:time"),
    ("LogPage", "items:[LogLine] next_cursor? ended:bool"),
    ("Why", "id:int state reasons:[WhyReason]"),
    ("WhyReason", "code text advice?"),
    ("DeadLetter", "id:int kind queue attempt:int crashes:int reason:exhausted|fatal|poison error fingerprint run_id:int? tenant? created_at:time died_at:time replayed_from:int? replayed_to:int? replayed_at:time?"),
    ("DeadGroup", "kind fingerprint n_letters:int first_died_at:time last_died_at:time example_id:int example_error"),
    ("BulkPreview", "dry_run:bool n_found:int is_all:bool first:any"),
    ("Run", "id:int system state:pending|running|paused|completed|failed|cancelled stage? tenant triggered_by params:any cursor:any items_total:int? items_ok:int items_failed:int items_skipped:int details:any error? retry_count:int created_at:time started_at:time? heartbeat_at:time? finished_at:time?"),
    ("Schedule", "name cron timezone kind args:object? queue? priority:int? missed:skip|once|all missed_max:int overlap:allow|skip|queue jitter_ms:int tenant? origin:user|config|built_in config_set? shadows_set? paused_at:time? paused_in_config:bool next_at:time? last_at:time? last_error? created_at:time updated_at:time description"),
    ("DueTime", "utc:time local job_due_at:time remark?"),
    ("Tick", "at:time result job_id:int? job_state? error?"),
    ("ScheduleShown", "+Schedule upcoming:[DueTime] overdue_since:time? last_ticks:[Tick] last_failure:@Tick? unfinished_job:int? if_due_now"),
    ("SchedulePaused", "schedule paused:bool changed:bool"),
    ("ScheduleRan", "schedule job_id:int"),
    ("ScheduleRemoved", "schedule removed:bool"),
    ("Backfill", "ticks:strings n_jobs:int skipped:[SkippedTick] n_skipped:int left_from:time? job_ids:ints"),
    ("SkippedTick", "at:time result job_id:int"),
    ("Webhook", "id:int tenant url events:strings kinds:strings? queues:strings? secret_ref paused_at:time? pause_reason? created_at:time"),
    ("WebhookRemoved", "id:int removed:bool"),
    ("WebhookPaused", "id:int paused:bool"),
    ("WebhookTested", "id:int job:int"),
    ("Delivery", "id:int webhook_id:int message event job_id:int attempt:int status:int? error? duration_ms:int at:time"),
    ("Session", "actor role:viewer|operator|admin tenants:strings?"),
    ("Token", "id:int name prefix role:viewer|operator|admin tenants:strings? created_by? created_at:time expires_at:time? last_used_at:time? revoked_at:time?"),
    ("TokenMade", "+Token token"),
    ("Submitted", "success:bool message data:@SubmittedData"),
    ("SubmittedData", "jobId:int statusUrl sameFileAs:int~ note~ sheets:strings~ skippedSheets:[SheetSkipped]~ ignoredFields:strings~"),
    ("Status", "success:bool data:@StatusData"),
    ("StatusData", "jobId:int status:pending|processing|completed|failed paused:bool~ undoneBy:int~ overtakenBy:int~ progress:@StatusProgress stage~ sheets:[SheetTally]~ skippedSheets:[SheetSkipped]~ startedAt~ completedAt~ results:@StatusResults~ error~"),
    ("StatusProgress", "current:int total:int percentage:int"),
    ("StatusResults", "totalRows:int successCount:int errorCount:int errors:[RowFault] errorsTruncated:bool~ errorsUrl~ createdCount:int updatedCount:int unchangedCount:int archivedCount:int mode hiddenRows:int~ dryRun:bool preview:any~"),
    ("SheetTally", "sheet headerRow:int totalRows:int successCount:int errorCount:int"),
    ("SheetSkipped", "sheet code message"),
    ("RowFault", "sheet? row:int column? code message value?"),
    ("Mapping", "tenant name headers:object created_at:time updated_at:time"),
    ("MappingRemoved", "name removed:bool"),
    ("Dealers", "success:bool message data:@StatusData"),
    ("Import", "id:int tenant state:pending|running|paused|completed|failed|cancelled type:PARTS|DEALERS file_name file_size_bytes:int file_sha256 success_count:int error_count:int created_count:int updated_count:int unchanged_count:int archived_count:int mode:upsert|insert_only|update_only|replace_all dry_run:bool refusal? rollback_run_id:int? traces:kept|going|gone created_at:time"),
    ("Undoing", "import_id:int run_id:int? state? outcome:@UndoOutcome"),
    ("UndoOutcome", "n_restored:int n_archived:int n_kept:int kept:[KeptProduct]"),
    ("KeptProduct", "product_id:int code? reason:edited|imported_again|deleted"),
    ("UndoAsked", "import_id:int run_id:int"),
    ("SearchStatus", "collection is_configured:bool live? building? build_rows:int build_began_at:time? fields_changed:bool noted:int oldest_note_at:time? retrying:int kept:int synced_at:time? switched_at:time? upserted:int deleted:int wait_until:time? trouble? trouble_at:time?"),
    ("SearchFailure", "product_id:int tenant? code? attempts:int error failed_at:time retry_at:time?"),
    ("SearchAsked", "job:int? inserted:bool"),
    ("SearchRetried", "n:int job:int?"),
    ("Source", "name location tenant pattern? ready? endpoint? region? secret_ref? options:object cron? timezone kind origin:user|config paused_at:time? paused_in_config:bool? next_at:time? last_look_at:time? last_result? last_error? last_import_id:int? created_at:time"),
    ("SourceFile", "id:int name size_bytes:int state import_id:int? error? moved_to? seen_at:time settled_at:time?"),
    ("SourceShown", "+Source files:[SourceFile]"),
    ("SourceList", "items:[Source] next_after?"),
    ("SourcePaused", "name paused:bool"),
    ("SourceRemoved", "name removed:bool"),
    ("SourceRan", "name job_id:int? new:bool"),
    ("Fetched", "job_id:int?"),
];

/// What routes answer with, under `/api/v1` but for the last: `Page` stands for a page of the type
/// that follows; a status before a type is the one it is for.
#[rustfmt::skip]
const ANSWERS: &[(&str, &str)] = &[
    ("GET /queues", "Page QueueDepth"),
    ("POST /queues/{queue}/pause", "QueuePaused"),
    ("POST /queues/{queue}/resume", "QueuePaused"),
    ("POST /queues/{queue}/limit", "QueueLimited"),
    ("POST /queues/{queue}/fair", "QueueFair"),
    ("GET /health/database", "Health"),
    ("GET /stats", "Stats"),
    ("GET /gates", "Page GateDepth"),
    ("PUT /gates/{pattern}", "GateSet"),
    ("DELETE /gates/{pattern}", "GateRemoved"),
    ("POST /gates/{pattern}/pause", "GatePaused"),
    ("POST /gates/{pattern}/resume", "GateResumed"),
    ("GET /jobs", "Page JobLine"),
    ("POST /jobs", "JobDetail"),
    ("GET /jobs/{id}", "JobShown"),
    ("GET /jobs/{id}/logs", "LogPage"),
    ("GET /jobs/{id}/why", "Why"),
    ("PATCH /jobs/{id}", "JobDetail"),
    ("POST /jobs/{id}/snooze", "JobDetail"),
    ("POST /jobs/{id}/cancel", "JobDetail"),
    ("POST /jobs/{id}/retry", "JobDetail"),
    ("GET /dead", "Page DeadLetter"),
    ("GET /dead/groups", "Page DeadGroup"),
    ("POST /bulk", "200 BulkPreview 202 Run"),
    ("GET /runs", "Page Run"),
    ("GET /runs/{id}", "Run"),
    ("POST /runs/{id}/pause", "Run"),
    ("POST /runs/{id}/resume", "Run"),
    ("POST /runs/{id}/cancel", "Run"),
    ("POST /runs/{id}/reset", "Run"),
    ("GET /schedules", "Page Schedule"),
    ("POST /schedules", "ScheduleShown"),
    ("GET /schedules/{name}", "ScheduleShown"),
    ("PUT /schedules/{name}", "ScheduleShown"),
    ("DELETE /schedules/{name}", "ScheduleRemoved"),
    ("POST /schedules/{name}/pause", "SchedulePaused"),
    ("POST /schedules/{name}/resume", "SchedulePaused"),
    ("POST /schedules/{name}/run", "ScheduleRan"),
    ("POST /schedules/{name}/backfill", "Backfill"),
    ("GET /webhooks", "Page Webhook"),
    ("POST /webhooks", "Webhook"),
    ("GET /webhooks/{id}", "Webhook"),
    ("DELETE /webhooks/{id}", "WebhookRemoved"),
    ("POST /webhooks/{id}/pause", "WebhookPaused"),
    ("POST /webhooks/{id}/resume", "WebhookPaused"),
    ("POST /webhooks/{id}/test", "WebhookTested"),
    ("GET /webhooks/{id}/deliveries", "Page Delivery"),
    ("POST /session", "Session"),
    ("GET /session", "Session"),
    ("GET /tokens", "Page Token"),
    ("POST /tokens", "TokenMade"),
    ("DELETE /tokens/{id}", "Token"),
    ("POST /import/products", "Submitted"),
    ("GET /import/status/{jobId}", "Status"),
    ("POST /import/dealers", "Dealers"),
    ("GET /imports", "Page Import"),
    ("GET /imports/{id}", "Import"),
    ("GET /imports/{id}/rollback", "Undoing"),
    ("POST /imports/{id}/rollback", "UndoAsked"),
    ("GET /mappings", "Page Mapping"),
    ("GET /mappings/{name}", "Mapping"),
    ("PUT /mappings/{name}", "Mapping"),
    ("DELETE /mappings/{name}", "MappingRemoved"),
    ("GET /search", "SearchStatus"),
    ("POST /search/sync", "SearchAsked"),
    ("POST /search/rebuild", "SearchAsked"),
    ("GET /search/failures", "Page SearchFailure"),
    ("POST /search/retry", "SearchRetried"),
    ("GET /sources", "SourceList"),
    ("POST /sources", "Source"),
    ("GET /sources/{name}", "SourceShown"),
    ("DELETE /sources/{name}", "SourceRemoved"),
    ("POST /sources/{name}/pause", "SourcePaused"),
    ("POST /sources/{name}/resume", "SourcePaused"),
    ("POST /sources/{name}/run", "SourceRan"),
    ("POST /import/fetch", "Fetched"),
    ("GET /readyz", "Ready"),
];

/// Returns the schema of what a route answers with a status; `None` where it is not described.
pub(super) fn schema(method: &str, path: &str, status: u16) -> Option<Value> {
    let path = path.strip_prefix("/api/v1").unwrap_or(path);
    let name = format!("{method} {path}");
    let (_, answer) = ANSWERS.iter().find(|(route, _)| *route == name)?;
    let words: Vec<&str> = answer.split(' ').collect();
    let status = status.to_string();
    match words.as_slice() {
        ["Page", item] => Some(page(item)),
        [name] => Some(reference(name)),
        pairs => {
            let of_status = pairs.iter().position(|word| *word == status)?;
            pairs.get(of_status + 1).map(|name| reference(name))
        }
    }
}

fn page(item: &str) -> Value {
    json!({ "type": "object", "required": ["items", "next_cursor"], "properties": {
        "items": { "type": "array", "items": reference(item) },
        "next_cursor": { "type": ["string", "null"] } } })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Returns the schemas of all types by name.
pub(super) fn schemas() -> impl Iterator<Item = (String, Value)> {
    TYPES.iter().map(|(name, members)| {
        let mut required = Vec::new();
        let mut properties = Map::new();
        for text in written_out(members) {
            let (text, may_lack) = match text.strip_suffix('~') {
                Some(text) => (text, true),
                None => (text, false),
            };
            let (name, schema) = member(text);
            if !may_lack {
                required.push(name.to_owned());
            }
            properties.insert(name.to_owned(), schema);
        }
        let schema = json!({ "type": "object", "required": required, "properties": properties });
        ((*name).to_owned(), schema)
    })
}

/// Returns the members of a type with those of others in place of `+Name`. No type stands for
/// itself, as the test of the committed document would find out.
fn written_out(members: &'static str) -> Vec<&'static str> {
    let mut all = Vec::new();
    for word in members.split(' ') {
        let Some(other) = word.strip_prefix('+') else {
            all.push(word);
            continue;
        };
        let of = TYPES.iter().find(|(name, _)| *name == other);
        all.extend(
            of.map(|(_, members)| written_out(members))
                .unwrap_or_default(),
        );
    }
    all
}

fn member(text: &str) -> (&str, Value) {
    let (text, may_be_null) = match text.strip_suffix('?') {
        Some(text) => (text, true),
        None => (text, false),
    };
    let (name, of) = text.split_once(':').unwrap_or((text, "string"));
    let list = of.strip_prefix('[').and_then(|of| of.strip_suffix(']'));
    let mut schema = match (of.strip_prefix('@'), list, of) {
        (Some(other), ..) if may_be_null => {
            json!({ "oneOf": [reference(other), { "type": "null" }] })
        }
        (Some(other), ..) => reference(other),
        (_, Some(item), _) => json!({ "type": "array", "items": reference(item) }),
        (.., "any") => json!({}),
        (.., "ints") => json!({ "type": "array", "items": { "type": "integer" } }),
        _ => super::schema(of),
    };
    if may_be_null && let Some(of) = schema.get_mut("type") {
        *of = json!([of.clone(), "null"]);
    }
    (name, schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::ROUTES;

    #[test]
    fn every_type_is_there_once_and_is_used() {
        let mut used: Vec<String> = ANSWERS
            .iter()
            .chain(TYPES)
            .flat_map(|(_, text)| text.split([' ', ':']))
            .map(|word| {
                let word = word.trim_matches(['@', '[', ']', '+', '?', '~']);
                word.to_owned()
            })
            .collect();
        used.sort();
        for (n, (name, _)) in TYPES.iter().enumerate() {
            assert!(used.binary_search(&(*name).to_owned()).is_ok(), "{name}");
            let again = TYPES.iter().skip(n + 1).any(|(other, _)| other == name);
            assert!(!again, "{name}");
        }
        let text = json!(schemas().collect::<Map<_, _>>()).to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap_or_default();
            assert!(TYPES.iter().any(|(known, _)| *known == name), "{name}");
        }
    }

    #[test]
    fn every_answer_is_a_routes() {
        for (answer, _) in ANSWERS {
            let is_there = ROUTES.iter().any(|route| {
                let path = route.path.strip_prefix("/api/v1").unwrap_or(route.path);
                format!("{} {path}", route.method) == *answer
            });
            assert!(is_there, "{answer}");
        }
    }
}
