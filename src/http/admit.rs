//! Who is let in: a credential, or this machine; and nobody through a web page of somebody else's.
//!
//! Everything a route asks for is checked here, before its handler runs: how often, from where,
//! who, which role, whose object.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use axum::http::{
    HeaderMap, Method,
    header::{AUTHORIZATION, COOKIE, HOST},
    request::Parts,
    uri::Authority,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    AppState, Problem, audit,
    caller::{Caller, Once},
    origin,
    route::Access,
    trouble::Trouble,
};
use crate::{
    access::{
        Identity, Keyring, Role, Tenants,
        limit::{Budget, Limiter, network},
        token,
    },
    config::Config,
};

/// The name of the cookie that may hold the token, as document 001's clients send it.
pub(super) const COOKIE_NAME: &str = "token";

/// Cookies of that name that are tried; a browser may send several, of several paths.
const MOST_COOKIES: usize = 4;

/// The other end of the connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

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

/// What requests are judged by, made once of the configuration.
#[derive(Debug)]
pub(super) struct Door {
    token: Option<Token>,
    keyring: Option<Keyring>,
    callers: Limiter<String>,
    addresses: Limiter<IpAddr>,
    failures: Limiter<IpAddr>,
}

impl Door {
    pub(super) fn new(config: &Arc<Config>) -> Self {
        let auth = &config.auth;
        Self {
            token: config.http.token.as_ref().map(Token::new),
            keyring: Keyring::new(config),
            callers: Limiter::new(auth.requests_per_minute),
            addresses: Limiter::new(auth.requests_per_minute_per_address),
            failures: Limiter::new(auth.failures_per_minute),
        }
    }

    /// Says whether the configuration names a credential.
    pub(super) const fn is_configured(&self) -> bool {
        self.token.is_some() || self.keyring.is_some()
    }
}

/// Lets a request in and says who asks, or says why not. What is left of the caller's budget goes
/// to `budget`, be the request let in or not.
pub(super) async fn admit(
    app: &AppState,
    access: Access,
    parts: &Parts,
    request_id: &str,
    budget: &mut Option<Budget>,
) -> Result<Caller, Problem> {
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&parts.method);
    let origins = &app.config.auth.allowed_origins;
    if !is_read && origin::is_cross_site(&parts.headers, &parts.uri, origins) {
        let text = "a page of another origin asks for a change; auth.allowed_origins names the origins \
                    that may";
        return Err(Problem::new(Trouble::CrossSite).detail(text));
    }
    let caller = |identity: Identity| Caller {
        actor: identity.actor,
        role: identity.role,
        tenants: identity.tenants,
        request_id: request_id.to_owned(),
        once: None::<Arc<Once>>,
    };
    let from = address(parts);
    let Access::Role(role, _) = access else {
        return Ok(caller(anyone()));
    };
    within(
        app.door.addresses.take(network(from), Instant::now()),
        budget,
    )?;
    let identity = identify(app, parts, from, request_id).await?;
    let counted = app
        .door
        .callers
        .take(identity.actor.clone(), Instant::now());
    within(counted, budget)?;
    if identity.role < role {
        let text = format!("this takes the role {role}, and yours is {}", identity.role);
        return Err(Problem::new(Trouble::Forbidden)
            .detail(text)
            .with("required_role", role));
    }
    Ok(caller(identity))
}

/// Keeps a budget for the answer's headers, and refuses where it is used up.
fn within(taken: Option<Budget>, kept: &mut Option<Budget>) -> Result<(), Problem> {
    let Some(taken) = taken else {
        return Ok(());
    };
    *kept = Some(taken);
    if taken.is_within {
        return Ok(());
    }
    Err(too_many(taken, "too many requests within a minute"))
}

fn too_many(budget: Budget, why: &str) -> Problem {
    Problem::new(Trouble::TooMany)
        .detail(why)
        .retry_after(budget.wait)
}

fn anyone() -> Identity {
    Identity {
        actor: "anyone".to_owned(),
        role: Role::Viewer,
        tenants: Tenants::Of(Vec::new()),
    }
}

fn everything(actor: &str) -> Identity {
    Identity {
        actor: actor.to_owned(),
        role: Role::Admin,
        tenants: Tenants::All,
    }
}

async fn identify(
    app: &AppState,
    parts: &Parts,
    from: IpAddr,
    request_id: &str,
) -> Result<Identity, Problem> {
    if !is_guarded(app).await? {
        admit_local(parts)?;
        return Ok(everything("local"));
    }
    let sent = credentials(&parts.headers)?;
    if sent.is_empty() {
        return Err(Trouble::Unauthorized.into());
    }
    prove(app, &sent, from, request_id).await
}

/// Says whether a credential is needed: one is configured, or there ever was a token.
pub(super) async fn is_guarded(app: &AppState) -> Result<bool, Problem> {
    Ok(app.door.is_configured() || token::was_any(&app.db).await?)
}

