//! Sources over HTTP.

use serde_json::{Value, json};

use super::server::{Server, problem};

async fn server() -> Server {
    Server::with(|config| config.sources.allowed_dirs = vec!["/data".into()]).await
}

async fn add(server: &Server, body: &Value) -> reqwest::Response {
    let request = server.post("/api/v1/sources").json(body);
    request.send().await.unwrap()
}

#[tokio::test]
async fn a_source_is_made_run_paused_and_removed() {
    let server = server().await;
    let made = json!({
        "name": "supplier", "location": "https://example.com/a.csv?token=sesame",
        "tenant": "acme", "secret_ref": "secret://ops", "cron": "0 5 * * *",
        "timezone": "Europe/Prague",
    });
    let answer = add(&server, &made).await;
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["location"], "/api/v1/sources/supplier");
    let made: Value = answer.json().await.unwrap();
    assert_eq!(made["location"], "https://example.com/a.csv?[redacted]");
    assert_eq!(
        (&made["secret_ref"], &made["kind"]),
        (&json!("ops"), &json!("url"))
    );
    let inbox = json!({ "name": "inbox", "location": "/data/in", "pattern": "*.csv" });
    assert_eq!(add(&server, &inbox).await.status(), 201);
    problem(add(&server, &inbox).await, 409, "conflict").await;

    let list = server.json("/api/v1/sources?limit=1").await;
    assert_eq!(list["items"][0]["name"], "inbox");
    assert_eq!(list["next_after"], "inbox");
    let list = server.json("/api/v1/sources?after=inbox").await;
    assert_eq!(list["items"][0]["name"], "supplier");
    assert_eq!(list["next_after"], Value::Null);

    let act = async |method: &str, path: &str| {
        let url = server.url(&format!("/api/v1/sources/{path}"));
        let method = method.parse().unwrap();
        server.client.request(method, url).send().await.unwrap()
    };
    assert_eq!(act("POST", "supplier/pause").await.status(), 200);
    let shown = server.json("/api/v1/sources/supplier").await;
    assert!(shown["paused_at"].is_string() && shown["files"] == json!([]));
    assert_eq!(act("POST", "supplier/resume").await.status(), 200);
    problem(act("POST", "inbox/pause").await, 409, "conflict").await;
    let ran = act("POST", "supplier/run?force=true").await;
    assert_eq!(ran.status(), 202);
    let job = ran.json::<Value>().await.unwrap()["job_id"]
        .as_i64()
        .unwrap();
    let job = server.json(&format!("/api/v1/jobs/{job}")).await;
    assert_eq!(job["kind"], "catalog.fetch_source");
    assert_eq!(job["args"], json!({ "source": "supplier", "force": true }));
    assert_eq!(act("DELETE", "supplier").await.status(), 200);
    problem(act("GET", "supplier").await, 404, "not-found").await;
    problem(act("POST", "supplier/run").await, 404, "not-found").await;
    let schedules: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM ingestd.schedules WHERE kind = 'catalog.fetch_source'",
    )
    .fetch_one(server.pool())
    .await
    .unwrap();
    assert_eq!(schedules, 0, "its schedule went with it");

    let fetch = server.post("/api/v1/import/fetch");
    let fetch = fetch.json(&json!({ "location": "s3://exports/a.csv" }));
    assert_eq!(fetch.send().await.unwrap().status(), 202);
    let once = server.post("/api/v1/import/fetch");
    let once = once.json(&json!({ "location": "https://example.com/a.csv?token=sesame" }));
    let once: Value = once.send().await.unwrap().json().await.unwrap();
    let shown = server
        .json(&format!("/api/v1/jobs/{}", once["job_id"]))
        .await;
    assert_eq!(
        shown["args"]["location"],
        "https://example.com/a.csv?[redacted]"
    );
    let done = server.audit().await;
    let done: Vec<_> = done.iter().map(|(_, action, _)| action.as_str()).collect();
    let expected =
        ["add", "add", "pause", "resume", "run", "remove"].map(|verb| format!("source.{verb}"));
    assert_eq!(done[..6], expected);
    assert_eq!(done[6..], ["import.fetch", "import.fetch"]);
    let told: String =
        sqlx::query_scalar("SELECT string_agg(a::text, ' ') FROM ingestd.audit_log a")
            .fetch_one(server.pool())
            .await
            .unwrap();
    assert!(!told.contains("sesame"), "{told}");
}

#[tokio::test]
async fn what_is_no_source_is_refused() {
    let server = server().await;
    for (name, value, says) in [
        ("name", json!("a/b"), "letters"),
        ("location", json!("/etc/passwd"), "sources.allowed_dirs"),
        ("location", json!("http://169.254.169.254/"), "link-local"),
        (
            "location",
            json!("ftp://example.com:80/a"),
            "fetch.ftp_ports",
        ),
        ("location", json!("sftp://example.com/a"), "ftps and s3"),
        ("pattern", json!("*.csv"), "folders"),
        ("secret_ref", json!("../ops"), "not the secret"),
        ("cron", json!("daily"), ""),
        ("options", json!({ "colour": "red" }), "colour"),
        ("options", json!({ "dryRun": "true" }), "dry_run"),
    ] {
        let mut body = json!({ "name": "s", "location": "https://example.com/a.csv" });
        body[name] = value;
        let told = problem(add(&server, &body).await, 422, "invalid").await;
        assert_eq!(told["errors"][0]["pointer"], format!("/{name}"), "{told}");
        let detail = told["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{told}");
    }
    let elsewhere = server.post("/api/v1/import/fetch");
    let elsewhere = elsewhere.json(&json!({ "location": "/etc/passwd" }));
    let told = elsewhere.send().await.unwrap();
    assert_eq!(told.status(), 422);
    // Under /import/ errors have the document's form.
    let told: Value = told.json().await.unwrap();
    assert_eq!(told["success"], false, "{told}");
}
