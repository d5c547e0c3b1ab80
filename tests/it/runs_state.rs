//! What is asked of a run that is in no state for it changes nothing, neither the run nor its job.

use ingestd::runs::{self, NewRun, RunId};
use serde_json::json;

use crate::queue_rig::Rig;

/// Makes a batch run in a state, with a job that a worker has.
async fn run_in(rig: &Rig, state: &str) -> RunId {
    let new = NewRun {
        system: "test",
        job_kind: Some("t.item"),
        tenant: "default".into(),
        triggered_by: "test".into(),
        params: json!({}),
        items_total: None,
    };
    let mut conn = rig.pool().acquire().await.unwrap();
    let id = runs::create(&mut conn, &new).await.unwrap();
    rig.sql(&format!(
        "UPDATE ingestd.runs SET state = '{state}', heartbeat_at = now(), started_at = now(), finished_at =
           CASE WHEN '{state}' IN ('completed', 'failed', 'cancelled') THEN now() END WHERE id = {id};
         INSERT INTO ingestd.jobs (kind, run_id, state, lease_id, worker_id)
         VALUES ('t.item', {id}, 'running', {id}, 1)"
    ))
    .await;
    id
}

/// The run and its job as they are.
async fn whole(rig: &Rig, id: RunId) -> String {
    rig.ask(&format!(
        "SELECT r::text || j FROM ingestd.runs r JOIN ingestd.jobs j ON j.run_id = r.id
         WHERE r.id = {id}"
    ))
    .await
}

#[tokio::test]
async fn what_a_run_is_in_no_state_for_leaves_it_and_its_job() {
    let rig = Rig::new().await;
    rig.sql("INSERT INTO ingestd.job_kinds VALUES ('t.item', 'default', 1, 60)")
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    for (state, can_pause, can_resume, can_cancel) in [
        ("pending", true, false, true),
        ("running", true, false, true),
        ("paused", false, true, true),
        ("completed", false, false, false),
        ("failed", false, false, false),
        ("cancelled", false, false, false),
    ] {
        let id = run_in(&rig, state).await;
        let before = whole(&rig, id).await;
        if !can_pause {
            assert!(!runs::pause(&mut conn, id).await.unwrap(), "{state}");
        }
        if !can_resume {
            assert!(!runs::resume(&mut conn, id).await.unwrap(), "{state}");
        }
        if !can_cancel {
            assert!(!runs::cancel(&mut conn, id).await.unwrap(), "{state}");
        }
        if state == "completed" {
            assert!(!runs::reset(&mut conn, id).await.unwrap());
        }
        assert_eq!(whole(&rig, id).await, before, "{state}");
    }
    for asked in [
        runs::pause(&mut conn, RunId(0)).await,
        runs::resume(&mut conn, RunId(0)).await,
        runs::cancel(&mut conn, RunId(0)).await,
        runs::reset(&mut conn, RunId(0)).await,
    ] {
        assert!(!asked.unwrap());
    }
}
