//! What is refused, and how it is said.

use reqwest::header;
use serde_json::json;

use super::server::{Server, problem};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn what_is_not_there_is_a_problem() {
    let server = Server::start().await;
    for path in [
        "/nothing",
        "/api",
        "/api/v1/jobs/",
        "/api/v1/jobs/7",
        "/api/v1/jobs/seven",
        "/api/v1/jobs/99999999999999999999",
        "/api/v1/runs/7",
        "/api/v1/jobs/../../etc/passwd",
        "/favicon.ico",
    ] {
        problem(server.get(path).send().await.unwrap(), 404, "not-found").await;
    }
    for path in [
        "/api/v1/jobs/7/cancel",
        "/api/v1/jobs/7/retry",
        "/api/v1/runs/7/cancel",
        "/api/v1/runs/7/reset",
        "/api/v1/queues/nobody/pause",
        "/api/v1/queues/nobody/resume",
    ] {
        problem(server.post(path).send().await.unwrap(), 404, "not-found").await;
    }
    assert_eq!(server.audit().await, []);
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let server = Server::start().await;
    let delete = server
        .client
        .delete(server.url("/api/v1/jobs"))
        .send()
        .await
        .unwrap();
    let allowed = delete.headers()[header::ALLOW].to_str().unwrap().to_owned();
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
    problem(delete, 405, "method-not-allowed").await;
    let get = server.get("/api/v1/jobs/7/cancel").send().await.unwrap();
    assert_eq!(get.headers()[header::ALLOW], "POST");
    problem(get, 405, "method-not-allowed").await;
    let head = server
        .client
        .head(server.url("/healthz"))
        .send()
        .await
        .unwrap();
    assert_eq!(head.status(), 200);
}

#[tokio::test]
async fn a_body_that_is_no_json_is_pointed_at() {
    let server = Server::start().await;
    for (body, pointer) in [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        ("{}", ""),
        (r#"{"kind":"system.noop"} x"#, ""),
        (r#"{"kind":7}"#, "/kind"),
        (r#"{"kind":"system.noop","args":[1]}"#, "/args"),
        (r#"{"kind":"system.noop","args":null}"#, "/args"),
        (r#"{"kind":"system.noop","priority":"high"}"#, "/priority"),
        (r#"{"kind":"system.noop","run_at":"tomorrow"}"#, "/run_at"),
        (r#"{"kind":"system.noop","prioriy":1}"#, "/prioriy"),
    ] {
        let post = server
            .post("/api/v1/jobs")
            .header(JSON.0, JSON.1)
            .body(body);
        let told = problem(post.send().await.unwrap(), 400, "bad-json").await;
        assert_eq!(told["errors"][0]["pointer"], pointer, "{body}: {told}");
        assert!(told["errors"][0]["detail"].is_string());
    }
}

#[tokio::test]
async fn a_body_of_another_type_or_size_is_refused() {
    let server = Server::with(|config| config.http.max_body_bytes = 1000).await;
    let text = server
        .post("/api/v1/jobs")
        .body(r#"{"kind":"system.noop"}"#);
    problem(text.send().await.unwrap(), 415, "unsupported-media-type").await;
    let form = server
        .post("/api/v1/jobs")
        .header("content-type", "text/plain")
        .body("{}");
    problem(form.send().await.unwrap(), 415, "unsupported-media-type").await;
    let large = json!({ "kind": "system.noop", "args": { "payload": "x".repeat(1000) } });
    let large = server.post("/api/v1/jobs").json(&large);
    problem(large.send().await.unwrap(), 413, "too-large").await;
    // 20 MB, so that the client is still sending when it is refused.
    let huge = "x".repeat(20_000_000);
    let huge = server
        .post("/api/v1/jobs")
        .header(JSON.0, JSON.1)
        .body(huge);
    problem(huge.send().await.unwrap(), 413, "too-large").await;
    // Without a length the bytes are counted as they come.
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> =
        (0..2).map(|_| Ok(vec![b' '; 600])).collect();
    let chunked = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let chunked = server
        .post("/api/v1/jobs")
        .header(JSON.0, JSON.1)
        .body(chunked);
    problem(chunked.send().await.unwrap(), 413, "too-large").await;
    let n_jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.jobs")
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(n_jobs, 0);
}

#[tokio::test]
async fn parameters_that_do_not_fit_are_named() {
    let server = Server::start().await;
    for (path, word) in [
        ("/api/v1/jobs?limit=0", "limit"),
        ("/api/v1/jobs?limit=201", "limit"),
        ("/api/v1/jobs?limit=many", "limit"),
        ("/api/v1/jobs?cursor=7", "cursor"),
        ("/api/v1/jobs?state=asleep", "state"),
        ("/api/v1/jobs?sate=queued", "sate"),
        ("/api/v1/dead?replayed=perhaps", "replayed"),
        ("/api/v1/runs?cursor=x", "cursor"),
    ] {
        let told = problem(server.get(path).send().await.unwrap(), 400, "bad-request").await;
        assert!(
            told["detail"].as_str().unwrap().contains(word),
            "{path}: {told}"
        );
    }
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let server = Server::start().await;
    let sent = server
        .get("/api/v1/jobs")
        .header("x-request-id", "trace-1.a:b_c");
    assert_eq!(
        sent.send().await.unwrap().headers()["x-request-id"],
        "trace-1.a:b_c"
    );
    for unfit in ["", "a b", "a\"b", &"x".repeat(129)] {
        let unfit = server.get("/api/v1/jobs").header("x-request-id", unfit);
        let given = unfit.send().await.unwrap().headers()["x-request-id"].clone();
        assert_eq!(given.len(), 32, "{given:?}");
    }
}

#[tokio::test]
async fn responses_are_not_framed_sniffed_or_kept() {
    let server = Server::start().await;
    for path in ["/api/v1/jobs", "/nothing", "/metrics"] {
        let response = server.get(path).send().await.unwrap();
        let headers = response.headers();
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert!(
            headers["content-security-policy"]
                .to_str()
                .unwrap()
                .contains("default-src 'none'")
        );
        assert_eq!(headers["cache-control"], "no-store");
    }
}

#[tokio::test]
async fn a_database_that_is_away_is_said_so() {
    let server = Server::start().await;
    server.pool().close().await;
    let list = server.get("/api/v1/jobs").send().await.unwrap();
    assert_eq!(list.headers()["retry-after"], "5");
    problem(list, 503, "unavailable").await;
    let post = server
        .post("/api/v1/jobs")
        .json(&json!({ "kind": "system.noop" }));
    problem(post.send().await.unwrap(), 503, "unavailable").await;
}

#[tokio::test]
async fn a_bug_is_a_problem_without_its_cause() {
    let server = Server::start().await;
    let drop = "ALTER TABLE ingestd.runs RENAME TO runs_that_are_gone";
    sqlx::query(drop).execute(server.pool()).await.unwrap();
    let told = problem(
        server.get("/api/v1/runs").send().await.unwrap(),
        500,
        "internal",
    )
    .await;
    assert_eq!(told.get("detail"), None);
}
