//! Jobs that are there: listed, shown, cancelled, retried; queues; dead letters; schedules.

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;

use super::server::{Server, problem};

/// Puts one job into each place a job can be in; returns their ids by state.
async fn one_of_each(server: &Server) -> [(&'static str, i64); 6] {
    let sql = |sql| async move {
        let id: i64 = sqlx::query_scalar(sql)
            .fetch_one(server.pool())
            .await
            .unwrap();
        id
    };
    let queued = sql("INSERT INTO ingestd.jobs (kind) VALUES ('system.noop') RETURNING id").await;
    let held = sql("INSERT INTO ingestd.jobs (kind, state, gate_key)
        VALUES ('system.noop', 'held', 'g') RETURNING id")
    .await;
    let running = sql("INSERT INTO ingestd.jobs
          (kind, state, lease_id, worker_id, attempt, started_at)
        VALUES ('system.noop', 'running', 1, 1, 1, now()) RETURNING id")
    .await;
    let completed = sql("INSERT INTO ingestd.job_history
          (shard, id, kind, queue, state, priority, attempt, args, created_at, run_at)
        VALUES (0, 1001, 'system.noop', 'default', 'completed', 1, 1, '{}', now(), now())
        RETURNING id")
    .await;
    let cancelled = sql("INSERT INTO ingestd.job_history
          (shard, id, kind, queue, state, priority, attempt, args, created_at, run_at)
        VALUES (0, 1002, 'system.noop', 'default', 'cancelled', 1, 0, NULL, now(), now())
        RETURNING id")
    .await;
    let dead = sql("INSERT INTO ingestd.dead_jobs
          (id, kind, args, queue, priority, attempt, crashes, reason, error, fingerprint,
           created_at)
        VALUES (1003, 'system.noop', '{\"sleep_ms\": 1}', 'default', 1, 8, 0, 'exhausted', 'gone',
           -1, now()) RETURNING id")
    .await;
    [
        ("queued", queued),
        ("held", held),
        ("running", running),
        ("completed", completed),
        ("cancelled", cancelled),
        ("dead", dead),
    ]
}

fn ids(page: &Value) -> Vec<i64> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_i64().unwrap())
        .collect()
}

#[tokio::test]
async fn jobs_are_listed_and_shown_wherever_they_are() {
    let server = Server::start().await;
    let jobs = one_of_each(&server).await;
    let all = server.json("/api/v1/jobs").await;
    let mut expected: Vec<i64> = jobs.iter().map(|(_, id)| *id).collect();
    expected.sort_unstable_by(|a, b| b.cmp(a));
    assert_eq!(ids(&all), expected);
    assert_eq!(all["next_cursor"], Value::Null);
    for (state, id) in jobs {
        let page = server.json(&format!("/api/v1/jobs?state={state}")).await;
        assert_eq!(ids(&page), [id], "{state}");
        assert_eq!(page["items"][0]["state"], state);
        let job = server.json(&format!("/api/v1/jobs/{id}")).await;
        assert_eq!((&job["state"], &job["id"]), (&json!(state), &json!(id)));
    }
    assert!(ids(&server.json("/api/v1/jobs?queue=other").await).is_empty());
    assert!(ids(&server.json("/api/v1/jobs?kind=system.recover_runs").await).is_empty());
    let both = "/api/v1/jobs?queue=default&kind=system.noop&state=dead";
    assert_eq!(ids(&server.json(both).await), [1003]);
}

#[tokio::test]
async fn a_job_is_shown_with_its_failed_attempts() {
    let server = Server::start().await;
    let id = server.insert("system.noop", "now").await;
    for attempt in 1..=2 {
        sqlx::query(
            "INSERT INTO ingestd.job_attempts
               (shard, job_id, kind, attempt, outcome, error_kind, error)
             VALUES (0, $1, 'system.noop', $2, 'retry', 'http', 'answered 503')",
        )
        .bind(id)
        .bind(attempt)
        .execute(server.pool())
        .await
        .unwrap();
    }
    let job = server.json(&format!("/api/v1/jobs/{id}")).await;
    let attempts = job["attempts"].as_array().unwrap();
    assert_eq!((attempts.len(), &attempts[0]["attempt"]), (2, &json!(1)));
    assert_eq!(attempts[1]["error"], "answered 503");
    assert_eq!(attempts[1]["error_kind"], "http");
}

#[tokio::test]
async fn pages_follow_each_other_without_gap_or_repetition() {
    let server = Server::start().await;
    let insert = "INSERT INTO ingestd.jobs (kind) SELECT 'system.noop' FROM generate_series(1, 55)";
    sqlx::query(insert).execute(server.pool()).await.unwrap();
    assert_eq!(ids(&server.json("/api/v1/jobs").await).len(), 50);
    let (mut seen, mut path) = (Vec::new(), "/api/v1/jobs?limit=20".to_owned());
    for n_expected in [20, 20, 15] {
        let page = server.json(&path).await;
        assert_eq!(ids(&page).len(), n_expected);
        seen.extend(ids(&page));
        // What comes in between moves nothing.
        server.insert("system.noop", "now").await;
        let cursor = page["next_cursor"].as_str().unwrap_or_default();
        path = format!("/api/v1/jobs?limit=20&cursor={cursor}");
    }
    assert!(seen.is_sorted_by(|a, b| a > b), "{seen:?}");
    assert_eq!(seen.len(), 55);
}

#[tokio::test]
async fn a_waiting_job_is_cancelled_at_once() {
    let server = Server::start().await;
    let id = server.insert("system.noop", "2030-01-01").await;
    let path = format!("/api/v1/jobs/{id}/cancel");
    let response = server.post(&path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let job: Value = response.json().await.unwrap();
    assert_eq!(
        (&job["id"], &job["state"]),
        (&json!(id), &json!("cancelled"))
    );
    let again = problem(server.post(&path).send().await.unwrap(), 409, "conflict").await;
    assert_eq!(again["state"], "cancelled");
    let expected = (
        "local".to_owned(),
        "job.cancel".to_owned(),
        format!("job/{id}"),
    );
    assert_eq!(server.audit().await, [expected]);
}

#[tokio::test]
async fn a_running_job_is_asked_to_stop() {
    let server = Server::start().await;
    let [_, _, (_, running), ..] = one_of_each(&server).await;
    let path = format!("/api/v1/jobs/{running}/cancel");
    let response = server.post(&path).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let job: Value = response.json().await.unwrap();
    assert_eq!(
        (&job["state"], &job["cancel_requested"]),
        (&json!("running"), &json!(true))
    );
}

#[tokio::test]
async fn a_waiting_job_is_due_once_it_is_retried() {
    let server = Server::start().await;
    let id = server.insert("system.noop", "2030-01-01").await;
    let response = server
        .post(&format!("/api/v1/jobs/{id}/retry"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let is_due: bool = sqlx::query_scalar("SELECT run_at <= now() FROM ingestd.jobs WHERE id = $1")
        .bind(id)
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert!(is_due);
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once() {
    let server = Server::start().await;
    one_of_each(&server).await;
    let response = server.post("/api/v1/jobs/1003/retry").send().await.unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/api/v1/jobs/{}", job["id"]));
    assert_eq!(job["args"], json!({ "sleep_ms": 1 }));
    assert_eq!(job["meta"]["replayed_from"], 1003);
    let again = server.post("/api/v1/jobs/1003/retry").send().await.unwrap();
    let again = problem(again, 409, "conflict").await;
    assert_eq!(
        (&again["state"], &again["replayed_to"]),
        (&json!("dead"), &job["id"])
    );
    assert!(ids(&server.json("/api/v1/dead").await).is_empty());
    assert_eq!(
        ids(&server.json("/api/v1/dead?replayed=true").await),
        [1003]
    );
}

#[tokio::test]
async fn what_runs_or_has_ended_is_not_retried() {
    let server = Server::start().await;
    let jobs = one_of_each(&server).await;
    for (state, id) in jobs
        .into_iter()
        .filter(|(state, _)| !["queued", "held", "dead"].contains(state))
    {
        let response = server
            .post(&format!("/api/v1/jobs/{id}/retry"))
            .send()
            .await
            .unwrap();
        let told = problem(response, 409, "conflict").await;
        assert_eq!(told["state"], state);
    }
    assert_eq!(server.audit().await, []);
}

#[tokio::test]
async fn dead_letters_say_why() {
    let server = Server::start().await;
    one_of_each(&server).await;
    let page = server
        .json("/api/v1/dead?queue=default&kind=system.noop")
        .await;
    let letter = &page["items"][0];
    assert_eq!(
        (&letter["reason"], &letter["error"]),
        (&json!("exhausted"), &json!("gone"))
    );
    assert_eq!(letter["fingerprint"], "ffffffffffffffff");
    assert!(ids(&server.json("/api/v1/dead?queue=other").await).is_empty());
}

#[tokio::test]
async fn a_queue_is_limited_and_made_fair() {
    let server = Server::start().await;
    let change = |what: &str, body: Value| {
        let path = format!("/api/v1/queues/{what}");
        server.post(&path).json(&body).send()
    };
    for (what, body) in [
        ("default/limit", json!({ "max_running": 3 })),
        ("default/fair", json!({ "fair": true })),
    ] {
        assert_eq!(change(what, body).await.unwrap().status(), 200, "{what}");
    }
    let queues = server.json("/api/v1/queues").await;
    let mut queues = queues["items"].as_array().unwrap().iter();
    let queue = queues.find(|q| q["queue"] == "default").unwrap();
    assert_eq!(
        (&queue["max_running"], &queue["fair"]),
        (&json!(3), &json!(true))
    );
    let none = change("default/limit", json!({ "max_running": null }));
    assert_eq!(none.await.unwrap().status(), 200);
    let bad = change("default/limit", json!({ "max_running": 0 }));
    problem(bad.await.unwrap(), 422, "invalid").await;
    let absent = change("defualt/limit", json!({ "max_running": 1 }));
    problem(absent.await.unwrap(), 404, "not-found").await;
    let actions = server.audit().await;
    let actions: Vec<_> = actions
        .iter()
        .map(|(_, action, _)| action.as_str())
        .collect();
    assert_eq!(actions, ["queue.limit", "queue.fair", "queue.limit"]);
}

#[tokio::test]
async fn a_queue_is_paused_and_goes_on() {
    let server = Server::start().await;
    one_of_each(&server).await;
    let queue = async || {
        let queues = server.json("/api/v1/queues").await;
        let mut queues = queues["items"].as_array().unwrap().clone().into_iter();
        queues.find(|queue| queue["queue"] == "default").unwrap()
    };
    let before = queue().await;
    assert_eq!((&before["queued"], &before["held"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&before["running"], &before["dead"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(before["paused"], false);
    assert!(before["oldest_ready_age_seconds"].is_f64());
    for _ in 0..2 {
        let paused = server
            .post("/api/v1/queues/default/pause")
            .send()
            .await
            .unwrap();
        assert_eq!(paused.json::<Value>().await.unwrap()["paused"], true);
        assert_eq!(queue().await["paused"], true);
    }
    for _ in 0..2 {
        let resumed = server
            .post("/api/v1/queues/default/resume")
            .send()
            .await
            .unwrap();
        assert_eq!(resumed.json::<Value>().await.unwrap()["paused"], false);
        assert_eq!(queue().await["paused"], false);
    }
    let actions: Vec<_> = server
        .audit()
        .await
        .into_iter()
        .map(|(_, action, _)| action)
        .collect();
    assert_eq!(actions, ["queue.pause", "queue.pause", "queue.resume"]);
}

#[tokio::test]
async fn schedules_are_told_in_words() {
    let server = Server::start().await;
    sqlx::query(
        "INSERT INTO ingestd.schedules (name, cron, timezone, kind, paused_at)
         VALUES ('a nap', '0 9 * * 1-5', 'Europe/Prague', 'system.noop', now()),
                ('broken', 'every day', 'UTC', 'system.noop', now())",
    )
    .execute(server.pool())
    .await
    .unwrap();
    let all = server.json("/api/v1/schedules").await;
    let all = all["items"].as_array().unwrap();
    let named = |name| {
        all.iter()
            .find(|schedule| schedule["name"] == name)
            .unwrap()
    };
    let nap = named("a nap");
    assert!(
        nap["description"]
            .as_str()
            .unwrap()
            .contains("Europe/Prague"),
        "{nap}"
    );
    assert_eq!(
        (&nap["kind"], &nap["missed"]),
        (&json!("system.noop"), &json!("once"))
    );
    assert!(nap["paused_at"].is_string());
    assert!(
        named("broken")["description"]
            .as_str()
            .unwrap()
            .contains("every day")
    );
}

#[tokio::test]
async fn a_page_begins_where_the_cursor_says() {
    let server = Server::start().await;
    let mut tx = server.pool().begin().await.unwrap();
    let list = include_str!("../../../src/queue/list.sql");
    for statement in [
        // The tables are empty, and the driver's statements may be planned for any values.
        "SET LOCAL enable_seqscan = off",
        "SET LOCAL enable_bitmapscan = off",
        "SET LOCAL plan_cache_mode = force_generic_plan",
        &format!("PREPARE page (text, text, text, bigint, bigint, text[]) AS {list}"),
    ] {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()));
        statement.execute(&mut *tx).await.unwrap();
    }
    let explain = "EXPLAIN EXECUTE page (NULL, NULL, NULL, 7, 51, NULL)";
    let plan: Vec<String> = sqlx::query_scalar(explain)
        .fetch_all(&mut *tx)
        .await
        .unwrap();
    let of_cursor = |line: &&String| line.contains("Index Cond: ") && line.contains("id < $4");
    let n_conditions = plan.iter().filter(of_cursor).count();
    let is_scan =
        |line: &&String| line.contains("Scan Backward using") || line.contains("Seq Scan");
    let n_scans = plan.iter().filter(is_scan).count();
    assert!(n_scans >= 3 && n_conditions == n_scans, "{plan:#?}");
}
