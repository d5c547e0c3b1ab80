//! The webhook of an import that ended: with its counts, signed, and tried until it is taken.

use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    queue_rig::Rig,
    webhook_rig::{Endpoint, KEY, Reply, daemon, hook},
};

#[tokio::test]
async fn an_import_is_told_with_its_counts_until_it_is_taken() {
    let (rig, folder) = (Rig::new().await, TempDir::new().unwrap());
    let endpoint = Endpoint::start([Reply::Status(500), Reply::Status(204)]).await;
    let mut daemon = daemon(&rig, folder.path(), &endpoint).await;
    let kinds = [("kinds", "'{product_import.*}'")];
    hook(&rig, &endpoint.url(), "run.completed,run.failed", &kinds).await;
    rig.sql("INSERT INTO catalog.products (code, name) VALUES ('B', 'Berta')")
        .await;
    let part = Part::bytes(&b"code,name,price\nA,Anna,1.5\nB,Bert,2\nC,,3\n"[..])
        .file_name("products.csv");
    let request = reqwest::Client::new()
        .post(daemon.url("/api/v1/import/products"))
        .multipart(Form::new().part("file", part));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    let id = answer["data"]["jobId"].as_i64().unwrap();
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 'system.webhook')")
        .await;
    let came = endpoint.came();
    assert_eq!(came.len(), 2);
    let message = came[0].header("webhook-id").to_owned();
    for request in &came {
        assert!(request.is_signed(KEY));
        assert_eq!(request.header("webhook-id"), message);
        let body = request.json();
        assert_eq!(body["type"], "run.completed");
        assert_eq!(body["data"]["run"]["id"], id);
        assert_eq!(body["data"]["run"]["items_failed"], 1);
        let counts = json!({ "file_name": "products.csv", "file_size_bytes": 41,
            "mode": "upsert", "dry_run": false, "archived_count": 0, "created_count": 1, "updated_count": 1, "unchanged_count": 0, "success_count": 2,
            "error_count": 1 });
        assert_eq!(body["data"]["import"], counts);
    }
    let part = Part::bytes(&b"code,name\nD,Dora\n"[..]).file_name("rehearsed.csv");
    let request = reqwest::Client::new()
        .post(daemon.url("/api/v1/import/products?dry_run=true&mode=insert_only"))
        .multipart(Form::new().part("file", part));
    assert_eq!(request.send().await.unwrap().status(), 202);
    let told = endpoint.until(3).await[2].json();
    let told = &told["data"]["import"];
    assert_eq!(told["created_count"], 1, "{told}");
    assert_eq!(
        (&told["dry_run"], &told["mode"]),
        (&json!(true), &json!("insert_only"))
    );
    assert!(daemon.terminate().success());
}
