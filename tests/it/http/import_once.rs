//! An upload with an `Idempotency-Key`: sent again it is not another import.

use reqwest::Response;
use serde_json::Value;

use super::{
    import::{PRODUCTS, form, refused},
    server::Server,
};

const PATH: &str = "/api/v1/import/products";

async fn sent(server: &Server, key: &str, file: &str) -> Response {
    let ask = server.post(PATH).header("idempotency-key", key);
    let ask = ask.multipart(form("products.csv", file.to_owned()));
    ask.send().await.unwrap()
}

async fn ask(server: &Server, statement: &'static str) -> i64 {
    let asked = sqlx::query_scalar(statement).fetch_one(server.pool());
    asked.await.unwrap()
}

/// Expects that there is one import of all that was sent, with its job, its file and its entry in
/// the audit log.
async fn one_is_there(server: &Server) {
    for count in [
        "SELECT count(*) FROM ingestd.runs",
        "SELECT count(*) FROM catalog.imports",
        "SELECT count(*) FROM ingestd.jobs",
        "SELECT count(*) FROM ingestd.audit_log",
    ] {
        assert_eq!(ask(server, count).await, 1, "{count}");
    }
    let files = std::fs::read_dir(server.dir.path().join("blobs")).unwrap();
    assert_eq!(files.count(), 1);
}

#[tokio::test]
async fn an_upload_that_is_sent_again_is_answered_as_before() {
    let server = Server::start().await;
    let first = sent(&server, "k", PRODUCTS).await;
    assert_eq!(first.status(), 202);
    let first: Value = first.json().await.unwrap();
    let again = sent(&server, "k", PRODUCTS).await;
    assert_eq!(again.status(), 202);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.json::<Value>().await.unwrap(), first);
    let longer = format!("{PRODUCTS}\n00127,Axe,1.00,1");
    refused(sent(&server, "k", &longer).await, 422, "key_reused").await;
    one_is_there(&server).await;
    // As if the daemon had died between the commit and the answer.
    let lost = "UPDATE ingestd.idempotency_keys SET status = NULL, body = NULL";
    sqlx::query(lost).execute(server.pool()).await.unwrap();
    refused(sent(&server, "k", PRODUCTS).await, 409, "conflict").await;
    one_is_there(&server).await;
    assert_eq!(sent(&server, "k2", &longer).await.status(), 202);
    assert_eq!(ask(&server, "SELECT count(*) FROM ingestd.runs").await, 2);
}

/// What was refused keeps no key.
#[tokio::test]
async fn a_file_that_was_refused_may_be_sent_again_mended() {
    let server = Server::start().await;
    refused(
        sent(&server, "k", "name\nx\n").await,
        400,
        "missing_headers",
    )
    .await;
    assert_eq!(sent(&server, "k", PRODUCTS).await.status(), 202);
    one_is_there(&server).await;
}

#[tokio::test]
async fn of_two_uploads_at_once_one_is_imported() {
    const BOTH_WAIT: &str = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let server = Server::start().await;
    // Both have found no key, and are about to write it.
    let mut held = server.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE ingestd.idempotency_keys IN SHARE ROW EXCLUSIVE MODE")
        .execute(&mut *held)
        .await
        .unwrap();
    let release = async {
        crate::process::until("both uploads want to write the key", || async {
            ask(&server, BOTH_WAIT).await == 2
        })
        .await;
        held.rollback().await.unwrap();
    };
    let (one, other, ()) = tokio::join!(
        sent(&server, "k", PRODUCTS),
        sent(&server, "k", PRODUCTS),
        release
    );
    let (taken, late) = if one.status() == 202 {
        (one, other)
    } else {
        (other, one)
    };
    assert_eq!(taken.status(), 202);
    let told = refused(late, 409, "conflict").await;
    assert!(told.contains("Idempotency-Key"), "{told}");
    one_is_there(&server).await;
}
