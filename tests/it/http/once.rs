//! `Idempotency-Key`: sent again is not done again.

use ingestd::access::Role;
use reqwest::Response;
use serde_json::{Value, json};

use super::{
    server::{Server, problem},
    token::make,
};

async fn enqueue(server: &Server, key: &str, body: &Value) -> Response {
    let ask = server.post("/api/v1/jobs").header("idempotency-key", key);
    ask.json(body).send().await.unwrap()
}

async fn n_jobs(server: &Server) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM ingestd.jobs")
        .fetch_one(server.pool())
        .await
        .unwrap()
}

fn noop() -> Value {
    json!({ "kind": "system.noop" })
}

#[tokio::test]
async fn a_repeat_is_answered_as_before() {
    let server = Server::start().await;
    let first = enqueue(&server, "k", &noop()).await;
    assert_eq!(first.status(), 201);
    assert!(!first.headers().contains_key("idempotency-replayed"));
    let location = first.headers()["location"].clone();
    let first: Value = first.json().await.unwrap();
    let again = enqueue(&server, "k", &noop()).await;
    assert_eq!(again.status(), 201);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.headers()["location"], location);
    assert_eq!(again.json::<Value>().await.unwrap(), first);
    assert_eq!(n_jobs(&server).await, 1);
    let other = json!({ "kind": "system.noop", "priority": 0 });
    problem(enqueue(&server, "k", &other).await, 422, "key-reused").await;
    assert_eq!(enqueue(&server, "k2", &noop()).await.status(), 201);
    assert_eq!(n_jobs(&server).await, 2);
    assert_eq!(server.audit().await.len(), 2);
}

#[tokio::test]
async fn of_many_at_once_one_is_carried_out() {
    let server = Server::start().await;
    let body = noop();
    let asked = (0..8).map(|_| enqueue(&server, "k", &body));
    let answers = futures::future::join_all(asked).await;
    for answer in answers {
        match answer.status().as_u16() {
            201 => {}
            _ => drop(problem(answer, 409, "conflict").await),
        }
    }
    assert_eq!(n_jobs(&server).await, 1);
    assert_eq!(enqueue(&server, "k", &body).await.status(), 201);
}

#[tokio::test]
async fn what_was_refused_may_be_sent_again_corrected() {
    let server = Server::start().await;
    let wrong = json!({ "kind": "no.such" });
    problem(enqueue(&server, "k", &wrong).await, 422, "unknown-kind").await;
    assert_eq!(enqueue(&server, "k", &noop()).await.status(), 201);
    let (longest, longer) = ("k".repeat(255), "k".repeat(256));
    for bad in ["", "\u{e9}", &longer] {
        problem(enqueue(&server, bad, &noop()).await, 400, "bad-request").await;
    }
    assert_eq!(enqueue(&server, &longest, &noop()).await.status(), 201);
    assert_eq!(n_jobs(&server).await, 2);
}

#[tokio::test]
async fn a_key_is_of_one_route_and_one_query() {
    let server = Server::start().await;
    let ask = async |path: &str| {
        let ask = server.post(path).header("idempotency-key", "k");
        ask.send().await.unwrap()
    };
    assert_eq!(ask("/api/v1/queues/default/pause").await.status(), 200);
    let other = ask("/api/v1/queues/default/resume").await;
    problem(other, 422, "key-reused").await;
    let other = ask("/api/v1/queues/default/pause?x=1").await;
    problem(other, 422, "key-reused").await;
    let paused = "SELECT paused_at IS NOT NULL FROM ingestd.queues WHERE queue = 'default'";
    let is_paused: bool = sqlx::query_scalar(paused)
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert!(is_paused);
}

#[tokio::test]
async fn where_the_answer_was_lost_it_is_not_done_again() {
    let server = Server::start().await;
    assert_eq!(enqueue(&server, "k", &noop()).await.status(), 201);
    // As if the daemon had died between the commit and the answer.
    let lost = "UPDATE ingestd.idempotency_keys SET status = NULL, body = NULL";
    sqlx::query(lost).execute(server.pool()).await.unwrap();
    let told = problem(enqueue(&server, "k", &noop()).await, 409, "conflict").await;
    assert!(
        told["object"].as_str().unwrap().starts_with("job/"),
        "{told}"
    );
    assert_eq!(n_jobs(&server).await, 1);
}

#[tokio::test]
async fn a_key_is_its_callers_and_ends_after_a_day() {
    let server = Server::start().await;
    let mut answers = Vec::new();
    for name in ["one", "two"] {
        let token = make(&server, name, Role::Operator, &[]).await;
        let ask = server.post("/api/v1/jobs").header("idempotency-key", "k");
        let made = ask.bearer_auth(&token).json(&noop()).send().await.unwrap();
        assert_eq!(made.status(), 201);
        let made: Value = made.json().await.unwrap();
        answers.push((token, made["id"].clone()));
    }
    assert_ne!(answers[0].1, answers[1].1);
    let age = "UPDATE ingestd.idempotency_keys SET created_at = now() - interval '25 hours'";
    sqlx::query(age).execute(server.pool()).await.unwrap();
    let ask = server.post("/api/v1/jobs").header("idempotency-key", "k");
    let made = ask
        .bearer_auth(&answers[0].0)
        .json(&noop())
        .send()
        .await
        .unwrap();
    assert_eq!(made.status(), 201);
    assert_eq!(n_jobs(&server).await, 3);
    let n_keys: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.idempotency_keys")
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(n_keys, 1, "old ones are forgotten");
}
