//! Deliveries by a daemon of its own to a server on loopback.

use serde_json::json;
use tempfile::TempDir;

use crate::{
    process,
    queue_rig::Rig,
    webhook_rig::{Endpoint, KEY, Reply, daemon, daemon_with, hook},
};

async fn noop(rig: &Rig, args: &str) -> i64 {
    rig.ask(&format!(
        "INSERT INTO ingestd.jobs (kind, args) VALUES ('system.noop', '{args}') RETURNING id"
    ))
    .await
}

#[tokio::test]
async fn an_event_is_signed_and_tried_until_the_endpoint_takes_it() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let replies = [
        Reply::Status(500),
        Reply::With(503, "retry-after", "0"),
        Reply::With(302, "location", "http://127.0.0.1:1/elsewhere"),
        Reply::Status(404),
        Reply::Status(200),
    ];
    let endpoint = Endpoint::start(replies).await;
    let mut daemon = daemon(&rig, folder.path(), &endpoint).await;
    let kinds = [("kinds", "'{system.noop}'")];
    let id = hook(&rig, &endpoint.url(), "job.completed,job.dead", &kinds).await;
    let job = noop(&rig, "{}").await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.webhook')")
        .await;
    let came = endpoint.came();
    assert_eq!(came.len(), 5);
    for request in &came {
        assert!(request.is_signed(KEY), "{request:?}");
        assert!(!request.is_signed("b3RoZXItb3RoZXItb3RoZXItb3RoZXItb3RoZXI="));
        assert_eq!(request.path, "/hook?token=path-secret");
        assert_eq!(
            request.header("webhook-id"),
            format!("msg_job_{job}_completed")
        );
        assert_eq!(request.header("content-type"), "application/json");
        let body = request.json();
        assert_eq!(body["type"], "job.completed");
        let told = &body["data"]["job"];
        let expected = json!({ "id": job, "kind": "system.noop", "state": "completed" });
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&told[name], value, "{body}");
        }
        assert!(told["finished_at"].is_string() && body["timestamp"].is_string());
        assert!(told.get("args").is_none(), "arguments are not told");
    }
    let log = "SELECT string_agg(concat_ws(' ', attempt, status, error IS NULL), ', ' ORDER BY id)
               FROM ingestd.webhook_deliveries";
    assert_eq!(
        rig.ask::<String>(log).await,
        "1 500 f, 2 503 f, 3 302 f, 4 404 f, 5 200 t"
    );
    // A dead job is told too, and of the delivery itself nothing is.
    let dead = noop(&rig, r#"{"outcome": "fatal"}"#).await;
    let last = endpoint.until(6).await.pop().unwrap();
    assert_eq!(last.header("webhook-id"), format!("msg_job_{dead}_dead"));
    assert_eq!(
        last.json()["data"]["job"]["error"],
        "asked to fail for good"
    );
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.webhook')")
        .await;
    let told = format!("SELECT count(*) FROM ingestd.webhook_deliveries WHERE webhook_id = {id}");
    assert_eq!(rig.ask::<i64>(&told).await, 6);
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn an_endpoint_cannot_have_the_attempts_used_up_at_once() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([Reply::With(503, "retry-after", "0")]).await;
    let patient = [
        ("INGESTD_KINDS__SYSTEM__WEBHOOK__RETRY_FIRST", "1h"),
        ("INGESTD_KINDS__SYSTEM__WEBHOOK__RETRY_CAP", "6h"),
    ];
    let mut daemon = daemon_with(&rig, folder.path(), &endpoint, &patient).await;
    let kinds = [("kinds", "'{system.noop}'")];
    hook(&rig, &endpoint.url(), "job.completed", &kinds).await;
    noop(&rig, "{}").await;
    endpoint.until(1).await;
    rig.until("EXISTS (SELECT FROM ingestd.job_attempts WHERE kind = 'system.webhook')")
        .await;
    let waits = "SELECT count(*) FROM ingestd.jobs
                 WHERE attempt = 1 AND state = 'held' AND run_at > now() + interval '20 min'";
    assert_eq!(rig.ask::<i64>(waits).await, 1);
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_delivery_that_fails_after_its_lease_was_lost_notes_nothing() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([Reply::Silence]).await;
    let hasty = [("INGESTD_WEBHOOKS__TIMEOUT", "3s")];
    let mut daemon = daemon_with(&rig, folder.path(), &endpoint, &hasty).await;
    let kinds = [("kinds", "'{system.noop}'")];
    hook(&rig, &endpoint.url(), "job.completed", &kinds).await;
    noop(&rig, "{}").await;
    endpoint.until(1).await;
    // Its job is another worker's by the time it gives up waiting for an answer.
    rig.sql(
        "UPDATE ingestd.jobs SET lease_id = nextval('ingestd.lease_seq'),
           deadline_at = now() + interval '1 h'
         WHERE kind = 'system.webhook' AND state = 'running'",
    )
    .await;
    process::until("the lease is found lost", || async {
        daemon.log().contains("lease lost")
    })
    .await;
    let noted = "SELECT count(*) FROM ingestd.webhook_deliveries";
    assert_eq!(rig.ask::<i64>(noted).await, 0);
    rig.sql("DELETE FROM ingestd.jobs").await;
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_daemon_killed_between_completion_and_delivery_leaves_the_delivery_to_the_next() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([Reply::Silence]).await;
    let mut first = daemon(&rig, folder.path(), &endpoint).await;
    let kinds = [("kinds", "'{system.noop}'")];
    hook(&rig, &endpoint.url(), "job.completed", &kinds).await;
    let job = noop(&rig, "{}").await;
    endpoint.until(1).await;
    first.kill9();
    let mut second = daemon(&rig, folder.path(), &endpoint).await;
    let came = endpoint.until(2).await;
    for request in came {
        assert!(request.is_signed(KEY));
        assert_eq!(
            request.header("webhook-id"),
            format!("msg_job_{job}_completed")
        );
    }
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.webhook')")
        .await;
    assert!(second.terminate().success());
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_left_in_peace() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([Reply::Status(410)]).await;
    let mut daemon = daemon(&rig, folder.path(), &endpoint).await;
    let kinds = [("kinds", "'{system.noop}'")];
    let id = hook(&rig, &endpoint.url(), "job.completed", &kinds).await;
    noop(&rig, "{}").await;
    rig.until(
        "EXISTS (SELECT FROM ingestd.dead_jobs WHERE kind = 'system.webhook' AND reason = 'fatal')",
    )
    .await;
    let why = format!("SELECT pause_reason FROM ingestd.webhooks WHERE id = {id}");
    assert!(rig.ask::<String>(&why).await.contains("410"));
    let later = noop(&rig, "{}").await;
    rig.until(&format!(
        "EXISTS (SELECT FROM ingestd.job_history WHERE id = {later})"
    ))
    .await;
    let waiting = "SELECT count(*) FROM ingestd.jobs WHERE kind = 'system.webhook'";
    assert_eq!(rig.ask::<i64>(waiting).await, 0);
    assert_eq!(endpoint.came().len(), 1);
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn where_nobody_should_look_nothing_is_sent() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([]).await;
    let mut daemon = daemon(&rig, folder.path(), &endpoint).await;
    let kinds = [("kinds", "'{system.noop}'")];
    let port = endpoint.address.port();
    for url in [
        format!("http://169.254.169.254:{port}/latest/meta-data/?token=path-secret"),
        format!("http://127.0.0.2:{port}/"),
        format!("http://[::1]:{port}/"),
        "http://127.0.0.1:1/".to_owned(),
    ] {
        hook(&rig, &url, "job.completed", &kinds).await;
    }
    noop(&rig, "{}").await;
    rig.until("(SELECT count(*) = 4 FROM ingestd.dead_jobs WHERE kind = 'system.webhook')")
        .await;
    let errors = "SELECT string_agg(error, E'\\n' ORDER BY error) FROM ingestd.dead_jobs
                  WHERE reason = 'fatal' AND attempt = 1";
    let errors = rig.ask::<String>(errors).await;
    for part in [
        "169.254.169.254",
        "link-local",
        "127.0.0.2",
        "::1",
        "port 1 is not",
        "fetch.allow_private",
    ] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert!(!errors.contains("path-secret"), "{errors}");
    assert_eq!(endpoint.came().len(), 0);
    assert!(daemon.terminate().success());
}

