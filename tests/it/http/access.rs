//! Who is let in, on every route of the table.

use ingestd::{
    config::Config,
    http::{Access, PAGES, ROUTES, Route},
};
use reqwest::{RequestBuilder, Response, header};

use super::server::{Server, problem};

/// Every route and every page.
pub(super) fn every() -> impl Iterator<Item = &'static Route> {
    ROUTES.iter().chain(PAGES)
}

/// Asks for a route as a stranger would, with some id in its path.
fn ask(server: &Server, route: &Route) -> RequestBuilder {
    let path = route.path.replace("{queue}", "default");
    let path = path.replace("{id}", "404404").replace("{jobId}", "404404");
    let path = path
        .replace("{pattern}", "none:*")
        .replace("{name}", "none");
    server
        .client
        .request(route.method.clone(), server.url(&path))
}

/// The token `s3cret`, and as many tries as the test needs.
fn guarded(config: &mut Config) {
    config.http.token = Some("s3cret".into());
    config.auth.failures_per_minute = 0;
}

/// Expects a refusal, in the form of the route's document where it has one; of a page as a page.
pub(super) async fn refused(response: Response, route: &Route, status: u16, name: &str) {
    if route.is_page() {
        if status == 401 {
            assert_eq!(response.status(), 303, "{route:?}");
            let to = response.headers()["location"].to_str().unwrap();
            assert!(to.starts_with("/sign-in?next=%2F"), "{route:?} {to}");
        } else {
            assert_eq!(response.status(), status, "{route:?}");
            let of = &response.headers()["content-type"];
            assert_eq!(of, "text/html; charset=utf-8", "{route:?}");
        }
        return;
    }
    if !route.is_document() {
        problem(response, status, name).await;
        return;
    }
    assert_eq!(response.status(), status, "{route:?}");
    let body: serde_json::Value = response.json().await.unwrap();
    let code = name.replace('-', "_");
    assert_eq!(body.pointer("/success"), Some(&false.into()), "{body}");
    assert_eq!(body.pointer("/error/code"), Some(&code.into()), "{body}");
    assert!(body.pointer("/message").is_some(), "{body}");
}

/// Says whether somebody was let in, whatever the handler then said.
fn is_in(response: &Response) -> bool {
    let is_way_in = ["/api/v1/session", "/sign-in"].contains(&response.url().path());
    let to = response.headers().get("location");
    let is_sent_away = to.is_some_and(|to| to.as_bytes().starts_with(b"/sign-in?"));
    is_way_in || (![401, 403].contains(&response.status().as_u16()) && !is_sent_away)
}

#[tokio::test]
async fn every_route_but_the_open_ones_wants_the_token() {
    let server = Server::with(guarded).await;
    for route in every() {
        let none = ask(&server, route).send().await.unwrap();
        if route.access == Access::Open {
            assert!(is_in(&none), "{route:?}");
            continue;
        }
        if !route.is_page() {
            assert_eq!(
                none.headers()["www-authenticate"],
                "Bearer realm=\"ingestd\""
            );
        }
        refused(none, route, 401, "unauthorized").await;
        let wrong = ask(&server, route)
            .bearer_auth("s3cre7")
            .send()
            .await
            .unwrap();
        refused(wrong, route, 401, "unauthorized").await;
        let bearer = ask(&server, route)
            .bearer_auth("s3cret")
            .send()
            .await
            .unwrap();
        assert!(is_in(&bearer), "{route:?} {}", bearer.status());
        let cookie = ask(&server, route).header(header::COOKIE, "lang=de; token=s3cret");
        let cookie = cookie.send().await.unwrap();
        assert!(is_in(&cookie), "{route:?} {}", cookie.status());
    }
}

#[tokio::test]
async fn what_is_not_there_wants_the_token_too() {
    let server = Server::guarded().await;
    let none = server.get("/api/v1/secrets").send().await.unwrap();
    problem(none, 401, "unauthorized").await;
    let known = server
        .get("/api/v1/secrets")
        .bearer_auth("s3cret")
        .send()
        .await
        .unwrap();
    problem(known, 404, "not-found").await;
}

#[tokio::test]
async fn without_a_token_no_foreign_name_is_served() {
    let server = Server::start().await;
    for route in every() {
        let local = ask(&server, route).send().await.unwrap();
        assert!(is_in(&local), "{route:?} {}", local.status());
        let foreign = ask(&server, route).header(header::HOST, "rebound.example:8477");
        let foreign = foreign.send().await.unwrap();
        match route.access {
            Access::Open => assert!(is_in(&foreign), "{route:?}"),
            Access::Role(..) => refused(foreign, route, 403, "foreign-host").await,
        }
    }
    let named = server
        .get("/api/v1/runs")
        .header(header::HOST, "localhost:8477");
    assert_eq!(named.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_page_of_another_origin_changes_nothing() {
    for server in [Server::start().await, Server::guarded().await] {
        for (name, value) in [
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("origin", "https://evil.example"),
            ("origin", "null"),
        ] {
            let pause = server
                .post("/api/v1/queues/default/pause")
                .header(name, value);
            let pause = pause
                .header(header::COOKIE, "token=s3cret")
                .send()
                .await
                .unwrap();
            problem(pause, 403, "cross-site").await;
        }
        assert_eq!(server.audit().await, []);
        let own = server.post("/api/v1/queues/default/pause");
        let own = own
            .header(header::ORIGIN, server.url(""))
            .header(header::COOKIE, "token=s3cret");
        assert_eq!(own.send().await.unwrap().status(), 200);
    }
}

#[tokio::test]
async fn the_audit_log_says_who() {
    let server = Server::guarded().await;
    let pause = server
        .post("/api/v1/queues/default/pause")
        .bearer_auth("s3cret");
    let pause = pause.header("x-request-id", "req-7").send().await.unwrap();
    assert_eq!(pause.status(), 200);
    let entry: (String, String) = sqlx::query_as("SELECT actor, request_id FROM ingestd.audit_log")
        .fetch_one(server.pool())
        .await
        .unwrap();
    assert_eq!(entry, ("token".to_owned(), "req-7".to_owned()));
}
