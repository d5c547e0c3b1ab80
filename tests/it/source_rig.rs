//! What the tests of sources share: a daemon that may fetch, and a server that serves one file.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::HeaderMap,
    response::Response,
};
use ingestd::source::{self, Added, Definition};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

use crate::{process::Daemon, queue_rig::Rig, webhook_rig::hmac};

/// What must not turn up anywhere but in the file of the secret.
pub(crate) const SECRET: &str = "canary-sesame";

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
}

/// Who is let in.
#[derive(Debug, Clone)]
pub(crate) enum Door {
    Open,
    /// Who sends this as `Authorization`.
    Header(String),
    /// Who signs with key id and secret, for a region.
    Signature(&'static str, &'static str, &'static str),
}

/// What is served.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<&'static str, String>,
    pub(crate) body: Vec<u8>,
    pub(crate) door: Door,
    /// Whether `If-None-Match` is looked at.
    pub(crate) is_conditional: bool,
}

struct Inner {
    served: Mutex<Served>,
    came: Mutex<Vec<Came>>,
    /// A request waits for a permit before its answer.
    turns: Semaphore,
}

/// A server on loopback.
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Store {
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    pub(crate) async fn start(door: Door) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Served {
            status: 200,
            headers: HashMap::new(),
            body: Vec::new(),
            door,
            is_conditional: true,
        };
        let inner = Arc::new(Inner {
            served: Mutex::new(served),
            came: Mutex::default(),
            turns: Semaphore::new(Semaphore::MAX_PERMITS),
        });
        let router = Router::new().fallback(serve).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            inner,
            task,
        }
    }

    /// Serves a version of the file from now on, with an `ETag` of its own.
    pub(crate) fn serve(&self, body: impl Into<Vec<u8>>) {
        let body = body.into();
        let etag = format!("\"{}\"", hex(&Sha256::digest(&body)));
        self.change(|served| {
            served.headers.insert("etag", etag);
            served.body = body;
        });
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Served)) {
        change(&mut self.inner.served.lock().unwrap());
    }

    /// Answers nobody until [`Store::answer`].
    pub(crate) fn hold(&self) {
        self.inner.turns.forget_permits(usize::MAX);
    }

    pub(crate) fn answer(&self) {
        self.inner.turns.add_permits(1 << 20);
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        self.inner.came.lock().unwrap().clone()
    }
}

async fn serve(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let came = Came {
        method: request.method().to_string(),
        path: request.uri().to_string(),
        headers: request.headers().clone(),
    };
    inner.came.lock().unwrap().push(came.clone());
    inner.turns.acquire().await.unwrap().forget();
    let served = inner.served.lock().unwrap().clone();
    let is_let_in = match &served.door {
        Door::Open => true,
        Door::Header(value) => came.header("authorization") == value,
        Door::Signature(id, secret, region) => came.is_signed(id, secret, region),
    };
    let is_known = served.is_conditional
        && served.headers.get("etag").map(String::as_str) == Some(came.header("if-none-match"));
    let (status, body) = match (is_let_in, is_known) {
        (false, _) => (403, Vec::new()),
        (true, true) => (304, Vec::new()),
        (true, false) => (served.status, served.body),
    };
    let mut response = Response::builder().status(status);
    for (name, value) in served.headers {
        response = response.header(name, value);
    }
    response.body(Body::from(body)).unwrap()
}

