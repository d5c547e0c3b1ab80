//! Whose signatures count: the configured key, or the issuer's published ones.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::{
    Identity,
    jwt::{Jwt, Key, Own, Refused, RsaKey},
};
use crate::{
    config::Config,
    fetch::{Fetcher, Request},
};

/// How long published keys are taken for current.
const FRESH: Duration = Duration::from_mins(10);

/// The least pause between two looks: a made-up `kid` must not make us ask again and again.
const PAUSE: Duration = Duration::from_secs(30);

/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest set of keys, in bytes and in number.
const MAX_BYTES: u64 = 256 << 10;
const MAX_KEYS: usize = 64;

/// Checks users' tokens. One for the whole process.
#[derive(Debug)]
pub struct Keyring {
    config: Arc<Config>,
    source: Source,
}

enum Source {
    Own(Own),
    Published(Published),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Own(_) => "own",
            Self::Published(_) => "published",
        })
    }
}

impl Keyring {
    /// Makes one of the configuration; `None` where it takes no users' tokens.
    #[must_use]
    pub fn new(config: &Arc<Config>) -> Option<Self> {
        Self::with_fetcher(config, || Fetcher::new(&config.fetch))
    }

    fn with_fetcher(config: &Arc<Config>, fetcher: impl FnOnce() -> Fetcher) -> Option<Self> {
        let published = |url: &String| {
            Source::Published(Published {
                url: url.clone(),
                fetcher: fetcher(),
                known: Mutex::default(),
            })
        };
        let own = Own::of(&config.auth).map(Source::Own);
        let source = own.or_else(|| config.auth.jwt_jwks_url.as_ref().map(published))?;
        Some(Self {
            config: Arc::clone(config),
            source,
        })
    }

    /// Checks a token at `now`, in seconds of the epoch by the database's clock.
    ///
    /// # Errors
    ///
    /// Why it proves nothing.
    pub async fn check(&self, text: &str, now: i64) -> Result<Identity, Refused> {
        let jwt = Jwt::parse(text)?;
        match &self.source {
            Source::Own(own) => jwt.check(own.key(), &self.config.auth, now),
            Source::Published(published) => {
                let key = published.find(jwt.kid()).await.ok_or(Refused::UnknownKey)?;
                jwt.check(Key::Rsa(&key), &self.config.auth, now)
            }
        }
    }
}

/// The keys behind a URL, as they were last read.
struct Published {
    url: String,
    fetcher: Fetcher,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    keys: Vec<(Option<String>, RsaKey)>,
    read_at: Option<Instant>,
    tried_at: Option<Instant>,
}

impl Known {
    /// Returns the key of that name; a token that names none gets the only one there is.
    fn find(&self, kid: Option<&str>) -> Option<RsaKey> {
        let found = match kid {
            Some(kid) => self
                .keys
                .iter()
                .find(|(name, _)| name.as_deref() == Some(kid)),
            None if self.keys.len() == 1 => self.keys.first(),
            None => None,
        };
        found.map(|(_, key)| key.clone())
    }
}

impl Published {
    /// Finds a key, and looks again where it is not known or what is known is old. Where the
    /// issuer cannot be reached, the keys that were read stand.
    async fn find(&self, kid: Option<&str>) -> Option<RsaKey> {
        let mut known = self.known.lock().await;
        let is_within = |at: Option<Instant>, span| at.is_some_and(|at| at.elapsed() < span);
        let found = known.find(kid);
        if is_within(known.tried_at, PAUSE) || found.is_some() && is_within(known.read_at, FRESH) {
            return found;
        }
        known.tried_at = Some(Instant::now());
        match self.read().await {
            Ok(keys) => {
                known.keys = keys;
                known.read_at = Some(Instant::now());
            }
            Err(error) => tracing::warn!(%error, "the keys of users' tokens cannot be read"),
        }
        known.find(kid)
    }

    async fn read(&self) -> anyhow::Result<Vec<(Option<String>, RsaKey)>> {
        let request = Request {
            timeout: Some(PATIENCE),
            max_bytes: Some(MAX_BYTES),
            max_redirects: 0,
            ..Request::get(&self.url)
        };
        let answer = self.fetcher.send(request).await?;
        anyhow::ensure!(answer.status == 200, "status {}", answer.status);
        Ok(keys(&answer.body)?)
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    used_for: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    n: String,
    e: String,
}

/// Reads the RSA keys of a set that may check signatures of RS256 (RFC 7517); others are left out.
fn keys(body: &[u8]) -> serde_json::Result<Vec<(Option<String>, RsaKey)>> {
    let set: Set = serde_json::from_slice(body)?;
    let read = |value: Value| {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_ours = jwk.kty == "RSA"
            && jwk.used_for.is_none_or(|used_for| used_for == "sig")
            && jwk.alg.is_none_or(|alg| alg == "RS256");
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).ok();
        let (n, e) = (decode(&jwk.n)?, decode(&jwk.e)?);
        is_ours.then_some((jwk.kid, RsaKey::Parts { n, e }))
    };
    Ok(set
        .keys
        .into_iter()
        .filter_map(read)
        .take(MAX_KEYS)
        .collect())
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
