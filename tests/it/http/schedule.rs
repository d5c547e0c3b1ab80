//! Schedules: made, changed, removed, paused, run, made up for and explained.

use chrono::{DateTime, Utc};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::server::Server;

async fn send(server: &Server, method: Method, path: &str, body: Option<Value>) -> Response {
    let request = server.client.request(method, server.url(path));
    let request = match body {
        Some(body) => request.json(&body),
        None => request,
    };
    request.send().await.unwrap()
}

/// Sends and expects a status; returns the body.
async fn sent(
    server: &Server,
    (method, path): (Method, &str),
    body: Option<Value>,
    status: u16,
) -> Value {
    let response = send(server, method, path, body).await;
    let found = response.status();
    let body: Value = response.json().await.unwrap();
    assert_eq!(found, status, "{path}: {body}");
    body
}

async fn actions(server: &Server) -> Vec<String> {
    let log = server.audit().await;
    log.into_iter().map(|(_, action, _)| action).collect()
}

#[tokio::test]
async fn a_schedule_is_made_changed_and_removed() {
    let server = Server::start().await;
    let all = "/api/v1/schedules";
    let one = "/api/v1/schedules/every%20night";
    let body = json!({ "name": "every night", "cron": "30 2 * * *", "kind": "system.noop",
                       "timezone": "Europe/Prague", "args": { "sleep_ms": 1 }, "paused": true });
    let made = send(&server, Method::POST, all, Some(body.clone())).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert_eq!(made.headers()["location"], one);
    let made: Value = made.json().await.unwrap();
    assert_eq!(
        (&made["origin"], &made["missed"]),
        (&json!("user"), &json!("once"))
    );
    assert!(made["paused_at"].is_string() && made["upcoming"].as_array().unwrap().len() == 10);
    let taken = sent(&server, (Method::POST, all), Some(body), 409).await;
    assert_eq!(taken["origin"], "user");

    let change = json!({ "cron": "0 3 * * *", "kind": "system.noop", "overlap": "skip" });
    let changed = sent(&server, (Method::PUT, one), Some(change.clone()), 200).await;
    assert_eq!(
        (&changed["timezone"], &changed["args"]),
        (&json!("UTC"), &json!({}))
    );
    assert!(changed["paused_at"].is_string(), "a change is no resume");
    let other = sent(
        &server,
        (Method::PUT, "/api/v1/schedules/x"),
        Some(change),
        201,
    )
    .await;
    assert_eq!(other["overlap"], "skip");

    sent(&server, (Method::DELETE, one), None, 200).await;
    sent(&server, (Method::DELETE, one), None, 404).await;
    sent(&server, (Method::GET, one), None, 404).await;
    let expected = [
        "schedule.add",
        "schedule.change",
        "schedule.add",
        "schedule.remove",
    ];
    assert_eq!(actions(&server).await, expected);
}

