//! The one table of metrics: what `/metrics`, the docs and the alerts may name.
//!
//! A metric that is not here cannot be emitted, because handles are made from
//! [`Metric`] only. Names are written in full, unit and `_total` included, so
//! that grep finds them. Labels take bounded values: never a job id, a URL, an
//! error text or a file name.

use std::fmt::Write as _;

/// One family of series.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The exported name.
    pub name: &'static str,
    /// How it adds up.
    pub shape: Shape,
    /// What one of it is: `seconds`, `bytes`, `jobs`.
    pub unit: &'static str,
    /// Label names, in the order in which values are given.
    pub labels: &'static [&'static str],
    /// One sentence for `# HELP` and the docs.
    pub help: &'static str,
    /// Whose figure it is.
    pub scope: Scope,
}

/// How a metric's values add up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shape {
    /// Only grows; starts at 0 with the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations up to each bound, ascending.
    Histogram(&'static [f64]),
}

/// Whose figure a metric is, and so how instances are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This process's own: instances are summed.
    Process,
    /// Read from the database, the same on every instance: `max by`, never `sum`.
    Database,
}

impl Metric {
    const fn new(
        name: &'static str,
        shape: Shape,
        unit: &'static str,
        labels: &'static [&'static str],
        help: &'static str,
    ) -> Self {
        Self {
            name,
            shape,
            unit,
            labels,
            help,
            scope: Scope::Process,
        }
    }

    const fn of_database(self) -> Self {
        Self {
            scope: Scope::Database,
            ..self
        }
    }
}

impl Shape {
    /// Returns the word that the exposition format has for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

const ATTEMPT_SECONDS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
const WAIT_SECONDS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0,
];
const QUICK_SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
const HTTP_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
const ATTEMPTS: &[f64] = &[1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0];
const BATCH_JOBS: &[f64] = &[
    0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
];

const BY_QUEUE: &[&str] = &["queue"];
const BY_KIND: &[&str] = &["queue", "kind"];
const BY_OUTCOME: &[&str] = &["queue", "kind", "outcome"];
const BY_GATE: &[&str] = &["gate"];
const BY_SCHEDULE: &[&str] = &["schedule"];
const BY_REQUEST: &[&str] = &["method", "route", "status"];

