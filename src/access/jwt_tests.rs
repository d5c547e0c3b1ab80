//! What a token must prove, attack by attack.

use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use serde_json::json;

use super::*;

const PUBLIC: &str = include_str!("../../tests/it/http/jwt_rsa_public.pem");
const PRIVATE: &str = include_str!("../../tests/it/http/jwt_rsa_private.pem");
const SECRET: &[u8] = b"a secret of thirty-two bytes, or more";
const NOW: i64 = 1_800_000_000;

fn auth() -> Auth {
    Auth {
        jwt_issuer: Some("https://login.example/".to_owned()),
        jwt_audience: Some("ingestd".to_owned()),
        ..Auth::default()
    }
}

fn claims() -> Value {
    json!({ "sub": "ada", "iss": "https://login.example/", "aud": ["other", "ingestd"],
            "exp": NOW + 60, "nbf": NOW - 60, "role": "operator", "tenants": ["acme"] })
}

fn encoded(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

fn hs256(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let message = encoded(header, claims);
    let mac = Hmac::<Sha256>::new_from_slice(secret).unwrap();
    let mac = mac.chain_update(&message).finalize().into_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac))
}

fn rs256(header: &Value, claims: &Value) -> String {
    let der: String = PRIVATE
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(der)
        .unwrap();
    let pair = RsaKeyPair::from_pkcs8(&der).unwrap();
    let message = encoded(header, claims);
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(
        &RSA_PKCS1_SHA256,
        &SystemRandom::new(),
        message.as_bytes(),
        &mut signature,
    )
    .unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn rsa() -> RsaKey {
    RsaKey::Der(pem::public_key(PUBLIC).unwrap())
}

fn by_secret(token: &str) -> Result<Identity, Refused> {
    Jwt::parse(token)?.check(Key::Hmac(SECRET), &auth(), NOW)
}

fn by_rsa(token: &str) -> Result<Identity, Refused> {
    Jwt::parse(token)?.check(Key::Rsa(&rsa()), &auth(), NOW)
}

#[test]
fn a_good_token_says_who_it_is() {
    let ada = Identity {
        actor: "user:ada".to_owned(),
        role: Role::Operator,
        tenants: Tenants::Of(vec!["acme".to_owned()]),
    };
    let token = hs256(&json!({ "alg": "HS256" }), &claims(), SECRET);
    assert_eq!(by_secret(&token), Ok(ada.clone()));
    let token = rs256(&json!({ "alg": "RS256", "typ": "JWT" }), &claims());
    assert_eq!(by_rsa(&token), Ok(ada));
}

#[test]
fn the_key_says_the_algorithm_and_never_the_token() {
    for alg in ["none", "None", "NONE", "", "HS512", "RS256"] {
        let unsigned = format!("{}.", encoded(&json!({ "alg": alg }), &claims()));
        assert_eq!(by_secret(&unsigned), Err(Refused::Algorithm), "{alg}");
        let signed = hs256(&json!({ "alg": alg }), &claims(), SECRET);
        assert_eq!(by_secret(&signed), Err(Refused::Algorithm), "{alg}");
    }
    // The public key as the secret of an HMAC: in each form somebody could take it for one.
    let der = pem::public_key(PUBLIC).unwrap();
    for key in [PUBLIC.as_bytes(), PUBLIC.trim().as_bytes(), &der] {
        let confused = hs256(&json!({ "alg": "HS256" }), &claims(), key);
        assert_eq!(by_rsa(&confused), Err(Refused::Algorithm));
        let lying = hs256(&json!({ "alg": "RS256" }), &claims(), key);
        assert_eq!(by_rsa(&lying), Err(Refused::Signature));
    }
    let demanding = json!({ "alg": "HS256", "crit": ["exp"] });
    assert_eq!(
        by_secret(&hs256(&demanding, &claims(), SECRET)),
        Err(Refused::Critical)
    );
}

#[test]
fn what_was_changed_or_signed_by_others_is_refused() {
    let header = json!({ "alg": "HS256" });
    let good = hs256(&header, &claims(), SECRET);
    let others = hs256(&header, &claims(), b"another secret of thirty-two bytes!!");
    assert_eq!(by_secret(&others), Err(Refused::Signature));
    let mut raised = claims();
    raised["role"] = "admin".into();
    let (_, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{}.{signature}", encoded(&header, &raised));
    assert_eq!(by_secret(&forged), Err(Refused::Signature));
    let cut = format!("{}.", good.rsplit_once('.').unwrap().0);
    assert_eq!(by_secret(&cut), Err(Refused::Signature));
    let long = format!("{good}{}", "A".repeat(LONGEST));
    for wrong in [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b",
        good.replace('.', ".=").as_str(),
        &long,
    ] {
        assert_eq!(by_secret(wrong), Err(Refused::Form), "{wrong}");
    }
}

#[test]
fn each_claim_is_looked_at() {
    let (header, leeway) = (json!({ "alg": "HS256" }), 30);
    for (claim, value, expected) in [
        ("exp", json!(NOW - leeway), Err(Refused::Expired)),
        ("exp", json!(NOW - leeway + 1), Ok(())),
        ("exp", json!(null), Err(Refused::Endless)),
        ("exp", json!("never"), Err(Refused::Endless)),
        ("nbf", json!(NOW + leeway + 1), Err(Refused::Early)),
        ("nbf", json!(NOW + leeway), Ok(())),
        ("nbf", json!("soon"), Err(Refused::Early)),
        ("iss", json!("https://login.example"), Err(Refused::Issuer)),
        ("iss", json!(null), Err(Refused::Issuer)),
        ("aud", json!("ingestd"), Ok(())),
        ("aud", json!("ingestd2"), Err(Refused::Audience)),
        ("aud", json!(["other"]), Err(Refused::Audience)),
        ("aud", json!(null), Err(Refused::Audience)),
        ("sub", json!(""), Err(Refused::Subject)),
        ("sub", json!("a\nb"), Err(Refused::Subject)),
        ("sub", json!(7), Err(Refused::Subject)),
        ("role", json!("root"), Err(Refused::Role)),
        ("role", json!(null), Err(Refused::Role)),
        ("role", json!(["user", "viewer"]), Ok(())),
    ] {
        let mut changed = claims();
        changed[claim] = value.clone();
        let token = hs256(&header, &changed, SECRET);
        assert_eq!(by_secret(&token).map(drop), expected, "{claim}: {value}");
    }
    let mut without = claims();
    without.as_object_mut().unwrap().remove("exp");
    let token = hs256(&header, &without, SECRET);
    assert_eq!(by_secret(&token), Err(Refused::Endless));
}

#[test]
fn an_audience_that_nobody_configured_is_another_s() {
    let auth = Auth {
        jwt_audience: None,
        ..auth()
    };
    let token = hs256(&json!({ "alg": "HS256" }), &claims(), SECRET);
    let jwt = Jwt::parse(&token).unwrap();
    let checked = jwt.check(Key::Hmac(SECRET), &auth, NOW);
    assert_eq!(checked, Err(Refused::Audience));
}

#[test]
fn tenants_come_from_the_claim_or_the_configuration() {
    let auth = Auth {
        jwt_tenants_claim: "org".to_owned(),
        jwt_default_role: Some(Role::Viewer),
        jwt_role_claim: "groups".to_owned(),
        jwt_default_tenants: vec!["shared".to_owned()],
        ..auth()
    };
    let of = |names: &[&str]| Tenants::Of(names.iter().map(ToString::to_string).collect());
    for (org, expected) in [
        (json!("acme"), of(&["acme"])),
        (json!(["acme", "globex"]), of(&["acme", "globex"])),
        (json!("*"), Tenants::All),
        (json!([]), of(&[])),
        (json!(7), of(&[])),
    ] {
        let mut claims = claims();
        claims["org"] = org.clone();
        let token = hs256(&json!({ "alg": "HS256" }), &claims, SECRET);
        let jwt = Jwt::parse(&token).unwrap();
        let who = jwt.check(Key::Hmac(SECRET), &auth, NOW).unwrap();
        assert_eq!(who.tenants, expected, "{org}");
        assert_eq!(who.role, Role::Viewer);
    }
    let token = hs256(&json!({ "alg": "HS256" }), &claims(), SECRET);
    let jwt = Jwt::parse(&token).unwrap();
    let who = jwt.check(Key::Hmac(SECRET), &auth, NOW).unwrap();
    assert_eq!(who.tenants, of(&["shared"]));
}
