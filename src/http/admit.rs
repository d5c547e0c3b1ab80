//! Who is let in: the token, or this machine; and nobody through a web page of somebody else's.

use std::net::{IpAddr, SocketAddr};

use axum::http::{
    HeaderMap, Method, Uri,
    header::{AUTHORIZATION, COOKIE, HOST, HeaderName, ORIGIN},
    request::Parts,
    uri::Authority,
};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{Problem, route::Access, trouble::Trouble};

/// The name of the cookie that may hold the token, as document 001's clients send it.
const COOKIE_NAME: &str = "token";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who asks, once let in.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The audit log's word for them: `token`, or `local` where none is configured.
    pub actor: &'static str,
    /// The request's id.
    pub request_id: String,
}

/// The configured token, as its hash: comparing hashes takes the same time
/// whatever is sent, and tells nothing of the token's length.
pub(super) struct Token([u8; 32]);

impl Token {
    pub(super) fn new(secret: &SecretString) -> Self {
        Self(Sha256::digest(secret.expose_secret()).into())
    }

    fn is(&self, sent: &[u8]) -> bool {
        let sent: [u8; 32] = Sha256::digest(sent).into();
        self.0.ct_eq(&sent).into()
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Lets a request in and names its actor, or says why not.
pub(super) fn admit(
    token: Option<&Token>,
    access: Access,
    parts: &Parts,
) -> Result<&'static str, Problem> {
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
    if !is_read && is_cross_site(&parts.headers, &parts.uri) {
        return Err(Trouble::CrossSite.into());
    }
    match (access, token) {
        (Access::Open, _) => Ok("anyone"),
        (Access::Guarded, Some(token)) => admit_token(token, &parts.headers),
        (Access::Guarded, None) => admit_local(parts),
    }
}

fn admit_token(token: &Token, headers: &HeaderMap) -> Result<&'static str, Problem> {
    let is_known = match headers.get(AUTHORIZATION) {
        // What is said in the header counts, be there a good cookie beside it.
        Some(value) => bearer(value.as_bytes()).is_some_and(|sent| token.is(sent)),
        None => cookies(headers).any(|sent| token.is(sent.as_bytes())),
    };
    if is_known {
        Ok("token")
    } else {
        Err(Trouble::Unauthorized.into())
    }
}

/// Returns what follows the scheme, whose case does not matter (RFC 9110, 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, sent) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| sent.trim_ascii())
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers
        .get_all(COOKIE)
        .into_iter()
        .filter_map(|line| line.to_str().ok());
    let pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.split_once('='));
    pairs
        .filter(|(name, _)| name.trim() == COOKIE_NAME)
        .map(|(_, value)| value.trim().trim_matches('"'))
}

fn admit_local(parts: &Parts) -> Result<&'static str, Problem> {
    let peer = parts.extensions.get::<Peer>();
    if !peer.is_some_and(|Peer(address)| is_loopback(address.ip())) {
        return Err(Trouble::ForeignPeer.into());
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let is_local = host.is_some_and(is_local_host) && hosts.next().is_none();
    // A request in absolute form names the host twice; both count.
    let is_local = is_local
        && parts
            .uri
            .authority()
            .is_none_or(|a| is_local_host(a.as_str()));
    if is_local {
        Ok("local")
    } else {
        Err(Trouble::ForeignHost.into())
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Says whether `host[:port]` can be nobody's but this machine's.
fn is_local_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host().to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    // RFC 6761, 6.3: no resolver sends localhost names elsewhere.
    name == "localhost" || name.ends_with(".localhost") || address.parse().is_ok_and(is_loopback)
}

/// Says whether a web page of another origin sent it.
///
/// Browsers say so in `Sec-Fetch-Site`; older ones send `Origin`, whose host
/// must then be the one that was asked. Programs send neither.
fn is_cross_site(headers: &HeaderMap, uri: &Uri) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site != "same-origin" && site != "none";
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return false;
    };
    let asked = headers.get(HOST).and_then(|host| host.to_str().ok());
    let asked = uri.authority().map(Authority::as_str).or(asked);
    let from = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    match (from, asked) {
        (Some((_, from)), Some(asked)) => !from.eq_ignore_ascii_case(asked),
        _ => true,
    }
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
