//! `[auth]`: who may call the HTTP interface, beside `http.token` and the tokens in the database.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{secret, unit};
use crate::access::{Role, jwt};

/// Users' tokens (JWT), other origins, limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// `auth.requests_per_minute`: requests of one caller in a minute, 0 for no limit. Counted by
    /// each daemon for itself. Default 6000.
    pub requests_per_minute: u32,
    /// `auth.requests_per_minute_per_address`: requests from one address (IPv6: one /64) in a
    /// minute, 0 for no limit. Default 12000.
    pub requests_per_minute_per_address: u32,
    /// `auth.failures_per_minute`: wrong credentials from one address in a minute that are
    /// noted and leave `POST /api/v1/session` open, 0 for no limit. Default 20.
    pub failures_per_minute: u32,
    /// `auth.allowed_origins`: origins of front ends on other hosts, as
    /// `https://shop.example`, that may read answers and ask for changes. Default: none.
    pub allowed_origins: Vec<String>,
    /// `auth.jwt_secret`: the key of users' tokens signed with HS256, 32 bytes at least, or
    /// `credential:NAME`. Secret; no default.
    #[serde(serialize_with = "secret::serialize")]
    pub jwt_secret: Option<SecretString>,
    /// `auth.jwt_secret_file`: a file that holds it. No default.
    pub jwt_secret_file: Option<PathBuf>,
    /// `auth.jwt_public_key`: the RSA key of users' tokens signed with RS256, in PEM, or
    /// `credential:NAME`. Not shown; no default.
    #[serde(serialize_with = "secret::serialize")]
    pub jwt_public_key: Option<SecretString>,
    /// `auth.jwt_public_key_file`: a file that holds it. No default.
    pub jwt_public_key_file: Option<PathBuf>,
    /// `auth.jwt_jwks_url`: where the RSA keys of users' tokens are published (RS256); needs
    /// `jwt_issuer` and `jwt_audience`. No default.
    pub jwt_jwks_url: Option<String>,
    /// `auth.jwt_issuer`: what `iss` must be. Default: not looked at.
    pub jwt_issuer: Option<String>,
    /// `auth.jwt_audience`: what `aud` must be or hold. Default: a token that names an audience is
    /// refused.
    pub jwt_audience: Option<String>,
    /// `auth.jwt_leeway`: how far clocks may be apart. Default 30 s.
    #[serde(with = "unit::duration")]
    pub jwt_leeway: Duration,
    /// `auth.jwt_role_claim`: the claim that holds the role, a text or a list. Default `role`.
    pub jwt_role_claim: String,
    /// `auth.jwt_tenants_claim`: the claim that holds the tenants, a text or a list; `*` is all.
    /// Default `tenants`.
    pub jwt_tenants_claim: String,
    /// `auth.jwt_default_role`: the role where the claim has none. Default: such a token is
    /// refused.
    pub jwt_default_role: Option<Role>,
    /// `auth.jwt_default_tenants`: the tenants where there is no claim. Default: none.
    pub jwt_default_tenants: Vec<String>,
}

/// The shortest key for HS256 (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;

impl Auth {
    /// Says whether users' tokens are taken.
    #[must_use]
    pub const fn has_jwt(&self) -> bool {
        self.jwt_secret.is_some() || self.jwt_public_key.is_some() || self.jwt_jwks_url.is_some()
    }

    pub(super) fn validate(&self, check: &mut Check<'_>) {
        let keys = [
            self.jwt_secret.is_some(),
            self.jwt_public_key.is_some(),
            self.jwt_jwks_url.is_some(),
        ];
        if keys.into_iter().filter(|is_set| *is_set).count() > 1 {
            let keys = ["jwt_jwks_url", "jwt_public_key", "jwt_secret"];
            check.fail(
                &keys,
                "is set beside another key: tokens have one way to be signed",
            );
        }
        let secret = self.jwt_secret.as_ref().map(ExposeSecret::expose_secret);
        if secret.is_some_and(|key| key.len() < SHORTEST_SECRET) {
            check.fail(&["jwt_secret"], "must have 32 bytes at least");
        }
        let pem = self
            .jwt_public_key
            .as_ref()
            .map(ExposeSecret::expose_secret);
        if let Some(Err(why)) = pem.map(jwt::check_pem) {
            check.fail(&["jwt_public_key"], &format!("cannot be used: {why}"));
        }
        if let Some(url) = &self.jwt_jwks_url {
            if !url.starts_with("https://") && !url.starts_with("http://") {
                check.fail(&["jwt_jwks_url"], "must be an http or https URL");
            }
            for (key, value) in [
                ("jwt_issuer", &self.jwt_issuer),
                ("jwt_audience", &self.jwt_audience),
            ] {
                if value.is_none() {
                    let why = "must be set with auth.jwt_jwks_url: its keys sign for others, too";
                    check.fail(&[key, "jwt_jwks_url"], why);
                }
            }
        }
        if self.jwt_leeway > Duration::from_mins(10) {
            check.fail(&["jwt_leeway"], "must be at most 10m");
        }
        for origin in &self.allowed_origins {
            let host = origin.split_once("://").map(|(_, host)| host);
            if !host.is_some_and(|host| !host.is_empty() && !host.contains('/')) {
                let why = format!("names \"{origin}\"; an origin is https://host[:port]");
                check.fail(&["allowed_origins"], &why);
            }
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            requests_per_minute: 6000,
            requests_per_minute_per_address: 12_000,
            failures_per_minute: 20,
            allowed_origins: Vec::new(),
            jwt_secret: None,
            jwt_secret_file: None,
            jwt_public_key: None,
            jwt_public_key_file: None,
            jwt_jwks_url: None,
            jwt_issuer: None,
            jwt_audience: None,
            jwt_leeway: Duration::from_secs(30),
            jwt_role_claim: "role".to_owned(),
            jwt_tenants_claim: "tenants".to_owned(),
            jwt_default_role: None,
            jwt_default_tenants: Vec::new(),
        }
    }
}
