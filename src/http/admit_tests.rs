//! The rules of admission, one by one; `tests/it/http` sees them at work.

use axum::http::Request;

use super::*;

const LOCAL: &str = "127.0.0.1:50000";

fn request(method: Method, headers: &[(&str, &str)]) -> Parts {
    let mut request = Request::builder().method(method).uri("/api/v1/queues");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    parts.extensions.insert(Peer(LOCAL.parse().unwrap()));
    parts
}

fn outcome(token: Option<&str>, parts: &Parts) -> Result<&'static str, Trouble> {
    if parts.method != Method::GET && origin::is_cross_site(&parts.headers, &parts.uri, &[]) {
        return Err(Trouble::CrossSite);
    }
    let Some(token) = token.map(|token| Token::new(&token.into())) else {
        let admitted = admit_local(parts).map(|()| "local");
        return admitted.map_err(|problem| problem.trouble());
    };
    let sent = credentials(&parts.headers).map_err(|problem| problem.trouble())?;
    let is_known = sent.iter().any(|sent| token.is(sent.as_bytes()));
    is_known.then_some("token").ok_or(Trouble::Unauthorized)
}

fn get(token: Option<&str>, headers: &[(&str, &str)]) -> Result<&'static str, Trouble> {
    outcome(token, &request(Method::GET, headers))
}

fn post(headers: &[(&str, &str)]) -> Result<&'static str, Trouble> {
    outcome(Some("s3cret"), &request(Method::POST, headers))
}

#[test]
fn the_token_comes_as_bearer_or_cookie() {
    let ok: [&[(&str, &str)]; 6] = [
        &[("authorization", "Bearer s3cret")],
        &[("authorization", "bearer s3cret ")],
        &[("cookie", "token=s3cret")],
        &[("cookie", "a=b; token=s3cret; c=d")],
        &[("cookie", "a=b"), ("cookie", "token=\"s3cret\"")],
        &[("cookie", "token=stale; token=s3cret")],
    ];
    for headers in ok {
        assert_eq!(get(Some("s3cret"), headers), Ok("token"), "{headers:?}");
    }
}

#[test]
fn anything_else_is_no_token() {
    let refused: [&[(&str, &str)]; 9] = [
        &[],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Bearer s3cre")],
        &[("authorization", "Bearer s3crets")],
        &[("authorization", "Basic s3cret")],
        &[
            ("authorization", "Bearer wrong"),
            ("cookie", "token=s3cret"),
        ],
        &[("cookie", "tokens=s3cret; xtoken=s3cret")],
        &[("cookie", "token=")],
    ];
    for headers in refused {
        assert_eq!(
            get(Some("s3cret"), headers),
            Err(Trouble::Unauthorized),
            "{headers:?}"
        );
    }
}

#[test]
fn without_a_token_only_this_machines_names_are_served() {
    for host in [
        "127.0.0.1:8477",
        "127.1.2.3",
        "[::1]:8477",
        "[::ffff:127.0.0.1]",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "ingestd.localhost:8477",
    ] {
        assert_eq!(get(None, &[("host", host)]), Ok("local"), "{host}");
    }
    for host in [
        "evil.example",
        "evil.example:8477",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "user@evil.example",
        "10.0.0.1",
        "0.0.0.0",
        "[2001:db8::1]",
        "",
        "a b",
    ] {
        assert_eq!(
            get(None, &[("host", host)]),
            Err(Trouble::ForeignHost),
            "{host}"
        );
    }
    assert_eq!(get(None, &[]), Err(Trouble::ForeignHost));
    let twice = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(get(None, &twice), Err(Trouble::ForeignHost));
}

#[test]
fn without_a_token_only_this_machine_is_served() {
    let mut parts = request(Method::GET, &[("host", "localhost")]);
    for (peer, expected) in [
        ("127.0.0.1:1", Ok("local")),
        ("[::1]:1", Ok("local")),
        ("[::ffff:127.0.0.1]:1", Ok("local")),
        ("192.0.2.7:1", Err(Trouble::ForeignPeer)),
        ("[2001:db8::7]:1", Err(Trouble::ForeignPeer)),
    ] {
        parts.extensions.insert(Peer(peer.parse().unwrap()));
        assert_eq!(outcome(None, &parts), expected, "{peer}");
    }
    parts.extensions.remove::<Peer>();
    assert_eq!(outcome(None, &parts), Err(Trouble::ForeignPeer));
}

#[test]
fn a_change_asked_for_by_another_origin_is_refused() {
    let (host, bearer) = (("host", "shop.example"), ("authorization", "Bearer s3cret"));
    let cookie = ("cookie", "token=s3cret");
    for (name, value, expected) in [
        ("sec-fetch-site", "same-origin", Ok("token")),
        ("sec-fetch-site", "none", Ok("token")),
        ("sec-fetch-site", "same-site", Err(Trouble::CrossSite)),
        ("sec-fetch-site", "cross-site", Err(Trouble::CrossSite)),
        ("origin", "https://shop.example", Ok("token")),
        (
            "origin",
            "https://shop.example:444",
            Err(Trouble::CrossSite),
        ),
        ("origin", "https://evil.example", Err(Trouble::CrossSite)),
        ("origin", "null", Err(Trouble::CrossSite)),
        ("accept", "*/*", Ok("token")),
    ] {
        for credential in [bearer, cookie] {
            assert_eq!(
                post(&[host, credential, (name, value)]),
                expected,
                "{name}: {value}"
            );
        }
    }
    // A proxy that changes Host: the browser's own word counts.
    let proxied = [
        ("host", "127.0.0.1:8477"),
        ("origin", "https://shop.example"),
        ("sec-fetch-site", "same-origin"),
        cookie,
    ];
    assert_eq!(post(&proxied), Ok("token"));
}

#[test]
fn reading_across_sites_is_left_to_the_browser() {
    let headers = [("sec-fetch-site", "cross-site"), ("cookie", "token=s3cret")];
    assert_eq!(get(Some("s3cret"), &headers), Ok("token"));
}

#[test]
fn a_named_origin_may_ask_for_changes() {
    let named = vec!["https://shop.example".to_owned()];
    for (origin, is_cross) in [
        ("https://shop.example", false),
        ("https://SHOP.example", false),
        ("http://shop.example", true),
        ("https://shop.example.evil.example", true),
        ("https://shop.example:444", true),
        ("null", true),
    ] {
        for site in ["cross-site", "same-site"] {
            let headers = [
                ("host", "api.example"),
                ("origin", origin),
                ("sec-fetch-site", site),
            ];
            let parts = request(Method::POST, &headers);
            let found = origin::is_cross_site(&parts.headers, &parts.uri, &named);
            assert_eq!(found, is_cross, "{origin} {site}");
        }
    }
}

#[test]
fn few_cookies_are_tried() {
    let many = "token=a; ".repeat(50);
    let parts = request(Method::GET, &[("cookie", &many)]);
    assert_eq!(credentials(&parts.headers).unwrap().len(), MOST_COOKIES);
}

#[test]
fn the_token_is_not_shown() {
    assert_eq!(format!("{:?}", Token::new(&"s3cret".into())), "[redacted]");
}
