//! Published keys: found by name, read again where that helps, kept where it does not.

use serde_json::json;

use super::*;
use crate::fetch::{Fake, Response};

fn set(kids: &[&str]) -> Response {
    let keys: Vec<Value> = kids
        .iter()
        .map(|kid| json!({ "kty": "RSA", "use": "sig", "kid": kid, "n": "AQ", "e": "AQAB" }))
        .collect();
    Response {
        body: json!({ "keys": keys }).to_string().into_bytes(),
        ..Response::of(200)
    }
}

fn published(fake: &Fake) -> Published {
    Published {
        url: "https://login.example/jwks.json".to_owned(),
        fetcher: Fetcher::Fake(fake.clone()),
        known: Mutex::default(),
    }
}

#[tokio::test]
async fn keys_are_read_once_and_an_unknown_name_asks_no_more_than_that() {
    let fake = Fake::default();
    fake.answer(Ok(set(&["a", "b"])));
    let published = published(&fake);
    assert!(published.find(Some("a")).await.is_some());
    assert!(published.find(Some("b")).await.is_some());
    for _ in 0..10 {
        assert!(published.find(Some("made up")).await.is_none());
    }
    assert!(published.find(None).await.is_none(), "two could be meant");
    let asked = fake.seen();
    let [asked] = asked.as_slice() else {
        panic!("{asked:?}")
    };
    assert_eq!((asked.max_redirects, asked.max_bytes), (0, Some(MAX_BYTES)));
    assert_eq!(asked.timeout, Some(PATIENCE));
}

#[tokio::test]
async fn a_new_key_is_found_and_keys_outlive_an_issuer_that_is_away() {
    let fake = Fake::default();
    fake.answer(Ok(set(&["a"])));
    let published = published(&fake);
    assert!(
        published.find(None).await.is_some(),
        "the only one there is"
    );
    let long_ago = Instant::now().checked_sub(2 * FRESH);
    let age = async || {
        let mut known = published.known.lock().await;
        (known.read_at, known.tried_at) = (long_ago, long_ago);
    };
    age().await;
    fake.answer(Ok(Response::of(503)));
    assert!(published.find(Some("a")).await.is_some());
    age().await;
    fake.answer(Ok(Response {
        status: 404,
        ..set(&["b"])
    }));
    assert!(
        published.find(Some("b")).await.is_none(),
        "no answer of theirs"
    );
    assert!(published.find(Some("a")).await.is_some());
    age().await;
    fake.answer(Ok(set(&["b"])));
    assert!(published.find(Some("b")).await.is_some());
    assert!(published.find(Some("a")).await.is_none(), "withdrawn");
}

#[test]
fn only_so_many_keys_are_kept() {
    let kids: Vec<String> = (0..=MAX_KEYS).map(|n| n.to_string()).collect();
    let kids: Vec<&str> = kids.iter().map(String::as_str).collect();
    assert_eq!(keys(&set(&kids).body).unwrap().len(), MAX_KEYS);
}

#[test]
fn only_keys_for_these_signatures_are_taken() {
    let body = json!({ "keys": [
        { "kty": "RSA", "kid": "enc", "use": "enc", "n": "AQ", "e": "AQAB" },
        { "kty": "RSA", "kid": "ps", "alg": "PS256", "n": "AQ", "e": "AQAB" },
        { "kty": "EC", "kid": "ec", "crv": "P-256", "x": "AQ", "y": "AQ" },
        { "kty": "oct", "kid": "oct", "k": "AQ" },
        { "kty": "RSA", "kid": "bad", "n": "?", "e": "AQAB" },
        { "kty": "RSA", "kid": "good", "alg": "RS256", "n": "AQ", "e": "AQAB" },
    ] });
    let names = keys(body.to_string().as_bytes()).unwrap();
    let names: Vec<_> = names.into_iter().filter_map(|(kid, _)| kid).collect();
    assert_eq!(names, ["good"]);
    assert!(keys(b"[]").is_err());
}
