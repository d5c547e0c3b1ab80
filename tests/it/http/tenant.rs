//! Whose data: another tenant's is not there, and what a role may not see is null.

use std::fmt::Write as _;

use ingestd::{
    access::Role,
    http::{Access, Reach},
};
use serde_json::{Value, json};

use super::{
    access::{every, refused},
    server::{Server, problem},
    token::{make, spoiled},
};

/// A job with a canary in its arguments, a run and a webhook of tenant `acme`; their ids.
async fn theirs(server: &Server) -> (i64, i64, i64) {
    sqlx::query_as(
        "WITH job AS (
           INSERT INTO ingestd.jobs (kind, args, tenant, run_at)
           VALUES ('system.noop', '{\"key\": \"canary\"}', 'acme', now() + interval '1 day')
           RETURNING id),
         run AS (
           INSERT INTO ingestd.runs (system, tenant, triggered_by, params)
           VALUES ('product_import', 'acme', 'test', '{\"key\": \"canary\"}') RETURNING id),
         hook AS (
           INSERT INTO ingestd.webhooks (tenant, url, events, secret_ref)
           VALUES ('acme', 'https://example.com/', '{job.dead}', 'acme') RETURNING id)
         SELECT job.id, run.id, hook.id FROM job, run, hook",
    )
    .fetch_one(server.pool())
    .await
    .unwrap()
}

