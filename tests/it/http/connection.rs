//! Connections that are slow, broken, or open when the server stops.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::server::Server;
use crate::process::PATIENCE;

/// Sends bytes as they are and reads until the server closes.
async fn raw(server: &Server, sent: &str) -> String {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn quick() -> Server {
    Server::with(|config| config.http.request_timeout = Duration::from_millis(300)).await
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = quick().await;
    let head = "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{\"kind\":";
    let answer = raw(&server, head).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("urn:ingestd:problem:stalled"), "{answer}");
}

#[tokio::test]
async fn a_head_that_does_not_end_is_cut() {
    let server = quick().await;
    let answer = raw(&server, "GET /healthz HTTP/1.1\r\nhost: local").await;
    assert!(!answer.contains("200 OK"), "{answer}");
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let server = Server::start().await;
    let head = format!(
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {}\r\n\r\n",
        "x".repeat(65 << 10)
    );
    let answer = raw(&server, &head).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:.200}");
}

/// Who is refused may go on sending for a while, so that he comes to read why, but not for ever.
#[tokio::test]
async fn a_client_that_never_stops_sending_is_cut() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = "POST /api/v1/jobs HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 1000000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b' '; 64 << 10];
    let ended = async { while stream.write_all(&piece).await.is_ok() {} };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    assert!(ended.is_ok(), "it is still listened to");
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_given_up() {
    let server = quick().await;
    let mut lock = server.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE ingestd.runs IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let answer = server.get("/api/v1/runs").send().await.unwrap();
    super::server::problem(answer, 503, "slow").await;
    lock.rollback().await.unwrap();
    server.json("/api/v1/runs").await;
}

#[tokio::test]
async fn names_that_are_not_this_machines_are_found_in_any_form() {
    let server = Server::start().await;
    for head in [
        "GET /api/v1/runs HTTP/1.0\r\n\r\n",
        "GET /api/v1/runs HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET http://evil.example/api/v1/runs HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET /api/v1/runs HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
    ] {
        let answer = raw(&server, head).await;
        assert!(answer.contains(" 403 "), "{head}: {answer}");
    }
    let local = "GET http://localhost:1/api/v1/runs HTTP/1.1\r\nhost: localhost:1\r\nconnection: close\r\n\r\n";
    assert!(raw(&server, local).await.contains(" 200 "));
}

#[tokio::test]
async fn nonsense_is_answered_and_does_no_harm() {
    let server = quick().await;
    for nonsense in [
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let answer = raw(&server, nonsense).await;
        assert!(!answer.contains(" 200 "), "{answer}");
    }
    assert_eq!(server.get("/healthz").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_open_request_ends_in_peace_when_the_server_stops() {
    let server = Server::start().await;
    let mut lock = server.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE ingestd.runs IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let open = server.get("/api/v1/runs").send();
    let stop = async {
        waits_for_lock(&server).await;
        server.shutdown.cancel();
        // The listener is gone before the open request has ended.
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        lock.rollback().await.unwrap();
    };
    let (answer, ()) = tokio::join!(open, stop);
    assert_eq!(answer.unwrap().status(), 200);
    server.tasks.wait().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_after_the_drain() {
    let server =
        Server::with(|config| config.http.drain_timeout = Duration::from_millis(200)).await;
    let mut lock = server.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE ingestd.runs IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    let open = server.get("/api/v1/runs").send();
    let stop = async {
        waits_for_lock(&server).await;
        server.shutdown.cancel();
        server.tasks.wait().await;
    };
    let (answer, ()) = tokio::join!(open, stop);
    assert!(answer.is_err());
    lock.rollback().await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_stop() {
    let server = Server::with(|config| config.http.drain_timeout = Duration::from_hours(1)).await;
    server.json("/api/v1/runs").await; // the client keeps its connection
    server.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, server.tasks.wait()).await;
    assert!(ended.is_ok(), "it waits for the client to close");
}

/// Waits until some session of the test's database waits for a lock.
async fn waits_for_lock(server: &Server) {
    let waiting = "SELECT EXISTS (SELECT FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock')";
    loop {
        let is_waiting: bool = sqlx::query_scalar(waiting)
            .fetch_one(server.pool())
            .await
            .unwrap();
        if is_waiting {
            return;
        }
    }
}
