//! Tokens: what they open, what is kept of them, who is told.

use ingestd::access::{
    Role,
    token::{self, NewToken},
};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::server::{Server, problem};

/// Makes a token and returns its text.
pub(super) async fn make(server: &Server, name: &str, role: Role, tenants: &[&str]) -> String {
    let new = NewToken {
        name: name.to_owned(),
        role,
        tenants: (!tenants.is_empty()).then(|| tenants.iter().map(ToString::to_string).collect()),
        lasts: None,
    };
    let mut conn = server.pool().acquire().await.unwrap();
    let (_, text) = token::create(&mut conn, &new, "test").await.unwrap();
    text.expose_secret().to_owned()
}

/// Returns what of a token nobody may see.
fn secret(text: &str) -> &str {
    text.splitn(3, '_').nth(2).unwrap()
}

/// Changes a token's last character to one that it never ends with.
pub(super) fn spoiled(text: &str) -> String {
    let mut spoiled = text.to_owned();
    spoiled.pop();
    spoiled + "x"
}

#[tokio::test]
async fn the_first_token_closes_the_door_and_the_last_revoked_one_leaves_it_closed() {
    let server = Server::start().await;
    assert_eq!(
        server.get("/api/v1/jobs").send().await.unwrap().status(),
        200
    );
    let made = server.post("/api/v1/tokens");
    let made = made.json(&json!({ "name": "ops", "role": "admin" }));
    let made = made.send().await.unwrap();
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    let (id, text) = (&made["id"], made["token"].as_str().unwrap());
    let none = server.get("/api/v1/jobs").send().await.unwrap();
    problem(none, 401, "unauthorized").await;
    let with = server
        .get("/api/v1/jobs")
        .bearer_auth(text)
        .send()
        .await
        .unwrap();
    assert_eq!(with.status(), 200);
    let list = server
        .get("/api/v1/tokens")
        .bearer_auth(text)
        .send()
        .await
        .unwrap();
    let list: Value = list.json().await.unwrap();
    assert_eq!(list["items"][0]["prefix"], made["prefix"]);
    assert!(list["items"][0]["last_used_at"].is_string(), "{list}");
    assert!(!list.to_string().contains(text));
    let url = server.url(&format!("/api/v1/tokens/{id}"));
    let revoked = server
        .client
        .delete(&url)
        .bearer_auth(text)
        .send()
        .await
        .unwrap();
    assert_eq!(revoked.status(), 200);
    let none = server.get("/api/v1/jobs").send().await.unwrap();
    problem(none, 401, "unauthorized").await;
    let first = json!({ "name": "again", "role": "admin" });
    let made = server.post("/api/v1/tokens").json(&first);
    problem(made.send().await.unwrap(), 401, "unauthorized").await;
    let actor = format!("token:ops#{id}");
    let object = format!("token/{id}");
    let entry = |actor: &str, action: &str| (actor.to_owned(), action.to_owned(), object.clone());
    let expected = [
        entry("local", "token.create"),
        entry(&actor, "token.revoke"),
    ];
    assert_eq!(server.audit().await, expected);
}

#[tokio::test]
async fn expired_revoked_and_changed_tokens_open_nothing() {
    let server = Server::with(|config| config.auth.failures_per_minute = 0).await;
    let keep = make(&server, "keep", Role::Admin, &[]).await;
    let expired = make(&server, "expired", Role::Admin, &[]).await;
    let revoked = make(&server, "revoked", Role::Admin, &[]).await;
    sqlx::raw_sql(
        "UPDATE ingestd.api_tokens SET expires_at = now() WHERE name = 'expired';
         UPDATE ingestd.api_tokens SET revoked_at = now() WHERE name = 'revoked'",
    )
    .execute(server.pool())
    .await
    .unwrap();
    let changed = spoiled(&keep);
    let crossed = keep.replace(secret(&keep), secret(&revoked));
    let mut cut = keep.clone();
    cut.pop();
    for wrong in [&expired, &revoked, &changed, &crossed, &cut] {
        let refused = server
            .get("/api/v1/jobs")
            .bearer_auth(wrong)
            .send()
            .await
            .unwrap();
        problem(refused, 401, "unauthorized").await;
    }
    let good = server
        .get("/api/v1/jobs")
        .bearer_auth(&keep)
        .send()
        .await
        .unwrap();
    assert_eq!(good.status(), 200);
    let audit = server.audit().await;
    assert_eq!(audit.len(), 5);
    let is_refusal = |(actor, action, object): &(String, String, String)| {
        actor == "anyone" && action == "auth.refuse" && object == "address/127.0.0.1"
    };
    assert!(audit.iter().all(is_refusal), "{audit:?}");
}

