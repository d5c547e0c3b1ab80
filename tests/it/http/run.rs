//! Runs: listed, shown, cancelled, reset.

use ingestd::runs::{self, NewRun, RunId};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::server::{Server, problem};

async fn create(server: &Server, system: &'static str) -> RunId {
    let mut conn = server.pool().acquire().await.unwrap();
    let new = NewRun {
        system,
        job_kind: Some("system.noop"),
        tenant: "acme".into(),
        triggered_by: "api".into(),
        params: json!({ "file": "a.csv" }),
        items_total: Some(10),
    };
    runs::create(&mut conn, &new).await.unwrap()
}

#[tokio::test]
async fn runs_are_listed_newest_first() {
    let server = Server::start().await;
    let (one, two) = (create(&server, "one").await, create(&server, "two").await);
    let three = create(&server, "one").await;
    let ids = |page: &Value| {
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|run| run["id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let all = server.json("/api/v1/runs").await;
    assert_eq!(ids(&all), [three.0, two.0, one.0]);
    assert_eq!(
        ids(&server.json("/api/v1/runs?system=one").await),
        [three.0, one.0]
    );
    let first = server.json("/api/v1/runs?limit=2").await;
    let next = first["next_cursor"].as_str().unwrap();
    let second = server
        .json(&format!("/api/v1/runs?limit=2&cursor={next}"))
        .await;
    assert_eq!(
        (ids(&second), &second["next_cursor"]),
        (vec![one.0], &Value::Null)
    );
    let run = server.json(&format!("/api/v1/runs/{two}")).await;
    assert_eq!(
        (&run["state"], &run["items_total"]),
        (&json!("pending"), &json!(10))
    );
    assert_eq!(
        (&run["tenant"], &run["system"]),
        (&json!("acme"), &json!("two"))
    );
}

#[tokio::test]
async fn a_run_is_cancelled_and_reset() {
    let server = Server::start().await;
    let id = create(&server, "one").await;
    let (cancel, reset) = (
        format!("/api/v1/runs/{id}/cancel"),
        format!("/api/v1/runs/{id}/reset"),
    );
    let cancelled = server.post(&cancel).send().await.unwrap();
    assert_eq!(cancelled.status(), 200);
    assert_eq!(
        cancelled.json::<Value>().await.unwrap()["state"],
        "cancelled"
    );
    let again = problem(server.post(&cancel).send().await.unwrap(), 409, "conflict").await;
    assert_eq!(again["state"], "cancelled");

    let back = server.post(&reset).send().await.unwrap();
    assert_eq!(back.json::<Value>().await.unwrap()["state"], "pending");
    let n_jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.jobs WHERE run_id = $1")
        .bind(id.0)
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(n_jobs, 1);

    let complete = "UPDATE ingestd.runs SET state = 'completed', finished_at = now()";
    sqlx::query(complete).execute(server.pool()).await.unwrap();
    for path in [cancel, reset] {
        let told = problem(server.post(&path).send().await.unwrap(), 409, "conflict").await;
        assert_eq!(told["state"], "completed");
    }
    let audit = server.audit().await;
    let actions: Vec<_> = audit.iter().map(|(_, action, _)| action.as_str()).collect();
    assert_eq!(actions, ["run.cancel", "run.reset"]);
    assert_eq!(audit[0].2, format!("run/{id}"));
}

/// The job that does the work must be there, or nothing would ever come of what is asked for.
#[tokio::test]
async fn a_key_that_another_job_holds_fails_what_needs_it() {
    let server = Server::with(|config| {
        config.search.url = Some("https://search.example.com:8108".into());
        config.search.api_key = Some("canary-search-key".into());
    })
    .await;
    let failed: i64 = sqlx::query_scalar(
        "INSERT INTO ingestd.runs (system, job_kind, triggered_by, params, state, finished_at)
         VALUES ('system', 'system.bulk', 'test', '{}', 'failed', now()) RETURNING id",
    )
    .fetch_one(server.pool())
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO ingestd.jobs (kind, run_at, unique_key)
         SELECT 'system.noop', now() + interval '1 day', key
         FROM (SELECT 'run:' || n AS key FROM generate_series($1::bigint, $1 + 20) n
               UNION ALL VALUES ('search.sync'), ('search.rebuild')) keys",
    )
    .bind(failed)
    .execute(server.pool())
    .await
    .unwrap();
    let bulk = json!({ "action": "cancel", "all": true });
    let reset = format!("/api/v1/runs/{failed}/reset");
    for ask in [
        server.post("/api/v1/bulk").json(&bulk),
        server.post(&reset),
        server.post("/api/v1/search/sync"),
        server.post("/api/v1/search/rebuild"),
    ] {
        let told = problem(ask.send().await.unwrap(), 409, "conflict").await;
        assert!(
            told["detail"].as_str().unwrap().contains("unique key"),
            "{told}"
        );
        assert!(told["job"].is_i64(), "{told}");
    }
    let part = Part::bytes(&b"code,name\nA,Anna\n"[..]).file_name("a.csv");
    let form = Form::new().part("file", part);
    let upload = server.post("/api/v1/import/products").multipart(form);
    assert_eq!(upload.send().await.unwrap().status(), 409);
    let left: String = sqlx::query_scalar(
        "SELECT concat_ws(' ', (SELECT string_agg(state::text, ',') FROM ingestd.runs),
           (SELECT count(*) FROM catalog.imports),
           (SELECT count(*) FROM ingestd.jobs WHERE kind <> 'system.noop'))",
    )
    .fetch_one(server.pool())
    .await
    .unwrap();
    assert_eq!(left, "failed 0 0");
}
