//! Dead letters by the group and by filters; one action on many.

use ingestd::access::Role;
use serde_json::{Value, json};

use super::{
    server::{Server, pages, problem},
    token::make,
};

/// Inserts five letters: three alike, one of another error, one of another kind.
async fn letters(server: &Server) {
    sqlx::query(
        "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at, tenant)
         SELECT 900 + n, CASE n WHEN 5 THEN 'system.sweep_blobs' ELSE 'system.noop' END, '{}', 'default',
           1, 3, 0, 'exhausted', 'error ' || n, CASE n WHEN 4 THEN 255 ELSE 10 END, now(),
           CASE n WHEN 1 THEN 'acme' END
         FROM generate_series(1, 5) n",
    )
    .execute(server.pool())
    .await
    .unwrap();
}

#[tokio::test]
async fn letters_are_grouped_and_filtered() {
    let server = Server::start().await;
    letters(&server).await;
    let groups = server.json("/api/v1/dead/groups").await;
    let groups = groups["items"].as_array().unwrap();
    assert_eq!(groups.len(), 3);
    assert_eq!(groups[0]["fingerprint"], "000000000000000a");
    assert_eq!(
        (&groups[0]["n_letters"], &groups[0]["example_id"]),
        (&json!(3), &json!(903))
    );
    let of_kind = server
        .json("/api/v1/dead/groups?kind=system.sweep_blobs")
        .await;
    assert_eq!(of_kind["items"].as_array().unwrap().len(), 1);
    for (query, n_letters) in [
        ("fingerprint=000000000000000a", 4),
        ("fingerprint=00000000000000ff&kind=system.noop", 1),
        ("tenant=acme", 1),
        ("error=ERROR%204", 1),
        ("reason=fatal", 0),
        ("died_before=2000-01-01T00:00:00Z", 0),
        ("died_after=2000-01-01T00:00:00Z&run_id=7", 0),
    ] {
        let page = server.json(&format!("/api/v1/dead?{query}")).await;
        assert_eq!(
            page["items"].as_array().unwrap().len(),
            n_letters,
            "{query}"
        );
    }
    let all = pages(&server, "/api/v1/dead/groups").await;
    let all: Vec<_> = all.iter().map(|g| (&g["kind"], &g["n_letters"])).collect();
    assert_eq!(all.len(), 3);
    assert!(
        all[0].1 == 3 && all[1].1 == 1 && all[1].0 != all[2].0,
        "{all:?}"
    );
    let wrong = server.get("/api/v1/dead/groups?cursor=t31").send().await;
    problem(wrong.unwrap(), 400, "bad-request").await;
    let response = server
        .get("/api/v1/dead?fingerprint=xyz")
        .send()
        .await
        .unwrap();
    problem(response, 400, "bad-request").await;
}

#[tokio::test]
async fn a_letter_is_replayed_with_the_arguments_sent() {
    let server = Server::start().await;
    letters(&server).await;
    let retry = |id: i64, body: Value| {
        server
            .post(&format!("/api/v1/jobs/{id}/retry"))
            .json(&body)
            .send()
    };
    for (body, status, name) in [
        (json!({ "args": [1] }), 400, "bad-json"),
        (json!({ "arg": {} }), 400, "bad-json"),
        (json!({}), 400, "bad-json"),
        (json!({ "afresh": false }), 400, "bad-json"),
    ] {
        problem(retry(901, body).await.unwrap(), status, name).await;
    }
    let response = retry(901, json!({ "args": { "sleep_ms": 7 } }))
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let job: Value = response.json().await.unwrap();
    assert_eq!(
        (&job["args"], &job["replayed_from"]),
        (&json!({ "sleep_ms": 7 }), &json!(901))
    );
    let letter = server.json("/api/v1/jobs/901").await;
    assert_eq!(
        (&letter["args"], &letter["replayed_to"]),
        (&json!({}), &job["id"])
    );
    // One goes on with the letter's work, another begins as if nothing had been done.
    let afresh = retry(902, json!({ "afresh": true })).await.unwrap();
    assert_eq!(afresh.status(), 201);
    let origins: Vec<Option<i64>> =
        sqlx::query_scalar("SELECT origin_id FROM ingestd.jobs WHERE run_at <= now() ORDER BY id")
            .fetch_all(server.pool())
            .await
            .unwrap();
    assert_eq!(origins, [Some(901), None]);
    let noted: bool = sqlx::query_scalar(
        "SELECT (detail -> 'afresh')::boolean FROM ingestd.audit_log WHERE object = 'job/902'",
    )
    .fetch_one(server.pool())
    .await
    .unwrap();
    assert!(noted);
    // What waits keeps the arguments it has.
    let waiting = server.insert("system.noop", "2030-01-01Z").await;
    let response = retry(waiting, json!({ "args": {} })).await.unwrap();
    assert_eq!(problem(response, 409, "conflict").await["state"], "queued");
}

