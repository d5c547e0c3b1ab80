//! What credentials may be configured.

use super::World;

const PEM: &str = include_str!("../../../tests/it/http/jwt_rsa_public.pem");
const SECRET: &str = "a secret of thirty-two bytes, or more";

fn told(auth: &str) -> String {
    let file = format!("[auth]\n{auth}\n");
    World::empty().file("ingestd.toml", &file).error()
}

fn fine(auth: &str) {
    let file = format!("[auth]\n{auth}\n");
    World::empty().file("ingestd.toml", &file).load().unwrap();
}

#[test]
fn users_tokens_are_signed_in_one_way() {
    let jwks = "jwt_jwks_url = 'https://x.test/keys'\njwt_issuer = 'x'\njwt_audience = 'y'";
    let secret = format!("jwt_secret = '{SECRET}'");
    let pem = format!("jwt_public_key = '''\n{PEM}'''");
    for one in [jwks, &secret, &pem] {
        fine(one);
    }
    for (one, other) in [(jwks, &secret), (&secret, &pem), (jwks, &pem)] {
        let text = told(&format!("{one}\n{other}"));
        assert!(text.contains("is set beside another key"), "{text}");
    }
}

/// An issuer signs for others, too, with the keys that it publishes.
#[test]
fn published_keys_need_an_issuer_and_an_audience() {
    for (given, missing) in [
        ("jwt_issuer = 'x'", "auth.jwt_audience"),
        ("jwt_audience = 'x'", "auth.jwt_issuer"),
    ] {
        let text = told(&format!("jwt_jwks_url = 'https://x.test/keys'\n{given}"));
        assert!(
            text.contains("must be set with auth.jwt_jwks_url"),
            "{text}"
        );
        assert!(text.contains(missing), "{text}");
    }
    let text = told("jwt_jwks_url = 'x.test'\njwt_issuer = 'x'\njwt_audience = 'y'");
    assert!(text.contains("must be an http or https URL"), "{text}");
}

#[test]
fn clocks_are_not_ten_minutes_apart() {
    fine("jwt_leeway = '10m'");
    let text = told("jwt_leeway = '601s'");
    assert!(text.contains("must be at most 10m"), "{text}");
}

#[test]
fn origins_are_no_pages() {
    fine("allowed_origins = ['https://shop.example:8443']");
    for wrong in [
        "*",
        "shop.example",
        "https://",
        "https://shop.example/admin",
    ] {
        let text = told(&format!("allowed_origins = ['{wrong}']"));
        assert!(
            text.contains("an origin is https://host"),
            "{wrong}: {text}"
        );
    }
}
