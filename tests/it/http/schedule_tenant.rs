//! Schedules have an owner: whose they are, who sees and changes them, whose their jobs are.

use ingestd::access::Role;
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::{
    server::{Server, problem},
    token::make,
};

/// Sends as the bearer of a token.
async fn ask(server: &Server, token: &str, to: (Method, &str), body: Option<Value>) -> Response {
    let request = server.client.request(to.0, server.url(to.1));
    let request = request.bearer_auth(token);
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    request.send().await.unwrap()
}

/// The names of a list of schedules.
async fn names(server: &Server, token: &str, query: &str) -> Vec<String> {
    let path = format!("/api/v1/schedules{query}");
    let listed = ask(server, token, (Method::GET, &path), None).await;
    let listed: Value = listed.json().await.unwrap();
    let items = listed["items"].as_array().unwrap().iter();
    items
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .filter(|name| !name.contains('.')) // built in
        .collect()
}

fn of(name: &str, kind: &str, tenant: Option<&str>) -> Value {
    json!({ "name": name, "cron": "0 3 * * *", "kind": kind, "tenant": tenant })
}

const ALL: &str = "/api/v1/schedules";

#[tokio::test]
async fn a_schedule_is_its_makers_tenants_and_so_are_its_jobs() {
    let server = Server::start().await;
    server.register("acme.report").await;
    let whole = make(&server, "whole", Role::Admin, &[]).await;
    let acme = make(&server, "acme", Role::Admin, &["acme"]).await;
    let both = make(&server, "both", Role::Admin, &["acme", "other"]).await;
    let other = make(&server, "other", Role::Admin, &["other"]).await;
    let post =
        async |token: &str, body: Value| ask(&server, token, (Method::POST, ALL), Some(body)).await;
    assert_eq!(
        post(&whole, of("z", "acme.report", None)).await.status(),
        201
    );
    let made = post(&acme, of("a", "acme.report", None)).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["tenant"], "acme");
    let told = problem(
        post(&acme, of("b", "acme.report", Some("other"))).await,
        422,
        "invalid",
    );
    assert_eq!(told.await["errors"][0]["pointer"], "/tenant");
    let told = problem(
        post(&both, of("b", "acme.report", None)).await,
        422,
        "invalid",
    )
    .await;
    assert_eq!(told["errors"][0]["detail"], "one of yours: acme, other");
    problem(
        post(&acme, of("b", "system.noop", None)).await,
        403,
        "forbidden",
    )
    .await;
    problem(
        post(&other, of("a", "acme.report", None)).await,
        409,
        "conflict",
    )
    .await;
    assert_eq!(
        post(&both, of("o", "acme.report", Some("other")))
            .await
            .status(),
        201
    );

    assert_eq!(names(&server, &whole, "").await, ["a", "o", "z"]);
    assert_eq!(names(&server, &whole, "?tenant=other").await, ["o"]);
    assert_eq!(names(&server, &acme, "").await, ["a"]);
    assert_eq!(names(&server, &acme, "?tenant=other").await, [""; 0]);
    assert_eq!(names(&server, &both, "").await, ["a", "o"]);

    // Their jobs, by hand and made up for, are theirs.
    let one = |act: &str| format!("{ALL}/a/{act}");
    let ran = ask(&server, &acme, (Method::POST, &one("run")), None).await;
    assert_eq!(ran.status(), 201);
    let range =
        json!({ "from": "2026-01-01T00:00:00Z", "to": "2026-01-03T00:00:00Z", "force": true });
    let filled = ask(
        &server,
        &acme,
        (Method::POST, &one("backfill")),
        Some(range),
    )
    .await;
    assert_eq!(filled.status(), 200);
    let owners: Vec<Option<String>> = sqlx::query_scalar("SELECT tenant FROM ingestd.jobs")
        .fetch_all(server.pool())
        .await
        .unwrap();
    assert_eq!(
        owners,
        [const { Some("acme") }; 3].map(|one| one.map(str::to_owned))
    );
}

