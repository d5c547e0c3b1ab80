//! A search server of the tests' own that behaves as Typesense does, down to its refusals, and a
//! way to look at it that a real one has too.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    http::{Method, StatusCode},
    response::Response,
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Semaphore, task::JoinHandle};

use crate::{process::Daemon, queue_rig::Rig};

/// The key that the stand-in asks for.
pub(crate) const KEY: &str = "canary-search-key";

/// What to do with one import instead of taking it.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// A status, with `Retry-After` in seconds.
    Busy(u16, u64),
    /// The lines are taken, and the answer never comes.
    Silence,
    /// The lines are taken, and the answer lacks its last line.
    Short,
    /// All lines but the first are taken; that one is put off.
    BusyLine,
}

#[derive(Default)]
pub(crate) struct Inner {
    /// Schemas by collection.
    schemas: BTreeMap<String, Value>,
    /// Documents by collection and id.
    documents: BTreeMap<String, BTreeMap<String, Value>>,
    aliases: BTreeMap<String, String>,
    faults: Vec<Fault>,
    /// Codes whose lines are refused.
    pub(crate) refuses: Vec<String>,
    /// How often a collection took each document.
    pub(crate) taken: HashMap<(String, String), usize>,
    /// Until when it wants to be left alone.
    quiet_until: Option<Instant>,
    /// What a client must never do, and one did.
    pub(crate) offences: Vec<String>,
    n_imports: usize,
    n_requests: usize,
}

/// The stand-in.
pub(crate) struct StandIn {
    pub(crate) address: SocketAddr,
    pub(crate) inner: Arc<Mutex<Inner>>,
    /// Imports wait for a permit each.
    pub(crate) permits: Arc<Semaphore>,
    task: JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

type Shared = (Arc<Mutex<Inner>>, Arc<Semaphore>);

/// A database and a server with nothing in them, and a folder for a daemon's files.
pub(crate) async fn start() -> (Rig, StandIn, TempDir) {
    let folder = TempDir::new().unwrap();
    (Rig::new().await, StandIn::start().await, folder)
}

impl StandIn {
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Mutex::new(Inner::default()));
        let permits = Arc::new(Semaphore::new(1_000_000));
        let state = (Arc::clone(&inner), Arc::clone(&permits));
        let router = Router::new().fallback(answer).with_state(state);
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            inner,
            permits,
            task,
        }
    }

    pub(crate) fn look(&self) -> Look {
        Look {
            url: format!("http://{}", self.address),
            key: KEY.to_owned(),
        }
    }

    pub(crate) fn fault(&self, fault: Fault) {
        self.inner.lock().unwrap().faults.push(fault);
    }

    /// Lets only `n` more imports through.
    pub(crate) async fn hold_after(&self, n: u32) {
        let all = self.permits.available_permits();
        let taken = self.permits.acquire_many(u32::try_from(all).unwrap() - n);
        taken.await.unwrap().forget();
    }

    pub(crate) fn release(&self) {
        self.permits.add_permits(100_000);
    }

    /// Loses collections, aliases and documents, as a server does whose disk is new.
    pub(crate) fn forget_everything(&self) {
        let mut inner = self.inner.lock().unwrap();
        inner.schemas.clear();
        inner.documents.clear();
        inner.aliases.clear();
    }

    /// Returns how many requests came, whatever became of them.
    pub(crate) fn n_requests(&self) -> usize {
        self.inner.lock().unwrap().n_requests
    }

    pub(crate) fn n_imports(&self) -> usize {
        self.inner.lock().unwrap().n_imports
    }

    /// Returns how often a collection took a document.
    pub(crate) fn n_taken(&self, collection: &str, id: i64) -> usize {
        let key = (collection.to_owned(), id.to_string());
        let inner = self.inner.lock().unwrap();
        inner.taken.get(&key).copied().unwrap_or_default()
    }

    pub(crate) fn assert_no_offence(&self) {
        assert_eq!(self.inner.lock().unwrap().offences, Vec::<String>::new());
    }
}

