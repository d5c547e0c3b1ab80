//! Jobs that kill their process: by its own end, of its stack, of memory, and by the kernel.

use std::{
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::{queue_rig::Rig, supervisor::Supervisor};

/// Lets eight innocent jobs and one that ends as told run in one daemon, which is started again
/// whenever it died. Returns the signals it died of.
async fn live_with(outcome: &str, limits: &str) -> Vec<Option<i32>> {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut supervisor = Supervisor::start(&rig, &storage, limits, &[]).await;
    rig.sql(&format!(
        "INSERT INTO ingestd.jobs (kind, args)
         SELECT 'system.noop', '{{\"sleep_ms\": 400}}' FROM generate_series(1, 8);
         INSERT INTO ingestd.jobs (kind, args)
         VALUES ('system.noop', '{{\"outcome\": \"{outcome}\", \"sleep_ms\": 200}}')"
    ))
    .await;
    supervisor
        .keep_until(
            &rig,
            "EXISTS (SELECT FROM ingestd.dead_jobs)
             AND NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.noop')",
        )
        .await;
    supervisor.look();
    let ended =
        "SELECT concat_ws(' ', count(*), max(attempt), count(*) FILTER (WHERE state = 'completed'))
                 FROM ingestd.job_history WHERE kind = 'system.noop'";
    assert_eq!(
        rig.ask::<String>(ended).await,
        "8 1 8",
        "no bystander was charged"
    );
    let letter =
        "SELECT string_agg(concat_ws(' ', reason, crashes, attempt, args ->> 'outcome'), ',')
                  FROM ingestd.dead_jobs";
    let expected = format!("poison 3 1 {outcome}");
    assert_eq!(rig.ask::<String>(letter).await, expected);
    let crashes =
        "SELECT count(*) FROM ingestd.job_attempts a JOIN ingestd.dead_jobs d ON d.id = a.job_id
                   WHERE a.outcome = 'crash' AND a.attempt = 1";
    assert_eq!(
        rig.ask::<i64>(crashes).await,
        3,
        "each death is an attempt of its own"
    );
    supervisor.exits.iter().map(ExitStatusExt::signal).collect()
}

const ABORTED: Option<i32> = Some(Signal::SIGABRT as i32);
const KILLED: Option<i32> = Some(Signal::SIGKILL as i32);

#[tokio::test]
async fn who_ends_the_process_is_quarantined() {
    assert_eq!(live_with("exit", "").await, [None; 3]);
}

#[tokio::test]
async fn who_uses_up_the_stack_is_quarantined() {
    assert_eq!(live_with("overflow", "").await, [ABORTED; 3]);
}

#[tokio::test]
async fn who_asks_for_memory_that_there_is_not_is_quarantined() {
    // In KiB: the daemon itself gets by with less.
    assert_eq!(
        live_with("memory", "ulimit -v 2500000;").await,
        [ABORTED; 3]
    );
}

/// A control group with a limit on memory, removed when dropped.
struct Group(PathBuf);

impl Group {
    /// Makes one of either version of control groups.
    fn new(bytes: u32) -> Self {
        let name = format!("ingestd-test-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (parent, limit) = if first.is_dir() {
            (first, "memory.limit_in_bytes")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max")
        };
        let group = Self(parent.join(name));
        std::fs::create_dir(&group.0).unwrap_or_else(|error| {
            panic!("needs a control group for memory: {error}; run it as root")
        });
        std::fs::write(group.0.join(limit), bytes.to_string()).unwrap();
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(std::fs::remove_dir(&self.0));
    }
}

#[tokio::test]
#[ignore = "nightly: needs root and a control group for memory"]
async fn nightly_whom_the_kernel_kills_for_memory_is_quarantined() {
    let group = Group::new(300 << 20);
    let join = format!("echo $$ > {}/cgroup.procs;", group.0.display());
    assert_eq!(live_with("memory", &join).await, [KILLED; 3]);
}
