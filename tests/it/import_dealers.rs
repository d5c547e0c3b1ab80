//! The dealers' import, for which the caller waits.

use ingestd::testing::Database;
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::{
    import::count,
    process::{Daemon, until},
};

async fn world(settings: &[(&str, &str)]) -> (Database, tempfile::TempDir, Daemon) {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), settings).await;
    (db, storage, daemon)
}

async fn send(daemon: &Daemon, path: &str, file: &str) -> (u16, Value) {
    let part = Part::text(file.to_owned()).file_name("dealers.csv");
    let request = reqwest::Client::new()
        .post(daemon.url(path))
        .multipart(Form::new().part("file", part));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

const FILE: &str = "Händlernummer;Firma;E-Mail;Telefon;Straße;Ort;Land;Rabatt\n\
    D1;Acme;a@example.com;+420 123;Dlouhá 1;Brno;CZ;A\n\
    D2;;b@example.com;;;;;\n\
    D1;Acme again;;;;;;\n\
    D3;;c@example.com;;;;;\n\
    D4;Cog;;;;;;\n";

#[tokio::test]
async fn dealers_are_imported_while_the_caller_waits() {
    let (db, storage, daemon) = world(&[]).await;
    for (path, expected) in [
        ("/api/v1/import/dealers", [2, 0, 0, 3]),
        ("/import/dealers", [0, 0, 2, 3]),
    ] {
        let (status, body) = send(&daemon, path, FILE).await;
        assert_eq!((status, &body["success"]), (200, &json!(true)), "{body}");
        let data = &body["data"];
        assert_eq!(data["status"], "completed");
        let results = &data["results"];
        let figures = [
            "createdCount",
            "updatedCount",
            "unchangedCount",
            "errorCount",
        ];
        let figures = figures.map(|name| results[name].as_i64().unwrap());
        assert_eq!(figures, expected, "{body}");
        assert_eq!(results["totalRows"], 5);
        assert_eq!(results["errors"][0]["code"], "required");
    }
    let first: String = sqlx::query_scalar(
        "SELECT concat_ws('|', code, name, email, phone, address, city, country, attributes)
         FROM catalog.dealers WHERE code = 'D1'",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(
        first,
        "D1|Acme|a@example.com|+420 123|Dlouhá 1|Brno|CZ|{\"Rabatt\": \"A\"}"
    );
    // A column that the file lacks stays, an empty cell clears.
    let (_, body) = send(&daemon, "/import/dealers", "code,name,email\nD1,Acme 2,\n").await;
    assert_eq!(body["data"]["results"]["updatedCount"], 1, "{body}");
    let kept = "SELECT count(*) FROM catalog.dealers
        WHERE code = 'D1' AND name = 'Acme 2' AND email IS NULL AND city = 'Brno'";
    assert_eq!(count(db.pool(), kept).await, 1);
    let logged = r#"SELECT count(*) FROM catalog."ImportLog"
        WHERE type = 'DEALERS' AND "importStatus" = 'COMPLETED'"#;
    assert_eq!(count(db.pool(), logged).await, 3);
    let audited = "SELECT count(*) FROM ingestd.audit_log WHERE action = 'import.dealers'";
    assert_eq!(count(db.pool(), audited).await, 3);
    let blobs = std::fs::read_dir(storage.path().join("blobs")).unwrap();
    assert_eq!(blobs.count(), 0);
    assert_eq!(
        count(db.pool(), "SELECT count(*) FROM catalog.products").await,
        0
    );
}

#[tokio::test]
async fn a_dry_run_is_refused_since_there_is_none() {
    let (db, _storage, daemon) = world(&[]).await;
    let path = "/api/v1/import/dealers";
    for query in ["?dry_run=true", "?anything"] {
        let (status, body) = send(&daemon, &format!("{path}{query}"), FILE).await;
        assert_eq!(status, 400, "{body}");
    }
    for (field, value, expected) in [
        ("dryRun", "true", 400),
        ("mode", "?", 400),
        ("csrf", "x", 200),
    ] {
        let part = Part::text(FILE).file_name("dealers.csv");
        let form = Form::new().text(field, value).part("file", part);
        let request = reqwest::Client::new()
            .post(daemon.url(path))
            .multipart(form);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), expected, "{field}");
        let n_dealers = count(db.pool(), "SELECT count(*) FROM catalog.dealers").await;
        assert_eq!(n_dealers > 0, expected == 200, "{field}");
    }
}