#[tokio::test]
async fn another_tenants_schedule_cannot_be_changed_and_the_installations_neither() {
    let server = Server::start().await;
    server.register("acme.report").await;
    let whole = make(&server, "whole", Role::Admin, &[]).await;
    let default = make(&server, "default", Role::Admin, &["default"]).await;
    let acme = make(&server, "acme", Role::Admin, &["acme"]).await;
    for (name, tenant) in [("nobodys", None), ("acmes", Some("acme"))] {
        let made = of(name, "acme.report", tenant);
        let made = ask(&server, &whole, (Method::POST, ALL), Some(made)).await;
        assert_eq!(made.status(), 201);
    }
    let rows = "SELECT jsonb_agg(to_jsonb(s) ORDER BY name) FROM ingestd.schedules s";
    let before: Value = sqlx::query_scalar(rows)
        .fetch_one(server.pool())
        .await
        .unwrap();
    let change = json!({ "cron": "0 4 * * *", "kind": "acme.report" });
    for (token, name) in [
        (&default, "nobodys"),
        (&acme, "nobodys"),
        (&default, "acmes"),
    ] {
        let path = format!("{ALL}/{name}");
        let put = ask(&server, token, (Method::PUT, &path), Some(change.clone())).await;
        problem(put, 404, "not-found").await;
        let gone = ask(&server, token, (Method::DELETE, &path), None).await;
        problem(gone, 404, "not-found").await;
        for act in ["run", "pause", "resume"] {
            let form = server
                .post("/schedules")
                .body(format!("name={name}&act={act}"));
            let form = form.header("content-type", "application/x-www-form-urlencoded");
            let form = form.header("cookie", format!("token={token}"));
            let form = form.header("origin", server.url("")).send().await.unwrap();
            assert_eq!(form.status(), 404, "{name} {act}");
        }
    }
    let after: Value = sqlx::query_scalar(rows)
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(before, after);
    let page = server
        .get("/schedules")
        .header("cookie", format!("token={acme}"));
    let page = page.send().await.unwrap().text().await.unwrap();
    assert!(
        page.contains("acmes") && !page.contains("nobodys"),
        "{page}"
    );
    // Its owner changes it, and it stays his.
    let path = format!("{ALL}/acmes");
    let put = ask(&server, &acme, (Method::PUT, &path), Some(change)).await;
    assert_eq!(put.status(), 200);
    let put: Value = put.json().await.unwrap();
    assert_eq!(
        (&put["tenant"], &put["cron"]),
        (&json!("acme"), &json!("0 4 * * *"))
    );
}

#[tokio::test]
async fn the_schedule_of_a_source_is_the_sources_tenants() {
    let server = Server::start().await;
    let whole = make(&server, "whole", Role::Admin, &[]).await;
    let acme = make(&server, "acme", Role::Admin, &["acme"]).await;
    let source = json!({ "name": "feed", "location": "https://example.com/a.csv",
                         "tenant": "acme", "cron": "0 4 * * *" });
    let made = ask(
        &server,
        &whole,
        (Method::POST, "/api/v1/sources"),
        Some(source),
    )
    .await;
    assert_eq!(made.status(), 201);
    assert_eq!(names(&server, &acme, "").await, ["source:feed"]);
    let path = format!("{ALL}/source%3Afeed");
    let paused = ask(
        &server,
        &acme,
        (Method::POST, &format!("{path}/pause")),
        None,
    )
    .await;
    assert_eq!(paused.status(), 200);
    // It goes with its source, and that is the whole installation's to change.
    let gone = ask(&server, &acme, (Method::DELETE, &path), None).await;
    problem(gone, 403, "forbidden").await;
    let change = json!({ "cron": "0 5 * * *", "kind": "acme.report" });
    server.register("acme.report").await;
    let put = ask(&server, &acme, (Method::PUT, &path), Some(change)).await;
    problem(put, 403, "forbidden").await;
}

#[tokio::test]
async fn a_list_of_schedules_goes_on_from_its_cursor() {
    let server = Server::start().await;
    server.register("acme.report").await;
    let acme = make(&server, "acme", Role::Admin, &["acme"]).await;
    for name in ["a", "b c", "ü", "z"] {
        let made = of(name, "acme.report", None);
        let made = ask(&server, &acme, (Method::POST, ALL), Some(made)).await;
        assert_eq!(made.status(), 201);
    }
    let mut found = Vec::new();
    let mut path = format!("{ALL}?limit=1");
    for _ in 0..9 {
        let page = ask(&server, &acme, (Method::GET, &path), None).await;
        let page: Value = page.json().await.unwrap();
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 1, "{page}");
        found.push(items[0]["name"].as_str().unwrap().to_owned());
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("{ALL}?limit=1&cursor={cursor}");
    }
    found.sort(); // the order is the database's collation
    assert_eq!(found, ["a", "b c", "z", "ü"]);
    for wrong in ["cff", "t6", "tzz", "tff", "t00", "ü"] {
        let path = format!("{ALL}?cursor={wrong}");
        let told = ask(&server, &acme, (Method::GET, &path), None).await;
        problem(told, 400, "bad-request").await;
    }
}
