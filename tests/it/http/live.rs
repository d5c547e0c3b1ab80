//! Progress as server-sent events.

use std::time::Duration;

use futures::StreamExt as _;
use ingestd::{
    access::Role,
    observe::Exporter,
    runs::{self, Place, Progress, RunId},
};
use reqwest::Response;
use serde_json::{Value, json};

use super::{
    server::{Server, problem},
    token::make,
};
use crate::queue_rig::PATIENCE;

/// An open stream, read event by event.
struct Events {
    chunks: futures::stream::BoxStream<'static, reqwest::Result<Vec<u8>>>,
    text: String,
}

impl Events {
    fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["x-accel-buffering"], "no");
        let chunks = response.bytes_stream();
        Self {
            chunks: chunks
                .map(|chunk| chunk.map(|bytes| bytes.to_vec()))
                .boxed(),
            text: String::new(),
        }
    }

    /// Waits for the next block between empty lines; `None` where the stream ended.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.chunks.next()).await;
            let chunk = chunk.unwrap()?;
            self.text += std::str::from_utf8(&chunk.unwrap()).unwrap();
        }
    }

    /// Waits for the next event, and returns its id and its data.
    async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| {
                let mut lines = block.lines();
                lines.find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
            };
            if let (Some(id), Some(data)) = (field("id:"), field("data:")) {
                assert_eq!(field("retry:").unwrap(), "2000");
                return Some((id, serde_json::from_str(&data).unwrap()));
            }
            assert!(block.starts_with(':'), "{block}");
        }
    }
}

async fn open(server: &Server, path: &str) -> Events {
    Events::of(server.get(path).send().await.unwrap())
}

/// Makes a run of the product import and begins it.
async fn begun(server: &Server, tenant: &str) -> RunId {
    let insert = "INSERT INTO ingestd.runs (system, tenant, triggered_by, params, items_total)
                  VALUES ('product_import', $1, 'test', '{\"key\": \"canary\"}', 10) RETURNING id";
    let id = sqlx::query_scalar(insert).bind(tenant);
    let id: RunId = id.fetch_one(server.pool()).await.unwrap();
    let mut conn = server.pool().acquire().await.unwrap();
    runs::begin(&mut conn, id).await.unwrap().unwrap();
    id
}

async fn advance(server: &Server, id: RunId, n_rows: i64) {
    let mut conn = server.pool().acquire().await.unwrap();
    let progress = Progress {
        ok: n_rows,
        ..Progress::default()
    };
    let place = Place::default();
    runs::advance(&mut conn, id, &place, &progress)
        .await
        .unwrap();
}

async fn complete(server: &Server, id: RunId) {
    let mut conn = server.pool().acquire().await.unwrap();
    runs::complete(&mut conn, id).await.unwrap();
}

fn current(data: &Value) -> i64 {
    data.pointer("/data/progress/current")
        .and_then(Value::as_i64)
        .unwrap()
}

#[tokio::test]
async fn progress_comes_as_the_polling_has_it_until_the_end() {
    let server = Server::start().await;
    let id = begun(&server, "default").await;
    let (events, polled) = (
        format!("/api/v1/import/{id}/events"),
        format!("/api/v1/import/status/{id}"),
    );
    let mut stream = open(&server, &events).await;
    let (_, first) = stream.event().await.unwrap();
    assert_eq!(first, server.json(&polled).await);
    assert_eq!(current(&first), 0);
    for n_rows in [4, 7] {
        advance(&server, id, n_rows - current(&server.json(&polled).await)).await;
        let (_, news) = stream.event().await.unwrap();
        assert_eq!(current(&news), n_rows);
        assert_eq!(news, server.json(&polled).await);
    }
    complete(&server, id).await;
    let (last_id, last) = stream.event().await.unwrap();
    assert_eq!(last, server.json(&polled).await);
    assert_eq!(last.pointer("/data/status"), Some(&json!("completed")));
    assert_eq!(last.pointer("/data/results/totalRows"), Some(&json!(7)));
    assert!(stream.event().await.is_none(), "the end is the end");
    // Who comes late is told the end at once; who has seen it needs not come again.
    for (seen, is_told) in [("", true), ("nonsense", true), (last_id.as_str(), false)] {
        let again = server.get(&events).header("last-event-id", seen);
        let again = again.send().await.unwrap();
        if is_told {
            let mut stream = Events::of(again);
            assert_eq!(
                stream.event().await.unwrap(),
                (last_id.clone(), last.clone())
            );
            assert!(stream.event().await.is_none());
        } else {
            assert_eq!(again.status(), 204);
        }
    }
}

#[tokio::test]
async fn a_run_is_shown_as_far_as_the_role_goes() {
    let server = Server::start().await;
    let id = begun(&server, "acme").await;
    let path = format!("/api/v1/runs/{id}/events");
    for (role, is_shown) in [(Role::Viewer, false), (Role::Operator, true)] {
        let token = make(&server, role.as_str(), role, &["acme"]).await;
        let response = server.get(&path).bearer_auth(&token).send().await.unwrap();
        let (_, run) = Events::of(response).event().await.unwrap();
        assert_eq!(run["state"], "running");
        assert_eq!(run.to_string().contains("canary"), is_shown, "{role} {run}");
        let shown = server.get(&format!("/api/v1/runs/{id}"));
        let shown = shown.bearer_auth(&token).send().await.unwrap();
        assert_eq!(run, shown.json::<Value>().await.unwrap());
    }
    let other = make(&server, "other", Role::Admin, &["other"]).await;
    let refused = server.get(&path).bearer_auth(&other).send().await.unwrap();
    problem(refused, 404, "not-found").await;
}