/// What each route answers to whom, committed: `INGESTD_BLESS=1` writes it anew.
#[tokio::test]
async fn every_route_answers_each_caller_as_the_table_says() {
    let server = Server::with(|config| config.auth.failures_per_minute = 0).await;
    let expired = make(&server, "expired", Role::Admin, &[]).await;
    let callers = [
        ("none", None),
        ("bad", Some(spoiled(&expired))),
        ("expired", Some(expired)),
        ("viewer", Some(make(&server, "v", Role::Viewer, &[]).await)),
        (
            "operator",
            Some(make(&server, "o", Role::Operator, &[]).await),
        ),
        ("admin", Some(make(&server, "a", Role::Admin, &[]).await)),
        (
            "acme's viewer",
            Some(make(&server, "av", Role::Viewer, &["acme"]).await),
        ),
        (
            "acme's admin",
            Some(make(&server, "aa", Role::Admin, &["acme"]).await),
        ),
        (
            "other's admin",
            Some(make(&server, "oa", Role::Admin, &["other"]).await),
        ),
    ];
    sqlx::query("UPDATE ingestd.api_tokens SET expires_at = now() WHERE name = 'expired'")
        .execute(server.pool())
        .await
        .unwrap();
    let mut table = String::from("| route |");
    for (name, _) in &callers {
        write!(table, " {name} |").unwrap();
    }
    table += "\n|---|";
    table += &"---|".repeat(callers.len());
    table.push('\n');
    for route in every() {
        write!(table, "| {} {} |", route.method, route.path).unwrap();
        for (_, token) in &callers {
            let (job, run, hook) = theirs(&server).await;
            let id = match route.access {
                Access::Role(_, Reach::Run) => run,
                Access::Role(_, Reach::Webhook) => hook,
                _ => job,
            };
            let path = route.path.replace("{id}", &id.to_string());
            let path = path.replace("{jobId}", &id.to_string());
            let path = path.replace("{queue}", "default").replace("{name}", "none");
            let path = path.replace("{pattern}", "none:*");
            let mut ask = server
                .client
                .request(route.method.clone(), server.url(&path));
            if let Some(token) = token {
                ask = ask.bearer_auth(token);
            }
            let status = ask.send().await.unwrap().status().as_u16();
            assert!(
                status < 500 || route.path == "/readyz",
                "{route:?} {status}"
            );
            write!(table, " {status} |").unwrap();
        }
        table.push('\n');
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/http/access.md");
    if std::env::var_os("INGESTD_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    for (is, should) in table.lines().zip(expected.lines()) {
        assert_eq!(is, should);
    }
    assert_eq!(table.lines().count(), expected.lines().count());
}

#[tokio::test]
async fn another_tenants_objects_are_not_there() {
    let server = Server::start().await;
    let (job, run, hook) = theirs(&server).await;
    let token = make(&server, "other", Role::Admin, &["other"]).await;
    let before: (Value, Value, Value) = everything(&server).await;
    for route in every() {
        let id = match route.access {
            Access::Role(_, Reach::Job) => job,
            Access::Role(_, Reach::Run) => run,
            Access::Role(_, Reach::Webhook) => hook,
            _ => continue,
        };
        let path = route.path.replace("{id}", &id.to_string());
        let path = path.replace("{jobId}", &id.to_string());
        let ask = server
            .client
            .request(route.method.clone(), server.url(&path));
        let theirs = ask.bearer_auth(&token).send().await.unwrap();
        assert!(!format!("{:?}", theirs.headers()).contains("acme"));
        refused(theirs, route, 404, "not-found").await;
    }
    assert_eq!(everything(&server).await, before, "nothing changed");
    for list in ["jobs", "runs", "dead", "webhooks"] {
        let page = server.get(&format!("/api/v1/{list}")).bearer_auth(&token);
        let page: Value = page.send().await.unwrap().json().await.unwrap();
        assert_eq!(page["items"], json!([]), "{list}");
    }
    let mine = make(&server, "acme", Role::Admin, &["acme"]).await;
    for list in ["jobs", "runs", "webhooks"] {
        let page = server.get(&format!("/api/v1/{list}")).bearer_auth(&mine);
        let page: Value = page.send().await.unwrap().json().await.unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{list}");
    }
}

async fn everything(server: &Server) -> (Value, Value, Value) {
    sqlx::query_as(
        "SELECT (SELECT jsonb_agg(to_jsonb(j)) FROM ingestd.jobs j),
                (SELECT jsonb_agg(to_jsonb(r)) FROM ingestd.runs r),
                (SELECT jsonb_agg(to_jsonb(w)) FROM ingestd.webhooks w)",
    )
    .fetch_one(server.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn a_viewer_sees_neither_arguments_nor_results() {
    let server = Server::start().await;
    let (job, run, _) = theirs(&server).await;
    for (role, is_shown) in [(Role::Viewer, false), (Role::Operator, true)] {
        let token = make(&server, role.as_str(), role, &["acme"]).await;
        for path in [format!("/api/v1/jobs/{job}"), format!("/api/v1/runs/{run}")] {
            let shown = server.get(&path).bearer_auth(&token).send().await.unwrap();
            assert_eq!(shown.status(), 200, "{path}");
            let text = shown.text().await.unwrap();
            assert_eq!(text.contains("canary"), is_shown, "{role} {path} {text}");
        }
    }
}

#[tokio::test]
async fn what_a_bound_caller_makes_is_its_tenants() {
    let server = Server::start().await;
    let (_, run, _) = theirs(&server).await;
    let token = make(&server, "other", Role::Admin, &["other"]).await;
    let post = async |path: &str, body: Value| {
        let ask = server.post(path).bearer_auth(&token).json(&body);
        ask.send().await.unwrap()
    };
    let own = json!({ "kind": "product_import.run", "args": {} });
    let made = post("/api/v1/jobs", own).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["tenant"], "other");
    let asked = json!({ "kind": "product_import.run", "tenant": "acme" });
    let told = problem(post("/api/v1/jobs", asked).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/tenant");
    let system = json!({ "kind": "system.noop" });
    problem(post("/api/v1/jobs", system).await, 403, "forbidden").await;
    let run = json!({ "kind": "product_import.run", "args": { "run_id": run } });
    let told = problem(post("/api/v1/jobs", run).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/args/run_id");
    let bulk = json!({ "action": "cancel", "all": true });
    let bulk = post("/api/v1/bulk", bulk).await;
    assert_eq!(bulk.status(), 202);
    let bulk: Value = bulk.json().await.unwrap();
    assert_eq!(bulk["tenant"], "other");
    assert_eq!(bulk["params"]["filter"]["tenant"], "other");
    let bulk = json!({ "action": "cancel", "filter": { "tenant": "acme" } });
    let told = problem(post("/api/v1/bulk", bulk).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/filter/tenant");
    let hook = json!({ "url": "https://example.com/", "events": ["job.dead"],
                       "secret_ref": "ops", "tenant": "acme" });
    let told = problem(post("/api/v1/webhooks", hook).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/tenant");
    let unique = "INSERT INTO ingestd.jobs (kind, tenant, unique_key)
                  VALUES ('product_import.run', 'acme', 'the key')";
    sqlx::query(unique).execute(server.pool()).await.unwrap();
    let same = json!({ "kind": "product_import.run", "unique_key": "the key" });
    let told = problem(post("/api/v1/jobs", same).await, 409, "conflict").await;
    assert!(!told.to_string().contains("acme"), "{told}");
}
