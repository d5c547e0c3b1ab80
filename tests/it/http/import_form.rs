//! What stands in the form beside the file: options, of which none is passed over.

use std::time::Duration;

use reqwest::{
    Response,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    import::{PRODUCTS, form, refused},
    server::Server,
};

const PATHS: [&str; 2] = ["/import/products", "/import/dealers"];

async fn sent(server: &Server, path: &str, form: Form) -> Response {
    server.post(path).multipart(form).send().await.unwrap()
}

async fn n_runs(server: &Server) -> i64 {
    let asked = sqlx::query_scalar("SELECT count(*) FROM ingestd.runs").fetch_one(server.pool());
    asked.await.unwrap()
}

#[tokio::test]
async fn an_option_that_cannot_be_kept_is_refused() {
    let server = Server::start().await;
    let long = "x".repeat((64 << 10) + 1);
    for path in PATHS {
        for name in ["dry_run", "dryRun", "tenant"] {
            let with = form("a.csv", PRODUCTS).text(name, long.clone());
            let told = refused(sent(&server, path, with).await, 400, "bad_option").await;
            assert!(told.contains(name), "{told}");
            let no_text = Part::bytes(vec![0xff, b'1']);
            let with = form("a.csv", PRODUCTS).part(name, no_text);
            refused(sent(&server, path, with).await, 400, "bad_option").await;
            let others = (0..100).fold(form("a.csv", PRODUCTS), |form, n| {
                form.text(format!("other{n}"), "x")
            });
            let behind = others.text(name, "1");
            refused(sent(&server, path, behind).await, 400, "bad_option").await;
        }
    }
    assert_eq!(n_runs(&server).await, 0);
    // what is no option may be as long as it likes
    let with = form("a.csv", PRODUCTS).text("other", long);
    assert_eq!(sent(&server, PATHS[0], with).await.status(), 202);
}

#[tokio::test]
async fn a_long_mapping_counts_in_the_form_as_well() {
    let server = Server::start().await;
    let (code, name) = ("c".repeat(900), "n".repeat(900));
    let file = format!("{code},{name}\n00123,Hammer\n");
    let mapping = format!("{code}=code,{name}=name");
    let with = form("a.csv", file).text("mapping", mapping);
    let answer = sent(&server, PATHS[0], with).await;
    assert_eq!(answer.status(), 202);
}

#[tokio::test]
async fn whose_data_it_is_has_a_tenants_name() {
    let server = Server::start().await;
    let (longest, longer) = ("t".repeat(200), "t".repeat(201));
    for path in PATHS {
        for bad in ["", "*", &longer, "a\0b"] {
            let with = form("a.csv", PRODUCTS).text("tenant", bad.to_owned());
            refused(sent(&server, path, with).await, 400, "bad_option").await;
            let bad = bad.replace('\0', "%00");
            let ask = server.post(&format!("{path}?tenant={bad}"));
            let ask = ask.multipart(form("a.csv", PRODUCTS)).send().await.unwrap();
            refused(ask, 400, "bad_option").await;
        }
        let twice = form("a.csv", PRODUCTS)
            .text("tenant", "a")
            .text("tenant", "b");
        refused(sent(&server, path, twice).await, 400, "bad_option").await;
    }
    assert_eq!(n_runs(&server).await, 0);
    let with = form("a.csv", PRODUCTS).text("tenant", longest.clone());
    assert_eq!(sent(&server, PATHS[0], with).await.status(), 202);
    let owner: String = sqlx::query_scalar("SELECT tenant FROM ingestd.runs")
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(owner, longest);
}

/// What has come earns time for what is to come: a large file may take longer than a request.
#[tokio::test]
async fn an_upload_that_keeps_coming_outlasts_the_time_of_a_request() {
    let server =
        Server::with(|config| config.http.request_timeout = Duration::from_millis(300)).await;
    let head = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.csv\"\r\n\r\n\
                code,name\n";
    let row = format!("A,{}\n", "x".repeat(1000));
    let rest = "B,b\r\n--b--\r\n";
    let length = head.len() + 2000 * row.len() + rest.len();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let request = format!(
        "POST /import/products HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: multipart/form-data; boundary=b\r\ncontent-length: {length}\r\n\r\n{head}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(row.repeat(2000).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await; // twice the time that a request has
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    let body: Value = serde_json::from_str(answer.rsplit("\r\n\r\n").next().unwrap()).unwrap();
    assert_eq!(body["success"], json!(true));
}
