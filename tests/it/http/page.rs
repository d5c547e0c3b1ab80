//! The pages as a browser without a script sees them.

use std::collections::BTreeSet;

use ingestd::{
    access::Role,
    http::PAGES,
    runs::{self, RunId},
};
use reqwest::{
    Response,
    multipart::{Form, Part},
};

use super::{
    server::{Server, problem},
    token::make,
};

/// What a file, an error or a name may be called by somebody who means harm.
const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&amp;";

/// What a page may load, be framed by, and send forms to: the daemon, nobody, the daemon.
const POLICY: &str = "default-src 'self'; base-uri 'none'; form-action 'self'; \
                      frame-ancestors 'none'; object-src 'none'";

/// Elements that the templates have.
const ELEMENTS: &[&str] = &[
    "!doctype", "html", "head", "meta", "title", "link", "script", "noscript", "body", "a",
    "header", "nav", "form", "span", "button", "main", "p", "h1", "h2", "h3", "section", "ul",
    "li", "dl", "div", "dt", "dd", "table", "thead", "tbody", "tr", "th", "td", "time", "br",
    "code", "pre", "input", "label", "select", "option", "details", "summary", "progress",
    "strong", "datalist",
];

async fn html(response: Response, status: u16) -> String {
    assert_eq!(response.status(), status, "{}", response.url());
    let headers = response.headers();
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    assert_eq!(headers["referrer-policy"], "same-origin");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["cache-control"], "no-store");
    assert_eq!(headers["content-security-policy"], POLICY);
    let text = response.text().await.unwrap();
    is_whole(&text);
    text
}

/// Expects no element but those of the templates, no script but ours, every tag closed.
fn is_whole(text: &str) {
    let known: BTreeSet<&str> = ELEMENTS.iter().copied().collect();
    let mut open = Vec::new();
    for tag in text.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').unwrap();
        let is_end = tag.starts_with('/');
        // Without what stands between quotes.
        let parts: Vec<&str> = tag.split('"').collect();
        assert!(parts.len() % 2 == 1, "a quote too many: <{tag}>");
        let bare: String = parts.into_iter().step_by(2).collect();
        let mut words = bare.trim_start_matches('/').split_ascii_whitespace();
        let name = words.next().unwrap().to_ascii_lowercase();
        assert!(known.contains(name.as_str()), "<{tag}> in\n{text}");
        if name == "script" && !is_end {
            assert!(tag.starts_with("script src=\"/assets/page.js?v="), "{tag}");
        }
        for attribute in words {
            assert!(
                !attribute.starts_with("on") && !attribute.starts_with("style"),
                "{tag}"
            );
        }
        let is_empty = ["!doctype", "meta", "link", "br", "input"].contains(&name.as_str());
        if is_end {
            assert_eq!(open.pop(), Some(name), "</{tag}> in\n{text}");
        } else if !is_empty {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "{open:?} in\n{text}");
}

async fn get(server: &Server, path: &str) -> String {
    html(server.get(path).send().await.unwrap(), 200).await
}

/// Posts a form as a browser does, and returns where it leads.
async fn post(server: &Server, path: &str, fields: &[(&str, &str)]) -> String {
    let response = send(server, path, fields).await;
    assert_eq!(response.status(), 303, "{path} {fields:?}");
    response.headers()["location"].to_str().unwrap().to_owned()
}

async fn send(server: &Server, path: &str, fields: &[(&str, &str)]) -> Response {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.push(format!("{name}={}", encoded(value)));
    }
    let ask = server
        .post(path)
        .header("content-type", "application/x-www-form-urlencoded")
        .header("origin", server.url(""))
        .header("sec-fetch-site", "same-origin")
        .body(body.join("&"));
    ask.send().await.unwrap()
}

fn encoded(text: &str) -> String {
    let hex = |byte: u8| ["%".to_owned(), format!("{byte:02X}")];
    text.bytes().flat_map(hex).collect()
}

