//! What jobs did and said: steps, progress, log lines.

use serde_json::{Value, json};

use super::server::{Server, problem};

/// Inserts a running job that has said something; returns its id.
async fn insert(server: &Server) -> i64 {
    sqlx::query_scalar(
        "WITH job AS (
           INSERT INTO ingestd.jobs (kind, state, lease_id, worker_id, attempt, started_at)
           VALUES ('system.noop', 'running', 12, 1, 2, now()) RETURNING id),
         progress AS (
           INSERT INTO ingestd.job_progress (job_id, lease_id, attempt, n_done, n_total, note)
           SELECT id, 12, 2, 7, 20, 'page 7' FROM job),
         steps AS (
           INSERT INTO ingestd.job_steps (job_id, step, result, lease_id, attempt)
           SELECT id, 'fetch', to_jsonb(7), 11, 1 FROM job
           UNION ALL SELECT id, 'large', to_jsonb(repeat('x', 2000)), 12, 2 FROM job),
         lines AS (
           INSERT INTO ingestd.job_logs
             (job_id, lease_id, line_no, attempt, level, message, logged_at)
           SELECT id, lease, n, lease - 10, 'info', 'line ' || n, now()
           FROM job, unnest('{11,12}'::int[]) lease, generate_series(1, 3) n)
         SELECT id FROM job",
    )
    .fetch_one(server.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn a_job_is_shown_with_its_progress_and_its_steps() {
    let server = Server::start().await;
    let id = insert(&server).await;
    let job = server.json(&format!("/api/v1/jobs/{id}")).await;
    assert_eq!(job["progress"]["n_done"], 7);
    let steps = job["steps"].as_array().unwrap();
    assert_eq!(
        (&steps[0]["step"], &steps[0]["result"]),
        (&json!("fetch"), &json!(7))
    );
    assert_eq!(
        (&steps[1]["step"], &steps[1]["result"]),
        (&json!("large"), &Value::Null)
    );
    let listed = server.json("/api/v1/jobs?state=running").await;
    assert_eq!(listed["items"][0]["id"], id);
    assert_eq!(listed["items"][0]["progress"]["note"], "page 7");
    let silent = server.insert("system.noop", "now").await;
    let job = server.json(&format!("/api/v1/jobs/{silent}")).await;
    assert_eq!(
        (&job["progress"], &job["steps"]),
        (&Value::Null, &json!([]))
    );
}

#[tokio::test]
async fn log_lines_are_read_page_by_page_and_followed() {
    let server = Server::start().await;
    let id = insert(&server).await;
    let mut path = format!("/api/v1/jobs/{id}/logs?limit=4");
    let mut seen = Vec::new();
    for (n_items, ended) in [(4, false), (2, false), (0, false), (1, true), (0, true)] {
        let page = server.json(&path).await;
        let items = page["items"].as_array().unwrap();
        assert_eq!((items.len(), &page["ended"]), (n_items, &json!(ended)));
        seen.extend(items.iter().map(|line| {
            let (attempt, message) = (&line["attempt"], line["message"].as_str().unwrap());
            format!("{attempt} {message}")
        }));
        let cursor = page["next_cursor"].as_str().unwrap();
        path = format!("/api/v1/jobs/{id}/logs?limit=4&cursor={cursor}");
        if n_items == 0 && !ended {
            // It says one more thing, and that was the last.
            sqlx::raw_sql(
                "INSERT INTO ingestd.job_logs
                   (job_id, lease_id, line_no, attempt, level, message, logged_at)
                 SELECT id, 12, 4, 2, 'error', 'the end', now() FROM ingestd.jobs;
                 DELETE FROM ingestd.jobs",
            )
            .execute(server.pool())
            .await
            .unwrap();
        }
    }
    let expected = [
        "1 line 1",
        "1 line 2",
        "1 line 3",
        "2 line 1",
        "2 line 2",
        "2 line 3",
        "2 the end",
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_job_that_said_nothing_has_no_lines_and_no_job_none_either() {
    let server = Server::start().await;
    let id = server.insert("system.noop", "now").await;
    let page = server.json(&format!("/api/v1/jobs/{id}/logs")).await;
    assert_eq!(
        page,
        json!({ "items": [], "next_cursor": null, "ended": false })
    );
    let response = server.get("/api/v1/jobs/987654/logs").send().await.unwrap();
    problem(response, 404, "not-found").await;
}