#[tokio::test]
async fn the_database_has_no_secret() {
    let server = Server::start().await;
    let text = make(&server, "canary", Role::Admin, &[]).await;
    let pause = server
        .post("/api/v1/queues/default/pause")
        .bearer_auth(&text);
    let pause = pause.header("idempotency-key", "k1").send().await.unwrap();
    assert_eq!(pause.status(), 200);
    let made = server.post("/api/v1/tokens").bearer_auth(&text);
    let made = made.header("idempotency-key", "k2");
    let made = made.json(&json!({ "name": "second", "role": "viewer" }));
    let made: Value = made.send().await.unwrap().json().await.unwrap();
    let second = made["token"].as_str().unwrap().to_owned();
    let wrong = spoiled(&text);
    server
        .get("/api/v1/jobs")
        .bearer_auth(&wrong)
        .send()
        .await
        .unwrap();
    for table in ["api_tokens", "audit_log", "idempotency_keys"] {
        let dump: String =
            sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT coalesce(string_agg(t::text || coalesce(convert_from(b, 'UTF8'), ''), ' '), '')
             FROM (SELECT t, {} AS b FROM ingestd.{table} t) rows",
            if table == "idempotency_keys" { "t.body" } else { "NULL::bytea" }
        )))
            .fetch_one(server.pool())
            .await
            .unwrap();
        for secret in [secret(&text), secret(&second), secret(&wrong)] {
            assert!(!dump.contains(secret), "{table}: {dump}");
        }
        assert!(
            table == "idempotency_keys" || dump.contains("canary"),
            "{dump}"
        );
    }
}

#[tokio::test]
async fn guesses_are_bounded_and_keep_nobody_else_at_the_address_out() {
    let server = Server::with(|config| config.auth.failures_per_minute = 3).await;
    let good = make(&server, "ops", Role::Viewer, &[]).await;
    let ask = async |text: &str| {
        server
            .get("/api/v1/jobs")
            .bearer_auth(text)
            .send()
            .await
            .unwrap()
    };
    for _ in 0..3 {
        problem(ask("igd_guess").await, 401, "unauthorized").await;
    }
    let session = json!({ "token": good });
    let session = server.post("/api/v1/session").json(&session);
    for refused in [ask("igd_guess").await, session.send().await.unwrap()] {
        let wait: u64 = refused.headers()["retry-after"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        problem(refused, 429, "too-many").await;
    }
    assert_eq!(server.audit().await.len(), 3, "and no more is written");
    assert_eq!(ask(&good).await.status(), 200);
}

#[tokio::test]
async fn each_caller_has_so_many_requests_a_minute() {
    let server = Server::with(|config| config.auth.requests_per_minute = 2).await;
    let one = make(&server, "same", Role::Viewer, &[]).await;
    let two = make(&server, "same", Role::Viewer, &[]).await;
    let ask = async |text: &str| {
        server
            .get("/api/v1/jobs")
            .bearer_auth(text)
            .send()
            .await
            .unwrap()
    };
    for left in [1, 0] {
        let fine = ask(&one).await;
        assert_eq!(fine.status(), 200);
        assert_eq!(fine.headers()["ratelimit-policy"], "\"minute\";q=2;w=60");
        let told = fine.headers()["ratelimit"].to_str().unwrap();
        assert!(
            told.starts_with(&format!("\"minute\";r={left};t=")),
            "{told}"
        );
    }
    let over = ask(&one).await;
    assert!(over.headers().contains_key("retry-after"));
    problem(over, 429, "too-many").await;
    assert_eq!(ask(&two).await.status(), 200, "another of the same name");
    let probe = server.get("/healthz").send().await.unwrap();
    assert_eq!(probe.status(), 200);
    assert!(!probe.headers().contains_key("ratelimit"));
}

#[tokio::test]
async fn a_token_to_be_must_make_sense() {
    let server = Server::start().await;
    for (body, pointer) in [
        (json!({ "name": "", "role": "admin" }), "/name"),
        (
            json!({ "name": "a", "role": "admin", "tenants": [] }),
            "/tenants",
        ),
        (
            json!({ "name": "a", "role": "admin", "expires_secs": 1 }),
            "/expires_secs",
        ),
    ] {
        let refused = server
            .post("/api/v1/tokens")
            .json(&body)
            .send()
            .await
            .unwrap();
        let told = problem(refused, 422, "invalid").await;
        assert_eq!(told["errors"][0]["pointer"], pointer);
    }
    let role = server
        .post("/api/v1/tokens")
        .json(&json!({ "name": "a", "role": "root" }));
    let told = problem(role.send().await.unwrap(), 400, "bad-json").await;
    assert_eq!(told["errors"][0]["pointer"], "/role");
    let gone = server.client.delete(server.url("/api/v1/tokens/404404"));
    problem(gone.send().await.unwrap(), 404, "not-found").await;
}

#[tokio::test]
async fn the_audit_log_is_append_only() {
    let server = Server::start().await;
    server
        .post("/api/v1/queues/default/pause")
        .send()
        .await
        .unwrap();
    for statement in [
        "UPDATE ingestd.audit_log SET actor = 'nobody'",
        "DELETE FROM ingestd.audit_log",
        "TRUNCATE ingestd.audit_log",
    ] {
        let refused = sqlx::query(statement)
            .execute(server.pool())
            .await
            .unwrap_err();
        assert!(
            refused.to_string().contains("append-only"),
            "{statement}: {refused}"
        );
    }
    assert_eq!(server.audit().await.len(), 1);
}