/// Declares each metric as a constant and collects them all, so that none can be left out.
macro_rules! metrics {
    ($($ident:ident = $shape:expr, $name:literal, $unit:literal, $labels:expr, $help:literal $(, $from:ident)?;)*) => {
        $(#[doc = $help] pub const $ident: Metric = Metric::new($name, $shape, $unit, $labels, $help)$(.$from())?;)*
        /// Every metric, in the order of the docs.
        pub const ALL: &[Metric] = &[$($ident),*];
    };
}

use Shape::{Counter, Gauge, Histogram};
metrics! {
    BUILD_INFO = Gauge, "ingestd_build_info", "1", &["version", "revision", "rustc"], "Always 1; the labels say which build runs.";
    START_TIME = Gauge, "ingestd_start_time_seconds", "seconds", &[], "When the process started, in seconds since 1970.";
    READY = Gauge, "ingestd_ready", "0 or 1", &[], "1 while /readyz says 200.";
    CLOCK_SKEW = Gauge, "ingestd_clock_skew_seconds", "seconds", &[], "This machine's clock minus the database's at the last heartbeat. Nothing is decided by this machine's, but its logs bear it.";

    JOBS_ENQUEUED = Counter, "ingestd_jobs_enqueued_total", "jobs", &["queue", "kind", "source"], "Jobs that this process inserted, by who asked for them; a plain SQL INSERT is not among them.";
    JOBS_DEDUPLICATED = Counter, "ingestd_jobs_deduplicated_total", "jobs", BY_KIND, "Jobs that this process did not insert because another has their unique key, unfinished or of the same period.";
    JOB_ATTEMPTS = Counter, "ingestd_job_attempts_total", "attempts", BY_OUTCOME, "Attempts that ended, by outcome: success, retry, dead, cancelled, snoozed or lost.";
    JOB_ERRORS = Counter, "ingestd_job_errors_total", "errors", &["queue", "kind", "error_kind"], "Attempts that ended in an error, by what went wrong.";
    JOB_DURATION = Histogram(ATTEMPT_SECONDS), "ingestd_job_duration_seconds", "seconds", BY_OUTCOME, "Run time of one attempt.";
    JOB_WAIT = Histogram(WAIT_SECONDS), "ingestd_job_wait_seconds", "seconds", BY_QUEUE, "From the time an attempt was due to its claim.";
    JOB_END_TO_END = Histogram(WAIT_SECONDS), "ingestd_job_end_to_end_seconds", "seconds", BY_KIND, "From a job's INSERT to its final state.";
    JOB_ATTEMPTS_AT_FINISH = Histogram(ATTEMPTS), "ingestd_job_attempts_at_finish", "attempts", BY_KIND, "Attempts that a job had when it reached its final state.";

    QUEUE_JOBS = Gauge, "ingestd_queue_jobs", "jobs", &["queue", "state"], "Unfinished jobs by state (queued: due now; scheduled: due later, never tried; retrying: due later, tried before; held; running) and dead letters that nobody replayed. Counted up to 10001, which says: that many or more.", of_database;
    QUEUE_OLDEST_READY_AGE = Gauge, "ingestd_queue_oldest_ready_age_seconds", "seconds", BY_QUEUE, "For how long the oldest due job has been due; 0 where none is.", of_database;
    QUEUE_OLDEST_RUNNING_AGE = Gauge, "ingestd_queue_oldest_running_age_seconds", "seconds", BY_QUEUE, "For how long the oldest running attempt has run; 0 where none does.", of_database;
    QUEUE_PAUSED = Gauge, "ingestd_queue_paused", "0 or 1", BY_QUEUE, "1 while nothing is claimed from the queue because someone paused it.", of_database;
    WORKERS = Gauge, "ingestd_workers", "workers", &["queue", "state"], "Daemons that claim from the queue, by heartbeat: live, or stale (silent for 30 s).", of_database;
    WORKER_SLOTS = Gauge, "ingestd_worker_slots", "jobs", BY_QUEUE, "Jobs of the queue that this process runs at once at most.";
    WORKER_SLOTS_BUSY = Gauge, "ingestd_worker_slots_busy", "jobs", BY_QUEUE, "Jobs of the queue that this process runs now.";

    WORKER_SLOTS_STUCK = Gauge, "ingestd_worker_slots_stuck", "jobs", &[], "Jobs whose handlers block a thread of this process past their deadline and grace; at a limit the process stops, to be started anew.";

    CLAIM_DURATION = Histogram(QUICK_SECONDS), "ingestd_claim_duration_seconds", "seconds", BY_QUEUE, "Round trip of one claim.";
    CLAIM_BATCH = Histogram(BATCH_JOBS), "ingestd_claim_batch_jobs", "jobs", BY_QUEUE, "Jobs that one claim got.";
    WAKEUPS = Counter, "ingestd_wakeups_total", "wake-ups", &["queue", "reason"], "Looks for work, by what caused them: notify, poll, timer (a job became due) or drain (the last claim was full).";
    LISTENER_CONNECTED = Gauge, "ingestd_listener_connected", "0 or 1", &[], "1 while notifications arrive; 0: work is found by polling only.";
    LISTENER_RECONNECTS = Counter, "ingestd_listener_reconnects_total", "connections", &[], "Times the listener's connection was made again after it was lost.";
    LEASES_RESCUED = Counter, "ingestd_leases_rescued_total", "leases", &["queue", "action"], "Leases taken back from workers that fell silent or overran, by what became of the job: retry or dead.";
    LEASE_LOST = Counter, "ingestd_lease_lost_total", "leases", BY_QUEUE, "Outcomes refused because the worker's lease was gone.";
    LOG_LINES_LOST = Counter, "ingestd_log_lines_lost_total", "lines", &["reason"], "Lines of jobs' logs that were not written, by reason: no room in memory while the database was away, refused by it, stopped while it was away.";

    GATE_HELD_JOBS = Gauge, "ingestd_gate_held_jobs", "jobs", BY_GATE, "Jobs that wait for a gate, by its pattern; none: no pattern fits their key.", of_database;
    GATE_ADMITTED = Counter, "ingestd_gate_admitted_total", "jobs", BY_GATE, "Held jobs that this process let go, by the pattern of their gate; none: no pattern fits their key.";
    GATE_WAIT = Histogram(WAIT_SECONDS), "ingestd_gate_wait_seconds", "seconds", BY_GATE, "From the time a gated job was due to its admission.";

    SCHEDULE_RUNS = Counter, "ingestd_schedule_runs_total", "ticks", &["schedule", "result"], "Ticks that this process handled: enqueued, missed or overlap (by policy), failed.";
    SCHEDULE_NEXT_RUN = Gauge, "ingestd_schedule_next_run_timestamp_seconds", "seconds", BY_SCHEDULE, "The next due time, in seconds since 1970; NaN while paused.", of_database;
    SCHEDULE_LAST_SUCCESS = Gauge, "ingestd_schedule_last_success_timestamp_seconds", "seconds", BY_SCHEDULE, "When a tick last became a job, or when the schedule was made; NaN while paused.", of_database;
    SCHEDULE_INTERVAL = Gauge, "ingestd_schedule_interval_seconds", "seconds", BY_SCHEDULE, "From the last tick to the next; NaN where either is unknown.", of_database;

    HORIZON_AGE_TRANSACTIONS = Gauge, "ingestd_xmin_horizon_age_transactions", "transactions", &["holder"], "Transactions that began since the oldest snapshot of each sort (a transaction, a prepared one, a replication slot, a standby) was taken; rows that died since cannot be vacuumed. 0 where there is none.", of_database;
    HORIZON_AGE_SECONDS = Gauge, "ingestd_xmin_horizon_age_seconds", "seconds", &["holder"], "Age of the same; for slots and standbys, since this process saw it stand still.", of_database;
    JOBS_TABLE_ROWS = Gauge, "ingestd_jobs_table_rows", "rows", &["state"], "Rows of ingestd.jobs as the statistics estimate them: live, and dead (to be vacuumed).", of_database;
    JOBS_TABLE_BYTES = Gauge, "ingestd_jobs_table_bytes", "bytes", &["part"], "Size of ingestd.jobs: its table with large values, its indexes.", of_database;
    JOBS_TABLE_VACUUM = Gauge, "ingestd_jobs_table_vacuum_timestamp_seconds", "seconds", &[], "When ingestd.jobs was last vacuumed, in seconds since 1970; NaN: never.", of_database;
    JOBS_TABLE_VACUUMS = Counter, "ingestd_jobs_table_vacuums_total", "vacuums", &["result"], "Vacuums of ingestd.jobs that this process began because autovacuum is off or behind: done or failed.";
    PARTITIONS_AHEAD = Gauge, "ingestd_history_partitions_ahead", "partitions", &[], "Partitions made for the days after today, one a day without a gap, in the table that has fewest; -1: not even today has one.", of_database;
    PLAN_DEGRADED = Gauge, "ingestd_plan_degraded", "0 or 1", &["statement"], "1 while a hot statement's plan is not the one it is written for; looked at every hour.", of_database;

    INGEST_ROWS = Counter, "ingestd_ingest_rows_total", "rows", &["kind", "result"], "Rows that an ingestion handled: inserted, updated, unchanged or rejected.";
    INGEST_BYTES = Counter, "ingestd_ingest_bytes_total", "bytes", &["kind", "direction"], "Bytes that an ingestion read (in) or wrote (out).";

    SEARCH_DOCUMENTS = Counter, "ingestd_search_documents_total", "documents", &["result"], "Documents that the search server answered for: upserted, deleted or refused.";
    SEARCH_OUTBOX = Gauge, "ingestd_search_outbox_products", "products", &[], "Products that the search server was not told of yet, each as often as it changed, in the first 10001 notes.", of_database;
    SEARCH_LAG = Gauge, "ingestd_search_lag_seconds", "seconds", &[], "Age of the oldest change that the search server was not told of yet; 0 where there is none.", of_database;
    SEARCH_FAILURES = Gauge, "ingestd_search_failures", "documents", &["state"], "Products that the search server refused: retrying, or kept until they change; counted up to 10001.", of_database;

    HTTP_REQUESTS = Counter, "ingestd_http_requests_total", "requests", BY_REQUEST, "Requests served, by route template.";
    HTTP_REQUEST_DURATION = Histogram(HTTP_SECONDS), "ingestd_http_request_duration_seconds", "seconds", BY_REQUEST, "From a request's head to the last byte of its response's head.";
    SSE_CLIENTS = Gauge, "ingestd_sse_clients", "streams", &[], "Streams of server-sent events that are open.";
    DB_POOL_CONNECTIONS = Gauge, "ingestd_db_pool_connections", "connections", &["state"], "Connections of this process's pool: idle, used, and the most it may have (max).";

    PROCESS_CPU = Counter, "process_cpu_seconds_total", "seconds", &[], "Processor time used, user and system.";
    PROCESS_RESIDENT_MEMORY = Gauge, "process_resident_memory_bytes", "bytes", &[], "Memory held in RAM.";
    PROCESS_OPEN_FDS = Gauge, "process_open_fds", "descriptors", &[], "Open file descriptors.";
    PROCESS_MAX_FDS = Gauge, "process_max_fds", "descriptors", &[], "Most file descriptors that may be open.";
    PROCESS_THREADS = Gauge, "process_threads", "threads", &[], "Threads.";
    PROCESS_START_TIME = Gauge, "process_start_time_seconds", "seconds", &[], "When the process started, in seconds since 1970.";
}

/// Returns the docs page `docs/metrics.md`, made from [`ALL`].
#[must_use]
pub fn docs() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Made from the table in `src/observe/metric.rs`; a test fails when this page is stale.\n\
         Served as text at `/metrics`. Those marked *database* are the same on every instance: \
         put instances together with `max by`, never `sum`. All others belong to one process.\n\n\
         | name | type | unit | labels | of | meaning |\n| --- | --- | --- | --- | --- | --- |\n",
    );
    for metric in ALL {
        let of = match metric.scope {
            Scope::Process => "process",
            Scope::Database => "*database*",
        };
        let labels = metric.labels.join(", ");
        let (name, shape, unit, help) =
            (metric.name, metric.shape.name(), metric.unit, metric.help);
        // Writing to a String cannot fail.
        writeln!(
            page,
            "| `{name}` | {shape} | {unit} | {labels} | {of} | {help} |"
        )
        .ok();
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_say_unit_and_shape() {
        let mut names: Vec<_> = ALL.iter().map(|m| m.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for m in ALL {
            assert_eq!(m.shape == Counter, m.name.ends_with("_total"), "{}", m.name);
            let measured = matches!(m.unit, "seconds" | "bytes");
            let suffixed = m.name.trim_end_matches("_total").ends_with(m.unit);
            assert!(!measured || suffixed, "{} is in {}", m.name, m.unit);
            assert!(m.help.ends_with('.'), "{}", m.name);
            assert!(
                !m.labels.contains(&"job"),
                "Prometheus has a label of that name"
            );
        }
    }

    #[test]
    fn buckets_ascend() {
        for m in ALL {
            if let Histogram(bounds) = m.shape {
                assert!(bounds.is_sorted_by(|a, b| a < b), "{}", m.name);
            }
        }
    }

    #[test]
    fn docs_page_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
        if std::env::var_os("INGESTD_BLESS").is_some() {
            std::fs::write(path, docs()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            page == docs(),
            "docs/metrics.md is stale; run: INGESTD_BLESS=1 cargo test docs_page"
        );
    }
}