#[tokio::test]
async fn many_are_previewed_and_ordered() {
    let server = Server::start().await;
    letters(&server).await;
    let post = |body: Value| server.post("/api/v1/bulk").json(&body).send();
    let filter = json!({ "kind": "system.noop", "fingerprint": "000000000000000a" });
    let order = json!({ "action": "replay", "filter": filter, "rate_per_sec": 5 });
    let mut dry = order.clone();
    dry["dry_run"] = true.into();
    let response = post(dry).await.unwrap();
    assert_eq!(response.status(), 200);
    let report: Value = response.json().await.unwrap();
    assert_eq!(
        (&report["n_found"], &report["is_all"]),
        (&json!(3), &json!(true))
    );
    assert_eq!(report["first"][0]["id"], 901);
    assert_eq!(server.audit().await, []);
    assert_eq!(server.json("/api/v1/runs").await["items"], json!([]));

    let response = post(order).await.unwrap();
    assert_eq!(response.status(), 202);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let run: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/api/v1/runs/{}", run["id"]));
    assert_eq!(
        (&run["system"], &run["items_total"]),
        (&json!("system"), &json!(3))
    );
    assert_eq!(run["params"]["rate_per_sec"], 5);
    let expected = (
        "local".to_owned(),
        "bulk.replay".to_owned(),
        format!("run/{}", run["id"]),
    );
    assert_eq!(server.audit().await, [expected]);

    let paused = server
        .post(&format!("{location}/pause"))
        .send()
        .await
        .unwrap();
    assert_eq!(paused.json::<Value>().await.unwrap()["state"], "paused");
    let again = server
        .post(&format!("{location}/pause"))
        .send()
        .await
        .unwrap();
    problem(again, 409, "conflict").await;
    let resumed = server
        .post(&format!("{location}/resume"))
        .send()
        .await
        .unwrap();
    assert_eq!(resumed.json::<Value>().await.unwrap()["state"], "pending");
}

#[tokio::test]
async fn an_order_that_says_too_little_or_wrong_is_refused() {
    let server = Server::start().await;
    for (body, pointer) in [
        (json!({ "action": "purge" }), "/filter"),
        (
            json!({ "action": "replay", "filter": { "replayed": true } }),
            "/filter",
        ),
        (
            json!({ "action": "cancel", "filter": { "fingerprint": "00" } }),
            "/filter",
        ),
        (
            json!({ "action": "cancel", "filter": { "state": "dead" } }),
            "/filter/state",
        ),
        (
            json!({ "action": "purge", "all": true, "rate_per_sec": 0 }),
            "/rate_per_sec",
        ),
    ] {
        let response = server
            .post("/api/v1/bulk")
            .json(&body)
            .send()
            .await
            .unwrap();
        let told = problem(response, 422, "invalid").await;
        assert_eq!(told["errors"][0]["pointer"], pointer, "{body}");
    }
    let body = json!({ "action": "explode", "all": true });
    let response = server
        .post("/api/v1/bulk")
        .json(&body)
        .send()
        .await
        .unwrap();
    problem(response, 400, "bad-json").await;
    let body = json!({ "action": "purge", "all": true });
    let response = server
        .post("/api/v1/bulk")
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 202);
}

#[tokio::test]
async fn a_letter_is_listed_for_its_owner() {
    let server = Server::start().await;
    letters(&server).await;
    for (tenants, n_listed) in [
        (&["acme"] as &[&str], 1),
        (&["other"], 0),
        (&["default"], 4), // whose owner is not named
        (&[], 5),
    ] {
        let token = make(&server, "caller", Role::Admin, tenants).await;
        let page = server.get("/api/v1/dead").bearer_auth(&token);
        let page: Value = page.send().await.unwrap().json().await.unwrap();
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), n_listed, "{tenants:?} {page}");
    }
}