fn say(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    let response = Response::builder().status(status);
    response
        .header("content-type", "application/json; charset=utf-8")
        .body(Body::from(body.to_string()))
        .unwrap()
}

fn message(status: u16, text: &str) -> Response {
    say(status, &json!({ "message": text }))
}

async fn answer(State((inner, permits)): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 64 << 20).await.unwrap().to_vec();
    inner.lock().unwrap().n_requests += 1;
    let key = parts.headers.get("x-typesense-api-key");
    if key.is_none_or(|key| key != KEY) {
        let text = "Forbidden - a valid `x-typesense-api-key` header must be sent.";
        return message(401, text);
    }
    let path = parts.uri.path().to_owned();
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let names: Vec<&str> = path.trim_matches('/').split('/').collect();
    if names.last() == Some(&"import") {
        permits.acquire().await.unwrap().forget();
    }
    let done = inner
        .lock()
        .unwrap()
        .answer(&parts.method, &names, &query, &body);
    match done {
        Some(response) => response,
        None => std::future::pending().await,
    }
}

impl Inner {
    /// Answers a request; `None`: never.
    fn answer(
        &mut self,
        method: &Method,
        names: &[&str],
        query: &str,
        body: &[u8],
    ) -> Option<Response> {
        Some(match (method.as_str(), names) {
            ("POST", ["collections"]) => self.create(body),
            ("GET", ["collections", name]) => self.describe(name),
            ("DELETE", ["collections", name]) => self.drop(name),
            ("GET", ["aliases", name]) => match self.aliases.get(*name) {
                Some(to) => say(200, &json!({ "name": name, "collection_name": to })),
                None => message(404, "Not Found"),
            },
            ("PUT", ["aliases", name]) => self.point(name, body),
            ("GET", ["collections", name, "documents", "export"]) => self.export(name),
            ("DELETE", ["collections", name, "documents"]) => self.remove(name, query),
            ("POST", ["collections", name, "documents", "import"]) => {
                return self.import(name, query, body);
            }
            _ => {
                self.offences.push(format!("{method} {names:?}"));
                message(404, "Not Found")
            }
        })
    }

    fn resolve(&self, name: &str) -> Option<String> {
        let to = self.aliases.get(name).map_or(name, String::as_str);
        self.schemas.contains_key(to).then(|| to.to_owned())
    }

    fn create(&mut self, body: &[u8]) -> Response {
        let Ok(schema) = serde_json::from_slice::<Value>(body) else {
            return message(400, "Bad JSON.");
        };
        let name = schema["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() || schema["fields"].as_array().is_none_or(Vec::is_empty) {
            return message(400, "Parameters `name` and `fields` are required.");
        }
        if self.schemas.contains_key(&name) {
            let text = format!("A collection with name `{name}` already exists.");
            return message(409, &text);
        }
        self.schemas.insert(name.clone(), schema.clone());
        self.documents.insert(name, BTreeMap::new());
        say(201, &schema)
    }

    fn describe(&self, name: &str) -> Response {
        match self.resolve(name) {
            Some(name) => {
                let n = self.documents[&name].len();
                say(200, &json!({ "name": name, "num_documents": n }))
            }
            None => message(404, "Not Found"),
        }
    }

    fn drop(&mut self, name: &str) -> Response {
        if self.aliases.values().any(|to| to == name) {
            self.offences
                .push(format!("{name} is dropped under its alias"));
        }
        self.documents.remove(name);
        match self.schemas.remove(name) {
            Some(schema) => say(200, &schema),
            None => message(404, &format!("No collection with name `{name}` found.")),
        }
    }

