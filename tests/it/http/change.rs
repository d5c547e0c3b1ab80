//! Jobs that are changed and put off; uniqueness per period.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::server::{Server, problem};

fn patch(server: &Server, id: i64, body: &Value) -> RequestBuilder {
    let url = server.url(&format!("/api/v1/jobs/{id}"));
    server.client.patch(url).json(body)
}

async fn running(server: &Server) -> i64 {
    sqlx::query_scalar(
        "INSERT INTO ingestd.jobs (kind, state, lease_id, worker_id)
         VALUES ('system.noop', 'running', 1, 1) RETURNING id",
    )
    .fetch_one(server.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn priority_and_time_are_changed() {
    let server = Server::start().await;
    let id = server.insert("system.noop", "2030-01-01Z").await;
    let body = json!({ "priority": 0, "run_at": "2031-02-03T04:05:06Z" });
    let response = patch(&server, id, &body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let job: Value = response.json().await.unwrap();
    assert_eq!(
        (&job["priority"], &job["run_at"]),
        (&json!(0), &body["run_at"])
    );
    let expected = (
        "local".to_owned(),
        "job.change".to_owned(),
        format!("job/{id}"),
    );
    assert_eq!(server.audit().await, [expected]);
}

#[tokio::test]
async fn what_cannot_be_changed_is_told() {
    let server = Server::start().await;
    let (waiting, running) = (
        server.insert("system.noop", "2030-01-01Z").await,
        running(&server).await,
    );
    let ok = patch(&server, running, &json!({ "priority": 2 }))
        .send()
        .await
        .unwrap();
    assert_eq!(ok.status(), 200);
    let body = json!({ "run_at": "2031-01-01T00:00:00Z" });
    let response = patch(&server, running, &body).send().await.unwrap();
    assert_eq!(problem(response, 409, "conflict").await["state"], "running");
    let response = patch(&server, 987_654, &body).send().await.unwrap();
    problem(response, 404, "not-found").await;
    for (body, status, name) in [
        (json!({}), 422, "invalid"),
        (json!({ "priority": 4 }), 422, "invalid"),
        (json!({ "queue": "other" }), 400, "bad-json"),
    ] {
        let response = patch(&server, waiting, &body).send().await.unwrap();
        problem(response, status, name).await;
    }
}

#[tokio::test]
async fn a_waiting_job_is_put_off() {
    let server = Server::start().await;
    let id = server.insert("system.noop", "2030-01-01Z").await;
    let path = format!("/api/v1/jobs/{id}/snooze");
    let body = json!({ "delay_secs": 3600 });
    let response = server.post(&path).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let job: Value = response.json().await.unwrap();
    assert_eq!(job["run_at"], "2030-01-01T01:00:00Z");
    let running = format!("/api/v1/jobs/{}/snooze", running(&server).await);
    let response = server.post(&running).json(&body).send().await.unwrap();
    problem(response, 409, "conflict").await;
    let response = server
        .post(&path)
        .json(&json!({ "delay_secs": 0 }))
        .send()
        .await
        .unwrap();
    problem(response, 422, "invalid").await;
    let expected = (
        "local".to_owned(),
        "job.snooze".to_owned(),
        format!("job/{id}"),
    );
    assert_eq!(server.audit().await, [expected]);
}

#[tokio::test]
async fn one_job_per_key_and_period() {
    let server = Server::start().await;
    let body = json!({ "kind": "system.noop", "unique_key": "k", "unique_for_secs": 25_920_000 });
    let post = || server.post("/api/v1/jobs").json(&body).send();
    let first = post().await.unwrap();
    assert_eq!(first.status(), 201);
    let id = first.json::<Value>().await.unwrap()["id"].clone();
    sqlx::query("DELETE FROM ingestd.jobs")
        .execute(server.pool())
        .await
        .unwrap();
    // Neither live nor in the history nor dead: only the period remembers it.
    let gone = problem(post().await.unwrap(), 409, "conflict").await;
    assert_eq!(gone["job"], id);
    for (key, secs) in [
        (json!("k"), 0),
        (json!("k"), 31_622_401),
        (json!("k".repeat(981)), 60),
        (Value::Null, 60),
    ] {
        let body = json!({ "kind": "system.noop", "unique_key": key, "unique_for_secs": secs });
        let response = server
            .post("/api/v1/jobs")
            .json(&body)
            .send()
            .await
            .unwrap();
        problem(response, 422, "invalid").await;
    }
}

#[tokio::test]
async fn a_job_says_why_it_does_not_run() {
    let server = Server::start().await;
    let id = server.insert("system.noop", "2030-01-01Z").await;
    let why = server.json(&format!("/api/v1/jobs/{id}/why")).await;
    assert_eq!((&why["id"], &why["state"]), (&json!(id), &json!("queued")));
    assert_eq!(why["reasons"][0]["code"], "scheduled");
    assert_eq!(why["reasons"][1]["code"], "no_worker");
    assert_eq!(why["reasons"][1]["advice"], "start one: ingestd run");
    let response = server.get("/api/v1/jobs/987654/why").send().await.unwrap();
    problem(response, 404, "not-found").await;
}
