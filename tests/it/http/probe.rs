//! Probes and metrics.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::server::Server;

async fn ready(server: &Server, path: &str) -> (u16, Value) {
    let response = server.get(path).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_well_daemon_is_ready() {
    let server = Server::start().await;
    let health = server.get("/healthz").send().await.unwrap();
    assert_eq!(
        (
            health.status().as_u16(),
            health.text().await.unwrap().as_str()
        ),
        (200, "ok\n")
    );
    let (status, body) = ready(&server, "/readyz").await;
    assert_eq!(status, 200);
    let checks = json!({ "database": "ok", "disk": "ok", "migrations": "ok", "worker": "ok", "shutdown": "ok" });
    assert_eq!(body, json!({ "status": "ready", "checks": checks }));
    let (status, body) = ready(&server, "/readyz?verbose").await;
    assert_eq!(status, 200);
    assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(body["checks"]["database"]["status"], "ok");
    assert!(body["checks"]["database"]["took_ms"].is_u64());
}

#[tokio::test]
async fn each_check_can_make_it_unready() {
    let server = Server::start().await;
    server.alive.store(false, Ordering::Relaxed);
    let (status, body) = ready(&server, "/readyz").await;
    assert_eq!(
        (status, &body["checks"]["worker"]),
        (503, &json!("no heartbeat"))
    );
    assert_eq!(body["status"], "not ready");
    server.alive.store(true, Ordering::Relaxed);
    assert_eq!(ready(&server, "/readyz").await.0, 200);

    let forget = "DELETE FROM ingestd._migrations WHERE version = (
        SELECT max(version) FROM ingestd._migrations)";
    sqlx::query(forget).execute(server.pool()).await.unwrap();
    let (status, body) = ready(&server, "/readyz").await;
    assert_eq!(
        (status, &body["checks"]["migrations"]),
        (503, &json!("missing"))
    );

    server.draining.cancel();
    let (status, body) = ready(&server, "/readyz").await;
    assert_eq!(
        (status, &body["checks"]["shutdown"]),
        (503, &json!("draining"))
    );

    server.pool().close().await;
    let (status, body) = ready(&server, "/readyz").await;
    assert_eq!(
        (status, &body["checks"]["database"]),
        (503, &json!("unreachable"))
    );
    assert_eq!(body["checks"]["migrations"], "unknown");
    // The process still lives, and can still be scraped.
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
    assert_eq!(server.get("/metrics").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let server = Server::start().await;
    let insert = "INSERT INTO ingestd.jobs (kind, queue) VALUES ('system.noop', 'http_scraped')";
    sqlx::query(insert).execute(server.pool()).await.unwrap();
    server.get("/api/v1/runs/1").send().await.unwrap();
    let response = server.get("/metrics").send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = response.text().await.unwrap();
    for line in [
        r#"ingestd_queue_jobs{queue="http_scraped",state="queued"} 1"#,
        r#"ingestd_http_requests_total{method="GET",route="/api/v1/runs/{id}",status="404"}"#,
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    // Within 5 s the database is not asked again.
    sqlx::query("DELETE FROM ingestd.jobs")
        .execute(server.pool())
        .await
        .unwrap();
    let again = server
        .get("/metrics")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(again.contains(r#"ingestd_queue_jobs{queue="http_scraped",state="queued"} 1"#));
}