/// Finds out whose credential one of these is. What proves something always does, however many
/// others from the same address did not: a whole office may share it. Those that prove nothing are
/// counted against the address and noted in the audit log, and once there were too many only
/// counted.
///
/// # Errors
///
/// 401, or 429 for a wrong one from an address that tried too often.
pub(super) async fn prove(
    app: &AppState,
    sent: &[&str],
    from: IpAddr,
    request_id: &str,
) -> Result<Identity, Problem> {
    let mut unproven = Unproven::because("none was sent");
    for text in sent {
        match check(app, text).await? {
            Ok(identity) => return Ok(identity),
            Err(of_this) => unproven = of_this,
        }
    }
    let Unproven { why, is_signed } = unproven;
    may_try(app, from)?;
    app.door.failures.take(network(from), Instant::now());
    note_refusal(app, sent, from, request_id, &why).await?;
    tracing::info!(%from, why, "a credential was refused");
    let problem = Problem::new(Trouble::Unauthorized);
    Err(if is_signed {
        problem.detail(why)
    } else {
        problem
    })
}

/// A credential that proves nothing.
struct Unproven {
    why: String,
    /// Whether who sends it may know why.
    is_signed: bool,
}

impl Unproven {
    fn because(why: &str) -> Self {
        Self {
            why: why.to_owned(),
            is_signed: false,
        }
    }
}

/// Refuses an address from which too many wrong credentials came. For what people log in with: what
/// they type may be guessed.
///
/// # Errors
///
/// 429.
pub(super) fn may_try(app: &AppState, from: IpAddr) -> Result<(), Problem> {
    let tried = app.door.failures.peek(network(from), Instant::now());
    match tried.filter(|tried| !tried.is_within) {
        Some(tried) => Err(too_many(
            tried,
            "too many wrong credentials from this address",
        )),
        None => Ok(()),
    }
}

/// Writes the audit log's line for credentials that prove nothing.
async fn note_refusal(
    app: &AppState,
    sent: &[&str],
    from: IpAddr,
    request_id: &str,
    why: &str,
) -> Result<(), Problem> {
    let nobody = Caller {
        actor: anyone().actor,
        role: Role::Viewer,
        tenants: Tenants::Of(Vec::new()),
        request_id: request_id.to_owned(),
        once: None,
    };
    let prefix = sent.iter().find_map(|text| token::prefix_of(text));
    let detail = Some(json!({ "why": why, "prefix": prefix }));
    let object = format!("address/{from}");
    let mut conn = app.db.acquire().await?;
    audit::record(&mut conn, &nobody, "auth.refuse", &object, None, detail).await?;
    Ok(())
}

/// Checks one credential; the inner error says why it proves nothing.
async fn check(app: &AppState, text: &str) -> Result<Result<Identity, Unproven>, Problem> {
    let door = &app.door;
    if door
        .token
        .as_ref()
        .is_some_and(|token| token.is(text.as_bytes()))
    {
        return Ok(Ok(everything("token")));
    }
    if text.starts_with(token::MARK) {
        let found = token::check(&app.db, text).await?;
        return Ok(found.ok_or_else(|| Unproven::because("no such token, or no longer")));
    }
    let Some(keyring) = door.keyring.as_ref().filter(|_| text.contains('.')) else {
        return Ok(Err(Unproven::because("no such token")));
    };
    let now: i64 = sqlx::query_scalar("SELECT extract(epoch FROM now())::bigint")
        .fetch_one(&app.db)
        .await?;
    let checked = keyring.check(text, now).await;
    Ok(checked.map_err(|refused| Unproven {
        why: format!("a user's token: {refused}"),
        is_signed: refused.is_signed(),
    }))
}

/// Returns what may prove who asks. What is said in the header counts, be there a good cookie
/// beside it.
fn credentials(headers: &HeaderMap) -> Result<Vec<&str>, Problem> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(cookies(headers).take(MOST_COOKIES).collect());
    };
    let text = value.to_str().map_err(|_| Trouble::Unauthorized)?;
    Ok(bearer(text).into_iter().collect())
}

/// Returns what follows the scheme, whose case does not matter (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, sent) = value.split_at_checked("Bearer ".len())?;
    let sent = sent.trim();
    (scheme.eq_ignore_ascii_case("Bearer ") && !sent.is_empty()).then_some(sent)
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
        .filter(|value| !value.is_empty())
}

/// Returns the other end's address; unknown, which only a test can be, is nobody's.
pub(super) fn address(parts: &Parts) -> IpAddr {
    let peer = parts.extensions.get::<Peer>();
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |Peer(address)| address.ip())
}

fn admit_local(parts: &Parts) -> Result<(), Problem> {
    if !is_loopback(address(parts)) {
        let text = "no credential is configured; on the daemon's machine, `ingestd token create \
                    NAME --role ROLE` makes one";
        return Err(Problem::new(Trouble::ForeignPeer).detail(text));
    }
    if is_asked_locally(parts) {
        Ok(())
    } else {
        Err(Trouble::ForeignHost.into())
    }
}

/// Says whether the request names this machine by a name that is nobody else's.
pub(super) fn is_asked_locally(parts: &Parts) -> bool {
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let is_local = host.is_some_and(is_local_host) && hosts.next().is_none();
    // A request in absolute form names the host twice; both count.
    is_local
        && parts
            .uri
            .authority()
            .is_none_or(|a| is_local_host(a.as_str()))
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

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
