//! The product import as the document's clients use it.

use std::{sync::Arc, time::Duration};

use ingestd::{
    config::Config,
    daemon::Daemon,
    runs::{self, Place, Progress, RunId},
};
use reqwest::{
    Body, Response,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_util::sync::CancellationToken;

use super::server::Server;

pub(super) const PRODUCTS: &str = "\
code,name,price,stock\n\
00123,Hammer,12.50,3\n\
00124,Saw,abc,4\n\
00125,,1.00,5\n\
00126,Drill,99.90,1";

pub(super) fn form(file_name: &str, bytes: impl Into<Body>) -> Form {
    Form::new().part("file", Part::stream(bytes).file_name(file_name.to_owned()))
}

/// Uploads a file and returns the run it became.
async fn upload(server: &Server, path: &str, form: Form) -> RunId {
    let response = server.post(path).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 202);
    let answer: Value = response.json().await.unwrap();
    let id = answer
        .pointer("/data/jobId")
        .and_then(Value::as_i64)
        .unwrap();
    let expected = json!({
        "success": true,
        "message": "Product import started in background",
        "data": { "jobId": id, "statusUrl": format!("/api/v1/import/status/{id}") },
    });
    assert_eq!(answer, expected);
    RunId(id)
}

async fn status(server: &Server, id: RunId) -> Value {
    let mut answer = server.json(&format!("/api/v1/import/status/{id}")).await;
    assert_eq!(answer.get("success"), Some(&json!(true)));
    answer.get_mut("data").unwrap().take()
}

/// Expects a refusal in the document's form and returns its message.
#[expect(
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the lint knows test functions, not those they share"
)]
pub(super) async fn refused(response: Response, status: u16, code: &str) -> String {
    let got = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    assert_eq!(
        (got, &body["error"]["code"]),
        (status, &json!(code)),
        "{body}"
    );
    assert_eq!(body["success"], false);
    body["message"].as_str().unwrap().to_owned()
}

/// Expects that a refused upload left neither a file nor a row.
async fn nothing_is_left(server: &Server) {
    let n_files = std::fs::read_dir(server.dir.path().join("blobs"))
        .unwrap()
        .count();
    assert_eq!(n_files, 0);
    let n_rows: i64 = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM ingestd.runs) + (SELECT count(*) FROM catalog.imports)
              + (SELECT count(*) FROM ingestd.jobs) + (SELECT count(*) FROM ingestd.audit_log)",
    )
    .fetch_one(server.pool())
    .await
    .unwrap();
    assert_eq!(n_rows, 0);
}

#[tokio::test]
async fn an_uploaded_file_becomes_a_run_an_import_and_a_job() {
    let server = Server::start().await;
    for path in ["/api/v1/import/products", "/import/products"] {
        let id = upload(&server, path, form("dir\\products.csv", PRODUCTS)).await;
        let row: (String, String, i64, i64, String, Value) = sqlx::query_as(
            "SELECT i.file_name, i.type, i.file_size_bytes, r.items_total, j.queue, j.args
             FROM catalog.imports i JOIN ingestd.runs r USING (id)
             JOIN ingestd.jobs j ON j.run_id = r.id WHERE r.id = $1",
        )
        .bind(id.0)
        .fetch_one(server.pool())
        .await
        .unwrap();
        let size = i64::try_from(PRODUCTS.len()).unwrap();
        let expected = (
            "products.csv",
            "PARTS",
            size,
            4,
            "import",
            json!({ "run_id": id }),
        );
        let row = (
            row.0.as_str(),
            row.1.as_str(),
            row.2,
            row.3,
            row.4.as_str(),
            row.5,
        );
        assert_eq!(row, expected);
        let pending = status(&server, id).await;
        let progress = json!({ "current": 0, "total": 4, "percentage": 0 });
        let expected = json!({ "jobId": id, "status": "pending", "progress": progress });
        assert_eq!(pending, expected);
        let short = server.json(&format!("/import/status/{id}")).await;
        assert_eq!(short.get("data"), Some(&pending));
    }
    let audit = server.audit().await;
    assert_eq!((audit.len(), audit[0].1.as_str()), (2, "import.submit"));
}

