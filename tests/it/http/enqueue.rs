//! Jobs from outside.

use serde_json::{Value, json};

use super::server::{Server, problem};

#[tokio::test]
async fn a_job_enqueued_by_http_is_a_row() {
    let server = Server::start().await;
    let job = json!({
        "kind": "system.noop", "args": { "sleep_ms": 5 }, "queue": "bulk", "priority": 3,
        "run_at": "2030-01-02T03:04:05+01:00", "max_attempts": 2, "unique_key": "k1",
        "tenant": "acme", "meta": { "by": "test" },
    });
    let response = server.post("/api/v1/jobs").json(&job).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let shown: Value = response.json().await.unwrap();
    let id = shown["id"].as_i64().unwrap();
    assert_eq!(location, format!("/api/v1/jobs/{id}"));
    let row: Value = sqlx::query_scalar(
        "SELECT to_jsonb(j) - '{shard,id,created_at}'::text[] FROM ingestd.jobs j WHERE id = $1",
    )
    .bind(id)
    .fetch_one(server.pool())
    .await
    .unwrap();
    for (field, value) in job.as_object().unwrap() {
        let expected = match field.as_str() {
            "run_at" => json!("2030-01-02T02:04:05+00:00"),
            _ => value.clone(),
        };
        assert_eq!(row[field], expected, "{field}");
        if field != "run_at" {
            assert_eq!(shown[field], expected, "{field}");
        }
    }
    assert_eq!(
        (&shown["state"], &shown["attempt"]),
        (&json!("queued"), &json!(0))
    );
    let seen = server.json(&location).await;
    assert_eq!((&seen["id"], &seen["attempts"]), (&shown["id"], &json!([])));
    let expected = (
        "local".to_owned(),
        "job.enqueue".to_owned(),
        format!("job/{id}"),
    );
    assert_eq!(server.audit().await, [expected]);
}

#[tokio::test]
async fn only_the_kind_is_needed() {
    let server = Server::start().await;
    let post = server
        .post("/api/v1/jobs")
        .json(&json!({ "kind": "system.noop" }));
    let response = post.send().await.unwrap();
    assert_eq!(response.status(), 201);
    let shown: Value = response.json().await.unwrap();
    assert_eq!(
        (&shown["queue"], &shown["priority"]),
        (&json!("default"), &json!(1))
    );
    assert_eq!(
        (&shown["args"], &shown["tenant"]),
        (&json!({}), &Value::Null)
    );
}

#[tokio::test]
async fn a_second_job_with_the_key_is_the_first() {
    let server = Server::start().await;
    let job = json!({ "kind": "system.noop", "unique_key": "once" });
    let first = server.post("/api/v1/jobs").json(&job).send().await.unwrap();
    assert_eq!(first.status(), 201);
    let first: Value = first.json().await.unwrap();
    let second = server.post("/api/v1/jobs").json(&job).send().await.unwrap();
    assert_eq!(second.status(), 200);
    assert_eq!(
        second.headers()["location"],
        format!("/api/v1/jobs/{}", first["id"]).as_str()
    );
    let second: Value = second.json().await.unwrap();
    assert_eq!(second["id"], first["id"]);
    assert_eq!(server.audit().await.len(), 1);
}

#[tokio::test]
async fn a_kind_nobody_registered_is_refused_with_a_hint() {
    let server = Server::start().await;
    let post = server
        .post("/api/v1/jobs")
        .json(&json!({ "kind": "system.nop" }));
    let told = problem(post.send().await.unwrap(), 422, "unknown-kind").await;
    assert_eq!(told["errors"][0]["pointer"], "/kind");
    assert_eq!(
        told["errors"][0]["detail"],
        "unknown job kind \"system.nop\""
    );
    assert!(
        told["detail"].as_str().unwrap().contains("'system.noop'"),
        "{told}"
    );
}

#[tokio::test]
async fn arguments_past_256_kib_go_by_reference() {
    let server = Server::start().await;
    let args = json!({ "payload": "x".repeat(300 * 1024) });
    let post = server
        .post("/api/v1/jobs")
        .json(&json!({ "kind": "system.noop", "args": args }));
    let told = problem(post.send().await.unwrap(), 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/args");
}

#[tokio::test]
async fn values_out_of_range_are_all_named() {
    let server = Server::start().await;
    let job = json!({
        "kind": "system.noop", "queue": "", "priority": 4, "max_attempts": 0,
        "unique_key": "k".repeat(1025), "tenant": "",
    });
    let post = server.post("/api/v1/jobs").json(&job);
    let told = problem(post.send().await.unwrap(), 422, "invalid").await;
    let pointers: Vec<_> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].clone())
        .collect();
    let expected = [
        "/queue",
        "/priority",
        "/max_attempts",
        "/unique_key",
        "/tenant",
    ];
    assert_eq!(pointers, expected);
}

#[tokio::test]
async fn what_the_database_cannot_hold_is_the_callers_mistake() {
    let server = Server::start().await;
    for job in [
        json!({ "kind": "system.noop", "unique_key": "a\u{0}b" }),
        json!({ "kind": "system.noop", "args": { "payload": "a\u{0}b" } }),
        json!({ "kind": "system\u{0}noop" }),
        json!({ "kind": "system.noop", "run_at": "+262000-01-01T00:00:00Z" }),
    ] {
        let post = server.post("/api/v1/jobs").json(&job).send().await.unwrap();
        assert!(
            matches!(post.status().as_u16(), 201 | 400 | 422),
            "{job}: {}",
            post.status()
        );
    }
}
