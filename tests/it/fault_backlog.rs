//! A daemon in front of a deep backlog: it holds no more memory than in front of a short one.
//!
//! What a claim reads is counted in `src/queue/hot_tests.rs`.

use sqlx::postgres::PgPoolCopyExt;
use tempfile::TempDir;

use crate::{process::Daemon, queue_rig::Rig};

/// What a daemon may grow by, in KiB: caches fill as it works, whatever lies ahead of it.
const GROWTH_KIB: i64 = 48 * 1024;

/// Rows that are sent at once.
const BATCH: usize = 30_000;

/// Copies jobs in, a third of them due.
async fn fill(rig: &Rig, n_jobs: usize) {
    let mut copy = rig
        .pool()
        .copy_in_raw("COPY ingestd.jobs (kind, queue, priority, run_at) FROM STDIN")
        .await
        .unwrap();
    for first in (0..n_jobs).step_by(BATCH) {
        let row = |n: usize| {
            let at = if n.is_multiple_of(3) {
                "2000-01-01"
            } else {
                "2200-01-01"
            };
            format!("system.noop\tdefault\t{}\t{at}\n", n / 3 % 4)
        };
        let rows: String = (first..n_jobs.min(first + BATCH)).map(row).collect();
        copy.send(rows.into_bytes()).await.unwrap();
    }
    copy.finish().await.unwrap();
}

async fn done(rig: &Rig, n_done: usize) {
    rig.until(&format!(
        "(SELECT count(*) >= {n_done} FROM ingestd.job_history WHERE kind = 'system.noop')"
    ))
    .await;
}

async fn memory_is_flat(n_jobs: usize) {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut daemon = Daemon::start(rig.url(), storage.path(), &[]).await;
    // Warm: every path that a job takes was taken.
    fill(&rig, 3_000).await;
    done(&rig, 1_000).await;
    let before = daemon.resident_kib();
    fill(&rig, n_jobs).await;
    done(&rig, 1_000 + (n_jobs / 3).min(10_000)).await;
    let after = daemon.resident_kib();
    assert!(
        after - before < GROWTH_KIB,
        "{before} KiB, then {after} KiB"
    );
    rig.sql("UPDATE ingestd.queues SET paused_at = now()").await;
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn memory_does_not_grow_with_the_backlog() {
    memory_is_flat(50_000).await;
}

#[tokio::test]
#[ignore = "nightly: a million rows"]
async fn nightly_memory_does_not_grow_with_a_million() {
    memory_is_flat(1_000_000).await;
}