#[tokio::test]
async fn there_are_only_so_many_streams() {
    let server = Server::with(|config| config.http.max_event_streams = 1).await;
    let id = begun(&server, "default").await;
    let run = format!("/api/v1/runs/{id}/events");
    let mut first = open(&server, &run).await;
    first.event().await.unwrap();
    let text = Exporter::get().render();
    let mut lines = text.lines();
    let gauge = lines.find_map(|line| line.strip_prefix("ingestd_sse_clients "));
    assert!(gauge.unwrap().parse::<f64>().unwrap() >= 1.0, "{gauge:?}");
    let import = format!("/api/v1/import/{id}/events");
    for path in [&run, &import] {
        let second = server.get(path).send().await.unwrap();
        assert_eq!(second.status(), 503);
        assert_eq!(second.headers()["retry-after"], "5");
        assert!(second.text().await.unwrap().contains("max_event_streams"));
    }
    drop(first);
    let freed = async {
        while server.get(&import).send().await.unwrap().status() != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let freed = tokio::time::timeout(PATIENCE, freed).await;
    freed.expect("who leaves makes room");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_who_looks() {
    // Cut connections would end, too: after a minute, which is longer than the test waits.
    let server = Server::with(|config| config.http.drain_timeout = Duration::from_mins(1)).await;
    let id = begun(&server, "default").await;
    let mut stream = open(&server, &format!("/api/v1/runs/{id}/events")).await;
    stream.event().await.unwrap();
    server.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE, server.tasks.wait()).await;
    ended.expect("the server waits for a stream");
    assert!(stream.event().await.is_none(), "ended, and in peace");
}

/// Reads of runs that wait for a lock: the ids of their sessions.
async fn waiting(server: &Server) -> Vec<i32> {
    let statement = "SELECT pid FROM pg_stat_activity WHERE datname = current_database()
                     AND wait_event_type = 'Lock' AND query LIKE '%ingestd.runs%'";
    let found = sqlx::query_scalar(statement).fetch_all(server.pool());
    found.await.unwrap()
}

#[tokio::test]
async fn however_many_look_the_run_is_read_once_a_look() {
    let server = Server::start().await;
    let id = begun(&server, "default").await;
    let path = format!("/api/v1/runs/{id}/events");
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut stream = open(&server, &path).await;
        stream.event().await.unwrap();
        streams.push(stream);
    }
    let [stream, ..] = streams.as_mut_slice() else {
        panic!("no streams");
    };
    let mut lock = server.pool().begin().await.unwrap();
    sqlx::query("LOCK TABLE ingestd.runs IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *lock)
        .await
        .unwrap();
    // Silence is broken by a comment, after many looks' time.
    let comment = stream.block().await.unwrap();
    assert!(comment.starts_with(':'), "{comment}");
    let readers = waiting(&server).await;
    let [reader] = readers.as_slice() else {
        panic!("one look at a time, not {readers:?}");
    };
    // A look that fails ends nothing.
    sqlx::query("SELECT pg_terminate_backend($1)")
        .bind(reader)
        .execute(server.pool())
        .await
        .unwrap();
    lock.rollback().await.unwrap();
    advance(&server, id, 3).await;
    for stream in &mut streams {
        let (_, run) = stream.event().await.unwrap();
        assert_eq!(run["items_ok"], 3);
    }
    let statement = "DELETE FROM ingestd.runs";
    sqlx::query(statement).execute(server.pool()).await.unwrap();
    for mut stream in streams {
        assert!(stream.event().await.is_none(), "what is gone has no news");
    }
}

#[tokio::test]
async fn a_run_that_nobody_looks_at_any_more_is_not_read() {
    let server = Server::start().await;
    let id = begun(&server, "default").await;
    let path = format!("/api/v1/runs/{id}/events");
    let mut stream = open(&server, &path).await;
    stream.event().await.unwrap();
    drop(stream);
    // Whoever still reads it waits for this lock within three looks' time.
    let ended = async {
        loop {
            let mut lock = server.pool().begin().await.unwrap();
            sqlx::query("LOCK TABLE ingestd.runs IN ACCESS EXCLUSIVE MODE")
                .execute(&mut *lock)
                .await
                .unwrap();
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            let readers = waiting(&server).await;
            lock.rollback().await.unwrap();
            if readers.is_empty() {
                break;
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    ended.expect("it is read on and on");
    // And it is taken up again for whoever comes.
    let mut stream = open(&server, &path).await;
    stream.event().await.unwrap();
    advance(&server, id, 3).await;
    let (_, run) = stream.event().await.unwrap();
    assert_eq!(run["items_ok"], 3);
}
