//! Signing in and out.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{FromRequest as _, Request, State},
    http::{HeaderValue, StatusCode, header::SET_COOKIE},
    response::{IntoResponse as _, Response},
};
use serde::Deserialize;

use super::{
    super::{AppState, Caller, Problem, Query, Trouble, admit, api::session},
    form::Form,
    frame::Frame,
    ok, render, see,
};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignIn<'a> {
    frame: Frame,
    is_guarded: bool,
    next: &'a str,
    trouble: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(in crate::http) struct Params {
    next: Option<String>,
}

/// `GET /sign-in`.
pub(in crate::http) async fn ask(
    State(app): State<Arc<AppState>>,
    Query(Params { next }): Query<Params>,
) -> Result<Response, Problem> {
    ok(&SignIn {
        frame: Frame::nobodys(),
        is_guarded: admit::is_guarded(&app).await?,
        next: ours(next.as_deref()),
        trouble: None,
    })
}

#[derive(Debug, Deserialize)]
struct Credential {
    token: String,
    next: Option<String>,
}

/// `POST /sign-in`: leads to the page that was asked for, or tells again what is asked for.
pub(in crate::http) async fn sign_in(
    State(app): State<Arc<AppState>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let Form(Credential { token, next }) = Form::from_request(request, &app).await?;
    let next = ours(next.as_deref());
    match session::prove(&app, &parts, token.trim(), &caller.request_id).await {
        Ok((_, cookie)) => {
            let mut response = see(next).into_response();
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            Ok(response)
        }
        Err(problem) if is_of_the_token(&problem) => {
            let page = SignIn {
                frame: Frame::nobodys(),
                is_guarded: true,
                next,
                trouble: Some("This token opens nothing, or no longer.".to_owned()),
            };
            render(StatusCode::UNAUTHORIZED, &page)
        }
        Err(problem) => Err(problem),
    }
}

fn is_of_the_token(problem: &Problem) -> bool {
    [Trouble::Unauthorized, Trouble::Invalid].contains(&problem.trouble())
}

/// `POST /sign-out`.
pub(in crate::http) async fn sign_out(request: Request) -> Response {
    let (_, cookie) = session::close(request).await;
    (cookie, see("/sign-in")).into_response()
}

/// Returns where to go, if that is a path here: somebody else's site would be trusted as ours is.
fn ours(next: Option<&str>) -> &str {
    let is_path = |next: &&str| {
        let mut bytes = next.bytes();
        bytes.next() == Some(b'/')
            && !matches!(bytes.next(), Some(b'/' | b'\\'))
            && next.len() <= 2_000
            && next.bytes().all(|byte| byte.is_ascii_graphic())
            && !next.starts_with("/sign-")
    };
    next.filter(is_path).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere() {
        for path in ["/", "/imports/7?same=3", "/runs?cursor=c1f"] {
            assert_eq!(ours(Some(path)), path);
        }
        for elsewhere in [
            "https://evil.example/",
            "//evil.example",
            "/\\evil.example",
            "javascript:alert(1)",
            "/\r\nset-cookie: a=b",
            "imports",
            "",
            "/sign-out",
        ] {
            assert_eq!(ours(Some(elsewhere)), "/", "{elsewhere}");
        }
        assert_eq!(ours(None), "/");
    }
}
