//! Jobs in steps whose daemon dies.

use tempfile::TempDir;

use crate::{process::Daemon, queue_rig::Rig};

#[tokio::test]
async fn a_job_whose_daemon_was_killed_goes_on_after_its_last_step() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut doomed = Daemon::start(rig.url(), storage.path(), &[]).await;
    rig.sql(
        r#"INSERT INTO ingestd.jobs (kind, args)
           VALUES ('system.noop', '{"steps": 40, "sleep_ms": 1000, "log": "working"}')"#,
    )
    .await;
    rig.until("(SELECT count(*) >= 2 FROM ingestd.job_steps)")
        .await;
    rig.until(
        "EXISTS (SELECT FROM ingestd.job_logs) AND EXISTS (SELECT FROM ingestd.job_progress)",
    )
    .await;
    doomed.kill9();
    // Longer than anybody waits before the kill; no reason to wait for the rest.
    rig.sql(r#"UPDATE ingestd.jobs SET args = args || '{"sleep_ms": 0}'"#)
        .await;
    let first_lease = "SELECT min(lease_id) FROM ingestd.job_steps";
    let first_lease: i64 = rig.ask(first_lease).await;
    let survived: i64 = rig.ask("SELECT count(*) FROM ingestd.job_steps").await;

    let mut second = Daemon::start(rig.url(), storage.path(), &[]).await;
    rig.until("(SELECT count(*) = 1 FROM ingestd.job_history WHERE kind = 'system.noop')")
        .await;
    // The first ones are still the dead daemon's, and each step is there once.
    let steps = format!(
        "SELECT count(DISTINCT step) || ' ' ||
                (count(*) FILTER (WHERE lease_id = {first_lease}) = {survived})
         FROM ingestd.job_steps"
    );
    assert_eq!(rig.ask::<String>(&steps).await, "40 true");
    assert!(second.terminate().success());
    // What the dead one had said is there, and told apart from what the second said.
    let said = format!(
        "SELECT count(*) FILTER (WHERE lease_id = {first_lease}) > 0 AND count(DISTINCT lease_id) = 2
         FROM ingestd.job_logs"
    );
    assert!(rig.ask::<bool>(&said).await);
}
