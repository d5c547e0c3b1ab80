//! What headers mean: said of one file, and saved under a name.

use ingestd::testing::Database;
use serde_json::{Value, json};

use super::{
    import::{accepted_as, count, finished, upload_as},
    process::Daemon,
};

async fn world() -> (Database, tempfile::TempDir, Daemon) {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    (db, storage, daemon)
}

/// Headers that no alias knows, and one that an alias would take for something else.
const FILE: &str = "Unser Zeichen;Text;Preis;Was es kostet\nA1;Lamp;old;7\n";

async fn product(db: &Database) -> (String, Option<String>, Value) {
    let product = "SELECT p.code, trim_scale(pp.price)::text, p.attributes FROM catalog.products p
        LEFT JOIN catalog.product_prices pp ON pp.product_id = p.id AND pp.archived_at IS NULL";
    sqlx::query_as(product).fetch_one(db.pool()).await.unwrap()
}

fn expected() -> (String, Option<String>, Value) {
    ("A1".into(), Some("7".into()), json!({ "Preis": "old" }))
}

#[tokio::test]
async fn a_mapping_goes_with_the_file_in_words_and_in_json() {
    let (db, _storage, daemon) = world().await;
    let (code, body) = upload_as(&daemon, "list.csv", FILE.into(), "").await;
    assert_eq!(
        (code, &body["error"]["code"]),
        (400, &json!("missing_headers")),
        "{body}"
    );
    let pairs = "Unser%20Zeichen=code,text=name,Was%20es%20kostet=price,Preis=attribute";
    let query = format!("mapping={pairs}");
    let job = accepted_as(&daemon, "list.csv", FILE.into(), &query).await;
    assert_eq!(finished(&daemon, job).await["results"]["successCount"], 1);
    assert_eq!(product(&db).await, expected());
    let object = "{\"Unser Zeichen\":\"code\",\"Text\":\"name\",\"Was es kostet\":\"price\",\
        \"Preis\":\"attribute\"}";
    let query = format!("mapping={}", object.replace('"', "%22").replace(' ', "%20"));
    let job = accepted_as(&daemon, "list.csv", FILE.into(), &query).await;
    assert_eq!(finished(&daemon, job).await["results"]["unchangedCount"], 1);

    // a header that is not there is misspelt
    let query = format!("mapping={pairs},Wass=ean");
    let (code, body) = upload_as(&daemon, "list.csv", FILE.into(), &query).await;
    let said = body["message"].as_str().unwrap();
    assert_eq!(code, 400, "{body}");
    assert!(
        said.contains("Wass") && said.contains("Was es kostet"),
        "{said}"
    );
    let (code, body) = upload_as(&daemon, "list.csv", FILE.into(), "mapping=Text=title").await;
    assert_eq!(
        (code, &body["error"]["code"]),
        (400, &json!("bad_option")),
        "{body}"
    );
}

async fn ask(daemon: &Daemon, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let client = reqwest::Client::new();
    let method = method.parse().unwrap();
    let mut request = client.request(method, daemon.url(&format!("/api/v1/mappings{path}")));
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

#[tokio::test]
async fn a_saved_mapping_is_named_by_imports_of_its_owner() {
    let (db, _storage, daemon) = world().await;
    let headers = json!({ "Unser Zeichen": "code", "Text": "name", "Was es kostet": "price",
                          "Preis": "attribute", "in other files": "ean" });
    let body = Some(json!({ "headers": headers }));
    let (status, saved) = ask(&daemon, "PUT", "/acme-list", body.clone()).await;
    assert_eq!(status, 201, "{saved}");
    assert_eq!(
        (&saved["tenant"], &saved["headers"]),
        (&json!("default"), &headers)
    );
    assert_eq!(ask(&daemon, "PUT", "/acme-list", body).await.0, 200);
    let (_, list) = ask(&daemon, "GET", "", None).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    assert_eq!(
        ask(&daemon, "GET", "/acme-list", None).await.1["headers"],
        headers
    );

    let job = accepted_as(&daemon, "list.csv", FILE.into(), "mapping=@acme-list").await;
    // what was accepted stays as it was
    assert_eq!(ask(&daemon, "DELETE", "/acme-list", None).await.0, 200);
    assert_eq!(finished(&daemon, job).await["results"]["successCount"], 1);
    assert_eq!(product(&db).await, expected());
    let (code, body) = upload_as(&daemon, "list.csv", FILE.into(), "mapping=@acme-list").await;
    assert_eq!(
        (code, &body["error"]["code"]),
        (400, &json!("no_such_mapping")),
        "{body}"
    );
    for (method, path) in [("GET", "/acme-list"), ("DELETE", "/acme-list")] {
        assert_eq!(ask(&daemon, method, path, None).await.0, 404, "{method}");
    }
    let audited = "SELECT count(*) FROM ingestd.audit_log
        WHERE action IN ('mapping.save', 'mapping.remove') AND object = 'mapping/acme-list'";
    assert_eq!(count(db.pool(), audited).await, 3);
}

#[tokio::test]
async fn what_is_no_mapping_is_not_saved() {
    let (db, _storage, daemon) = world().await;
    let body = |headers: Value| Some(json!({ "headers": headers }));
    let good = json!({ "a": "code" });
    for (path, headers, pointer) in [
        ("/acme", json!({}), "/headers"),
        ("/acme", json!({ "a": "kode" }), "/headers"),
        ("/acme", json!({ " ": "code" }), "/headers"),
        ("/-acme", good.clone(), "/name"),
        ("/ac%20me", good.clone(), "/name"),
    ] {
        let (status, problem) = ask(&daemon, "PUT", path, body(headers)).await;
        assert_eq!(status, 422, "{path}: {problem}");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    assert_eq!(
        count(db.pool(), "SELECT count(*) FROM catalog.header_maps").await,
        0
    );
    // another owner's are its own
    let (status, _) = ask(&daemon, "PUT", "/acme?tenant=shop", body(good)).await;
    assert_eq!(status, 201);
    assert_eq!(ask(&daemon, "GET", "/acme", None).await.0, 404);
    assert_eq!(
        ask(&daemon, "GET", "?tenant=other", None).await.1["items"],
        json!([])
    );
}
