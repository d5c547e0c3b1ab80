//! Browsers: the cookie, pages of other origins, users' tokens.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use ingestd::access::Role;
use reqwest::{
    Method, header,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    server::{Server, problem},
    token::make,
};

#[tokio::test]
async fn a_token_is_exchanged_for_a_cookie() {
    let server = Server::start().await;
    let token = make(&server, "ada", Role::Operator, &["acme"]).await;
    let open = async |token: &str| {
        let ask = server
            .post("/api/v1/session")
            .json(&json!({ "token": token }));
        ask.send().await.unwrap()
    };
    problem(open("igd_wrong").await, 401, "unauthorized").await;
    problem(open("a; b").await, 422, "invalid").await;
    let opened = open(&token).await;
    assert_eq!(opened.status(), 200);
    let cookie = opened.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with(&format!("token={token}; ")), "{cookie}");
    for flag in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(flag), "{cookie}");
    }
    assert!(
        !cookie.contains("Secure"),
        "there is no TLS on this machine's own names"
    );
    let far = server
        .post("/api/v1/session")
        .json(&json!({ "token": token }));
    let far = far.header("host", "ingestd.example").send().await.unwrap();
    assert!(
        far.headers()["set-cookie"]
            .to_str()
            .unwrap()
            .contains("; Secure")
    );
    let pair = cookie.split(';').next().unwrap();
    let who = server.get("/api/v1/session").header("cookie", pair);
    let who: Value = who.send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&who["role"], &who["tenants"]),
        (&json!("operator"), &json!(["acme"]))
    );
    let closed = server.client.delete(server.url("/api/v1/session"));
    let closed = closed.send().await.unwrap();
    assert_eq!(closed.status(), 204);
    let cookie = closed.headers()["set-cookie"].to_str().unwrap();
    assert!(cookie.starts_with("token=; Max-Age=0"), "{cookie}");
}

#[tokio::test]
async fn only_a_named_origin_is_shared_with() {
    let named = "https://shop.example";
    let server = Server::with(|config| {
        config.auth.allowed_origins = vec![named.to_owned()];
    })
    .await;
    let token = make(&server, "ada", Role::Admin, &[]).await;
    for (origin, is_named) in [(named, true), ("https://evil.example", false)] {
        let asked = server
            .client
            .request(Method::OPTIONS, server.url("/api/v1/jobs"))
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let asked = asked.send().await.unwrap();
        assert_eq!(
            asked.status() == 204,
            is_named,
            "{origin} {}",
            asked.status()
        );
        let allowed = asked.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        assert_eq!(allowed.is_some(), is_named);
        let change = server
            .post("/api/v1/queues/default/pause")
            .header("origin", origin);
        let change = change.header("cookie", format!("token={token}"));
        let change = change
            .header("sec-fetch-site", "cross-site")
            .send()
            .await
            .unwrap();
        assert_eq!(change.headers()["vary"], "Origin");
        if is_named {
            assert_eq!(change.status(), 200);
            assert_eq!(change.headers()["access-control-allow-origin"], named);
            assert_eq!(change.headers()["access-control-allow-credentials"], "true");
        } else {
            problem(change, 403, "cross-site").await;
        }
    }
}

#[tokio::test]
async fn without_named_origins_nothing_is_shared() {
    let server = Server::start().await;
    let read = server
        .get("/api/v1/jobs")
        .header("origin", "https://shop.example");
    let read = read.send().await.unwrap();
    assert_eq!(read.status(), 200);
    assert!(!read.headers().contains_key("access-control-allow-origin"));
}

const SECRET: &str = "a secret of thirty-two bytes, or more";

fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": "HS256" })), part(claims));
    let mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    let mac = mac.chain_update(&message).finalize().into_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
}

#[tokio::test]
async fn a_users_token_comes_in_the_header_or_the_cookie() {
    let server = Server::with(|config| {
        config.auth.jwt_secret = Some(SECRET.into());
        config.auth.jwt_default_tenants = vec!["acme".to_owned()];
    })
    .await;
    let never = 4_000_000_000_i64;
    let ada = json!({ "sub": "ada", "exp": never, "role": "operator" });
    let good = jwt(&ada);
    for (name, value) in [
        ("authorization", format!("Bearer {good}")),
        ("cookie", format!("token={good}")),
    ] {
        let ask = server.get("/api/v1/session").header(name, value);
        let who: Value = ask.send().await.unwrap().json().await.unwrap();
        let expected = json!({ "actor": "user:ada", "role": "operator", "tenants": ["acme"] });
        assert_eq!(who, expected);
    }
    let late = json!({ "sub": "ada", "exp": 1, "role": "operator" });
    let (head, _) = good.rsplit_once('.').unwrap();
    // What a key of ours has signed may be told of; of the others nothing is.
    for (wrong, told) in [
        (jwt(&late), Some("expired")),
        (
            jwt(&json!({ "sub": "ada", "role": "operator" })),
            Some("no exp"),
        ),
        (
            jwt(&json!({ "exp": never, "role": "operator" })),
            Some("no sub"),
        ),
        (
            jwt(&json!({ "sub": "ada", "exp": never })),
            Some("jwt_default_role"),
        ),
        (format!("{head}."), None),
        ("a.b.c".to_owned(), None),
    ] {
        let refused = server
            .get("/api/v1/session")
            .bearer_auth(&wrong)
            .send()
            .await
            .unwrap();
        let body = problem(refused, 401, "unauthorized").await;
        let detail = body["detail"].as_str();
        assert_eq!(detail.is_some(), told.is_some(), "{body}");
        assert!(
            detail
                .unwrap_or_default()
                .contains(told.unwrap_or_default()),
            "{body}"
        );
    }
    let nobodys = jwt(&json!({ "sub": "ada", "exp": never, "role": "admin", "tenants": [] }));
    let file = Part::text("code,name\nA,Lamp\n").file_name("a.csv");
    let sent = server.post("/import/products").bearer_auth(&nobodys);
    let sent = sent
        .multipart(Form::new().part("file", file))
        .send()
        .await
        .unwrap();
    assert_eq!(sent.status(), 403);
    let told = sent.text().await.unwrap();
    assert!(told.contains("jwt_tenants_claim"), "{told}");
    server.register("others.kind").await;
    let job = server.post("/api/v1/jobs").bearer_auth(&good);
    let job = job
        .json(&json!({ "kind": "others.kind" }))
        .send()
        .await
        .unwrap();
    assert_eq!(job.status(), 201);
    let audit = server.audit().await;
    assert_eq!(audit.last().unwrap().0, "user:ada");
    assert_eq!(
        audit
            .iter()
            .filter(|entry| entry.1 == "auth.refuse")
            .count(),
        6
    );
    let none = server.get("/api/v1/session").send().await.unwrap();
    problem(none, 401, "unauthorized").await;
}