/// Fills every table that a page shows with hostile names and texts; returns an import's run and
/// the run that undoes it.
async fn hostile(server: &Server) -> (i64, i64) {
    let statement = include_str!("page_hostile.sql");
    let ids: (i64, i64) = sqlx::query_as(statement)
        .bind(HOSTILE)
        .fetch_one(server.pool())
        .await
        .unwrap();
    ids
}

#[tokio::test]
async fn whatever_is_shown_is_shown_as_text() {
    let server = Server::start().await;
    let (import, undo) = hostile(&server).await;
    for (path, n_times) in [
        ("/".to_owned(), 2),
        ("/imports".to_owned(), 1),
        (format!("/imports/{import}"), 6),
        (format!("/imports/{import}?same=7"), 6),
        (format!("/imports/{import}/undo"), 2),
        ("/runs".to_owned(), 2),
        (format!("/runs/{import}"), 3),
        (format!("/runs/{undo}"), 1),
        ("/queues".to_owned(), 2),
        ("/dead".to_owned(), 2),
        ("/dead?fingerprint=0000000000000007".to_owned(), 3),
        (
            format!(
                "/dead?fingerprint=0000000000000007&kind={}",
                encoded(HOSTILE)
            ),
            5,
        ),
        ("/schedules".to_owned(), 2),
        (format!("/sign-in?next={}", encoded(HOSTILE)), 0),
    ] {
        let text = get(&server, &path).await;
        let n_found = text.matches("alert(1)").count() / 2;
        assert!(n_found >= n_times, "{path} has it {n_found} times:\n{text}");
        assert!(!text.contains("&amp;amp;") || n_times > 0);
    }
    // What is not there is told as a page, too, and by the form that was sent.
    let gone = server.get("/imports/404404").send().await.unwrap();
    assert!(html(gone, 404).await.contains("there is no import 404404"));
    let unknown = send(&server, "/queues", &[("queue", HOSTILE), ("act", HOSTILE)]).await;
    assert!(html(unknown, 422).await.contains("alert(1)"));
    let unknown = send(
        &server,
        "/queues",
        &[("queue", "none of these"), ("act", "pause")],
    )
    .await;
    html(unknown, 404).await;
    let mistyped = server.get("/import").header("accept", "text/html,*/*");
    html(mistyped.send().await.unwrap(), 404).await;
    let program = server.get("/import").send().await.unwrap();
    problem(program, 404, "not-found").await;
}