/// Everything that the database keeps but the webhook's own row, and what its sessions last ran.
const ALL_TEXT: &str = "
    SELECT coalesce(string_agg(text, E'\\n'), '') FROM (
      SELECT to_jsonb(t)::text AS text FROM ingestd.all_jobs t UNION ALL
      SELECT to_jsonb(t)::text FROM ingestd.job_attempts t UNION ALL
      SELECT to_jsonb(t)::text FROM ingestd.dead_jobs t UNION ALL
      SELECT to_jsonb(t)::text FROM ingestd.webhook_deliveries t UNION ALL
      SELECT to_jsonb(t)::text FROM ingestd.audit_log t UNION ALL
      SELECT to_jsonb(t)::text FROM ingestd.workers t UNION ALL
      SELECT query FROM pg_stat_activity
      WHERE application_name = 'ingestd' AND datname = current_database()) everything";

#[tokio::test]
async fn secrets_turn_up_nowhere() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let replies = [Reply::Status(500), Reply::Status(400)];
    let endpoint = Endpoint::start(replies).await;
    let mut daemon = daemon(&rig, folder.path(), &endpoint).await;
    // Also one whose content is wrong: an error about it must not quote it.
    std::fs::write(folder.path().join("broken"), "canary-that-is-no-key").unwrap();
    let kinds = [("kinds", "'{system.noop}'")];
    hook(&rig, &endpoint.url(), "job.completed", &kinds).await;
    let broken = hook(&rig, &endpoint.url(), "job.completed", &kinds).await;
    rig.sql(&format!(
        "UPDATE ingestd.webhooks SET secret_ref = 'broken' WHERE id = {broken}"
    ))
    .await;
    noop(&rig, "{}").await;
    let came = endpoint.until(3).await;
    assert!(came.iter().all(|request| request.is_signed(KEY)));
    rig.until(&format!(
        "EXISTS (SELECT FROM ingestd.webhook_deliveries WHERE webhook_id = {broken}
                 AND error LIKE 'secret broken is none%')"
    ))
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.webhook')")
        .await;
    let metrics = reqwest::get(daemon.url("/metrics")).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(daemon.terminate().success());
    for text in [rig.ask::<String>(ALL_TEXT).await, daemon.log(), metrics] {
        assert!(text.len() > 100, "there is something to look through");
        for canary in [KEY, "canary", "path-secret", "v1,"] {
            let found = text.lines().find(|line| line.contains(canary));
            assert_eq!(found, None, "{canary}");
        }
    }
}

