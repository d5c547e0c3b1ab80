//! Webhooks as clients of the API see them.

use ingestd::access::Role;
use serde_json::{Value, json};

use super::{
    server::{Server, problem},
    token::make,
};

async fn add(server: &Server, body: &Value) -> reqwest::Response {
    let request = server.post("/api/v1/webhooks").json(body);
    request.send().await.unwrap()
}

fn body() -> Value {
    json!({ "url": "https://example.com/hook", "events": ["job.dead"], "secret_ref": "ops" })
}

#[tokio::test]
async fn a_webhook_is_made_changed_and_removed() {
    let server = Server::start().await;
    let mut asked = body();
    asked["kinds"] = json!(["system.*"]);
    let response = add(&server, &asked).await;
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let made: Value = response.json().await.unwrap();
    let id = made["id"].as_i64().unwrap();
    assert_eq!(location, format!("/api/v1/webhooks/{id}"));
    assert_eq!(server.json(&location).await, made);
    for (name, value) in [
        ("tenant", json!("default")),
        ("kinds", json!(["system.*"])),
        ("queues", Value::Null),
        ("paused_at", Value::Null),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    for verb in ["pause", "pause", "resume", "resume"] {
        let response = server
            .post(&format!("{location}/{verb}"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{verb}");
        let is_paused = !server.json(&location).await["paused_at"].is_null();
        assert_eq!(is_paused, verb == "pause");
    }
    let list = server.json("/api/v1/webhooks").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let response = server
        .post(&format!("{location}/test"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
    let job = response.json::<Value>().await.unwrap()["job"].clone();
    let job = server.json(&format!("/api/v1/jobs/{job}")).await;
    assert_eq!(job["args"]["type"], "webhook.test");
    let deliveries = server.json(&format!("{location}/deliveries")).await;
    assert_eq!(deliveries["items"], json!([]));
    let response = server
        .client
        .delete(server.url(&location))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let actions: Vec<String> = server
        .audit()
        .await
        .into_iter()
        .map(|entry| entry.1)
        .collect();
    let expected = ["add", "pause", "resume", "test", "remove"];
    assert_eq!(actions, expected.map(|verb| format!("webhook.{verb}")));
    for path in ["", "/deliveries"] {
        let response = server
            .get(&format!("{location}{path}"))
            .send()
            .await
            .unwrap();
        problem(response, 404, "not-found").await;
    }
    for verb in ["pause", "resume", "test"] {
        let response = server
            .post(&format!("{location}/{verb}"))
            .send()
            .await
            .unwrap();
        problem(response, 404, "not-found").await;
    }
}

#[tokio::test]
async fn what_is_no_webhook_is_told_by_its_place() {
    let server = Server::start().await;
    for (name, value, says) in [
        ("url", json!("http://127.0.0.1/"), "this machine"),
        ("url", json!("ftp://example.com/"), "http and https"),
        ("url", json!("https://example.com:22/"), "fetch.ports"),
        ("events", json!([]), "at least one"),
        ("events", json!(["job.died"]), "job.dead"),
        ("secret_ref", json!("../ops"), "not the secret"),
        (
            "secret_ref",
            json!("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa/+=="),
            "not the secret",
        ),
        ("kinds", json!([]), "null for all"),
        ("tenant", json!(""), "1 to 200"),
    ] {
        let mut wrong = body();
        wrong[name] = value;
        let told = problem(add(&server, &wrong).await, 422, "invalid").await;
        let error = &told["errors"][0];
        let pointer = error["pointer"].as_str().unwrap();
        assert!(pointer.starts_with(&format!("/{name}")), "{told}");
        assert!(error["detail"].as_str().unwrap().contains(says), "{told}");
    }
    let mut extra = body();
    extra["secret"] = json!("whsec_sesame");
    let told = add(&server, &extra).await;
    assert!(told.status().is_client_error());
    assert!(!told.text().await.unwrap().contains("sesame"));
    for _ in 0..50 {
        assert_eq!(add(&server, &body()).await.status(), 201);
    }
    problem(add(&server, &body()).await, 409, "conflict").await;
}

#[tokio::test]
async fn a_bound_admin_has_only_its_tenants_secrets_sign() {
    let folder = tempfile::tempdir().unwrap();
    let key = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    for (name, text) in [
        ("ops", key.to_owned()),
        ("acme", format!("tenant acme\n{key}")),
        ("other", format!("tenant other\n{key}")),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let dir = folder.path().to_owned();
    let server = Server::with(|config| config.webhooks.secrets_dir = Some(dir)).await;
    let token = make(&server, "acme", Role::Admin, &["acme"]).await;
    for (secret, status) in [("ops", 422), ("other", 422), ("none", 422), ("acme", 201)] {
        let mut body = body();
        body["secret_ref"] = json!(secret);
        let ask = server.post("/api/v1/webhooks").bearer_auth(&token);
        let answer = ask.json(&body).send().await.unwrap();
        assert_eq!(answer.status(), status, "{secret}");
        let told: Value = answer.json().await.unwrap();
        if status == 422 {
            assert_eq!(told["errors"][0]["pointer"], "/secret_ref", "{told}");
        }
    }
}
