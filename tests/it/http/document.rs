//! A front end that was written from the product import's document and from nothing else: it signs
//! in with a cookie, uploads a workbook, polls, and reads each answer by the document's examples.

use std::{sync::Arc, time::Duration};

use ingestd::{access::Role, config::Config, daemon::Daemon};
use reqwest::{
    Response,
    multipart::{Form, Part},
};
use rust_xlsxwriter::Workbook;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio_util::sync::CancellationToken;

use super::{server::Server, token::make};
use crate::queue_rig::PATIENCE;

/// The document's answers, as it prints them.
const STARTED: &str = r#"{
  "success": true,
  "message": "Product import started in background",
  "data": { "jobId": 123, "statusUrl": "/api/v1/import/status/123" }
}"#;
const PROCESSING: &str = r#"{
  "success": true,
  "data": {
    "jobId": 123,
    "status": "processing",
    "progress": { "current": 50000, "total": 700000, "percentage": 7 },
    "startedAt": "2024-01-28T10:00:00Z"
  }
}"#;
const COMPLETED: &str = r#"{
  "success": true,
  "data": {
    "jobId": 123,
    "status": "completed",
    "progress": { "current": 700000, "total": 700000, "percentage": 100 },
    "startedAt": "2024-01-28T10:00:00Z",
    "completedAt": "2024-01-28T10:25:30Z",
    "results": { "totalRows": 700000, "successCount": 699500, "errorCount": 500 }
  }
}"#;
const FAILED: &str = r#"{
  "success": true,
  "data": {
    "jobId": 123,
    "status": "failed",
    "progress": { "current": 10000, "total": 700000, "percentage": 1 },
    "startedAt": "2024-01-28T10:00:00Z",
    "completedAt": "2024-01-28T10:05:00Z",
    "error": "Database connection failed"
  }
}"#;

/// Expects every member of an example, of the same type and, where it is a time, of the same form.
/// With `only`, no others.
fn fits(example: &Value, answer: &Value, only: bool, at: &str) {
    match (example, answer) {
        (Value::Object(members), Value::Object(found)) => {
            for (name, member) in members {
                let value = found.get(name);
                let value = value.unwrap_or_else(|| panic!("no {at}/{name} in {answer}"));
                fits(member, value, only, &format!("{at}/{name}"));
            }
            let is_known = |name: &&String| members.contains_key(*name);
            assert!(
                !only || found.keys().all(|name| is_known(&name)),
                "{at}: {answer}"
            );
        }
        (Value::Number(_), Value::Number(number)) => assert!(number.is_u64(), "{at}: {answer}"),
        (Value::Bool(one), Value::Bool(other)) => assert_eq!(one, other, "{at}"),
        (Value::String(text), Value::String(found)) if at.ends_with("At") => {
            let form = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "0");
            assert_eq!(form(text), form(found), "{at}");
        }
        (Value::String(text), Value::String(found))
            if ["/message", "/data/status"].contains(&at) =>
        {
            assert_eq!(text, found, "{at}");
        }
        (Value::String(_), Value::String(found)) => assert!(!found.is_empty(), "{at}"),
        _ => panic!("{at} is {answer}, and {example} in the document"),
    }
}

fn like(example: &str, answer: &Value, only: bool) {
    fits(&serde_json::from_str(example).unwrap(), answer, only, "");
}

/// A browser that has signed in.
struct Front<'a> {
    server: &'a Server,
    cookie: String,
}

