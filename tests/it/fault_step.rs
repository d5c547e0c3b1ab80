//! Jobs in steps whose daemon dies.

use tempfile::TempDir;

use crate::{process::Daemon, queue_rig::Rig};

#[tokio::test]
async fn a_job_whose_daemon_was_killed_goes_on_after_its_last_step() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut doomed = Daemon::start(rig.url(), storage.path(), &[]).await;
    rig.sql(
        r#"INSERT INTO ingestd.jobs (kind, args)
           VALUES ('system.noop', '{"steps": 4, "sleep_ms": 1000}')"#,
    )
    .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.job_steps)")
        .await;
    doomed.kill9();
    let first_lease = "SELECT min(lease_id) FROM ingestd.job_steps";
    let first_lease: i64 = rig.ask(first_lease).await;
    let survived: i64 = rig.ask("SELECT count(*) FROM ingestd.job_steps").await;

    let mut second = Daemon::start(rig.url(), storage.path(), &[]).await;
    rig.until("(SELECT count(*) = 1 FROM ingestd.job_history WHERE kind = 'system.noop')")
        .await;
    // The first ones are still the dead daemon's, and each step is there once.
    let steps = format!(
        "SELECT string_agg(step, ', ' ORDER BY step) || ' ' ||
                (count(*) FILTER (WHERE lease_id = {first_lease}) = {survived})
         FROM ingestd.job_steps"
    );
    let expected = "step 1, step 2, step 3, step 4 true";
    assert_eq!(rig.ask::<String>(&steps).await, expected);
    assert!(second.terminate().success());
}