#[tokio::test]
async fn a_row_that_the_database_refuses_costs_no_other() {
    let (db, _storage, daemon) = world(&[]).await;
    sqlx::raw_sql(
        "CREATE FUNCTION no_d77() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF NEW.code = 'D77' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER no_d77 BEFORE INSERT ON catalog.dealers
         FOR EACH ROW EXECUTE FUNCTION no_d77()",
    )
    .execute(db.pool())
    .await
    .unwrap();
    let rows = (0..200)
        .map(|n| format!("D{n},d\n"))
        .collect::<Vec<_>>()
        .concat();
    let (status, body) = send(&daemon, "/import/dealers", &format!("code,name\n{rows}")).await;
    assert_eq!(status, 200, "{body}");
    let results = &body["data"]["results"];
    assert_eq!(
        (&results["createdCount"], &results["errorCount"]),
        (&json!(199), &json!(1))
    );
    assert_eq!(results["errors"][0]["message"], "not this one");
}

#[tokio::test]
async fn a_file_too_long_to_wait_for_is_refused() {
    let (db, _storage, daemon) = world(&[("INGESTD_PRODUCT_IMPORT__MAX_DEALER_ROWS", "3")]).await;
    let (status, body) = send(&daemon, "/import/dealers", "code,name\nA,a\nB,b\nC,c\n").await;
    assert_eq!(status, 200, "{body}");
    let (status, body) = send(
        &daemon,
        "/import/dealers",
        "code,name\nA,a\nB,b\nC,c\nD,d\n",
    )
    .await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &json!("too_many_rows")),
        "{body}"
    );
    let message = body["message"].as_str().unwrap();
    assert!(
        message.contains("more than 3 dealers") && message.contains("max_dealer_rows"),
        "{body}"
    );
    let (status, body) = send(&daemon, "/import/dealers", "code,email\nA,a\n").await;
    assert_eq!(
        (status, &body["error"]["code"]),
        (400, &json!("missing_headers")),
        "{body}"
    );
    assert_eq!(
        count(db.pool(), "SELECT count(*) FROM ingestd.runs").await,
        1
    );
}

/// What two files say of one dealer comes one after the other.
#[tokio::test]
async fn imports_of_an_owners_dealers_take_turns() {
    const TURN: &str =
        "SELECT pg_advisory_xact_lock(hashtextextended('catalog.dealers:default', 0))";
    const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND wait_event = 'advisory'";
    let (db, _storage, daemon) = world(&[]).await;
    let mut other = db.pool().begin().await.unwrap();
    sqlx::query(TURN).execute(&mut *other).await.unwrap();
    let ((status, body), ()) = tokio::join!(send(&daemon, "/import/dealers", FILE), async {
        until("the import waits for its turn", || async {
            count(db.pool(), WAITS).await == 1
        })
        .await;
        other.commit().await.unwrap();
    });
    assert_eq!(status, 200, "{body}");
}

#[tokio::test]
async fn an_import_of_dealers_is_none_to_undo() {
    let (db, _storage, daemon) = world(&[]).await;
    send(&daemon, "/import/dealers", FILE).await;
    let id = count(db.pool(), "SELECT max(id) FROM catalog.imports").await;
    let url = daemon.url(&format!("/api/v1/imports/{id}/rollback"));
    let client = reqwest::Client::new();
    for ask in [client.get(&url), client.post(&url)] {
        assert_eq!(ask.send().await.unwrap().status(), 404);
    }
    let runs = "SELECT count(*) FROM ingestd.runs";
    assert_eq!(count(db.pool(), runs).await, 1);
}