impl Front<'_> {
    /// Takes the cookie `token` from the answer to a sign-in, as a browser does.
    async fn sign_in<'a>(server: &'a Server, token: &str) -> Front<'a> {
        let asked = server
            .post("/api/v1/session")
            .json(&json!({ "token": token }));
        let opened = asked.send().await.unwrap();
        assert_eq!(opened.status(), 200);
        let cookie = opened.headers()["set-cookie"].to_str().unwrap();
        let pair = cookie.split(';').next().unwrap();
        assert!(pair.starts_with("token="), "{cookie}");
        let cookie = pair.to_owned();
        Front { server, cookie }
    }

    /// `curl -X POST -H "Cookie: token=…" -F "file=@NAME" …`
    async fn send(&self, path: &str, name: &str, bytes: Vec<u8>) -> Response {
        let form = Form::new().part("file", Part::bytes(bytes).file_name(name.to_owned()));
        let ask = self.server.post(path).header("cookie", &self.cookie);
        ask.multipart(form).send().await.unwrap()
    }

    async fn upload(&self, name: &str, bytes: Vec<u8>) -> Value {
        let answer = self.send("/api/v1/import/products", name, bytes).await;
        assert_eq!(answer.status(), 202);
        let answer: Value = answer.json().await.unwrap();
        like(STARTED, &answer, true);
        answer["data"].clone()
    }

    async fn refused(&self, name: &str, bytes: Vec<u8>) -> String {
        let answer = self.send("/api/v1/import/products", name, bytes).await;
        assert_eq!(answer.status(), 400, "{name}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["success"], json!(false), "{answer}");
        answer["message"].as_str().unwrap().to_owned()
    }

    async fn get(&self, url: &str) -> Value {
        let ask = self.server.get(url).header("cookie", &self.cookie);
        let answer = ask.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        assert_eq!(answer.headers()["content-type"], "application/json");
        answer.json().await.unwrap()
    }

    /// Polls until an answer is as it is waited for.
    async fn until(&self, url: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let polled = async {
            loop {
                let answer = self.get(url).await;
                if is_it(&answer["data"]) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let answer = tokio::time::timeout(PATIENCE, polled).await;
        answer.unwrap_or_else(|_| panic!("{url} never is what is waited for"))
    }
}

/// A workbook of 30 rows, of which the last three are none: no number, no name, a code twice.
fn workbook() -> Vec<u8> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    for (column, name) in (0..).zip(["code", "name", "price", "stock"]) {
        sheet.write(0, column, name).unwrap();
    }
    for row in 1..=30 {
        let code = if row == 30 { 1 } else { row };
        sheet.write(row, 0, format!("R{code:02}")).unwrap();
        if row != 29 {
            sheet.write(row, 1, format!("Product {row}")).unwrap();
        }
        match row {
            28 => sheet.write(row, 2, "cheap").unwrap(),
            _ => sheet.write(row, 2, f64::from(row)).unwrap(),
        };
        sheet.write(row, 3, row).unwrap();
    }
    workbook.save_to_buffer().unwrap()
}

/// Starts what works: ten rows a chunk.
async fn daemon(server: &Server) -> Daemon {
    let mut config = Config::default();
    config.database.url = Some(server.db.url().into());
    config.storage.dir = server.dir.path().to_owned();
    config.product_import.chunk_rows = 10;
    Daemon::start(Arc::new(config)).await.unwrap()
}

/// Makes whoever writes product `R25` wait for as long as the connection is open.
async fn hold_up(server: &Server) -> PgConnection {
    sqlx::raw_sql(
        "CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF NEW.code = 'R25' THEN PERFORM pg_advisory_xact_lock_shared(77); END IF;
           RETURN NEW; END $$;
         CREATE TRIGGER wait_for_test BEFORE INSERT ON catalog.products
         FOR EACH ROW EXECUTE FUNCTION wait_for_test()",
    )
    .execute(server.pool())
    .await
    .unwrap();
    let mut conn = PgConnection::connect(server.db.url()).await.unwrap();
    sqlx::query("SELECT pg_advisory_lock(77)")
        .execute(&mut conn)
        .await
        .unwrap();
    conn
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_written_from_the_document_works() {
    let server = Server::start().await;
    let token = make(&server, "front", Role::Operator, &[]).await;
    // Who is not known learns of it in the document's form, for uploads and for polling.
    let stranger = Front {
        server: &server,
        cookie: "token=igd_none".to_owned(),
    };
    let closed = stranger
        .send("/api/v1/import/products", "a.xlsx", workbook())
        .await;
    assert_eq!(closed.status(), 401);
    let closed: Value = closed.json().await.unwrap();
    assert_eq!(closed["success"], json!(false), "{closed}");
    assert!(closed["message"].is_string(), "{closed}");

    let front = Front::sign_in(&server, &token).await;
    let lost = front.upload("lost.xlsx", workbook()).await;
    for file in std::fs::read_dir(server.dir.path().join("blobs")).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let data = front.upload("products.xlsx", workbook()).await;
    let url = data["statusUrl"].as_str().unwrap();
    assert_eq!(url, format!("/api/v1/import/status/{}", data["jobId"]));
    // Created, not yet started.
    let pending = front.get(url).await;
    assert_eq!(
        (&pending["success"], &pending["data"]["status"]),
        (&json!(true), &json!("pending"))
    );
    assert_eq!(pending["data"]["jobId"], data["jobId"]);
    assert_eq!(
        pending["data"]["progress"]["percentage"],
        json!(0),
        "{pending}"
    );

    let held = hold_up(&server).await;
    let daemon = daemon(&server).await;
    let running = front
        .until(url, |data| data["progress"]["current"] == json!(20))
        .await;
    like(PROCESSING, &running, true);
    let progress = json!({ "current": 20, "total": 30, "percentage": 66 });
    assert_eq!(running["data"]["progress"], progress);
    held.close().await.unwrap();
    let is_over = |data: &Value| data["status"] == "completed" || data["status"] == "failed";
    let done = front.until(url, is_over).await;
    like(COMPLETED, &done, false);
    let progress = json!({ "current": 30, "total": 30, "percentage": 100 });
    assert_eq!(done["data"]["progress"], progress);
    assert_eq!(done["data"]["startedAt"], running["data"]["startedAt"]);
    assert!(done["data"].get("error").is_none(), "{done}");
    let results = &done["data"]["results"];
    for (name, n) in [("totalRows", 30), ("successCount", 27), ("errorCount", 3)] {
        assert_eq!(results[name], json!(n), "{name}");
    }
    // "Returns error rows in final results"
    let rows = results["errors"].as_array().unwrap().iter();
    let rows: Vec<_> = rows
        .map(|error| (error["row"].as_i64(), error["column"].as_str()))
        .collect();
    let expected = [(29, "price"), (30, "name"), (31, "code")];
    assert_eq!(
        rows,
        expected.map(|(row, column)| (Some(row), Some(column)))
    );

    let lost = front
        .until(lost["statusUrl"].as_str().unwrap(), is_over)
        .await;
    like(FAILED, &lost, true);
    assert!(
        lost["data"]["error"]
            .as_str()
            .unwrap()
            .contains("lost.xlsx"),
        "{lost}"
    );
    daemon.stop(CancellationToken::new()).await;
}

#[tokio::test]
async fn what_is_wrong_with_the_file_is_said_before_a_job_starts() {
    let server = Server::with(|config| config.http.max_upload_bytes = 50_000).await;
    let token = make(&server, "front", Role::Operator, &[]).await;
    let front = Front::sign_in(&server, &token).await;
    // "Invalid file format", "Missing required headers", "File size exceeded"
    let mut headless = Workbook::new();
    headless.add_worksheet().write(0, 0, "colour").unwrap();
    for (name, bytes, word) in [
        ("products.pdf", b"%PDF-1.7\n".to_vec(), "products.pdf"),
        ("headless.xlsx", headless.save_to_buffer().unwrap(), "code"),
        ("large.csv", vec![b'x'; 60_000], "50000"),
    ] {
        let message = front.refused(name, bytes).await;
        assert!(message.contains(word), "{message}");
    }
    let n_runs: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.runs")
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(n_runs, 0);
}

#[tokio::test]
async fn dealers_come_back_with_their_results() {
    let server = Server::start().await;
    let token = make(&server, "front", Role::Operator, &[]).await;
    let front = Front::sign_in(&server, &token).await;
    let file = b"code,name\nD1,Acme\nD2,\nD3,Cog\n".to_vec();
    let answer = front
        .send("/api/v1/import/dealers", "dealers.csv", file)
        .await;
    // "200 with results", no job to poll for
    assert_eq!(answer.status(), 200);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["success"], json!(true), "{answer}");
    let results = &answer["data"]["results"];
    for (name, n) in [("totalRows", 3), ("successCount", 2), ("errorCount", 1)] {
        assert_eq!(results[name], json!(n), "{answer}");
    }
    let n_jobs: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.jobs")
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(n_jobs, 0);
}