#[tokio::test]
async fn a_token_opens_the_pages() {
    let server = Server::start().await;
    assert!(
        get(&server, "/sign-in")
            .await
            .contains("No credential is configured")
    );
    let token = make(&server, "ada", Role::Operator, &[]).await;
    let asked = server.get("/imports?cursor=c1f").send().await.unwrap();
    assert_eq!(asked.status(), 303);
    let to = asked.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(to, "/sign-in?next=%2Fimports%3Fcursor%3Dc1f");
    let form = get(&server, &to).await;
    assert!(
        form.contains("name=\"next\" value=\"/imports?cursor=c1f\""),
        "{form}"
    );
    let elsewhere = get(&server, "/sign-in?next=//evil.example").await;
    assert!(!elsewhere.contains("evil"), "{elsewhere}");
    for wrong in ["igd_wrong", "a b", ""] {
        let refused = send(&server, "/sign-in", &[("token", wrong), ("next", "/runs")]).await;
        let text = html(refused, 401).await;
        assert!(
            text.contains("role=\"alert\"") && !text.contains("igd_wrong"),
            "{text}"
        );
    }
    let opened = send(&server, "/sign-in", &[("token", &token), ("next", "/runs")]).await;
    assert_eq!(opened.status(), 303);
    assert_eq!(opened.headers()["location"], "/runs");
    let cookie = opened.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(
        cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap();
    let runs = server
        .get("/runs")
        .header("cookie", pair)
        .send()
        .await
        .unwrap();
    let runs = html(runs, 200).await;
    assert!(runs.contains("token:ada#"), "{runs}");
    let out = server.post("/sign-out").header("cookie", pair);
    let out = out.send().await.unwrap();
    assert_eq!(
        (out.status().as_u16(), &out.headers()["location"]),
        (303, &"/sign-in".parse().unwrap())
    );
    assert!(
        out.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("Max-Age=0")
    );
}

#[tokio::test]
async fn who_guesses_at_the_form_is_told_to_wait() {
    let server = Server::start().await;
    let token = make(&server, "ada", Role::Operator, &[]).await;
    let mut n_tries = 0;
    let closed = loop {
        n_tries += 1;
        assert!(n_tries < 200, "nobody minds");
        let tried = send(&server, "/sign-in", &[("token", "igd_wrong")]).await;
        if tried.status() != 401 {
            break tried;
        }
    };
    assert!(n_tries > 5, "a slip of the finger is none");
    assert!(closed.headers().contains_key("retry-after"));
    html(closed, 429).await;
    // Closed to this address meanwhile, and no other way is.
    let right = send(&server, "/sign-in", &[("token", &token)]).await;
    html(right, 429).await;
    let known = server
        .get("/runs")
        .header("cookie", format!("token={token}"));
    html(known.send().await.unwrap(), 200).await;
}

#[tokio::test]
async fn a_form_of_another_site_changes_nothing() {
    let server = Server::start().await;
    for (name, value) in [("origin", "null"), ("sec-fetch-site", "cross-site")] {
        for path in ["/queues", "/sign-in", "/sign-out", "/imports"] {
            let ask = server.post(path).header(name, value);
            let refused = ask.body("queue=default&act=pause").send().await.unwrap();
            html(refused, 403).await;
        }
    }
    assert_eq!(server.audit().await, []);
}

#[tokio::test]
async fn a_file_is_uploaded_by_the_form() {
    let server = Server::start().await;
    let upload = async |csv: &str, fields: &[(&str, &str)]| {
        let file = Part::text(csv.to_owned()).file_name(HOSTILE.replace('/', ""));
        let mut form = Form::new().part("file", file);
        for (name, value) in fields {
            form = form.text((*name).to_owned(), (*value).to_owned());
        }
        server
            .post("/imports")
            .multipart(form)
            .send()
            .await
            .unwrap()
    };
    let page = get(&server, "/imports").await;
    // Every field that the form has, as a browser sends it that nobody touched.
    let untouched: Vec<(&str, &str)> = page
        .split("name=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|name| !["viewport", "color-scheme", "file"].contains(name))
        .filter(|name| !name.contains("dry_run") && !name.contains("hidden"))
        .map(|name| match name {
            "mode" => (name, "upsert"),
            "duplicates" => (name, "first_wins"),
            "priority" => (name, "1"),
            "decimal" => (name, "plain"),
            "dates" => (name, "iso"),
            _ => (name, ""),
        })
        .collect();
    assert!(untouched.len() >= 10, "{untouched:?}");
    let taken = upload("code,name\n1,Saw\n", &untouched).await;
    assert_eq!(taken.status(), 303);
    let to = taken.headers()["location"].to_str().unwrap().to_owned();
    let id: i64 = to.strip_prefix("/imports/").unwrap().parse().unwrap();
    let shown = get(&server, &to).await;
    assert!(
        shown.contains("pending") && shown.contains("data-events"),
        "{shown}"
    );
    assert!(
        shown.contains("http-equiv=\"refresh\""),
        "without a script it comes again"
    );
    let dry = upload(
        "code,name\n1,Saw\n",
        &[("dry_run", "true"), ("mode", "replace_all")],
    )
    .await;
    let dry = get(&server, dry.headers()["location"].to_str().unwrap()).await;
    assert!(
        dry.contains("A dry run") && dry.contains("replace all"),
        "{dry}"
    );
    for (csv, fields, status, why) in [
        ("name\nSaw\n", &[] as &[(&str, &str)], 400, "code"),
        (
            "code,name\n1,Saw\n",
            &[("mode", "merge")],
            400,
            "replace_all",
        ),
    ] {
        let text = html(upload(csv, fields).await, status).await;
        assert!(
            text.contains("role=\"alert\"") && text.contains(why),
            "{text}"
        );
        assert!(
            text.contains("id=\"upload\""),
            "the form is there to try again"
        );
    }
    let audit = server.audit().await;
    assert_eq!(audit.len(), 2, "{audit:?}");
    assert_eq!(audit.first().unwrap().1, "import.submit");
    assert_eq!(audit.first().unwrap().2, format!("run/{id}"));
}

#[tokio::test]
async fn buttons_do_what_the_interface_does() {
    let server = Server::start().await;
    let (import, undo) = hostile(&server).await;
    let run = async |id: i64| {
        let run = runs::get(server.pool(), RunId(id)).await.unwrap();
        run.unwrap().state.as_str()
    };
    for (act, state) in [
        ("pause", "paused"),
        ("resume", "pending"),
        ("cancel", "cancelled"),
    ] {
        let page = get(&server, &format!("/runs/{undo}")).await;
        assert!(page.contains(&format!("value=\"{act}\"")), "{act}: {page}");
        let to = post(&server, &format!("/runs/{undo}"), &[("act", act)]).await;
        assert_eq!(to, format!("/runs/{undo}"));
        assert_eq!(run(undo).await, state);
    }
    let again = send(&server, &format!("/imports/{undo}"), &[("act", "pause")]).await;
    assert!(html(again, 409).await.contains("cannot be paused now"));
    let none = send(&server, &format!("/runs/{undo}"), &[("act", "purge")]).await;
    html(none, 422).await;
    for (act, said) in [("pause", "value=\"resume\""), ("resume", "value=\"pause\"")] {
        assert_eq!(
            post(&server, "/queues", &[("queue", HOSTILE), ("act", act)]).await,
            "/queues"
        );
        let page = get(&server, "/queues").await;
        let row = page.split("<tr>").find(|row| row.contains("alert(1)"));
        assert!(row.unwrap().contains(said), "{page}");
    }
    for act in ["pause", "resume", "run"] {
        let fields = [("name", "hostile"), ("act", act)];
        assert_eq!(post(&server, "/schedules", &fields).await, "/schedules");
    }
    assert_eq!(post(&server, "/dead/10", &[]).await, "/dead");
    // What replaying a group comes to is shown before: how many, and which.
    let groups = get(&server, "/dead").await;
    let group = groups
        .split('"')
        .find(|part| part.starts_with("/dead?fingerprint=0000000000000007"));
    let group = group.unwrap().replace("&#38;", "&");
    let shown = get(&server, &group).await;
    assert!(shown.contains("Retry all 2<"), "{shown}");
    for id in ["/dead/8", "/dead/9"] {
        assert!(shown.contains(&format!("action=\"{id}\"")), "{shown}");
    }
    let fields = [("kind", HOSTILE), ("fingerprint", "0000000000000007")];
    let to = post(&server, "/dead", &fields).await;
    let bulk: i64 = to.strip_prefix("/runs/").unwrap().parse().unwrap();
    assert!(get(&server, &to).await.contains("0000000000000007"));
    let refused = send(&server, &format!("/imports/{import}"), &[("act", "undo")]).await;
    html(refused, 409).await;
    let done: Vec<_> = server
        .audit()
        .await
        .into_iter()
        .map(|entry| (entry.1, entry.2))
        .collect();
    let (undo, queue) = (format!("run/{undo}"), format!("queue/{HOSTILE}"));
    let expected = [
        ("run.pause", undo.as_str()),
        ("run.resume", &undo),
        ("run.cancel", &undo),
        ("queue.pause", &queue),
        ("queue.resume", &queue),
        ("schedule.pause", "schedule/hostile"),
        ("schedule.resume", "schedule/hostile"),
        ("schedule.run", "schedule/hostile"),
        ("job.retry", "job/10"),
        ("bulk.replay", &format!("run/{bulk}")),
    ];
    let expected = expected.map(|(act, object)| (act.to_owned(), object.to_owned()));
    assert_eq!(done, expected);
}

#[tokio::test]
async fn who_may_not_act_sees_no_buttons() {
    let server = Server::start().await;
    let (import, undo) = hostile(&server).await;
    let viewer = make(&server, "v", Role::Viewer, &[]).await;
    let bound = make(&server, "b", Role::Admin, &["acme"]).await;
    let get = async |path: &str, token: &str| {
        let ask = server.get(path).header("cookie", format!("token={token}"));
        html(ask.send().await.unwrap(), 200).await
    };
    let kind = encoded(HOSTILE);
    let group = format!("/dead?fingerprint=0000000000000007&kind={kind}");
    for path in [
        "/".to_owned(),
        "/imports".to_owned(),
        format!("/imports/{import}"),
        format!("/imports/{import}/undo"),
        format!("/runs/{import}"),
        format!("/runs/{undo}"),
        "/queues".to_owned(),
        "/dead".to_owned(),
        group.clone(),
        "/schedules".to_owned(),
    ] {
        let text = get(&path, &viewer).await;
        assert_eq!(
            text.matches("<form").count(),
            1,
            "only the way out: {path} {text}"
        );
        assert!(!text.contains("/errors.csv"), "{path}");
        assert!(
            !text.contains("canary"),
            "{path} shows what was asked for: {text}"
        );
    }
    for path in ["/", "/imports", "/runs"] {
        let theirs = get(path, &bound).await;
        assert!(!theirs.contains("href=\"/queues\""), "{path} {theirs}");
        assert!(!theirs.contains("alert(1)"), "{path} {theirs}");
    }
    for path in ["/dead", &group] {
        let theirs = get(path, &bound).await;
        assert!(theirs.contains("None that nobody retried"), "{theirs}");
        assert!(!theirs.contains("Retry all"), "{theirs}");
    }
    // A letter of theirs is counted alone; who is bound to two replays letter by letter.
    sqlx::query("UPDATE ingestd.dead_jobs SET tenant = 'acme' WHERE id = 8")
        .execute(server.pool())
        .await
        .unwrap();
    let theirs = get(&group, &bound).await;
    assert!(theirs.contains("Retry all 1<"), "{theirs}");
    let both = make(&server, "both", Role::Admin, &["acme", "globex"]).await;
    let theirs = get(&group, &both).await;
    assert!(!theirs.contains("Retry all"), "{theirs}");
    assert!(theirs.contains("action=\"/dead/8\""), "{theirs}");
    let whole = server
        .get("/queues")
        .header("cookie", format!("token={bound}"));
    html(whole.send().await.unwrap(), 403).await;
}

#[tokio::test]
async fn a_form_is_no_larger_than_any_body() {
    let server = Server::with(|config| config.http.max_body_bytes = 1_000).await;
    for path in ["/queues", "/sign-in", "/dead", "/schedules"] {
        let name = "x".repeat(2_000);
        let refused = send(&server, path, &[("queue", &name), ("act", "pause")]).await;
        html(refused, 413).await;
    }
    assert_eq!(server.audit().await, []);
}

#[tokio::test]
async fn files_of_the_pages_are_kept_by_browsers_until_they_change() {
    let server = Server::guarded().await;
    let page = server
        .get("/sign-in")
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let mut n_files = 0;
    for path in page.split('"').filter(|word| word.starts_with("/assets/")) {
        let file = server.get(path).send().await.unwrap();
        assert_eq!(file.status(), 200, "{path}");
        let keep = file.headers()["cache-control"].to_str().unwrap();
        assert_eq!(
            keep.contains("immutable"),
            path.contains("?v="),
            "{path} {keep}"
        );
        n_files += 1;
    }
    assert_eq!(n_files, 3);
    let old = server.get("/assets/page.js?v=1").send().await.unwrap();
    assert_eq!(old.headers()["cache-control"], "no-cache");
    assert!(PAGES.iter().any(|page| page.path == "/assets/page.js"));
}
