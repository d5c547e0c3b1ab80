//! Whose data: another tenant's is not there, and what a role may not see is null.

use std::fmt::Write as _;

use ingestd::{
    access::Role,
    http::{Access, Reach},
};
use reqwest::multipart::{Form, Part};
use serde_json::{Value, json};

use super::{
    access::{every, refused},
    server::{Server, problem},
    token::{make, spoiled},
};

/// A job with a canary in its arguments, an import's run and a webhook of tenant `acme`; their ids.
async fn theirs(server: &Server) -> (i64, i64, i64) {
    sqlx::query_as(
        "WITH job AS (
           INSERT INTO ingestd.jobs (kind, args, tenant, run_at)
           VALUES ('system.noop', '{\"key\": \"canary\"}', 'acme', now() + interval '1 day')
           RETURNING id),
         run AS (
           INSERT INTO ingestd.runs (system, tenant, triggered_by, params)
           VALUES ('product_import', 'acme', 'test', '{\"key\": \"canary\"}') RETURNING id),
         import AS (
           INSERT INTO catalog.imports (id, tenant, type, file_name, file_size_bytes, file_sha256)
           SELECT id, 'acme', 'PARTS', 'canary.csv', 1, sha256('') FROM run),
         hook AS (
           INSERT INTO ingestd.webhooks (tenant, url, events, secret_ref)
           VALUES ('acme', 'https://example.com/', '{job.dead}', 'acme') RETURNING id)
         SELECT job.id, run.id, hook.id FROM job, run, hook",
    )
    .fetch_one(server.pool())
    .await
    .unwrap()
}

/// Schedules of `acme`, of nobody and of a source of `acme`.
async fn schedules(server: &Server) {
    sqlx::raw_sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, args, tenant)
         VALUES ('acmes', '0 3 * * *', 'system.noop', '{\"key\": \"canary\"}', 'acme'),
                ('everybodys', '0 3 * * *', 'system.noop', '{}', NULL) ON CONFLICT DO NOTHING;
         INSERT INTO catalog.sources (name, tenant, kind, location)
         VALUES ('feed', 'acme', 'url', 'https://example.com/a.csv') ON CONFLICT DO NOTHING;
         INSERT INTO ingestd.schedules (name, cron, kind, args)
         VALUES ('source:feed', '0 4 * * *', 'catalog.fetch_source', '{\"source\": \"feed\"}')
         ON CONFLICT DO NOTHING",
    )
    .execute(server.pool())
    .await
    .unwrap();
}

