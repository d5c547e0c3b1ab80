//! What the tests of webhooks share: an endpoint that notes what it is sent and answers as told.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    process::{self, Daemon},
    queue_rig::Rig,
};

/// The secret that the tests' webhooks are signed with: `whsec_` and 32 bytes. It must not turn up
/// anywhere but in its file.
pub(crate) const KEY: &str = "Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LTEyMzQ=";

/// One request that came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

/// What to do with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Status(u16),
    /// A status and a header.
    With(u16, &'static str, &'static str),
    /// None, ever.
    Silence,
}

#[derive(Default)]
struct Inner {
    came: Vec<Came>,
    replies: VecDeque<Reply>,
}

/// A server on loopback; out of replies it says 204.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    task: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Endpoint {
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    pub(crate) async fn start(replies: impl Into<VecDeque<Reply>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Inner {
            came: Vec::new(),
            replies: replies.into(),
        };
        let inner = Arc::new(Mutex::new(inner));
        let router = Router::new().fallback(take).with_state(Arc::clone(&inner));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            inner,
            task,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=path-secret", self.address)
    }

    pub(crate) fn came(&self) -> Vec<Came> {
        self.inner.lock().unwrap().came.clone()
    }

    /// Waits until `n` requests came.
    pub(crate) async fn until(&self, n: usize) -> Vec<Came> {
        let what = format!("{n} requests came");
        process::until(&what, || async { self.came().len() >= n }).await;
        self.came()
    }
}

async fn take(State(inner): State<Arc<Mutex<Inner>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let came = Came {
        path: parts.uri.to_string(),
        headers: parts.headers,
        body: to_bytes(body, 1 << 20).await.unwrap().to_vec(),
    };
    let reply = {
        let mut inner = inner.lock().unwrap();
        inner.came.push(came);
        inner.replies.pop_front()
    };
    let (status, header) = match reply {
        None => (204, None),
        Some(Reply::Status(status)) => (status, None),
        Some(Reply::With(status, name, value)) => (status, Some((name, value))),
        Some(Reply::Silence) => std::future::pending().await,
    };
    let mut response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    if let Some((name, value)) = header {
        response = response.header(name, value);
    }
    response.body(Body::empty()).unwrap()
}

impl Came {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Says whether the signature is that of the key, by a computation of the test's own.
    pub(crate) fn is_signed(&self, key: &str) -> bool {
        let (id, timestamp) = (self.header("webhook-id"), self.header("webhook-timestamp"));
        let mut message = format!("{id}.{timestamp}.").into_bytes();
        message.extend_from_slice(&self.body);
        let mac = STANDARD.encode(hmac(&STANDARD.decode(key).unwrap(), &message));
        self.header("webhook-signature") == format!("v1,{mac}")
    }
}

/// HMAC as RFC 2104 defines it.
pub(crate) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new()
        .chain_update(padded(0x36))
        .chain_update(message);
    let outer = Sha256::new().chain_update(padded(0x5c));
    outer.chain_update(inner.finalize()).finalize().into()
}

/// Writes the secret `hook` into a folder.
pub(crate) fn write_secret(folder: &Path) {
    std::fs::write(folder.join("hook"), format!("whsec_{KEY}\n")).unwrap();
}

/// Starts a daemon that may deliver to an endpoint, and tries again quickly.
pub(crate) async fn daemon(rig: &Rig, folder: &Path, endpoint: &Endpoint) -> Daemon {
    daemon_with(rig, folder, endpoint, &[]).await
}

/// As [`daemon`], with settings that go before its own.
pub(crate) async fn daemon_with(
    rig: &Rig,
    folder: &Path,
    endpoint: &Endpoint,
    others: &[(&str, &str)],
) -> Daemon {
    write_secret(folder);
    let (ports, secrets) = (
        format!("[{}]", endpoint.address.port()),
        folder.display().to_string(),
    );
    let settings = [
        ("INGESTD_FETCH__ALLOW_PRIVATE", r#"["127.0.0.1"]"#),
        ("INGESTD_FETCH__PORTS", ports.as_str()),
        ("INGESTD_WEBHOOKS__SECRETS_DIR", secrets.as_str()),
        ("INGESTD_KINDS__SYSTEM__WEBHOOK__RETRY_FIRST", "50ms"),
        ("INGESTD_KINDS__SYSTEM__WEBHOOK__RETRY_CAP", "200ms"),
        ("INGESTD_KINDS__SYSTEM__NOOP__MAX_ATTEMPTS", "1"),
        ("INGESTD_LOG__FILTER", "debug"),
    ];
    let mut settings = settings.to_vec();
    settings.retain(|(name, _)| others.iter().all(|(other, _)| other != name));
    settings.extend(others);
    Daemon::start(rig.url(), folder, &settings).await
}

/// Inserts a webhook; `columns` are further ones with their SQL values, as `kinds` and `'{…}'`.
pub(crate) async fn hook(rig: &Rig, url: &str, events: &str, columns: &[(&str, &str)]) -> i64 {
    let (names, values): (Vec<_>, Vec<_>) = columns.iter().copied().unzip();
    let names = [&["url", "events", "secret_ref"][..], &names].concat();
    let (url, events) = (format!("'{url}'"), format!("'{{{events}}}'"));
    let values = [&[url.as_str(), &events, "'hook'"][..], &values].concat();
    let (names, values) = (names.join(", "), values.join(", "));
    rig.ask(&format!(
        "INSERT INTO ingestd.webhooks ({names}) VALUES ({values}) RETURNING id"
    ))
    .await
}
