//! The search sync as clients of the API see it.

use serde_json::Value;

use super::server::{Server, problem};

async fn configured() -> Server {
    Server::with(|config| {
        config.search.url = Some("https://search.example.com:8108".into());
        config.search.api_key = Some("canary-search-key".into());
    })
    .await
}

#[tokio::test]
async fn jobs_are_enqueued_once_and_audited() {
    let server = configured().await;
    sqlx::raw_sql(
        "INSERT INTO catalog.search_failures (collection, product_id, error)
         SELECT 'products', n, 'because' FROM generate_series(1, 3) n",
    )
    .execute(server.db.pool())
    .await
    .unwrap();
    for (verb, inserted) in [("sync", true), ("sync", false), ("rebuild", true)] {
        let path = format!("/api/v1/search/{verb}");
        let response = server.post(&path).send().await.unwrap();
        assert_eq!(response.status(), 202, "{verb}");
        let said: Value = response.json().await.unwrap();
        assert_eq!(said["inserted"], inserted, "{verb}");
        let job = server.json(&format!("/api/v1/jobs/{}", said["job"])).await;
        assert_eq!(job["kind"], format!("search.{verb}"));
    }
    let response = server.post("/api/v1/search/retry").send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap()["n"], 3);
    let audited: i64 = sqlx::query_scalar(
        "SELECT count(DISTINCT action) FROM ingestd.audit_log WHERE object = 'search/products'",
    )
    .fetch_one(server.db.pool())
    .await
    .unwrap();
    assert_eq!(audited, 3);

    let first = server.json("/api/v1/search/failures?limit=2").await;
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    let cursor = first["next_cursor"].as_str().unwrap();
    let path = format!("/api/v1/search/failures?limit=2&cursor={cursor}");
    let last = server.json(&path).await;
    assert_eq!(last["items"][0]["product_id"], 3);
    assert_eq!(last["next_cursor"], Value::Null);
    let status = server.json("/api/v1/search").await;
    assert_eq!(status["retrying"], 3);
    assert!(!status.to_string().contains("canary"));
}

#[tokio::test]
async fn without_a_server_nothing_is_begun() {
    let server = Server::start().await;
    for verb in ["sync", "rebuild", "retry"] {
        let path = format!("/api/v1/search/{verb}");
        let response = server.post(&path).send().await.unwrap();
        problem(response, 409, "conflict").await;
    }
    assert_eq!(server.json("/api/v1/search").await["is_configured"], false);
}
