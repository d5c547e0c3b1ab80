//! Errors as callers see them: `application/problem+json` (RFC 9457).
//!
//! A handler returns a [`Problem`]; `layer` writes it out, because only there
//! is the request's id known. What goes wrong inside (SQL, paths, causes) is
//! logged and never in a body.

use std::time::Duration;

use axum::{
    body::Body,
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{once, trouble::Trouble};
use crate::{db, queue::KeyTaken};

/// Something that a request cannot have, and why.
#[derive(Debug, Clone)]
pub struct Problem {
    trouble: Trouble,
    detail: Option<String>,
    errors: Vec<Fault>,
    extra: Map<String, Value>,
    retry_after: Option<Duration>,
}

/// One mistake in what was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Fault {
    /// In the body.
    Body {
        /// JSON pointer (RFC 6901) to the wrong value; empty: the whole body.
        pointer: String,
        /// What is wrong with it.
        detail: String,
    },
    /// In the query string.
    Query {
        /// The parameter's name.
        parameter: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (place, detail) = match self {
            Self::Body { pointer, detail } => (pointer.as_str(), detail),
            Self::Query { parameter, detail } => (*parameter, detail),
        };
        write!(f, "{}: {detail}", place.trim_start_matches('/'))
    }
}

impl Problem {
    /// Makes a problem with nothing to say beyond its kind.
    #[must_use]
    pub fn new(trouble: Trouble) -> Self {
        Self {
            trouble,
            detail: None,
            errors: Vec::new(),
            extra: Map::new(),
            retry_after: None,
        }
    }

    /// Says what is wrong in this very case, in a sentence for people.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Points to the value in the body that is wrong.
    #[must_use]
    pub fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(Fault::Body {
            pointer: pointer.into(),
            detail: detail.into(),
        });
        self
    }

    /// Names the query parameter that is wrong.
    #[must_use]
    pub fn parameter(mut self, parameter: &'static str, detail: impl Into<String>) -> Self {
        self.errors.push(Fault::Query {
            parameter,
            detail: detail.into(),
        });
        self
    }

    /// Adds a member of the problem's own, such as the state that was in the way.
    #[must_use]
    pub fn with(mut self, member: &str, value: impl Serialize) -> Self {
        let value = serde_json::to_value(value).unwrap_or_default();
        self.extra.insert(member.to_owned(), value);
        self
    }

    /// Says when to ask again.
    #[must_use]
    pub const fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Returns what kind of problem this is.
    #[must_use]
    pub const fn trouble(&self) -> Trouble {
        self.trouble
    }

    /// Returns what is wrong in this very case.
    #[must_use]
    pub fn told(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// Returns the mistakes it points to.
    #[must_use]
    pub fn errors(&self) -> &[Fault] {
        &self.errors
    }

    /// Writes the response of the request of that id.
    pub(super) fn render(self, request_id: &str) -> Response {
        let Self {
            trouble,
            detail,
            errors,
            extra,
            retry_after,
        } = self;
        let status = trouble.status();
        let mut body = json!({
            "type": trouble.uri(),
            "title": trouble.title(),
            "status": status.as_u16(),
            "instance": request_id,
        });
        if let Some(members) = body.as_object_mut() {
            members.extend(detail.map(|detail| ("detail".to_owned(), detail.into())));
            if !errors.is_empty() {
                members.insert("errors".to_owned(), json!(errors));
            }
            members.extend(extra);
        }
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(CONTENT_TYPE, json);
        match status {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"ingestd\"");
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        if let Some(wait) = retry_after {
            // In whole seconds, and none too few.
            headers.insert(RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response
    }

    /// Writes it in the form of the systems' documents, on their paths: `success`, `message` and
    /// `error.code`, which is the problem's name.
    pub(super) fn render_as_document(self, request_id: &str) -> Response {
        let code = self.trouble.name().replace('-', "_");
        let title = self.trouble.title();
        let message = self.detail.clone().unwrap_or_else(|| title.to_owned());
        let mut response = self.render(request_id);
        let body = json!({ "success": false, "message": message, "error": { "code": code } });
        *response.body_mut() = Body::from(body.to_string());
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, json);
        response.headers_mut().remove(CONTENT_LENGTH);
        response
    }
}

impl From<Trouble> for Problem {
    fn from(trouble: Trouble) -> Self {
        Self::new(trouble)
    }
}

impl From<sqlx::Error> for Problem {
    /// Tells what passes by itself from what does not; the cause goes to the log only.
    fn from(error: sqlx::Error) -> Self {
        let code = match &error {
            sqlx::Error::Database(error) => error.code().unwrap_or_default().into_owned(),
            _ => String::new(),
        };
        if once::is_repeated(&error) {
            let text = "another request with this Idempotency-Key came first; ask again";
            return Self::new(Trouble::Conflict).detail(text);
        }
        if let Some(taken) = KeyTaken::from(&error) {
            let problem = Self::new(Trouble::Conflict).detail(taken.to_string());
            return problem.with("job", taken.job);
        }
        if code.starts_with("22") {
            // A data exception, as U+0000 in a text: only the caller can have sent it.
            tracing::debug!(error = %error, "the database refused a value");
            return Self::new(Trouble::Invalid)
                .detail("a value is one that the database cannot hold, U+0000 for example");
        }
        if code == "57014" {
            tracing::warn!(error = %error, "a statement of a request took too long");
            return Self::new(Trouble::Slow);
        }
        if db::is_transient(&error) || matches!(error, sqlx::Error::PoolClosed) {
            tracing::warn!(error = %error, "no database for a request");
            return Self::new(Trouble::Unavailable);
        }
        tracing::error!(error = %error, "request failed");
        Self::new(Trouble::Internal)
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        tracing::error!(error = %error, "request failed");
        Self::new(Trouble::Internal)
    }
}

impl IntoResponse for Problem {
    /// Leaves the problem in the response's extensions, where `layer` finds it.
    fn into_response(self) -> Response {
        let mut response = self.trouble.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
