//! Users' tokens: JSON Web Tokens, signed by somebody we know (RFC 7519, 8725).
//!
//! The algorithm follows from the key that is configured and never from the token, so that an RSA
//! public key is no HMAC secret and `none` is nothing. What a token does not prove it does not
//! get: `exp` is required, `aud` and `iss` must be the configured ones.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac as _};
use ring::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::Sha256;

use super::{Identity, Role, Tenants, pem};
use crate::config::Auth;

pub use super::pem::check as check_pem;

/// The longest token, in bytes.
const LONGEST: usize = 8 * 1024;

/// The longest subject, in characters: it stands in the audit log.
const LONGEST_SUBJECT: usize = 200;

/// Why a token proves nothing. For the log and the audit; callers are told what is wrong with a
/// token that one of our keys has signed, of others nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not three parts of base64url, or their JSON cannot be read.
    #[error("it is no JWT")]
    Form,
    /// Its header names another algorithm than the key's.
    #[error("its alg is not the one that is configured")]
    Algorithm,
    /// Its header demands something we do not know.
    #[error("its header has crit")]
    Critical,
    /// No key has its `kid`.
    #[error("its kid is unknown")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("its signature is wrong")]
    Signature,
    /// `exp` is missing, or no number.
    #[error("it has no exp, in seconds of the epoch")]
    Endless,
    /// `exp` is over.
    #[error("it has expired")]
    Expired,
    /// `nbf` is to come.
    #[error("it is not valid yet")]
    Early,
    /// `iss` is another.
    #[error("its iss is not auth.jwt_issuer")]
    Issuer,
    /// `aud` is another, or there is one and none is configured.
    #[error("its aud is not auth.jwt_audience, or one of the two is missing")]
    Audience,
    /// `sub` is missing, or no text of 1 to 200 characters.
    #[error("it has no sub, a text of 1 to 200 characters")]
    Subject,
    /// The role's claim has none of ours, and there is no default.
    #[error(
        "it has no role of viewer, operator, admin in its claim (auth.jwt_role_claim), and there is \
         no auth.jwt_default_role"
    )]
    Role,
}

impl Refused {
    /// Says whether one of our keys has signed the token, so that whoever sends it may know the rest.
    #[must_use]
    pub const fn is_signed(self) -> bool {
        match self {
            Self::Form | Self::Algorithm | Self::Critical | Self::UnknownKey | Self::Signature => {
                false
            }
            Self::Endless
            | Self::Expired
            | Self::Early
            | Self::Issuer
            | Self::Audience
            | Self::Subject
            | Self::Role => true,
        }
    }
}

/// An RSA key as signatures are checked with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RsaKey {
    /// A `RSAPublicKey` of PKCS #1, in DER.
    Der(Vec<u8>),
    /// Modulus and exponent, as a JWK has them.
    Parts {
        /// The modulus, big-endian.
        n: Vec<u8>,
        /// The exponent, big-endian.
        e: Vec<u8>,
    },
}

impl RsaKey {
    fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Der(der) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)
                .verify(message, signature)
                .is_ok(),
            Self::Parts { n, e } => RsaPublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
        }
    }
}

/// What one token is checked with.
#[derive(Clone, Copy)]
pub enum Key<'a> {
    /// HS256.
    Hmac(&'a [u8]),
    /// RS256.
    Rsa(&'a RsaKey),
}

impl Key<'_> {
    const fn algorithm(self) -> &'static str {
        match self {
            Self::Hmac(_) => "HS256",
            Self::Rsa(_) => "RS256",
        }
    }

    fn has_signed(self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Hmac(secret) => Hmac::<Sha256>::new_from_slice(secret)
                .is_ok_and(|mac| mac.chain_update(message).verify_slice(signature).is_ok()),
            Self::Rsa(key) => key.has_signed(message, signature),
        }
    }
}