/// What each route answers to whom, committed: `INGESTD_BLESS=1` writes it anew.
#[tokio::test]
async fn every_route_answers_each_caller_as_the_table_says() {
    let server = Server::with(|config| config.auth.failures_per_minute = 0).await;
    let expired = make(&server, "expired", Role::Admin, &[]).await;
    let callers = [
        ("none", None),
        ("bad", Some(spoiled(&expired))),
        ("expired", Some(expired)),
        ("viewer", Some(make(&server, "v", Role::Viewer, &[]).await)),
        (
            "operator",
            Some(make(&server, "o", Role::Operator, &[]).await),
        ),
        ("admin", Some(make(&server, "a", Role::Admin, &[]).await)),
        (
            "acme's viewer",
            Some(make(&server, "av", Role::Viewer, &["acme"]).await),
        ),
        (
            "acme's admin",
            Some(make(&server, "aa", Role::Admin, &["acme"]).await),
        ),
        (
            "other's admin",
            Some(make(&server, "oa", Role::Admin, &["other"]).await),
        ),
    ];
    sqlx::query("UPDATE ingestd.api_tokens SET expires_at = now() WHERE name = 'expired'")
        .execute(server.pool())
        .await
        .unwrap();
    let mut table = String::from("| route |");
    for (name, _) in &callers {
        write!(table, " {name} |").unwrap();
    }
    table += "\n|---|";
    table += &"---|".repeat(callers.len());
    table.push('\n');
    for route in every() {
        write!(table, "| {} {} |", route.method, route.path).unwrap();
        for (_, token) in &callers {
            let (job, run, hook) = theirs(&server).await;
            schedules(&server).await;
            let id = match route.access {
                Access::Role(_, Reach::Run) => run,
                Access::Role(_, Reach::Webhook) => hook,
                _ => job,
            };
            let path = route.path.replace("{id}", &id.to_string());
            let path = path.replace("{jobId}", &id.to_string());
            let name = match route.access {
                Access::Role(_, Reach::Schedule) => "acmes",
                _ => "none",
            };
            let path = path.replace("{queue}", "default").replace("{name}", name);
            let path = path.replace("{pattern}", "none:*");
            let mut ask = server
                .client
                .request(route.method.clone(), server.url(&path));
            if let Some(token) = token {
                ask = ask.bearer_auth(token);
            }
            let status = ask.send().await.unwrap().status().as_u16();
            assert!(
                status < 500 || route.path == "/readyz",
                "{route:?} {status}"
            );
            write!(table, " {status} |").unwrap();
        }
        table.push('\n');
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/http/access.md");
    if std::env::var_os("INGESTD_BLESS").is_some() {
        std::fs::write(path, &table).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    for (is, should) in table.lines().zip(expected.lines()) {
        assert_eq!(is, should);
    }
    assert_eq!(table.lines().count(), expected.lines().count());
}

#[tokio::test]
async fn another_tenants_objects_are_not_there() {
    let server = Server::start().await;
    let (job, run, hook) = theirs(&server).await;
    let token = make(&server, "other", Role::Admin, &["other"]).await;
    schedules(&server).await;
    let before = everything(&server).await;
    for route in every() {
        let id = match route.access {
            Access::Role(_, Reach::Job) => job,
            Access::Role(_, Reach::Run) => run,
            Access::Role(_, Reach::Webhook) => hook,
            Access::Role(_, Reach::Schedule) => 0,
            _ => continue,
        };
        let path = route.path.replace("{id}", &id.to_string());
        let path = path.replace("{jobId}", &id.to_string());
        let path = path.replace("{name}", "acmes");
        let ask = server
            .client
            .request(route.method.clone(), server.url(&path));
        let theirs = ask.bearer_auth(&token).send().await.unwrap();
        assert!(!format!("{:?}", theirs.headers()).contains("acme"));
        refused(theirs, route, 404, "not-found").await;
    }
    assert_eq!(everything(&server).await, before, "nothing changed");
    for list in ["jobs", "runs", "dead", "webhooks", "schedules"] {
        let page = server.get(&format!("/api/v1/{list}")).bearer_auth(&token);
        let page: Value = page.send().await.unwrap().json().await.unwrap();
        assert_eq!(page["items"], json!([]), "{list}");
    }
    let mine = make(&server, "acme", Role::Admin, &["acme"]).await;
    for list in ["jobs", "runs", "webhooks"] {
        let page = server.get(&format!("/api/v1/{list}")).bearer_auth(&mine);
        let page: Value = page.send().await.unwrap().json().await.unwrap();
        assert_eq!(page["items"].as_array().unwrap().len(), 1, "{list}");
    }
}

#[tokio::test]
async fn an_import_is_its_uploaders_tenants() {
    let server = Server::start().await;
    let mut callers = Vec::new();
    for tenant in ["acme", "other"] {
        callers.push((
            tenant,
            make(&server, tenant, Role::Operator, &[tenant]).await,
        ));
    }
    for (_, token) in &callers {
        let file = Part::text("code,name\nA,Lamp\n").file_name("a.csv");
        let ask = server.post("/import/products").bearer_auth(token);
        let made = ask.multipart(Form::new().part("file", file)).send().await;
        assert_eq!(made.unwrap().status(), 202);
    }
    for (tenant, token) in &callers {
        for (query, n) in [("", 1), ("?tenant=acme", usize::from(*tenant == "acme"))] {
            let list = server.get(&format!("/api/v1/imports{query}"));
            let list = list.bearer_auth(token).send().await.unwrap();
            let list: Value = list.json().await.unwrap();
            let items = list["items"].as_array().unwrap();
            assert_eq!(items.len(), n, "{tenant} {query} {list}");
            assert!(items.iter().all(|item| item["tenant"] == *tenant), "{list}");
        }
    }
    let both = make(&server, "both", Role::Operator, &["acme", "other"]).await;
    let file = Part::text("code,name\nA,Lamp\n").file_name("a.csv");
    let ask = server.post("/import/products").bearer_auth(&both);
    let whose = ask.multipart(Form::new().part("file", file)).send().await;
    let whose = whose.unwrap();
    assert_eq!(whose.status(), 422);
    let whose: Value = whose.json().await.unwrap();
    assert_eq!(whose["error"]["code"], "ambiguous_tenant", "{whose}");
    let text = "say whose data it is: tenant is one of acme, other";
    assert_eq!(whose["message"], text);
}

/// Uploads for a caller, with a tenant in the query, in the form, or in neither; returns status,
/// code and the import's tenant.
async fn upload(
    server: &Server,
    (token, path): (&str, &str),
    query: &[&str],
    field: Option<&str>,
) -> (u16, Value, Option<String>) {
    let name = "email"; // dealers have one
    let text = format!("code,name,{name}\nA,Lamp,a@example.com\n");
    let mut form = Form::new().part("file", Part::text(text).file_name("a.csv"));
    if let Some(tenant) = field {
        form = form.text("tenant", tenant.to_owned());
    }
    let query: Vec<_> = query.iter().map(|of| format!("tenant={of}")).collect();
    let path = format!("{path}?{}", query.join("&"));
    let ask = server.post(&path).bearer_auth(token);
    let answer = ask.multipart(form).send().await.unwrap();
    let status = answer.status().as_u16();
    let told: Value = answer.json().await.unwrap();
    let whose = "SELECT tenant FROM catalog.imports ORDER BY id DESC LIMIT 1";
    let whose = sqlx::query_scalar(whose).fetch_optional(server.pool());
    (status, told["error"]["code"].clone(), whose.await.unwrap())
}

#[tokio::test]
async fn who_has_several_tenants_says_whose_an_upload_is() {
    let server = Server::start().await;
    let both = make(&server, "both", Role::Operator, &["acme", "other"]).await;
    let all = make(&server, "all", Role::Operator, &[]).await;
    for (path, done) in [("/import/products", 202), ("/api/v1/import/dealers", 200)] {
        let (both, all) = ((both.as_str(), path), (all.as_str(), path));
        for (who, query, field, status, code, whose) in [
            (both, &["acme"][..], None, done, json!(null), "acme"),
            (both, &[], Some("other"), done, json!(null), "other"),
            (both, &["acme"], Some("acme"), done, json!(null), "acme"),
            (all, &["third"], None, done, json!(null), "third"),
            (both, &[], None, 422, json!("ambiguous_tenant"), "third"),
            (both, &["third"], None, 403, json!("forbidden"), "third"),
            (both, &[], Some("third"), 403, json!("forbidden"), "third"),
            (
                both,
                &["acme"],
                Some("other"),
                400,
                json!("bad_option"),
                "third",
            ),
            (
                both,
                &["acme", "other"],
                None,
                400,
                json!("bad_option"),
                "third",
            ),
            (all, &["*"], None, 400, json!("bad_option"), "third"),
            (all, &[""], None, 400, json!("bad_option"), "third"),
        ] {
            let found = upload(&server, who, query, field).await;
            let expected = (status, code, Some(whose.to_owned()));
            assert_eq!(found, expected, "{path} {query:?} {field:?}");
        }
    }
    let page = server
        .get("/imports")
        .header("cookie", format!("token={both}"));
    let page = page.send().await.unwrap().text().await.unwrap();
    assert!(page.contains("<option>acme</option>"), "{page}");
}

#[tokio::test]
async fn a_bound_caller_fetches_for_their_tenants_and_by_their_secrets() {
    let secrets = tempfile::tempdir().unwrap();
    for (name, line) in [("all", ""), ("acmes", "tenant acme\n")] {
        let text = format!("bearer sesame\nfor https://files.example.com\n{line}");
        std::fs::write(secrets.path().join(name), text).unwrap();
    }
    let folder = secrets.path().to_path_buf();
    let server = Server::with(|config| {
        config.sources.secrets_dir = Some(folder.clone());
        config.sources.allowed_dirs.push(folder);
    })
    .await;
    let acme = make(&server, "acme", Role::Operator, &["acme"]).await;
    let both = make(&server, "both", Role::Operator, &["acme", "other"]).await;
    let all = make(&server, "all", Role::Operator, &[]).await;
    let url = "https://files.example.com/a.csv";
    let path = secrets.path().join("a.csv");
    let path = path.to_str().unwrap();
    for (token, location, tenant, secret, status) in [
        (&acme, url, None, None, 202),
        (&acme, url, None, Some("acmes"), 202),
        (&acme, "s3://exports/a.csv", None, Some("acmes"), 202),
        (&both, url, Some("other"), None, 202),
        (&both, url, None, None, 422),
        (&acme, url, Some("other"), None, 422),
        (&acme, url, None, Some("all"), 403),
        (&both, url, Some("other"), Some("acmes"), 403),
        (&acme, path, None, None, 403),
        (&all, path, Some("third"), None, 202),
        (&all, url, None, Some("all"), 202),
    ] {
        let body = json!({ "location": location, "tenant": tenant, "secret_ref": secret });
        let ask = server.post("/api/v1/import/fetch").bearer_auth(token);
        let answer = ask.json(&body).send().await.unwrap();
        let found = answer.status().as_u16();
        let told: Value = answer.json().await.unwrap();
        assert_eq!(found, status, "{body} {told}");
    }
    let whose: Vec<String> = sqlx::query_scalar(
        "SELECT tenant || ' ' || (args->>'tenant') FROM ingestd.jobs ORDER BY id",
    )
    .fetch_all(server.pool())
    .await
    .unwrap();
    let expected = ["acme", "acme", "acme", "other", "third", "default"];
    assert_eq!(whose, expected.map(|tenant| format!("{tenant} {tenant}")));
}

async fn everything(server: &Server) -> (Value, Value, Value, Value) {
    sqlx::query_as(
        "SELECT (SELECT jsonb_agg(to_jsonb(j)) FROM ingestd.jobs j),
                (SELECT jsonb_agg(to_jsonb(r)) FROM ingestd.runs r),
                (SELECT jsonb_agg(to_jsonb(w)) FROM ingestd.webhooks w),
                (SELECT jsonb_agg(to_jsonb(s)) FROM ingestd.schedules s)",
    )
    .fetch_one(server.pool())
    .await
    .unwrap()
}

#[tokio::test]
async fn a_viewer_sees_neither_arguments_nor_results() {
    let server = Server::start().await;
    let (job, run, _) = theirs(&server).await;
    for (role, is_shown) in [(Role::Viewer, false), (Role::Operator, true)] {
        let token = make(&server, role.as_str(), role, &["acme"]).await;
        for path in [format!("/api/v1/jobs/{job}"), format!("/api/v1/runs/{run}")] {
            let shown = server.get(&path).bearer_auth(&token).send().await.unwrap();
            assert_eq!(shown.status(), 200, "{path}");
            let text = shown.text().await.unwrap();
            assert_eq!(text.contains("canary"), is_shown, "{role} {path} {text}");
        }
    }
}

#[tokio::test]
async fn what_a_bound_caller_makes_is_its_tenants() {
    let server = Server::start().await;
    let (_, run, _) = theirs(&server).await;
    server.register("others.kind").await;
    let token = make(&server, "other", Role::Admin, &["other"]).await;
    let post = async |path: &str, body: Value| {
        let ask = server.post(path).bearer_auth(&token).json(&body);
        ask.send().await.unwrap()
    };
    let own = json!({ "kind": "others.kind", "args": {} });
    let made = post("/api/v1/jobs", own).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!(made["tenant"], "other");
    let asked = json!({ "kind": "others.kind", "tenant": "acme" });
    let told = problem(post("/api/v1/jobs", asked).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/tenant");
    let system = json!({ "kind": "system.noop" });
    problem(post("/api/v1/jobs", system).await, 403, "forbidden").await;
    let run = json!({ "kind": "others.kind", "args": { "run_id": run } });
    let told = problem(post("/api/v1/jobs", run).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/args/run_id");
    let bulk = json!({ "action": "cancel", "all": true });
    let bulk = post("/api/v1/bulk", bulk).await;
    assert_eq!(bulk.status(), 202);
    let bulk: Value = bulk.json().await.unwrap();
    assert_eq!(bulk["tenant"], "other");
    assert_eq!(bulk["params"]["filter"]["tenant"], "other");
    let bulk = json!({ "action": "cancel", "filter": { "tenant": "acme" } });
    let told = problem(post("/api/v1/bulk", bulk).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/filter/tenant");
    let hook = json!({ "url": "https://example.com/", "events": ["job.dead"],
                       "secret_ref": "ops", "tenant": "acme" });
    let told = problem(post("/api/v1/webhooks", hook).await, 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/tenant");
}

#[tokio::test]
async fn a_tenants_unique_keys_are_its_own() {
    let server = Server::start().await;
    server.register("others.kind").await;
    let mut made = Vec::new();
    for (tenant, key) in [("acme", "run:1"), ("other", "run:1"), ("acme", "run:1")] {
        let token = make(&server, tenant, Role::Operator, &[tenant]).await;
        let job = json!({ "kind": "others.kind", "unique_key": key });
        let ask = server.post("/api/v1/jobs").bearer_auth(&token).json(&job);
        let answer = ask.send().await.unwrap();
        let status = answer.status().as_u16();
        let job: Value = answer.json().await.unwrap();
        made.push((
            status,
            job["id"].as_i64().unwrap(),
            job["unique_key"].clone(),
        ));
    }
    let (first, second, third) = (&made[0], &made[1], &made[2]);
    assert_eq!((first.0, second.0, third.0), (201, 201, 200));
    assert_ne!(first.1, second.1);
    assert_eq!(first.1, third.1);
    assert_eq!(first.2, "api:4:acme:run:1");
    // The daemon's own key is free for the run that needs it.
    let taken: i64 =
        sqlx::query_scalar("SELECT count(*) FROM ingestd.jobs WHERE unique_key = 'run:1'")
            .fetch_one(server.pool())
            .await
            .unwrap();
    assert_eq!(taken, 0);
    let acme = make(&server, "acme", Role::Operator, &["acme"]).await;
    let long = json!({ "kind": "others.kind", "unique_key": "k".repeat(1020) });
    let ask = server.post("/api/v1/jobs").bearer_auth(&acme).json(&long);
    let told = problem(ask.send().await.unwrap(), 422, "invalid").await;
    assert_eq!(told["errors"][0]["pointer"], "/unique_key");
}

/// Kinds whose jobs decide by their arguments whose data they touch, what is sent or signed.
const MADE_ELSEWHERE: [(&str, &str); 9] = [
    (
        "catalog.fetch_file",
        r#"{"location": "https://x.test/x.csv", "tenant": "acme", "options": {"mode": "replace_all"}}"#,
    ),
    (
        "catalog.fetch_source",
        r#"{"source": "acme-feed", "force": true}"#,
    ),
    ("product_import.rollback", r#"{"run_id": 1}"#),
    ("product_import.run", r#"{"run_id": 1}"#),
    ("search.rebuild", "{}"),
    ("search.sync", "{}"),
    ("system.bulk", r#"{"run_id": 1}"#),
    ("system.mail", r#"{"import": 1}"#),
    (
        "system.webhook",
        r#"{"webhook": 1, "message": "m", "type": "job.dead", "timestamp": "2026-11-27T12:00:00Z", "data": {}}"#,
    ),
];

#[tokio::test]
async fn what_ingestd_makes_itself_nobody_makes_or_edits_by_name() {
    let server = Server::start().await;
    let bound = make(&server, "bound", Role::Operator, &["other"]).await;
    let admin = make(&server, "admin", Role::Admin, &[]).await;
    for (place, (kind, args)) in (900..).zip(MADE_ELSEWHERE) {
        let args: Value = serde_json::from_str(args).unwrap();
        sqlx::query(
            "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
               error, fingerprint, created_at, tenant)
             VALUES ($1, $2, '{}', 'default', 1, 3, 0, 'fatal', 'why', 1, now(), 'other')",
        )
        .bind(place)
        .bind(kind)
        .execute(server.pool())
        .await
        .unwrap();
        for token in [&bound, &admin] {
            let job = json!({ "kind": kind, "args": args });
            let ask = server.post("/api/v1/jobs").bearer_auth(token).json(&job);
            let told = problem(ask.send().await.unwrap(), 403, "forbidden").await;
            assert!(
                told["detail"].as_str().unwrap().contains("instead: "),
                "{told}"
            );
            let ask = server.post(&format!("/api/v1/jobs/{place}/retry"));
            let ask = ask.bearer_auth(token).json(&json!({ "args": args }));
            problem(ask.send().await.unwrap(), 403, "forbidden").await;
        }
        let schedule = json!({ "name": "n", "cron": "* * * * *", "kind": kind, "args": args });
        let ask = server.post("/api/v1/schedules").bearer_auth(&admin);
        problem(ask.json(&schedule).send().await.unwrap(), 403, "forbidden").await;
        let ask = server.client.put(server.url("/api/v1/schedules/n"));
        let schedule = json!({ "cron": "* * * * *", "kind": kind, "args": args });
        let ask = ask.bearer_auth(&admin).json(&schedule);
        problem(ask.send().await.unwrap(), 403, "forbidden").await;
    }
    let n_made = "SELECT (SELECT count(*) FROM ingestd.jobs)
                       + (SELECT count(*) FROM ingestd.schedules WHERE name = 'n')";
    let n_made: i64 = sqlx::query_scalar(n_made)
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(n_made, 0);
    // As it was made it may be tried again.
    let ask = server.post("/api/v1/jobs/908/retry").bearer_auth(&bound);
    assert_eq!(ask.send().await.unwrap().status(), 201);
}

#[tokio::test]
async fn what_is_the_whole_installations_is_no_tenants() {
    let server = Server::start().await;
    let admin = make(&server, "admin", Role::Admin, &[]).await;
    let bound = make(&server, "bound", Role::Admin, &["default"]).await;
    theirs(&server).await;
    server.insert("system.noop", "2030-01-01Z").await;
    // What names no owner is default's for a filter as for a list.
    let looks = json!({ "action": "cancel", "all": true, "dry_run": true });
    let ask = server.post("/api/v1/bulk").bearer_auth(&bound).json(&looks);
    let found: Value = ask.send().await.unwrap().json().await.unwrap();
    assert_eq!(found["n_found"], 1, "{found}");
    let all = json!({ "action": "cancel", "all": true });
    let ask = server.post("/api/v1/bulk").bearer_auth(&admin).json(&all);
    let run: Value = ask.send().await.unwrap().json().await.unwrap();
    assert_eq!(run["tenant"], "*");
    let path = format!("/api/v1/runs/{}", run["id"]);
    for ask in [
        server.get(&path),
        server.post(&format!("{path}/pause")),
        server.post(&format!("{path}/cancel")),
    ] {
        let refused = ask.bearer_auth(&bound).send().await.unwrap();
        problem(refused, 404, "not-found").await;
    }
    let of_kind = "/api/v1/jobs?kind=system.bulk";
    let ask = server.get(of_kind).bearer_auth(&bound);
    let listed: Value = ask.send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["items"], json!([]));
}

/// Whether a file was imported before is told of one's own imports.
#[tokio::test]
async fn the_same_file_of_another_tenant_is_not_told_of() {
    let server = Server::start().await;
    for (tenant, is_told) in [("acme", false), ("other", false), ("acme", true)] {
        let token = make(&server, "caller", Role::Operator, &[tenant]).await;
        let file = Part::text("code,name\nA,Lamp\n").file_name("a.csv");
        let ask = server.post("/import/products").bearer_auth(&token);
        let made = ask.multipart(Form::new().part("file", file)).send().await;
        let made: Value = made.unwrap().json().await.unwrap();
        let same = made.pointer("/data/sameFileAs");
        assert_eq!(same.is_some(), is_told, "{tenant}: {made}");
        let ended = "UPDATE ingestd.runs SET state = 'completed', started_at = now(),
                     finished_at = now() WHERE state = 'pending'";
        sqlx::query(ended).execute(server.pool()).await.unwrap();
    }
}