    fn point(&mut self, name: &str, body: &[u8]) -> Response {
        if self.schemas.contains_key(name) {
            let text = format!("Name `{name}` conflicts with an existing collection name.");
            return message(500, &text);
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let Some(to) = body["collection_name"].as_str() else {
            return message(400, "Parameter `collection_name` is required.");
        };
        self.aliases.insert(name.to_owned(), to.to_owned());
        say(200, &json!({ "name": name, "collection_name": to }))
    }

    fn export(&self, name: &str) -> Response {
        let Some(name) = self.resolve(name) else {
            return message(404, "Not Found");
        };
        let lines: Vec<String> = self.documents[&name]
            .values()
            .map(Value::to_string)
            .collect();
        Response::new(Body::from(lines.join("\n")))
    }

    fn remove(&mut self, name: &str, query: &str) -> Response {
        let Some(name) = self.resolve(name) else {
            return message(404, "Not Found");
        };
        let ids = query
            .strip_prefix("filter_by=id%3A%5B")
            .and_then(|q| q.strip_suffix("%5D"));
        let Some(ids) = ids else {
            return message(400, "Could not parse the filter query.");
        };
        let documents = self.documents.get_mut(&name).unwrap();
        let gone = ids
            .split("%2C")
            .filter(|id| documents.remove(*id).is_some())
            .count();
        say(200, &json!({ "num_deleted": gone }))
    }

    fn import(&mut self, name: &str, query: &str, body: &[u8]) -> Option<Response> {
        self.n_imports += 1;
        if query != "action=upsert" {
            return Some(message(
                400,
                "Parameter `action` must be a valid indexing operation.",
            ));
        }
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            self.offences
                .push("an import came before its Retry-After".to_owned());
        }
        let fault = (!self.faults.is_empty()).then(|| self.faults.remove(0));
        if let Some(Fault::Busy(status, secs)) = fault {
            self.quiet_until = Some(Instant::now() + Duration::from_secs(secs));
            let mut response = message(status, "Not Ready or Lagging");
            let secs = secs.to_string().parse().unwrap();
            response.headers_mut().insert("retry-after", secs);
            return Some(response);
        }
        let Some(name) = self.resolve(name) else {
            return Some(message(404, "Not Found"));
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let mut verdicts = Vec::new();
        if let Some(Fault::BusyLine) = fault {
            lines.next();
            verdicts.push(json!({ "code": 503, "error": "busy", "success": false }).to_string());
        }
        verdicts.extend(lines.map(|line| self.take(&name, line)));
        match fault {
            Some(Fault::Silence) => return None,
            Some(Fault::Short) => drop(verdicts.pop()),
            _ => {}
        }
        Some(Response::new(Body::from(verdicts.join("\n"))))
    }

    /// Takes a line or refuses it; returns the verdict's line.
    fn take(&mut self, name: &str, line: &str) -> String {
        let verdict = match self.judged(name, line) {
            Ok((id, document)) => {
                let key = (name.to_owned(), id.clone());
                *self.taken.entry(key).or_default() += 1;
                let documents = self.documents.get_mut(name).unwrap();
                let version = |document: &Value| document["version"].as_i64();
                if documents
                    .get(&id)
                    .is_some_and(|old| version(old) > version(&document))
                {
                    self.offences
                        .push(format!("document {id} goes back in {name}"));
                }
                documents.insert(id, document);
                json!({ "success": true })
            }
            Err(error) => {
                json!({ "code": 400, "document": line, "error": error, "success": false })
            }
        };
        verdict.to_string()
    }

    fn judged(&self, name: &str, line: &str) -> Result<(String, Value), String> {
        let document: Map<String, Value> =
            serde_json::from_str(line).map_err(|error| format!("Bad JSON: {error}"))?;
        let id = document.get("id").and_then(Value::as_str);
        let id = id.ok_or("Document's `id` field should be a string.")?;
        for field in self.schemas[name]["fields"].as_array().unwrap() {
            let field_name = field["name"].as_str().unwrap();
            let Some(value) = document.get(field_name) else {
                if field["optional"] != true {
                    return Err(format!(
                        "Field `{field_name}` has been declared in the schema, but is not found in the document."
                    ));
                }
                continue;
            };
            let (fits, kind) = match field["type"].as_str().unwrap() {
                "string" => (value.is_string(), "a string"),
                "float" => (value.is_number(), "a float"),
                "int64" => (value.is_i64(), "an int64"),
                other => panic!("no such type: {other}"),
            };
            if !fits {
                return Err(format!("Field `{field_name}` must be {kind}."));
            }
        }
        let code = document.get("code").and_then(Value::as_str);
        if code.is_some_and(|code| self.refuses.iter().any(|refused| refused == code)) {
            return Err("Field `price` must be a float.".to_owned());
        }
        Ok((id.to_owned(), Value::Object(document)))
    }
}

/// A way to look at a server, be it the stand-in or a real one.
pub(crate) struct Look {
    pub(crate) url: String,
    pub(crate) key: String,
}

impl Look {
    async fn get(&self, path: &str) -> (u16, String) {
        let request = reqwest::Client::new().get(format!("{}{path}", self.url));
        let request = request.header("x-typesense-api-key", &self.key);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Returns the collection that a name leads to.
    pub(crate) async fn leads_to(&self, name: &str) -> Option<String> {
        let (status, body) = self.get(&format!("/collections/{name}")).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        (status == 200).then(|| body["name"].as_str().unwrap().to_owned())
    }

    /// Returns the documents behind a name by code, without their versions.
    pub(crate) async fn documents(&self, name: &str) -> BTreeMap<String, Value> {
        let path = format!("/collections/{name}/documents/export");
        let (status, body) = self.get(&path).await;
        if status != 200 {
            return BTreeMap::new();
        }
        let lines = body.lines().map(|line| {
            let mut document: Value = serde_json::from_str(line).unwrap();
            document.as_object_mut().unwrap().remove("version");
            let code = document["code"].as_str().unwrap().to_owned();
            (code, document)
        });
        lines.collect()
    }

    /// Starts a daemon that tells this server; few rows a batch, so that there are many.
    pub(crate) async fn daemon(&self, rig: &Rig, folder: &Path, more: &[(&str, &str)]) -> Daemon {
        let mut settings = vec![
            ("INGESTD_SEARCH__URL", self.url.as_str()),
            ("INGESTD_SEARCH__API_KEY", self.key.as_str()),
            ("INGESTD_SEARCH__ALLOW_PRIVATE", "true"),
            ("INGESTD_SEARCH__BATCH_ROWS", "10"),
            ("INGESTD_KINDS__SEARCH__SYNC__RETRY_FIRST", "50ms"),
            ("INGESTD_KINDS__SEARCH__SYNC__RETRY_CAP", "200ms"),
            ("INGESTD_KINDS__SEARCH__REBUILD__RETRY_FIRST", "50ms"),
            ("INGESTD_KINDS__SEARCH__REBUILD__RETRY_CAP", "200ms"),
        ];
        settings.extend_from_slice(more);
        Daemon::start(rig.url(), folder, &settings).await
    }
}

/// Returns what documents the catalog is worth, by code: made by SQL, not by the code under test.
pub(crate) async fn expected(rig: &Rig) -> BTreeMap<String, Value> {
    let text: String = rig
        .ask(
            "SELECT coalesce(jsonb_object_agg(p.code, jsonb_strip_nulls(jsonb_build_object(
               'id', p.id::text, 'tenant', p.tenant, 'code', p.code, 'name', p.name,
               'brand', p.brand, 'price', pp.price::float8, 'stock', ps.qty))), '{}')::text
             FROM catalog.products p
             LEFT JOIN catalog.product_prices pp ON pp.product_id = p.id AND pp.archived_at IS NULL
             LEFT JOIN catalog.product_stocks ps ON ps.product_id = p.id AND ps.archived_at IS NULL
             WHERE p.archived_at IS NULL",
        )
        .await;
    serde_json::from_str(&text).unwrap()
}
