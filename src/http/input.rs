//! What comes in: JSON bodies, path and query parameters, pages. What does not fit is a [`Problem`].

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    extract::{
        FromRequest, FromRequestParts, OptionalFromRequest, Request,
        rejection::{PathRejection, QueryRejection},
    },
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
};
use http_body_util::LengthLimitError;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::error::Category;
use serde_path_to_error::{Path as Trail, Segment};

use super::{AppState, Problem, layer::Deadline, trouble::Trouble};

/// The parameters in the path.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

impl From<PathRejection> for Problem {
    /// A path whose id is no number names nothing.
    fn from(_: PathRejection) -> Self {
        Self::new(Trouble::NotFound)
    }
}

/// The parameters in the query string.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(Trouble::BadRequest).detail(rejection.body_text())
    }
}

/// A JSON object of at most `http.max_body_bytes`.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<AppState>> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Trouble::UnsupportedMediaType.into());
        }
        let max = usize::try_from(app.config.http.max_body_bytes).unwrap_or(usize::MAX);
        if declared_length(request.headers()).is_some_and(|n| n > max as u64) {
            return Err(too_large(max));
        }
        let deadline = request.extensions().get::<Deadline>().copied();
        parse(&read(request.into_body(), max, deadline).await?).map(Self)
    }
}

impl<T: DeserializeOwned> OptionalFromRequest<Arc<AppState>> for Json<T> {
    type Rejection = Problem;

    /// Takes a request without a `Content-Type` as one without a body.
    async fn from_request(request: Request, app: &Arc<AppState>) -> Result<Option<Self>, Problem> {
        if request.headers().contains_key(CONTENT_TYPE) {
            <Self as FromRequest<Arc<AppState>>>::from_request(request, app)
                .await
                .map(Some)
        } else {
            Ok(None)
        }
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let named = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = named
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// Returns the size that a body says it has.
pub(crate) fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large(max: usize) -> Problem {
    Problem::new(Trouble::TooLarge).detail(format!("at most {max} bytes (http.max_body_bytes)"))
}

/// Reads a body of at most `max` bytes, until the request's deadline.
pub(super) async fn read(
    body: Body,
    max: usize,
    deadline: Option<Deadline>,
) -> Result<Bytes, Problem> {
    let bytes = axum::body::to_bytes(body, max);
    let read = match deadline {
        // The whole request has the same deadline; this future is polled first and wins.
        Some(Deadline(at)) => tokio::time::timeout_at(at.into(), bytes).await,
        None => Ok(bytes.await),
    };
    let read = read.map_err(|_| Problem::new(Trouble::Stalled))?;
    read.map_err(|error| match std::error::Error::source(&error) {
        Some(source) if source.is::<LengthLimitError>() => too_large(max),
        _ => Problem::new(Trouble::BadRequest).detail("the body ended too early"),
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde would also read a struct from an array, by position.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::new(Trouble::BadJson).at("", "expected a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let (pointer, error) = (pointer(error.path()), error.into_inner());
        match error.classify() {
            Category::Data => Problem::new(Trouble::BadJson).at(pointer, error.to_string()),
            _ => broken(&error),
        }
    })?;
    json.end().map_err(|error| broken(&error))?;
    Ok(parsed)
}

/// Where the text is no JSON there is no value to point to, only the whole body.
fn broken(error: &serde_json::Error) -> Problem {
    Problem::new(Trouble::BadJson).at("", error.to_string())
}

/// Writes the way to a value as a JSON pointer (RFC 6901).
fn pointer(trail: &Trail) -> String {
    let mut pointer = String::new();
    for segment in trail {
        let token = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { .. } | Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&token);
    }
    pointer
}

/// The most items of a page.
const MAX_LIMIT: i64 = 200;
const DEFAULT_LIMIT: i64 = 50;

/// How many items a page has, 1 to 200; 50 where nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(i64);

impl Default for Limit {
    fn default() -> Self {
        Self(DEFAULT_LIMIT)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let n = i64::deserialize(from)?;
        if (1..=MAX_LIMIT).contains(&n) {
            return Ok(Self(n));
        }
        Err(serde::de::Error::custom(format!(
            "limit is from 1 to {MAX_LIMIT}"
        )))
    }
}

impl Limit {
    /// Returns how many items the page has at most.
    #[must_use]
    pub const fn n_items(self) -> i64 {
        self.0
    }

    /// Returns how many rows to read: one more than the page has, to see whether another follows.
    #[must_use]
    pub const fn n_read(self) -> i64 {
        self.0 + 1
    }
}

/// Where a page begins. Opaque to callers, so that its making can change: `c` and the last id seen
/// in base 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub i64);

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let id = text
            .strip_prefix('c')
            .and_then(|id| i64::from_str_radix(id, 16).ok());
        let unknown = || serde::de::Error::custom("cursor is none that a page gave");
        id.map(Self).ok_or_else(unknown)
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "c{:x}", self.0)
    }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// Where a page of a list begins that is ordered by a text: as opaque, `t` and the bytes of the last
/// text seen in base 16.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextCursor(pub String);

/// Longest cursor that is read, in characters.
const LONGEST_CURSOR: usize = 20_000;

impl<'de> Deserialize<'de> for TextCursor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let unknown = || serde::de::Error::custom("cursor is none that a page gave");
        read_text(&text).map(Self).ok_or_else(unknown)
    }
}

fn read_text(cursor: &str) -> Option<String> {
    let digits = cursor.strip_prefix('t')?.as_bytes();
    if digits.len() > LONGEST_CURSOR {
        return None;
    }
    let (pairs, rest) = digits.as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = pairs.iter().map(byte).collect();
    let text = String::from_utf8(bytes.filter(|_| rest.is_empty())?).ok()?;
    // Postgres keeps no such text.
    (!text.contains('\0')).then_some(text)
}

impl std::fmt::Display for TextCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("t")?;
        self.0.bytes().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for TextCursor {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// How long a page is, and where it begins: what lists by name take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ByName {
    /// How long it is.
    #[serde(default)]
    pub limit: Limit,
    /// Where it begins; `None`: at the first.
    pub cursor: Option<TextCursor>,
}

impl ByName {
    /// Returns the name to go on after.
    #[must_use]
    pub fn after(&self) -> Option<&str> {
        self.cursor.as_ref().map(|TextCursor(name)| name.as_str())
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T, C = Cursor> {
    items: Vec<T>,
    /// Where the next page begins; null on the last one.
    next_cursor: Option<C>,
}

impl<T> Page<T> {
    /// Makes a page of [`Limit::n_read`] rows; `id` is what the list is ordered by.
    pub fn new(rows: Vec<T>, limit: Limit, id: impl Fn(&T) -> i64) -> Self {
        Self::by(rows, limit, |row| Cursor(id(row)))
    }
}

impl<T, C> Page<T, C> {
    /// Makes a page of [`Limit::n_read`] rows; `place` is where the page after a row begins.
    pub fn by(mut rows: Vec<T>, limit: Limit, place: impl Fn(&T) -> C) -> Self {
        let n_items = usize::try_from(limit.0).unwrap_or(usize::MAX);
        let has_more = rows.len() > n_items;
        rows.truncate(n_items);
        let next_cursor = rows.last().filter(|_| has_more).map(place);
        Self {
            items: rows,
            next_cursor,
        }
    }

    /// Returns the items, and where the next page begins.
    pub(super) fn into_parts(self) -> (Vec<T>, Option<C>) {
        (self.items, self.next_cursor)
    }
}

#[cfg(test)]
#[path = "input_tests.rs"]
mod tests;
