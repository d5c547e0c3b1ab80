//! A server of the test's own.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ingestd::{
    blob,
    config::Config,
    http::{self, AppState, Health},
    ingest, queue,
    testing::Database,
};
use reqwest::{Client, RequestBuilder, Response};
use serde_json::Value;
use sqlx::PgPool;
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Reads a list one item a page, and returns them all.
pub(super) async fn pages(server: &Server, path: &str) -> Vec<Value> {
    let mut items = Vec::new();
    let mut asked = format!("{path}?limit=1");
    loop {
        let page = server.json(&asked).await;
        let found = page["items"].as_array().unwrap();
        assert!(found.len() <= 1, "{page}");
        items.extend(found.iter().cloned());
        assert!(items.len() < 1000, "{path} has no end: {page}");
        match page["next_cursor"].as_str() {
            Some(cursor) => asked = format!("{path}?limit=1&cursor={cursor}"),
            None => return items,
        }
    }
}

/// A server on a free port, with a database and a folder of its own; stops with this value.
pub(super) struct Server {
    pub(super) db: Database,
    pub(super) address: SocketAddr,
    pub(super) client: Client,
    /// Whether the worker says that it lives.
    pub(super) alive: Arc<AtomicBool>,
    /// The daemon takes no more work.
    pub(super) draining: CancellationToken,
    /// The server takes no more connections.
    pub(super) shutdown: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Server {
    /// Starts a server without a token.
    pub(super) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts a server with the token `s3cret`.
    pub(super) async fn guarded() -> Self {
        Self::with(|config| config.http.token = Some("s3cret".into())).await
    }

    /// Starts a server with a configuration of the test's own.
    pub(super) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.http.listen = "127.0.0.1:0".parse().unwrap();
        change(&mut config);
        let (db, dir) = (Database::create().await, tempfile::tempdir().unwrap());
        let mut conn = db.pool().acquire().await.unwrap();
        queue::register(&mut conn, &ingest::kinds(&config))
            .await
            .unwrap();
        drop(conn);
        let blobs = blob::Store::open(dir.path()).await.unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let (draining, shutdown) = (CancellationToken::new(), CancellationToken::new());
        let flag = Arc::clone(&alive);
        let health = Health::new(move || flag.load(Ordering::Relaxed), draining.clone());
        let listener = http::bind(&config.http).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = AppState::new(db.pool().clone(), blobs, Arc::new(config), health);
        let tasks = TaskTracker::new();
        tasks.spawn(http::serve(state, listener, shutdown.clone()));
        tasks.close();
        let client = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self {
            db,
            address,
            client,
            alive,
            draining,
            shutdown,
            tasks,
            dir,
        }
    }

    pub(super) fn pool(&self) -> &PgPool {
        self.db.pool()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(self.url(path))
    }

    pub(super) fn post(&self, path: &str) -> RequestBuilder {
        self.client.post(self.url(path))
    }

    /// Asks for a path and expects 200 and JSON.
    pub(super) async fn json(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    /// Registers a kind of another program's, and so one that callers of any tenant may have made.
    pub(super) async fn register(&self, kind: &str) {
        sqlx::query(
            "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
             VALUES ($1, 'default', 3, 60)",
        )
        .bind(kind)
        .execute(self.pool())
        .await
        .unwrap();
    }

    /// Inserts a job as anybody may, by SQL.
    pub(super) async fn insert(&self, kind: &str, run_at: &str) -> i64 {
        sqlx::query_scalar(
            "INSERT INTO ingestd.jobs (kind, run_at) VALUES ($1, $2::timestamptz) RETURNING id",
        )
        .bind(kind)
        .bind(run_at)
        .fetch_one(self.pool())
        .await
        .unwrap()
    }

    /// Returns the audit log: who did what to what, oldest first.
    pub(super) async fn audit(&self) -> Vec<(String, String, String)> {
        sqlx::query_as("SELECT actor, action, object FROM ingestd.audit_log ORDER BY id")
            .fetch_all(self.pool())
            .await
            .unwrap()
    }
}

/// Expects a problem of that status and name and returns it.
#[expect(
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the lint knows test functions, not those they share"
)]
pub(super) async fn problem(response: Response, status: u16, name: &str) -> Value {
    assert_eq!(response.status(), status, "{name}");
    let headers = response.headers();
    assert_eq!(
        headers["content-type"], "application/problem+json",
        "{name}"
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    let request_id = headers["x-request-id"].to_str().unwrap().to_owned();
    let text = response.text().await.unwrap();
    for secret in ["SELECT", "INSERT", "ingestd.", "/tmp", "/work", "src/"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        body["type"],
        format!("urn:ingestd:problem:{name}"),
        "{body}"
    );
    assert_eq!(body["status"], status);
    assert_eq!(body["instance"], request_id);
    assert!(body["title"].is_string());
    body
}