impl std::fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.algorithm())
    }
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// A token that was taken apart, and proves nothing yet.
#[derive(Debug)]
pub struct Jwt<'a> {
    header: Header,
    /// What is signed.
    message: &'a [u8],
    claims: Map<String, Value>,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    ///
    /// [`Refused::Form`].
    pub fn parse(text: &'a str) -> Result<Self, Refused> {
        let split = (text.len() <= LONGEST).then(|| text.rsplit_once('.'));
        let (message, signature) = split.flatten().ok_or(Refused::Form)?;
        let (header, claims) = message.split_once('.').ok_or(Refused::Form)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Form);
        let json = |bytes: Vec<u8>| serde_json::from_slice(&bytes).map_err(|_| Refused::Form);
        let header = serde_json::from_slice(&decode(header)?).map_err(|_| Refused::Form)?;
        Ok(Self {
            header,
            message: message.as_bytes(),
            claims: json(decode(claims)?)?,
            signature: decode(signature)?,
        })
    }

    /// Returns which of the issuer's keys signed it, as it says.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// Checks signature and claims at `now`, in seconds of the epoch, and says who it is.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn check(&self, key: Key<'_>, auth: &Auth, now: i64) -> Result<Identity, Refused> {
        if self.header.alg != key.algorithm() {
            return Err(Refused::Algorithm);
        }
        if self.header.crit.is_some() {
            return Err(Refused::Critical);
        }
        if !key.has_signed(self.message, &self.signature) {
            return Err(Refused::Signature);
        }
        self.check_claims(auth, now)?;
        self.identity(auth)
    }

    fn check_claims(&self, auth: &Auth, now: i64) -> Result<(), Refused> {
        let leeway = leeway(auth.jwt_leeway);
        let at = |claim: &str| self.claims.get(claim).map(Value::as_f64);
        let now = float(now);
        match at("exp") {
            Some(Some(exp)) if now < exp + leeway => {}
            Some(Some(_)) => return Err(Refused::Expired),
            _ => return Err(Refused::Endless),
        }
        match at("nbf") {
            None => {}
            Some(Some(nbf)) if nbf - leeway <= now => {}
            Some(_) => return Err(Refused::Early),
        }
        if let Some(issuer) = &auth.jwt_issuer
            && self.claims.get("iss").and_then(Value::as_str) != Some(issuer)
        {
            return Err(Refused::Issuer);
        }
        let named = self.claims.get("aud");
        let is_meant = match (&auth.jwt_audience, named) {
            (None, named) => named.is_none(),
            (Some(audience), Some(named)) => texts(named).any(|text| text == audience),
            (Some(_), None) => false,
        };
        if is_meant {
            Ok(())
        } else {
            Err(Refused::Audience)
        }
    }

    fn identity(&self, auth: &Auth) -> Result<Identity, Refused> {
        let subject = self.claims.get("sub").and_then(Value::as_str);
        let is_fit = |text: &&str| {
            (1..=LONGEST_SUBJECT).contains(&text.chars().count())
                && !text.chars().any(char::is_control)
        };
        let subject = subject.filter(is_fit).ok_or(Refused::Subject)?;
        let named = self.claims.get(&auth.jwt_role_claim).into_iter();
        let named = named.flat_map(texts).filter_map(|text| text.parse().ok());
        let role: Option<Role> = named.max().or(auth.jwt_default_role);
        let tenants = match self.claims.get(&auth.jwt_tenants_claim) {
            Some(claim) => texts(claim).map(str::to_owned).collect(),
            None => auth.jwt_default_tenants.clone(),
        };
        Ok(Identity {
            actor: format!("user:{subject}"),
            role: role.ok_or(Refused::Role)?,
            tenants: if tenants.iter().any(|tenant| tenant == "*") {
                Tenants::All
            } else {
                Tenants::Of(tenants)
            },
        })
    }
}

/// Reads a claim that is one text or a list of them.
fn texts(claim: &Value) -> impl Iterator<Item = &str> {
    let (one, many) = (claim.as_str(), claim.as_array());
    one.into_iter()
        .chain(many.into_iter().flatten().filter_map(Value::as_str))
}

fn leeway(leeway: Duration) -> f64 {
    leeway.as_secs_f64()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "seconds of the epoch need 31 bits"
)]
fn float(secs: i64) -> f64 {
    secs as f64
}

/// Returns the configured key that needs no request: a secret or a PEM.
pub(super) enum Own {
    Hmac(Vec<u8>),
    Rsa(RsaKey),
}

impl Own {
    pub(super) fn of(auth: &Auth) -> Option<Self> {
        if let Some(secret) = &auth.jwt_secret {
            return Some(Self::Hmac(secret.expose_secret().as_bytes().to_vec()));
        }
        let text = auth.jwt_public_key.as_ref()?;
        // What cannot be read was refused with the configuration; no key fits then.
        let der = pem::public_key(text.expose_secret()).unwrap_or_default();
        Some(Self::Rsa(RsaKey::Der(der)))
    }

    pub(super) fn key(&self) -> Key<'_> {
        match self {
            Self::Hmac(secret) => Key::Hmac(secret),
            Self::Rsa(key) => Key::Rsa(key),
        }
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
