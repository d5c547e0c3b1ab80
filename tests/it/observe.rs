//! What `/metrics` shows: gauges from a real database, and every event.

use std::collections::BTreeSet;
use std::time::Duration;

use ingestd::observe::gauge::{self, QueueDepth};
use ingestd::observe::{self, Exporter, metric};
use ingestd::testing::Database;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::prometheus::promtool;

async fn execute(pool: &PgPool, statement: &'static str) {
    sqlx::raw_sql(statement).execute(pool).await.unwrap();
}

/// Returns whether `/metrics` has the sample.
fn has(sample: &str) -> bool {
    Exporter::get().render().lines().any(|line| line == sample)
}

/// Returns the value of the series in `/metrics`.
fn value(series: &str) -> f64 {
    let text = Exporter::get().render();
    let mut lines = text.lines();
    let found = lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
    found.unwrap_or_else(|| panic!("no {series} in\n{text}"))
}

#[tokio::test]
async fn jobs_are_counted_by_state() {
    let db = Database::create().await;
    execute(
        db.pool(),
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
           VALUES ('t.known', 'obs_idle', 3, 60);
         INSERT INTO ingestd.queues (queue, paused_at) VALUES ('obs_paused', now());
         INSERT INTO ingestd.jobs (kind, queue, run_at, attempt) VALUES
           ('t.known', 'obs_busy', now() - interval '90 s', 0),
           ('t.known', 'obs_busy', now(), 2),
           ('t.known', 'obs_busy', now() + interval '1 h', 0),
           ('t.known', 'obs_busy', now() + interval '1 h', 1);
         INSERT INTO ingestd.jobs (kind, queue, state) VALUES ('t.known', 'obs_busy', 'held');
         INSERT INTO ingestd.jobs (kind, queue, state, lease_id, worker_id, started_at) VALUES
           ('t.known', 'obs_busy', 'running', 1, 1, now() - interval '7 s');
         INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
                                        error, fingerprint, created_at, replayed_at) VALUES
           (1, 't.known', '{}', 'obs_busy', 1, 3, 0, 'fatal', 'x', 1, now(), NULL),
           (2, 't.known', '{}', 'obs_busy', 1, 3, 0, 'fatal', 'x', 1, now(), now()),
           (3, 't.known', '{}', 'obs_dead', 1, 3, 0, 'fatal', 'x', 1, now(), NULL);",
    )
    .await;
    let depths = gauge::refresh(db.pool()).await.unwrap();
    let names: Vec<_> = depths.iter().map(|depth| depth.queue.as_str()).collect();
    assert!(names.is_sorted());
    let depth = |name: &str| depths.iter().find(|d| d.queue == name).unwrap().clone();

    let busy = depth("obs_busy");
    let ready_age = busy.oldest_ready_age_seconds.unwrap();
    let running_age = busy.oldest_running_age_seconds.unwrap();
    assert!((90.0..120.0).contains(&ready_age), "{ready_age}");
    assert!((7.0..37.0).contains(&running_age), "{running_age}");
    let QueueDepth {
        queued,
        scheduled,
        retrying,
        held,
        running,
        dead,
        ..
    } = busy;
    assert_eq!((queued, scheduled, retrying), (2, 1, 1));
    assert_eq!((held, running, dead), (1, 1, 1));
    assert!(!busy.paused);
    assert!(depth("obs_paused").paused);
    assert_eq!(depth("obs_dead").dead, 1);
    assert_eq!(depth("obs_idle").oldest_ready_age_seconds, None);

    assert!(has(
        r#"ingestd_queue_jobs{queue="obs_busy",state="queued"} 2"#
    ));
    assert!(has(
        r#"ingestd_queue_jobs{queue="obs_dead",state="dead"} 1"#
    ));
    assert!(has(
        r#"ingestd_queue_jobs{queue="obs_idle",state="queued"} 0"#
    ));
    assert!(has(
        r#"ingestd_queue_oldest_ready_age_seconds{queue="obs_idle"} 0"#
    ));
    assert!(has(r#"ingestd_queue_paused{queue="obs_paused"} 1"#));
    assert!(value("ingestd_db_pool_connections{state=\"max\"}") >= 1.0);
}

#[tokio::test]
async fn workers_are_live_or_stale_by_heartbeat() {
    let db = Database::create().await;
    execute(
        db.pool(),
        "INSERT INTO ingestd.workers (host, pid, version, queues, heartbeat_at, ended_at, end_reason)
         VALUES ('a', 1, '0', '{obs_one,obs_two}', now(), NULL, NULL),
                ('b', 1, '0', '{obs_one}', now() - interval '1 min', NULL, NULL),
                ('c', 1, '0', '{obs_one}', now(), now(), 'stopped')",
    )
    .await;
    gauge::refresh(db.pool()).await.unwrap();
    assert!(has(r#"ingestd_workers{queue="obs_one",state="live"} 1"#));
    assert!(has(r#"ingestd_workers{queue="obs_one",state="stale"} 1"#));
    assert!(has(r#"ingestd_workers{queue="obs_two",state="live"} 1"#));
    assert!(has(r#"ingestd_workers{queue="obs_two",state="stale"} 0"#));
}

#[tokio::test]
async fn schedules_show_when_they_ran_and_will() {
    let db = Database::create().await;
    execute(
        db.pool(),
        "INSERT INTO ingestd.schedules (name, cron, kind, next_at, last_at, paused_at) VALUES
           ('obs_hourly', '0 * * * *', 't.k', to_timestamp(7200), to_timestamp(3600), NULL),
           ('obs_new',    '0 * * * *', 't.k', NULL, NULL, NULL),
           ('obs_paused', '0 * * * *', 't.k', to_timestamp(7200), NULL, now());
         INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id, handled_at) VALUES
           ('obs_hourly', to_timestamp(0), 'enqueued', 1, to_timestamp(5)),
           ('obs_hourly', to_timestamp(3600), 'overlap', NULL, to_timestamp(3605))",
    )
    .await;
    gauge::refresh(db.pool()).await.unwrap();
    assert!(has(
        r#"ingestd_schedule_next_run_timestamp_seconds{schedule="obs_hourly"} 7200"#
    ));
    assert!(has(
        r#"ingestd_schedule_last_success_timestamp_seconds{schedule="obs_hourly"} 5"#
    ));
    assert!(has(
        r#"ingestd_schedule_interval_seconds{schedule="obs_hourly"} 3600"#
    ));
    assert!(has(
        r#"ingestd_schedule_next_run_timestamp_seconds{schedule="obs_new"} NaN"#
    ));
    assert!(value(r#"ingestd_schedule_last_success_timestamp_seconds{schedule="obs_new"}"#) > 1e9);
    let text = Exporter::get().render();
    assert!(
        !text.contains("{schedule=\"obs_paused\"}"),
        "paused from the start"
    );
}

/// Emits each event once, so that every metric of the table has a series.
fn emit_every_event() {
    let (queue, kind) = ("obs_all", "t.all");
    let (ms, error) = (Duration::from_millis(3), Some("no answer"));
    for &source in observe::EnqueueSource::ALL {
        observe::JobEnqueued {
            queue,
            kind,
            source,
            n: 2,
        }
        .emit();
    }
    observe::JobDeduplicated {
        queue,
        kind,
        job: Some(1),
    }
    .emit();
    for &outcome in observe::Outcome::ALL {
        let (duration, waited, age) = (ms, ms, ms);
        let (attempt, job) = (1, 7);
        observe::JobFinished {
            queue,
            kind,
            outcome,
            duration,
            waited,
            age,
            attempt,
            job,
            error,
        }
        .emit();
    }
    let error_kind = observe::ErrorKind::Timeout;
    observe::JobErrored {
        queue,
        kind,
        error_kind,
    }
    .emit();
    observe::JobClaimed {
        queue,
        n: 3,
        duration: ms,
    }
    .emit();
    observe::LeaseFenced {
        queue,
        kind,
        job: 7,
        attempt: 1,
    }
    .emit();
    observe::LeasesRescued {
        queue,
        action: observe::Rescue::Dead,
        n: 1,
    }
    .emit();
    observe::WorkerWoken {
        queue,
        reason: observe::Wake::Notify,
    }
    .emit();
    observe::WorkerSlots {
        queue,
        slots: 4,
        busy: 1,
    }
    .emit();
    observe::ListenerChanged {
        connected: true,
        again: true,
    }
    .emit();
    observe::ReadinessChanged { ready: true }.emit();
    let (schedule, result) = ("obs_all", observe::TickResult::Failed);
    observe::ScheduleTicked {
        schedule,
        result,
        error,
    }
    .emit();
    for &reason in observe::LineLoss::ALL {
        observe::LogLinesLost { reason, n: 1 }.emit();
    }
    let result = observe::RowResult::Inserted;
    observe::RowsIngested {
        kind,
        result,
        n: 10,
    }
    .emit();
    let direction = observe::Direction::In;
    observe::BytesIngested {
        kind,
        direction,
        n: 99,
    }
    .emit();
    for &holder in observe::HorizonHolder::ALL {
        observe::HorizonSeen {
            holder,
            transactions: 5,
            seconds: 1.5,
        }
        .emit();
    }
    observe::LiveTableSeen {
        live_rows: 10,
        dead_rows: 3,
        table_bytes: 8192,
        index_bytes: 16384,
        vacuumed_at: None,
    }
    .emit();
    observe::LiveTableVacuumed {
        result: observe::VacuumResult::Failed,
        duration: ms,
        error,
    }
    .emit();
    observe::PartitionsSeen {
        ahead_days: Some(3),
    }
    .emit();
    observe::SlotsStuck { jobs: vec![1] }.emit();
    observe::ClockCompared {
        skew_seconds: 0.5,
        news: None,
    }
    .emit();
    observe::SearchDocuments {
        result: observe::SearchResult::Upserted,
        n: 1,
    }
    .emit();
    observe::GateAdmitted {
        gate: Some("obs_all"),
        admitted: &[("obs_all".to_owned(), ms)],
    }
    .emit();
    observe::PlanSeen {
        statement: "obs_all",
        faults: &["Seq Scan on jobs".to_owned()],
    }
    .emit();
    let (method, route) = ("BREW", "/api/v1/runs/{id}");
    observe::HttpServed {
        method,
        route,
        status: 503,
        duration: ms,
    }
    .emit();
}

#[tokio::test]
async fn the_names_in_metrics_are_those_of_the_table() {
    let db = Database::create().await;
    execute(
        db.pool(),
        "INSERT INTO ingestd.queues (queue) VALUES ('obs_all');
         INSERT INTO ingestd.workers (host, pid, version, queues) VALUES ('a', 1, '0', '{obs_all}');
         INSERT INTO ingestd.schedules (name, cron, kind) VALUES ('obs_all', '0 * * * *', 't.k');
         INSERT INTO ingestd.gates (pattern) VALUES ('obs_all')",
    )
    .await;
    emit_every_event();
    gauge::refresh(db.pool()).await.unwrap();
    let text = Exporter::get().render();
    let typed = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let shown: BTreeSet<&str> = typed.filter_map(|rest| rest.split(' ').next()).collect();
    let table: BTreeSet<&str> = metric::ALL.iter().map(|m| m.name).collect();
    assert_eq!(shown, table);

    assert!(has(
        r#"ingestd_jobs_enqueued_total{queue="obs_all",kind="t.all",source="cron"} 2"#
    ));
    assert!(has(
        r#"ingestd_job_attempts_total{queue="obs_all",kind="t.all",outcome="dead"} 1"#
    ));
    assert!(has(
        r#"ingestd_job_end_to_end_seconds_count{queue="obs_all",kind="t.all"} 3"#
    ));
    assert!(has(r#"ingestd_job_wait_seconds_count{queue="obs_all"} 6"#));
    assert!(has(r#"ingestd_lease_lost_total{queue="obs_all"} 1"#));
    assert!(has(
        r#"ingestd_leases_rescued_total{queue="obs_all",action="retry"} 0"#
    ));
    let served = r#"{method="other",route="/api/v1/runs/{id}",status="503"} 1"#;
    assert!(has(&format!("ingestd_http_requests_total{served}")));
    promtool(&["check", "metrics"], &text);
}

#[tokio::test]
async fn rounds_hand_over_what_they_read_and_end_at_the_stop() {
    let db = Database::create().await;
    execute(
        db.pool(),
        "INSERT INTO ingestd.queues (queue) VALUES ('obs_rounds')",
    )
    .await;
    let (sender, mut rounds) = tokio::sync::mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let refreshed = move |result: &sqlx::Result<Vec<QueueDepth>>| {
        let n_queues = result.as_ref().map(Vec::len);
        sender.send(n_queues.map_err(ToString::to_string)).unwrap();
    };
    let ended = async {
        // The one above and those of the kinds that migrations register.
        assert_eq!(rounds.recv().await, Some(Ok(3)));
        stop.cancel();
    };
    tokio::join!(
        gauge::run(db.pool().clone(), stop.clone(), &refreshed),
        ended
    );

    let (stop, closed) = (CancellationToken::new(), db.pool().clone());
    closed.close().await;
    let failed = async {
        assert!(rounds.recv().await.unwrap().is_err());
        stop.cancel();
    };
    tokio::join!(gauge::run(closed, stop.clone(), &refreshed), failed);
    Exporter::get().run_upkeep(stop).await;
}