#[tokio::test]
async fn what_is_wrong_with_a_schedule_is_pointed_to() {
    let server = Server::start().await;
    let path = (Method::POST, "/api/v1/schedules");
    let body = json!({ "name": "n\n", "cron": "61 * * * *", "kind": "system.noop",
                       "priority": 4, "jitter_ms": -1 });
    let wrong = sent(&server, path.clone(), Some(body), 422).await;
    let errors = wrong["errors"].as_array().unwrap().iter();
    let pointers: Vec<_> = errors
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    assert_eq!(pointers, ["/name", "/priority", "/jitter_ms", "/cron"]);
    let body = json!({ "name": "n", "cron": "* * * * *", "kind": "system.nop" });
    let wrong = sent(&server, path.clone(), Some(body), 422).await;
    assert!(
        wrong["detail"].as_str().unwrap().contains("system.noop"),
        "{wrong}"
    );
    let body = json!({ "name": "n", "cron": "* * * * *", "kind": "system.noop", "corn": 1 });
    sent(&server, path, Some(body), 400).await;
    let built_in = "/api/v1/schedules/system.recover_runs";
    let body = json!({ "cron": "* * * * *", "kind": "system.noop" });
    let owned = sent(&server, (Method::PUT, built_in), Some(body), 409).await;
    assert_eq!(owned["origin"], "built_in");
    sent(&server, (Method::DELETE, built_in), None, 409).await;
    assert_eq!(actions(&server).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_schedule_is_paused_run_and_explained() {
    let server = Server::start().await;
    let name = "/api/v1/schedules/n";
    let body = json!({ "cron": "0 3 * * *", "kind": "system.noop", "overlap": "skip" });
    sent(&server, (Method::PUT, name), Some(body), 201).await;
    let act = |what: &str| (Method::POST, format!("{name}/{what}"));
    for (what, changed) in [
        ("pause", true),
        ("pause", false),
        ("resume", true),
        ("resume", false),
    ] {
        let (method, path) = act(what);
        let said = sent(&server, (method, &path), None, 200).await;
        assert_eq!(
            (&said["changed"], &said["paused"]),
            (&json!(changed), &json!(what == "pause"))
        );
    }
    let (method, path) = act("run");
    let ran = sent(&server, (method.clone(), &path), None, 201).await;
    let job = ran["job_id"].as_i64().unwrap();
    let refused = sent(&server, (method.clone(), &path), None, 409).await;
    assert_eq!(refused["job_id"], job);
    let forced = sent(
        &server,
        (method, "/api/v1/schedules/n/run?force=true"),
        None,
        201,
    )
    .await;
    assert_ne!(forced["job_id"], job);
    let shown = server.json("/api/v1/schedules/n?n=3").await;
    assert_eq!(shown["upcoming"].as_array().unwrap().len(), 3);
    assert_eq!(shown["last_ticks"][0]["result"], "by_hand");
    assert!(
        shown["if_due_now"].as_str().unwrap().contains("left out"),
        "{shown}"
    );
    for (what, status) in [("pause", 404), ("resume", 404), ("run", 404)] {
        let path = format!("/api/v1/schedules/none/{what}");
        sent(&server, (Method::POST, &path), None, status).await;
    }
    let expected = [
        "schedule.add",
        "schedule.pause",
        "schedule.resume",
        "schedule.run",
        "schedule.run",
    ];
    assert_eq!(actions(&server).await, expected);
}

#[tokio::test]
async fn a_pause_of_the_configuration_is_a_conflict() {
    let server = Server::start().await;
    sqlx::query(
        "INSERT INTO ingestd.schedules (name, cron, kind, origin, config_set, paused_in_config)
         VALUES ('n', '0 3 * * *', 'system.noop', 'config', 'default', true)",
    )
    .execute(server.pool())
    .await
    .unwrap();
    let resume = (Method::POST, "/api/v1/schedules/n/resume");
    let said = sent(&server, resume, None, 409).await;
    assert_eq!(said["state"], "paused_in_config");
}

#[tokio::test]
async fn a_range_is_made_up_for_over_http() {
    let server = Server::start().await;
    let body = json!({ "name": "n", "cron": "0 * * * *", "kind": "system.noop" });
    sent(
        &server,
        (Method::POST, "/api/v1/schedules"),
        Some(body),
        201,
    )
    .await;
    let hour: DateTime<Utc> = sqlx::query_scalar("SELECT date_trunc('hour', now())")
        .fetch_one(server.pool())
        .await
        .unwrap();
    let range = |dry_run: bool| {
        json!({ "from": hour - chrono::TimeDelta::hours(3), "to": hour, "dry_run": dry_run,
                "priority": 3 })
    };
    let path = (Method::POST, "/api/v1/schedules/n/backfill");
    let plan = sent(&server, path.clone(), Some(range(true)), 200).await;
    assert_eq!((&plan["n_jobs"], &plan["job_ids"]), (&json!(3), &json!([])));
    let made = sent(&server, path.clone(), Some(range(false)), 200).await;
    assert_eq!(made["job_ids"].as_array().unwrap().len(), 3);
    let again = sent(&server, path.clone(), Some(range(false)), 200).await;
    assert_eq!(
        (&again["n_jobs"], &again["n_skipped"]),
        (&json!(0), &json!(3))
    );
    let back = json!({ "from": hour, "to": hour });
    let wrong = sent(&server, path, Some(back), 422).await;
    assert_eq!(wrong["errors"][0]["pointer"], "/from");
    let none = (Method::POST, "/api/v1/schedules/none/backfill");
    sent(&server, none, Some(range(false)), 404).await;
    let expected = ["schedule.add", "schedule.backfill", "schedule.backfill"];
    assert_eq!(actions(&server).await, expected);
}