impl Came {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Computes the signature of what came, as a store does that knows the secret.
    pub(crate) fn is_signed(&self, id: &str, secret: &str, region: &str) -> bool {
        let authorization = self.header("authorization").to_owned();
        let part = |name: &str| {
            let (_, rest) = authorization.split_once(&format!("{name}="))?;
            Some(rest.split(',').next()?.trim().to_owned())
        };
        let (Some(credential), Some(names), Some(signature)) =
            (part("Credential"), part("SignedHeaders"), part("Signature"))
        else {
            return false;
        };
        let (day, _) = self
            .header("x-amz-date")
            .split_once('T')
            .unwrap_or_default();
        let scope = format!("{day}/{region}/s3/aws4_request");
        let lines = names
            .split(';')
            .map(|name| format!("{name}:{}\n", self.header(name)));
        let lines = lines.collect::<Vec<_>>().concat();
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let (method, content) = (&self.method, self.header("x-amz-content-sha256"));
        let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{content}");
        let hash = hex(&Sha256::digest(canonical));
        let time = self.header("x-amz-date");
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{hash}");
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [day, region, "s3", "aws4_request"] {
            key = hmac(&key, part.as_bytes()).to_vec();
        }
        names.contains("host")
            && credential == format!("{id}/{scope}")
            && signature == hex(&hmac(&key, text.as_bytes()))
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    let bytes = bytes.iter().map(|byte| format!("{byte:02x}"));
    bytes.collect::<Vec<_>>().concat()
}

/// A database, folders, and a daemon's settings for both.
pub(crate) struct Shop {
    pub(crate) rig: Rig,
    pub(crate) dir: TempDir,
    settings: Vec<(String, String)>,
}

impl Shop {
    /// Makes one whose daemons may read below `in` and fetch from a store.
    pub(crate) async fn new(store: Option<&Store>) -> Self {
        let (rig, dir) = (Rig::new().await, TempDir::new().unwrap());
        for name in ["in", "secrets", "storage"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let quoted = |name: &str| format!("\"{}\"", dir.path().join(name).display());
        let mut settings = vec![
            ("SOURCES__ALLOWED_DIRS", format!("[{}]", quoted("in"))),
            (
                "SOURCES__SECRETS_DIR",
                dir.path().join("secrets").display().to_string(),
            ),
            ("SOURCES__SETTLE", "1ms".to_owned()),
            ("SOURCES__MIN_FREE_BYTES", "1MiB".to_owned()),
            ("FETCH__ALLOW_PRIVATE", r#"["127.0.0.1"]"#.to_owned()),
            ("LOG__FILTER", "debug".to_owned()),
        ];
        if let Some(store) = store {
            settings.push(("FETCH__PORTS", format!("[{}]", store.address.port())));
        }
        let mut settings: Vec<(String, String)> = settings
            .into_iter()
            .map(|(key, value)| (format!("INGESTD_{key}"), value))
            .collect();
        for (name, value) in [("RETRY_FIRST", "20ms"), ("RETRY_CAP", "50ms")] {
            for kind in ["FETCH_SOURCE", "FETCH_FILE"] {
                let key = format!("INGESTD_KINDS__CATALOG__{kind}__{name}");
                settings.push((key, value.to_owned()));
            }
        }
        Self { rig, dir, settings }
    }

    /// Sets one more variable of the daemons.
    pub(crate) fn set(self, key: &str, value: &str) -> Self {
        self.with(&format!("INGESTD_{key}"), value)
    }

    /// As [`Shop::set`], of one that is not ingestd's.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    pub(crate) async fn daemon(&self) -> Daemon {
        let settings = self.settings.iter();
        let settings: Vec<_> = settings.map(|(k, v)| (k.as_str(), v.as_str())).collect();
        Daemon::start(self.rig.url(), &self.dir.path().join("storage"), &settings).await
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn secret(&self, name: &str, text: &str) {
        std::fs::write(self.path("secrets").join(name), text).unwrap();
    }

    /// Adds a source, as people do.
    pub(crate) async fn add(&self, name: &str, definition: &Definition) {
        let mut tx = self.rig.pool().begin().await.unwrap();
        let added = source::add(&mut tx, name, definition, false).await.unwrap();
        assert_eq!(added, Added::Made);
        tx.commit().await.unwrap();
    }

    /// Has a source looked at, and waits until that and what follows from it is over.
    pub(crate) async fn look(&self, name: &str) {
        self.enqueue(name).await;
        self.rig.until_idle().await;
    }

    /// Enqueues a look, as a tick does: beside others.
    pub(crate) async fn enqueue(&self, name: &str) {
        self.rig
            .sql(&format!(
                "INSERT INTO ingestd.jobs (kind, args)
                 VALUES ('catalog.fetch_source', '{{\"source\": \"{name}\"}}')"
            ))
            .await;
    }

    pub(crate) async fn n_imports(&self) -> i64 {
        self.rig.ask("SELECT count(*) FROM catalog.imports").await
    }

    /// Returns what the last look at a source came to, with the error where there was one.
    pub(crate) async fn result(&self, name: &str) -> String {
        self.rig
            .ask(&format!(
                "SELECT concat_ws(': ', last_result, last_error) FROM catalog.sources
                 WHERE name = '{name}'"
            ))
            .await
    }

    /// Returns names and prices of the products, by code.
    pub(crate) async fn products(&self) -> String {
        self.rig
            .ask(
                "SELECT coalesce(string_agg(concat_ws(' ', p.code, p.name, trim_scale(x.price)), ', ' ORDER BY p.code), '')
                 FROM catalog.products p LEFT JOIN catalog.product_prices x
                   ON x.product_id = p.id AND x.archived_at IS NULL",
            )
            .await
    }
}

/// A file of one product.
pub(crate) fn file(code: &str, price: u32) -> String {
    format!("code,name,price\n{code},Lamp,{price}\n")
}

pub(crate) fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}