#[tokio::test]
async fn an_import_runs_to_its_end() {
    let server = Server::start().await;
    let id = upload(
        &server,
        "/api/v1/import/products",
        form("products.csv", PRODUCTS),
    )
    .await;
    let mut config = Config::default();
    config.database.url = Some(server.db.url().into());
    config.storage.dir = server.dir.path().to_owned();
    let daemon = Daemon::start(Arc::new(config)).await.unwrap();
    let done = loop {
        let shown = status(&server, id).await;
        match shown["status"].as_str().unwrap() {
            "completed" => break shown,
            "failed" => panic!("{shown}"),
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(
        done["progress"],
        json!({ "current": 4, "total": 4, "percentage": 100 })
    );
    let results = &done["results"];
    assert_eq!(results["totalRows"], 4);
    assert_eq!(
        (&results["successCount"], &results["errorCount"]),
        (&json!(2), &json!(2))
    );
    let errors = results["errors"].as_array().unwrap();
    assert_eq!(
        (&errors[0]["row"], &errors[0]["column"]),
        (&json!(3), &json!("price"))
    );
    assert_eq!(
        (&errors[0]["code"], &errors[0]["value"]),
        (&json!("invalid_number"), &json!("abc"))
    );
    assert_eq!(
        (&errors[1]["row"], &errors[1]["code"]),
        (&json!(4), &json!("required"))
    );
    for time in ["startedAt", "completedAt"] {
        let text = done[time].as_str().unwrap();
        assert_eq!((text.len(), text.ends_with('Z')), (20, true), "{text}");
    }
    assert_eq!(done.get("error"), None);
    daemon.stop(CancellationToken::new()).await;
}

#[tokio::test]
async fn a_workbook_is_taken_by_its_content() {
    let server = Server::start().await;
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    for (column, header) in ["Code", "Name"].into_iter().enumerate() {
        sheet
            .write(0, u16::try_from(column).unwrap(), header)
            .unwrap();
    }
    sheet.write(1, 0, "A1").unwrap();
    sheet.write(1, 1, "Hammer").unwrap();
    let bytes = book.save_to_buffer().unwrap();
    let id = upload(&server, "/import/products", form("products.txt", bytes)).await;
    let params: Value = sqlx::query_scalar("SELECT params FROM ingestd.runs WHERE id = $1")
        .bind(id.0)
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(params["inspection"]["format"], "xlsx");
}

#[tokio::test]
async fn each_state_of_the_run_has_the_documents_word() {
    let server = Server::start().await;
    let id = upload(&server, "/import/products", form("products.csv", PRODUCTS)).await;
    let mut conn = server.pool().acquire().await.unwrap();
    runs::begin(&mut conn, id).await.unwrap();
    let progress = Progress {
        ok: 1,
        items_total: Some(700),
        ..Progress::default()
    };
    let progress = Progress { ok: 49, ..progress };
    runs::advance(&mut conn, id, &Place::default(), &progress)
        .await
        .unwrap();
    let shown = status(&server, id).await;
    assert_eq!(shown["status"], "processing");
    assert_eq!(
        shown["progress"],
        json!({ "current": 49, "total": 700, "percentage": 7 })
    );
    assert!(shown["startedAt"].is_string());
    assert_eq!(
        (shown.get("completedAt"), shown.get("results")),
        (None, None)
    );

    runs::fail(&mut conn, id, "Database connection failed")
        .await
        .unwrap();
    let shown = status(&server, id).await;
    assert_eq!(
        (&shown["status"], &shown["error"]),
        (&json!("failed"), &json!("Database connection failed"),)
    );
    assert!(shown["completedAt"].is_string());
    assert_eq!(shown["progress"]["percentage"], 7);

    let other = upload(&server, "/import/products", form("products.csv", PRODUCTS)).await;
    let cancel = server
        .post(&format!("/api/v1/runs/{other}/cancel"))
        .send()
        .await
        .unwrap();
    assert_eq!(cancel.status(), 200);
    let shown = status(&server, other).await;
    assert_eq!(
        (&shown["status"], &shown["error"]),
        (&json!("failed"), &json!("cancelled"))
    );

    let ids = async |query: &str| {
        let listed = server.json(&format!("/api/v1/imports?{query}")).await;
        let items = listed["items"].as_array().unwrap().iter();
        items
            .map(|import| import["id"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids("type=PARTS").await, [other.0, id.0]);
    assert_eq!(ids("state=failed").await, [id.0]);
    assert_eq!(ids("state=cancelled&type=PARTS").await, [other.0]);
    assert!(ids("state=completed").await.is_empty());
    assert!(ids("type=DEALERS").await.is_empty());
    let wrong = server
        .get("/api/v1/imports?state=done")
        .send()
        .await
        .unwrap();
    assert_eq!(wrong.status(), 400);
}

#[tokio::test]
async fn an_id_of_nothing_or_of_another_system_is_not_found() {
    let server = Server::start().await;
    let other: i64 = sqlx::query_scalar(
        "INSERT INTO ingestd.runs (system, triggered_by) VALUES ('pipeline', 'api') RETURNING id",
    )
    .fetch_one(server.pool())
    .await
    .unwrap();
    for id in [
        "404",
        "0",
        "-1",
        "x",
        "99999999999999999999",
        &other.to_string(),
    ] {
        for path in ["/import/status", "/api/v1/import/status"] {
            let response = server.get(&format!("{path}/{id}")).send().await.unwrap();
            refused(response, 404, "not_found").await;
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_imported_is_refused_at_once() {
    let server = Server::start().await;
    let cases: [(&str, &[u8], &str, &str); 5] = [
        (
            "image.png",
            b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0",
            "invalid_file_format",
            "image.png",
        ),
        ("empty.csv", b"", "empty_file", "empty.csv"),
        (
            "noname.csv",
            b"code,price\n1,2\n",
            "missing_headers",
            "name",
        ),
        (
            "twice.csv",
            b"code,name,name\n1,a,b\n",
            "duplicate_headers",
            "name",
        ),
        (
            "broken.xlsx",
            b"PK\x03\x04 and nothing more",
            "invalid_file_format",
            "broken.xlsx",
        ),
    ];
    for (file_name, bytes, code, word) in cases {
        let post = server
            .post("/api/v1/import/products")
            .multipart(form(file_name, bytes));
        let message = refused(post.send().await.unwrap(), 400, code).await;
        assert!(message.contains(word), "{message}");
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn an_upload_without_a_file_is_refused() {
    let server = Server::start().await;
    let path = "/api/v1/import/products";
    let json = server.post(path).json(&json!({})).send().await.unwrap();
    refused(json, 400, "not_multipart").await;
    let bare = server.post(path).send().await.unwrap();
    refused(bare, 400, "not_multipart").await;
    let other = Form::new().text("files", PRODUCTS);
    let other = server.post(path).multipart(other).send().await.unwrap();
    refused(other, 400, "no_file").await;
    let two = form("one.csv", PRODUCTS.as_bytes()).part("file", Part::bytes(PRODUCTS.as_bytes()));
    let two = server.post(path).multipart(two).send().await.unwrap();
    refused(two, 400, "several_files").await;
    let torn = server
        .post(path)
        .header("content-type", "multipart/form-data; boundary=b");
    let torn = torn.body("--b\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\ncode,na");
    refused(torn.send().await.unwrap(), 400, "broken_upload").await;
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn other_fields_do_no_harm() {
    let server = Server::start().await;
    let part = Part::text(PRODUCTS).file_name("products.csv");
    let form = Form::new()
        .text("lang", "de")
        .part("file", part)
        .text("more", "x".repeat(9000));
    let sent = server.post("/import/products").multipart(form).send();
    let told: Value = sent.await.unwrap().json().await.unwrap();
    assert_eq!(
        told["data"]["ignoredFields"],
        json!(["lang", "more"]),
        "{told}"
    );
    // A dry run with a misspelt name would write.
    let slip = self::form("a.csv", PRODUCTS).text("dry_rum", "true");
    let slip = server.post("/import/products").multipart(slip).send();
    let told = refused(slip.await.unwrap(), 400, "bad_option").await;
    assert!(told.contains("is dry_run meant"), "{told}");
}

#[tokio::test]
async fn a_file_past_the_limit_is_refused_however_it_comes() {
    let server = Server::with(|config| config.http.max_upload_bytes = 100_000).await;
    let path = "/api/v1/import/products";
    let large = PRODUCTS.to_owned() + &"x".repeat(100_000);
    let slightly = server
        .post(path)
        .multipart(form("large.csv", large))
        .send()
        .await
        .unwrap();
    let message = refused(slightly, 400, "file_too_large").await;
    assert!(message.contains("100000"), "{message}");
    // Told by its length before a byte is read, while the client goes on sending.
    let huge = server
        .post(path)
        .multipart(form("huge.csv", vec![b'x'; 20_000_000]));
    refused(huge.send().await.unwrap(), 400, "file_too_large").await;
    // Without a length.
    let pieces = (0..1000).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 20_000]));
    let stream = Body::wrap_stream(futures::stream::iter(pieces));
    let stream = server.post(path).multipart(form("endless.csv", stream));
    refused(stream.send().await.unwrap(), 400, "file_too_large").await;
    nothing_is_left(&server).await;
}

/// What is refused because of its size is refused then, and not once all of it has come and been
/// written: none of these ends.
#[tokio::test]
async fn nothing_past_a_limit_is_waited_for() {
    let server = Server::with(|config| config.http.max_upload_bytes = 100_000).await;
    let part = |name: &str, n_bytes: usize| {
        format!(
            "--b\r\ncontent-disposition: form-data; name=\"{name}\"; filename=\"a.csv\"\r\n\r\n{}",
            "x".repeat(n_bytes)
        )
    };
    let chunk = |body: String| {
        let n_bytes = body.len();
        format!("transfer-encoding: chunked\r\n\r\n{n_bytes:x}\r\n{body}\r\n")
    };
    for (what, rest, code) in [
        (
            "by its length",
            format!("content-length: 2000000\r\n\r\n{}", part("file", 10)),
            "file_too_large",
        ),
        (
            "as it comes",
            chunk(part("file", 110_000)),
            "file_too_large",
        ),
        (
            "beside the file",
            chunk(part("other", 1_100_000)),
            "broken_upload",
        ),
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = "POST /import/products HTTP/1.1\r\nhost: localhost\r\n\
                    content-type: multipart/form-data; boundary=b\r\n";
        let sent = format!("{head}{rest}");
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(code), "{what}: {answer}");
    }
    nothing_is_left(&server).await;
}

/// Nor is more of it held back than a boundary or a head may take: none of these ends either.
#[tokio::test]
async fn a_part_without_an_end_of_its_head_is_not_kept_in_memory() {
    let server = Server::start().await;
    for start in [
        "",
        "--b\r\ncontent-disposition: form-data; name=\"",
        "--b\r\nx: y\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let body = format!("{start}{}", "x".repeat(3 << 20));
        let sent = format!(
            "POST /import/products HTTP/1.1\r\nhost: localhost\r\n\
             content-type: multipart/form-data; boundary=b\r\ntransfer-encoding: chunked\r\n\r\n\
             {:x}\r\n{body}\r\n",
            body.len()
        );
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("broken_upload"), "{start}: {answer}");
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn an_upload_that_stops_coming_is_given_up() {
    let server =
        Server::with(|config| config.http.request_timeout = Duration::from_millis(300)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /import/products HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000\r\n\
                content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n\
                content-disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\ncode,";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("too_slow"),
        "{answer}"
    );
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_file_along() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /import/products HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000\r\n\
                content-type: multipart/form-data; boundary=b\r\n\r\n--b\r\n\
                content-disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\ncode,";
    stream.write_all(head.as_bytes()).await.unwrap();
    let blobs = server.dir.path().join("blobs");
    let n_files = || std::fs::read_dir(&blobs).unwrap().count();
    while n_files() == 0 {
        tokio::task::yield_now().await;
    }
    drop(stream);
    while n_files() > 0 {
        tokio::task::yield_now().await;
    }
    nothing_is_left(&server).await;
}

#[tokio::test]
async fn the_token_is_asked_for_before_a_byte_is_read() {
    let server = Server::guarded().await;
    let post = server
        .post("/import/products")
        .multipart(form("a.csv", vec![b'x'; 20_000_000]));
    assert_eq!(post.send().await.unwrap().status(), 401);
    let cookie = server
        .post("/import/products")
        .header("cookie", "token=s3cret");
    let cookie = cookie
        .multipart(form("products.csv", PRODUCTS))
        .send()
        .await
        .unwrap();
    assert_eq!(cookie.status(), 202);
}

#[tokio::test]
async fn a_database_that_is_away_leaves_no_file() {
    let server = Server::start().await;
    server.pool().close().await;
    let post = server
        .post("/import/products")
        .multipart(form("products.csv", PRODUCTS));
    refused(post.send().await.unwrap(), 503, "unavailable").await;
    let n_files = std::fs::read_dir(server.dir.path().join("blobs"))
        .unwrap()
        .count();
    assert_eq!(n_files, 0);
}
