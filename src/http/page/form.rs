//! What forms send.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{Method, header::CONTENT_TYPE},
};
use serde::de::DeserializeOwned;

use super::super::{AppState, Problem, input, layer::Deadline, trouble::Trouble};

/// The fields of a form, of at most `http.max_body_bytes`.
#[derive(Debug)]
pub(in crate::http) struct Form<T>(pub(in crate::http) T);

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for Form<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, Problem> {
        let max = usize::try_from(app.config.http.max_body_bytes).unwrap_or(usize::MAX);
        let deadline = request.extensions().get::<Deadline>().copied();
        let (parts, body) = request.into_parts();
        let bytes = input::read(body, max, deadline).await?;
        let mut whole = Request::new(Body::from(bytes));
        *whole.method_mut() = Method::POST;
        if let Some(of) = parts.headers.get(CONTENT_TYPE) {
            whole.headers_mut().insert(CONTENT_TYPE, of.clone());
        }
        let read = axum::Form::from_request(whole, &()).await;
        let axum::Form(fields) = read
            .map_err(|rejection| Problem::new(Trouble::BadRequest).detail(rejection.body_text()))?;
        Ok(Self(fields))
    }
}
