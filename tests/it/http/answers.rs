//! What a server answers is what the OpenAPI document says, down to the members: every route that
//! answers with JSON is asked for once, of objects that have something in every part.

use std::collections::BTreeSet;

use ingestd::{access::Role, http::ROUTES};
use reqwest::{
    Method,
    multipart::{Form, Part},
};
use serde_json::{Value, json};

use super::{server::Server, token::make};

/// Returns what is wrong with a value by a schema of the document. Stricter than the document: a
/// member that it does not name is wrong, too.
fn fault(document: &Value, schema: &Value, value: &Value) -> Option<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let of = document.pointer(reference.trim_start_matches('#'));
        let of = of.unwrap_or_else(|| panic!("{reference} is not in the document"));
        return fault(document, of, value);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let faults: Option<Vec<_>> = any.iter().map(|of| fault(document, of, value)).collect();
        return faults.map(|faults| faults.join(", nor "));
    }
    let is_of = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("no type {other}"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::String(name) => is_of(name),
        Value::Array(names) => names.iter().any(|name| is_of(name.as_str().unwrap())),
        other => panic!("no type {other}"),
    };
    if !fits {
        return Some(format!("{value} is no {}", schema["type"]));
    }
    let is_word = |words: &Vec<Value>| words.contains(value);
    if !schema["enum"].as_array().is_none_or(is_word) {
        return Some(format!("{value} is none of {}", schema["enum"]));
    }
    if schema["format"] == "date-time" && !value.is_null() {
        let time = value.as_str().unwrap_or_default();
        if chrono::DateTime::parse_from_rfc3339(time).is_err() {
            return Some(format!("{value} is no time"));
        }
    }
    if let Some(items) = value.as_array().filter(|_| schema["items"].is_object()) {
        return items
            .iter()
            .find_map(|item| fault(document, &schema["items"], item));
    }
    let (Some(members), Some(known)) = (value.as_object(), schema["properties"].as_object()) else {
        return None;
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !members.contains_key(name.as_str().unwrap()) {
            return Some(format!("{name} is missing"));
        }
    }
    members.iter().find_map(|(name, value)| {
        let Some(schema) = known.get(name) else {
            return Some(format!("{name} is not described"));
        };
        fault(document, schema, value).map(|fault| format!("{name}: {fault}"))
    })
}

/// Asks and compares, and notes which routes were asked for.
struct Walk<'s> {
    server: &'s Server,
    token: String,
    document: Value,
    seen: BTreeSet<String>,
    /// What was not as described, told at once in the end.
    wrong: Vec<String>,
}

impl Walk<'_> {
    /// Asks for the path of a route and returns what it answered.
    async fn ask(&mut self, route: &str, path: &str, body: Option<Value>, status: u16) -> Value {
        let (method, _) = route.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let ask = self.server.client.request(method, self.server.url(path));
        let ask = match &body {
            Some(body) => ask.json(body),
            None => ask,
        };
        self.send(route, ask, status).await
    }

    async fn send(&mut self, route: &str, ask: reqwest::RequestBuilder, status: u16) -> Value {
        let answer = ask.bearer_auth(&self.token).send().await.unwrap();
        let found = answer.status();
        let text = answer.text().await.unwrap();
        self.seen.insert(route.to_owned());
        if found != status {
            self.wrong.push(format!("{route}: {found} {text}"));
            return Value::Null;
        }
        let value: Value = serde_json::from_str(&text).unwrap();
        let (method, template) = route.split_once(' ').unwrap();
        let operation = &self.document["paths"][template][method.to_lowercase()];
        let answers = &operation["responses"][status.to_string()]["content"];
        let schema = &answers["application/json"]["schema"];
        if !schema.is_object() {
            self.wrong.push(format!("{route} is not described"));
        } else if let Some(fault) = fault(&self.document, schema, &value) {
            self.wrong.push(format!("{route}: {fault}\n{text}"));
        }
        value
    }

    /// Asks for `METHOD /api/v1/…` as the route's own path says, with `at` in place of its parameter.
    async fn at(&mut self, route: &str, at: &str, body: Option<Value>, status: u16) -> Value {
        let (method, path) = route.split_once(' ').unwrap();
        let (route, path) = (format!("{method} /api/v1{path}"), format!("/api/v1{path}"));
        let parts = path.split_once('{');
        let parts = parts.and_then(|(head, rest)| Some((head, rest.split_once('}')?.1)));
        let path = match parts {
            Some((head, tail)) => format!("{head}{at}{tail}"),
            None => format!("{path}{at}"),
        };
        self.ask(&route, &path, body, status).await
    }

    async fn upload(&mut self, route: &str, status: u16) -> Value {
        let file = Part::text("code,name\nA,Lamp\n").file_name("a.csv");
        let (_, path) = route.split_once(' ').unwrap();
        let ask = self.server.post(path);
        let ask = ask.multipart(Form::new().part("file", file));
        self.send(route, ask, status).await
    }
}