#[tokio::test]
async fn a_webhook_that_was_removed_is_told_nothing_more() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([Reply::Status(500)]).await;
    let kinds = [("kinds", "'{system.noop}'")];
    let mut daemon = daemon(&rig, folder.path(), &endpoint).await;
    let id = hook(&rig, &endpoint.url(), "job.completed", &kinds).await;
    rig.sql("INSERT INTO ingestd.queues (queue, paused_at) VALUES ('webhooks', now())")
        .await;
    noop(&rig, "{}").await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE kind = 'system.webhook')")
        .await;
    rig.sql(&format!(
        "DELETE FROM ingestd.webhooks WHERE id = {id};
         DELETE FROM ingestd.queues WHERE queue = 'webhooks'"
    ))
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.webhook')")
        .await;
    process::until("the list is empty", || async {
        rig.ask::<i64>("SELECT count(*) FROM ingestd.webhook_deliveries")
            .await
            == 0
    })
    .await;
    assert!(
        endpoint.came().len() <= 1,
        "paused or not, at most the first came"
    );
    assert!(daemon.terminate().success());
}

#[tokio::test]
async fn a_job_of_another_tenant_has_nothing_signed() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([]).await;
    let mut daemon = daemon(&rig, folder.path(), &endpoint).await;
    let id = hook(&rig, &endpoint.url(), "job.dead", &[("tenant", "'acme'")]).await;
    rig.sql(&format!(
        "INSERT INTO ingestd.jobs (kind, queue, tenant, args)
         SELECT 'system.webhook', 'webhooks', tenant, jsonb_build_object('webhook', {id},
           'message', 'msg_forged', 'type', 'job.dead', 'timestamp', now(), 'data', '{{}}'::jsonb)
         FROM (VALUES ('other'), (NULL)) t (tenant)"
    ))
    .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.dead_jobs WHERE kind = 'system.webhook' AND reason = 'fatal')")
        .await;
    assert_eq!(endpoint.came().len(), 0);
    assert!(daemon.terminate().success());
}
