//! What is sent and what comes back.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// What is done with the thing a URL names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Read it.
    Get,
    /// Send it something.
    Post,
    /// Put something in its place.
    Put,
    /// Take it away.
    Delete,
}

/// A request to be sent.
#[derive(Clone)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// With what: an absolute URL of at most 4 KiB.
    pub url: String,
    /// Headers beside those of the client's own; they go to the first origin only.
    pub headers: Vec<(&'static str, String)>,
    /// What to send.
    pub body: Vec<u8>,
    /// Redirects followed at most; 0: an answer that redirects is the answer.
    pub max_redirects: u8,
    /// Longest time for all of it; `None`, and at most, `fetch.timeout`.
    pub timeout: Option<Duration>,
    /// Largest body that is read, in bytes after decompression; `None`, and at most,
    /// `fetch.max_response_bytes`. With 0 the body is left unread.
    pub max_bytes: Option<u64>,
}

/// Redirects that are followed where the caller says nothing.
const REDIRECTS: u8 = 5;

impl Request {
    /// Asks for what a URL names.
    #[must_use]
    pub fn get(url: impl Into<String>) -> Self {
        Self {
            method: Method::Get,
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            max_redirects: REDIRECTS,
            timeout: None,
            max_bytes: None,
        }
    }

    /// Sends a body to what a URL names.
    #[must_use]
    pub fn post(url: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            method: Method::Post,
            body,
            ..Self::get(url)
        }
    }

    /// Puts a body in the place that a URL names.
    #[must_use]
    pub fn put(url: impl Into<String>, body: Vec<u8>) -> Self {
        Self {
            method: Method::Put,
            body,
            ..Self::get(url)
        }
    }

    /// Takes away what a URL names.
    #[must_use]
    pub fn delete(url: impl Into<String>) -> Self {
        Self {
            method: Method::Delete,
            ..Self::get(url)
        }
    }
}

impl std::fmt::Debug for Request {
    /// Leaves out URL, headers and body: they may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// An answer, whatever its status.
#[derive(Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case and values, in the order they came; values that are no text are left out.
    pub headers: Vec<(String, String)>,
    /// The decompressed body.
    pub body: Vec<u8>,
    /// The URL that answered, after redirects.
    pub url: String,
}

impl Response {
    /// Makes an answer of a status alone, for fakes.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            url: String::new(),
        }
    }

    /// Returns the first header of a name, given in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns how long `Retry-After` (RFC 9110, 10.2.3) asks to wait, given in seconds or as a
    /// date; `None` where it does not say, or not in a way that is understood.
    #[must_use]
    pub fn retry_after(&self, now: DateTime<Utc>) -> Option<Duration> {
        let text = self.header("retry-after")?.trim();
        if let Ok(secs) = text.parse() {
            return Some(Duration::from_secs(secs));
        }
        let date = DateTime::parse_from_rfc2822(text).ok()?;
        Some((date.to_utc() - now).to_std().unwrap_or_default())
    }
}

impl std::fmt::Debug for Response {
    /// Leaves out URL, headers and body: they may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("n_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}
