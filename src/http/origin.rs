//! Web pages of others: who may ask for changes (CSRF), who may read answers (CORS).

use axum::{
    body::Body,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri,
        header::{
            ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS,
            ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD,
            HOST, ORIGIN, VARY,
        },
        uri::Authority,
    },
    response::Response,
};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns the origin of a request where the configuration names it.
pub(super) fn allowed<'a>(headers: &'a HeaderMap, origins: &[String]) -> Option<&'a HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    let text = origin.to_str().ok()?;
    let is_named = origins.iter().any(|named| named.eq_ignore_ascii_case(text));
    is_named.then_some(origin)
}

/// Says whether a web page of another origin sent it, one that the configuration does not name.
///
/// Browsers say so in `Sec-Fetch-Site`; older ones send `Origin`, whose host must then be the one
/// that was asked. Programs send neither.
pub(super) fn is_cross_site(headers: &HeaderMap, uri: &Uri, origins: &[String]) -> bool {
    if allowed(headers, origins).is_some() {
        return false;
    }
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

/// Answers a browser that asks whether it may ask; `None` where it does not, or is not to.
pub(super) fn preflight(
    method: &Method,
    headers: &HeaderMap,
    origins: &[String],
) -> Option<Response> {
    if method != Method::OPTIONS || !headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        return None;
    }
    allowed(headers, origins)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "GET, POST, PUT, PATCH, DELETE",
        ),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "Authorization, Content-Type, Idempotency-Key, X-Request-Id",
        ),
        (ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Some(response)
}

/// Lets a named origin read an answer. `origins` being empty, nothing varies.
pub(super) fn share(response: &mut HeaderMap, origin: Option<&HeaderValue>, origins: &[String]) {
    if !origins.is_empty() {
        response.append(VARY, HeaderValue::from_static("Origin"));
    }
    let Some(origin) = origin else {
        return;
    };
    response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_CREDENTIALS, "true"),
        (
            ACCESS_CONTROL_EXPOSE_HEADERS,
            "Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id",
        ),
    ] {
        response.insert(name, HeaderValue::from_static(value));
    }
}
