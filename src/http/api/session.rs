//! A browser's session: a credential exchanged for a cookie that no script can read.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{FromRequest as _, Request, State},
    http::{
        HeaderName, StatusCode,
        header::{CONTENT_TYPE, SET_COOKIE},
        request::Parts,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{AppState, Caller, Json, Problem, Trouble, admit};
use crate::access::Identity;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    token: String,
}

/// The longest credential that goes into a cookie, in bytes; browsers drop larger cookies.
const LONGEST: usize = 3500;

type WithCookie = (StatusCode, [(HeaderName, String); 1], axum::Json<Value>);

/// `POST /session`: sets the credential as a cookie, once it proves something.
pub(in crate::http) async fn open(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<WithCookie, Problem> {
    let (parts, body) = request.into_parts();
    let mut rest = Request::new(body);
    if let Some(of) = parts.headers.get(CONTENT_TYPE) {
        rest.headers_mut().insert(CONTENT_TYPE, of.clone());
    }
    *rest.extensions_mut() = parts.extensions.clone();
    let Json(Body { token }) = Json::from_request(rest, &app).await?;
    let (who, cookie) = prove(&app, &parts, &token, &caller.request_id).await?;
    let shown = shown(&who.actor, &who);
    Ok((StatusCode::OK, [(SET_COOKIE, cookie)], axum::Json(shown)))
}

/// Finds out whose credential it is, and returns the cookie that it makes.
///
/// # Errors
///
/// 401 where it proves nothing, 422 where no cookie can hold it, 429 after too many.
pub(in crate::http) async fn prove(
    app: &AppState,
    parts: &Parts,
    token: &str,
    request_id: &str,
) -> Result<(Identity, String), Problem> {
    let is_fit = |b: u8| b.is_ascii_graphic() && !matches!(b, b'"' | b',' | b';' | b'\\');
    if !(1..=LONGEST).contains(&token.len()) || !token.bytes().all(is_fit) {
        let rule = "1 to 3500 characters that a cookie can hold";
        return Err(Problem::new(Trouble::Invalid).at("/token", rule));
    }
    let from = admit::address(parts);
    admit::may_try(app, from)?;
    let who = admit::prove(app, &[token], from, request_id).await?;
    let cookie = format!("{}={token}; {}", admit::COOKIE_NAME, flags(parts));
    Ok((who, cookie))
}

/// `DELETE /session`: the cookie is gone; again is no error.
pub(in crate::http) async fn close(request: Request) -> (StatusCode, [(HeaderName, String); 1]) {
    let (parts, _) = request.into_parts();
    let cookie = format!("{}=; Max-Age=0; {}", admit::COOKIE_NAME, flags(&parts));
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)])
}

/// `GET /session`: who asks.
pub(in crate::http) async fn show(Extension(caller): Extension<Caller>) -> axum::Json<Value> {
    let who = Identity {
        actor: caller.actor,
        role: caller.role,
        tenants: caller.tenants,
    };
    axum::Json(shown(&who.actor, &who))
}

fn shown(actor: &str, who: &Identity) -> Value {
    json!({ "actor": actor, "role": who.role, "tenants": who.tenants.list() })
}

/// Returns the cookie's attributes. `Secure` is left out for this machine's own names, where
/// there is no TLS and some browsers would drop it.
fn flags(parts: &Parts) -> &'static str {
    if admit::is_asked_locally(parts) {
        "Path=/; HttpOnly; SameSite=Strict"
    } else {
        "Path=/; HttpOnly; SameSite=Strict; Secure"
    }
}