/// One of everything that nobody makes over HTTP; returns a running and a dead job, and an import
/// that can be undone.
async fn fill(server: &Server) -> (i64, i64, i64) {
    sqlx::query(include_str!("page_hostile.sql"))
        .bind("plain")
        .execute(server.pool())
        .await
        .unwrap();
    sqlx::raw_sql(include_str!("answers.sql"))
        .execute(server.pool())
        .await
        .unwrap();
    sqlx::query_as(
        "SELECT (SELECT id FROM ingestd.jobs WHERE shard = 0 AND state = 'running'),
                (SELECT min(id) FROM ingestd.dead_jobs WHERE kind = 'system.noop'),
                (SELECT id FROM catalog.imports WHERE rollback_run_id IS NULL)",
    )
    .fetch_one(server.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn every_answer_is_what_the_document_says() {
    let server = Server::with(|config| {
        config.search.url = Some("https://search.example.com:8108".into());
        config.search.api_key = Some("canary-search-key".into());
        config.auth.requests_per_minute = 0;
    })
    .await;
    server.register("others.kind").await;
    let document = server.json("/openapi.json").await;
    let mut walk = Walk {
        token: make(&server, "admin", Role::Admin, &[]).await,
        server: &server,
        document,
        seen: BTreeSet::new(),
        wrong: Vec::new(),
    };
    let (running, dead, undoable) = fill(&server).await;
    whole(&mut walk).await;
    jobs(&mut walk, running, dead).await;
    runs_and_imports(&mut walk, undoable).await;
    schedules(&mut walk).await;
    people(&mut walk).await;
    sources(&mut walk).await;

    assert!(walk.wrong.is_empty(), "{}", walk.wrong.join("\n"));
    let of_same = |path: &str| path.replace("/api/v1", "");
    let seen: BTreeSet<_> = walk.seen.iter().map(|route| of_same(route)).collect();
    let no_json = ["/openapi.json", "/healthz", "/metrics"];
    let is_json = |path: &str| {
        let ends = ["/events", ".csv", ".xlsx"];
        !no_json.contains(&path) && !ends.iter().any(|end| path.ends_with(end))
    };
    let routes = ROUTES.iter().filter(|route| is_json(route.path));
    let names = routes.map(|route| of_same(&format!("{} {}", route.method, route.path)));
    let unseen: Vec<_> = names
        .filter(|name| !seen.contains(name) && name != "DELETE /session")
        .collect();
    assert!(unseen.is_empty(), "nobody asked for {unseen:?}");
}

async fn whole(walk: &mut Walk<'_>) {
    walk.ask("GET /readyz", "/readyz?verbose", None, 200).await;
    walk.at("GET /health/database", "", None, 200).await;
    walk.at("GET /stats", "", None, 200).await;
    walk.at("GET /queues", "", None, 200).await;
    walk.at("POST /queues/{queue}/pause", "default", None, 200)
        .await;
    walk.at("POST /queues/{queue}/resume", "default", None, 200)
        .await;
    let limit = Some(json!({ "max_running": 3 }));
    walk.at("POST /queues/{queue}/limit", "default", limit, 200)
        .await;
    let fair = Some(json!({ "fair": true }));
    walk.at("POST /queues/{queue}/fair", "default", fair, 200)
        .await;
    let gate = Some(json!({ "max_running": 3, "rate_per_sec": 1.5 }));
    walk.at("PUT /gates/{pattern}", "host:a", gate, 200).await;
    walk.at("GET /gates", "", None, 200).await;
    walk.at("POST /gates/{pattern}/pause", "host:a", None, 200)
        .await;
    walk.at("POST /gates/{pattern}/resume", "host:a", None, 200)
        .await;
    walk.at("DELETE /gates/{pattern}", "host:a", None, 200)
        .await;
    walk.at("GET /search", "", None, 200).await;
    walk.at("GET /search/failures", "", None, 200).await;
    walk.at("POST /search/sync", "", None, 202).await;
    walk.at("POST /search/rebuild", "", None, 202).await;
    walk.at("POST /search/retry", "", None, 202).await;
}

async fn jobs(walk: &mut Walk<'_>, running: i64, dead: i64) {
    let job = json!({ "kind": "others.kind", "args": { "a": 1 }, "meta": { "b": 2 },
                      "unique_key": "k", "run_at": "2030-01-01T00:00:00Z" });
    let job = walk.at("POST /jobs", "", Some(job), 201).await;
    let id = job["id"].to_string();
    let change = Some(json!({ "priority": 2 }));
    walk.at("PATCH /jobs/{id}", &id, change, 200).await;
    let later = Some(json!({ "delay_secs": 60 }));
    walk.at("POST /jobs/{id}/snooze", &id, later, 200).await;
    walk.at("GET /jobs/{id}/why", &id, None, 200).await;
    walk.at("POST /jobs/{id}/retry", &id, None, 200).await;
    walk.at("POST /jobs/{id}/cancel", &id, None, 200).await;
    let shown = walk
        .at("GET /jobs/{id}", &running.to_string(), None, 200)
        .await;
    for part in ["steps", "attempts"] {
        assert_eq!(shown[part].as_array().unwrap().len(), 1, "{shown}");
    }
    assert!(shown["progress"].is_object(), "{shown}");
    let lines = walk
        .at("GET /jobs/{id}/logs", &running.to_string(), None, 200)
        .await;
    assert_eq!(lines["items"].as_array().unwrap().len(), 1, "{lines}");
    walk.at("GET /jobs", "", None, 200).await;
    walk.at("POST /jobs/{id}/cancel", &running.to_string(), None, 202)
        .await;
    walk.at("GET /dead", "", None, 200).await;
    walk.at("GET /dead/groups", "", None, 200).await;
    walk.at("POST /jobs/{id}/retry", &dead.to_string(), None, 201)
        .await;
    walk.at("GET /jobs/{id}", &dead.to_string(), None, 200)
        .await;
    let look = json!({ "action": "replay", "all": true, "dry_run": true });
    walk.at("POST /bulk", "", Some(look), 200).await;
    let bulk = json!({ "action": "cancel", "filter": { "kind": "others.kind" } });
    walk.at("POST /bulk", "", Some(bulk), 202).await;
}

async fn runs_and_imports(walk: &mut Walk<'_>, undoable: i64) {
    let uploaded = walk.upload("POST /api/v1/import/products", 202).await;
    let run = uploaded["data"]["jobId"].to_string();
    walk.upload("POST /import/products", 202).await;
    walk.at("GET /import/status/{jobId}", &run, None, 200).await;
    for (verb, status) in [
        ("pause", 200),
        ("resume", 200),
        ("cancel", 200),
        ("reset", 200),
    ] {
        walk.at(&format!("POST /runs/{{id}}/{verb}"), &run, None, status)
            .await;
    }
    walk.at("GET /runs", "", None, 200).await;
    walk.at("GET /runs/{id}", &run, None, 200).await;
    walk.upload("POST /import/dealers", 200).await;
    let headers = || Some(json!({ "headers": { "Our ref": "code" } }));
    walk.at("PUT /mappings/{name}", "m", headers(), 201).await;
    walk.at("PUT /mappings/{name}", "m", headers(), 200).await;
    walk.at("GET /mappings", "", None, 200).await;
    walk.at("GET /mappings/{name}", "m", None, 200).await;
    walk.at("DELETE /mappings/{name}", "m", None, 200).await;
    walk.at("GET /imports", "", None, 200).await;
    let id = undoable.to_string();
    walk.at("GET /imports/{id}", &id, None, 200).await;
    walk.at("GET /import/status/{jobId}", &id, None, 200).await;
    walk.at("GET /imports/{id}/rollback", &id, None, 200).await;
    walk.at("POST /imports/{id}/rollback", &id, None, 202).await;
    walk.at("GET /imports/{id}/rollback", &id, None, 200).await;
}

async fn schedules(walk: &mut Walk<'_>) {
    let made = json!({ "name": "s", "cron": "0 * * * *", "kind": "others.kind", "tenant": "acme" });
    walk.at("POST /schedules", "", Some(made), 201).await;
    let put = json!({ "cron": "0 * * * *", "kind": "others.kind" });
    walk.at("PUT /schedules/{name}", "s", Some(put.clone()), 200)
        .await;
    walk.at("PUT /schedules/{name}", "t", Some(put), 201).await;
    walk.at("POST /schedules/{name}/run", "s", None, 201).await;
    walk.at("POST /schedules/{name}/pause", "s", None, 200)
        .await;
    walk.at("POST /schedules/{name}/resume", "s", None, 200)
        .await;
    let range =
        json!({ "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T03:00:00Z", "force": true });
    for _ in 0..2 {
        // The second time all of it is skipped.
        let range = Some(range.clone());
        walk.at("POST /schedules/{name}/backfill", "s", range, 200)
            .await;
    }
    let shown = walk.at("GET /schedules/{name}", "s", None, 200).await;
    assert!(
        !shown["last_ticks"].as_array().unwrap().is_empty(),
        "{shown}"
    );
    walk.at("GET /schedules", "", None, 200).await;
    walk.at("DELETE /schedules/{name}", "s", None, 200).await;
}

async fn people(walk: &mut Walk<'_>) {
    let hook = json!({ "url": "https://example.com/hook", "events": ["job.dead"],
                       "secret_ref": "ops", "kinds": ["system.*"] });
    let hook = walk.at("POST /webhooks", "", Some(hook), 201).await;
    let id = hook["id"].to_string();
    sqlx::query(
        "INSERT INTO ingestd.webhook_deliveries
           (webhook_id, message, event, job_id, attempt, status, error, duration_ms)
         VALUES ($1, 'm', 'job.dead', 1, 1, 500, 'why', 12)",
    )
    .bind(hook["id"].as_i64())
    .execute(walk.server.pool())
    .await
    .unwrap();
    walk.at("GET /webhooks", "", None, 200).await;
    walk.at("GET /webhooks/{id}", &id, None, 200).await;
    let told = walk
        .at("GET /webhooks/{id}/deliveries", &id, None, 200)
        .await;
    assert_eq!(told["items"].as_array().unwrap().len(), 1, "{told}");
    walk.at("POST /webhooks/{id}/test", &id, None, 202).await;
    walk.at("POST /webhooks/{id}/pause", &id, None, 200).await;
    walk.at("POST /webhooks/{id}/resume", &id, None, 200).await;
    walk.at("DELETE /webhooks/{id}", &id, None, 200).await;
    let token = json!({ "name": "n", "role": "viewer", "tenants": ["acme"], "expires_secs": 60 });
    let token = walk.at("POST /tokens", "", Some(token), 201).await;
    walk.at("GET /tokens", "", None, 200).await;
    walk.at("DELETE /tokens/{id}", &token["id"].to_string(), None, 200)
        .await;
    let session = Some(json!({ "token": walk.token }));
    walk.at("POST /session", "", session, 200).await;
    walk.at("GET /session", "", None, 200).await;
}

async fn sources(walk: &mut Walk<'_>) {
    let feed = json!({ "name": "feed", "location": "https://example.com/a.csv",
                       "tenant": "acme", "cron": "0 4 * * *", "options": { "mode": "upsert" } });
    walk.at("POST /sources", "", Some(feed), 201).await;
    let shown = walk.at("GET /sources/{name}", "feed", None, 200).await;
    assert_eq!(shown["tenant"], "acme");
    walk.at("GET /sources", "", None, 200).await;
    walk.at("POST /sources/{name}/pause", "feed", None, 200)
        .await;
    walk.at("POST /sources/{name}/resume", "feed", None, 200)
        .await;
    walk.at("POST /sources/{name}/run", "feed", None, 202).await;
    walk.at("DELETE /sources/{name}", "feed", None, 200).await;
    let once = Some(json!({ "location": "https://example.com/a.csv" }));
    walk.at("POST /import/fetch", "", once, 202).await;
}

#[test]
fn what_does_not_fit_is_found() {
    let document = json!({ "t": { "type": "object", "required": ["a"], "properties": {
        "a": { "type": ["integer", "null"] },
        "b": { "type": "array", "items": { "type": "string", "enum": ["x"] } },
        "c": { "oneOf": [{ "$ref": "#/t" }, { "type": "null" }] },
        "d": { "type": "string", "format": "date-time" } } } });
    let found = |value: Value| fault(&document, &json!({ "$ref": "#/t" }), &value);
    for fine in [
        json!({ "a": null }),
        json!({ "a": 1, "b": ["x"], "c": { "a": 2 }, "d": "2026-01-01T00:00:00Z" }),
        json!({ "a": 1, "c": null }),
    ] {
        assert_eq!(found(fine.clone()), None, "{fine}");
    }
    for wrong in [
        json!({}),
        json!([]),
        json!({ "a": "1" }),
        json!({ "a": 1.5 }),
        json!({ "a": 1, "b": ["y"] }),
        json!({ "a": 1, "c": {} }),
        json!({ "a": 1, "d": "today" }),
        json!({ "a": 1, "z": 1 }),
    ] {
        assert!(found(wrong.clone()).is_some(), "{wrong}");
    }
}
