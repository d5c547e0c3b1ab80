//! Handlers that never give their thread back: the process is recycled, in order where it still can.

use std::os::unix::net::UnixDatagram;

use tempfile::TempDir;

use crate::{process::Daemon, queue_rig::Rig, supervisor::Supervisor};

/// Two threads, a job of two seconds, and every claim a batch.
const SETTINGS: [(&str, &str); 4] = [
    ("INGESTD_QUEUE__BATCH_LEASE_FROM", "1"),
    ("TOKIO_WORKER_THREADS", "2"),
    ("INGESTD_KINDS__SYSTEM__NOOP__TIMEOUT", "2s"),
    ("INGESTD_QUEUE__DEADLINE_GRACE", "500ms"),
];

#[tokio::test]
async fn a_process_with_a_stuck_slot_is_started_anew() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut supervisor = Supervisor::start(&rig, &storage, "", &SETTINGS).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args, max_attempts)
         VALUES ('system.noop', '{\"outcome\": \"spin\"}', 2);
         INSERT INTO ingestd.jobs (kind, args, run_at)
         SELECT 'system.noop', '{\"sleep_ms\": 100}', now() + i * interval '300 ms'
         FROM generate_series(1, 30) i",
    )
    .await;
    supervisor
        .keep_until(
            &rig,
            "NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.noop')",
        )
        .await;
    supervisor.look();
    let ended = "SELECT concat_ws(' ', count(*), max(attempt)) FROM ingestd.job_history
                 WHERE kind = 'system.noop' AND state = 'completed'";
    assert_eq!(rig.ask::<String>(ended).await, "30 1");
    let letters = "SELECT string_agg(args ->> 'outcome', ',') FROM ingestd.dead_jobs";
    assert_eq!(rig.ask::<String>(letters).await, "spin");
    assert!(!supervisor.exits.is_empty(), "it never stopped");
    for exit in &supervisor.exits {
        assert_eq!(exit.code(), Some(75), "what a service manager starts again");
    }
    let log = supervisor.log();
    assert!(log.contains("their slots are stuck"), "{log}");
    assert!(log.contains("too many slots are stuck"), "{log}");
}

#[tokio::test]
async fn a_process_without_a_thread_left_hands_back_and_ends() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut daemon = Daemon::start(rig.url(), storage.path(), &SETTINGS).await;
    let running = |n| {
        format!(
            "(SELECT count(*) = {n} FROM ingestd.jobs WHERE kind = 'system.noop' AND state = 'running')"
        )
    };
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args)
         SELECT 'system.noop', '{\"sleep_ms\": 60000}' FROM generate_series(1, 3)",
    )
    .await;
    rig.until(&running(3)).await;
    // As if theirs was a kind that may take longer.
    rig.sql(
        "UPDATE ingestd.jobs SET deadline_at = now() + interval '1 h' WHERE kind = 'system.noop'",
    )
    .await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args)
         SELECT 'system.noop', '{\"outcome\": \"spin\"}' FROM generate_series(1, 2)",
    )
    .await;
    // Leased in a batch, which no thread of theirs can settle now.
    rig.until(
        "(SELECT count(*) = 2 FROM ingestd.jobs j JOIN ingestd.workers w ON w.id = j.worker_id
          WHERE j.args ->> 'outcome' = 'spin' AND j.state = 'running' AND w.ended_at IS NULL)",
    )
    .await;
    let exit = daemon.ended().await;
    assert_eq!(exit.code(), Some(75), "{}", daemon.log());
    assert!(
        daemon.log().contains("no way to stop softly"),
        "{}",
        daemon.log()
    );
    let left = "SELECT string_agg(concat_ws(' ', coalesce(args ->> 'outcome', 'ok'), state, attempt, crashes), ',' ORDER BY id)
                FROM ingestd.jobs WHERE kind = 'system.noop'";
    let expected = [
        "ok queued 0 0",
        "ok queued 0 0",
        "ok queued 0 0",
        "spin running 1 0",
        "spin running 1 0",
    ];
    assert_eq!(rig.ask::<String>(left).await, expected.join(","));
    let beat = "SELECT bool_and(w.heartbeat_at > j.deadline_at) FROM ingestd.jobs j
                JOIN ingestd.workers w ON w.id = j.worker_id WHERE j.state = 'running'";
    assert!(
        rig.ask::<bool>(beat).await,
        "heartbeats went on while nothing else did"
    );
    // Those that blocked it are charged, by whoever is next; the others were not even tried.
    rig.sql("UPDATE ingestd.jobs SET args = '{}' WHERE kind = 'system.noop'")
        .await;
    let mut next = Daemon::start(rig.url(), storage.path(), &SETTINGS).await;
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.noop')")
        .await;
    let crashes =
        "SELECT concat_ws(' ', count(*), count(DISTINCT job_id)) FROM ingestd.job_attempts
                   WHERE kind = 'system.noop' AND outcome = 'crash'";
    assert_eq!(rig.ask::<String>(crashes).await, "2 2");
    assert!(next.terminate().success());
}

#[tokio::test]
async fn the_service_manager_hears_of_claims_that_get_on() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let path = storage.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let manager = [
        ("NOTIFY_SOCKET", path.to_str().unwrap()),
        ("WATCHDOG_USEC", "1000000"),
    ];
    let mut daemon = Daemon::start(rig.url(), storage.path(), &manager).await;
    let mut heard = String::new();
    while !heard.contains("WATCHDOG=1") {
        let mut buffer = [0; 1024];
        let n = socket.recv(&mut buffer).unwrap();
        heard.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
    }
    assert!(heard.contains("READY=1"), "{heard}");
    assert!(daemon.terminate().success());
}
