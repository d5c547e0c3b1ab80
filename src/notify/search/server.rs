//! The search server: the requests that are sent, and what its answers mean.

use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::document;
use crate::{
    config::{self, Config},
    fetch::{Client, FetchError, Origin, Request, Response},
};

/// Largest answer, in bytes: lines that are refused come back with their document, whose quotes
/// are escaped.
const MOST_ANSWER: u64 = 16 << 20;

/// Longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 500;

/// How long to leave a busy server alone that does not say.
const BUSY_WAIT: Duration = Duration::from_secs(10);

/// Longest time that `Retry-After` puts the work off.
const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Documents removed by one request: their ids stand in its URL.
pub(super) const MOST_REMOVED: usize = 100;

/// Why an exchange came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// It asked to be left alone for a while.
    #[error("the search server is busy ({status}); it is left alone for {}", shown(.wait))]
    Busy { status: u16, wait: Duration },
    /// There is no such collection.
    #[error("the search server has no collection {0}")]
    Missing(String),
    /// It does not know the key.
    #[error("the search server refuses search.api_key ({0})")]
    Denied(u16),
    /// A request that was not sent or not answered.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Anything else.
    #[error("the search server answered {what} with {status}: {said}")]
    Odd {
        what: &'static str,
        status: u16,
        said: String,
    },
}

fn shown(wait: &Duration) -> humantime::FormattedDuration {
    humantime::format_duration(*wait)
}

impl Trouble {
    /// Some lines of an import were put off by the server.
    pub(super) const fn some_busy() -> Self {
        Self::Busy {
            status: 200,
            wait: BUSY_WAIT,
        }
    }
}

/// What became of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Taken,
    Refused(String),
    /// Not now: the server has trouble of its own.
    Busy,
}

/// The configured server.
#[derive(Debug)]
pub(super) struct Server {
    client: Client,
    origin: Origin,
    key: String,
    timeout: Duration,
}

impl Server {
    /// Makes a way to the configured server; `None` where there is none.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let config::Search {
            api_key, timeout, ..
        } = &config.search;
        let origin = config.search.origin()?;
        let key = api_key.as_ref()?.expose_secret().to_owned();
        Some(Self {
            client: Client::only(&config.fetch, origin.clone(), MOST_ANSWER),
            origin,
            key,
            timeout: *timeout,
        })
    }

    async fn send(&self, mut request: Request) -> Result<Response, Trouble> {
        request
            .headers
            .push(("x-typesense-api-key", self.key.clone()));
        request.max_redirects = 0;
        request.timeout = Some(self.timeout);
        Ok(self.client.send(request).await?)
    }

    fn json(&self, put: bool, path: &str, body: &Value) -> Request {
        let body = body.to_string().into_bytes();
        let url = self.origin.url(path);
        let mut request = if put {
            Request::put(url, body)
        } else {
            Request::post(url, body)
        };
        request
            .headers
            .push(("content-type", "application/json".to_owned()));
        request
    }

    /// Sends lines of documents; returns what became of each, in their order.
    pub(super) async fn import(
        &self,
        collection: &str,
        body: String,
        n_lines: usize,
        now: DateTime<Utc>,
    ) -> Result<Vec<Line>, Trouble> {
        let path = format!("/collections/{collection}/documents/import?action=upsert");
        let mut request = Request::post(self.origin.url(&path), body.into_bytes());
        request
            .headers
            .push(("content-type", "text/plain".to_owned()));
        let response = self.send(request).await?;
        if response.status != 200 {
            return Err(judged("an import", collection, &response, now));
        }
        lines(&response.body, n_lines).ok_or_else(|| Trouble::Odd {
            what: "an import",
            status: 200,
            said: format!("there is not one line for each of {n_lines}"),
        })
    }

    /// Removes documents, at most [`MOST_REMOVED`]; one that is not there is as good as removed.
    pub(super) async fn remove(
        &self,
        collection: &str,
        ids: &[i64],
        now: DateTime<Utc>,
    ) -> Result<(), Trouble> {
        let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
        let filter = format!("id%3A%5B{}%5D", ids.join("%2C"));
        let path = format!("/collections/{collection}/documents?filter_by={filter}");
        let response = self.send(Request::delete(self.origin.url(&path))).await?;
        match response.status {
            200 => Ok(()),
            _ => Err(judged("a removal", collection, &response, now)),
        }
    }

    /// Makes a collection; one of that name that is there already is as good.
    pub(super) async fn create(
        &self,
        name: &str,
        settings: &config::Search,
        now: DateTime<Utc>,
    ) -> Result<(), Trouble> {
        let schema = document::schema(name, settings);
        let response = self.send(self.json(false, "/collections", &schema)).await?;
        match response.status {
            201 | 409 => Ok(()),
            _ => Err(judged("a new collection", name, &response, now)),
        }
    }

    /// Returns the name of the collection that a name leads to, `None` where there is none.
    pub(super) async fn resolve(
        &self,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<Option<String>, Trouble> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let url = self.origin.url(&format!("/collections/{name}"));
        let response = self.send(Request::get(url)).await?;
        match response.status {
            404 => Ok(None),
            200 => match serde_json::from_slice::<Named>(&response.body) {
                Ok(named) => Ok(Some(named.name)),
                Err(_) => Err(judged("a look at a collection", name, &response, now)),
            },
            _ => Err(judged("a look at a collection", name, &response, now)),
        }
    }

    /// Leads an alias to a collection, at once and for everybody.
    pub(super) async fn point(
        &self,
        alias: &str,
        collection: &str,
        now: DateTime<Utc>,
    ) -> Result<(), Trouble> {
        let body = json!({ "collection_name": collection });
        let path = format!("/aliases/{alias}");
        let response = self.send(self.json(true, &path, &body)).await?;
        match response.status {
            200 => Ok(()),
            _ => Err(judged("an alias", collection, &response, now)),
        }
    }

    /// Drops a collection; one that is not there is as good as dropped.
    pub(super) async fn drop(&self, name: &str, now: DateTime<Utc>) -> Result<(), Trouble> {
        let url = self.origin.url(&format!("/collections/{name}"));
        let response = self.send(Request::delete(url)).await?;
        match response.status {
            200 | 404 => Ok(()),
            _ => Err(judged("a drop", name, &response, now)),
        }
    }
}

/// Says what an answer means that is not the one hoped for.
fn judged(
    what: &'static str,
    collection: &str,
    response: &Response,
    now: DateTime<Utc>,
) -> Trouble {
    let status = response.status;
    match status {
        // 422: it takes no writes for want of memory or disk. 503: it is lagging behind its peers.
        422 | 429 | 503 => {
            let wait = response.retry_after(now).unwrap_or(BUSY_WAIT);
            let wait = wait.clamp(Duration::from_secs(1), LONGEST_WAIT);
            Trouble::Busy { status, wait }
        }
        404 => Trouble::Missing(collection.to_owned()),
        401 | 403 => Trouble::Denied(status),
        _ => Trouble::Odd {
            what,
            status,
            said: said(&response.body),
        },
    }
}

/// Returns the reason that an answer gives, cut.
fn said(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    let parsed = serde_json::from_slice::<Message>(body).map(|said| said.message);
    cut(parsed.unwrap_or_else(|_| "no reason".to_owned()))
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_REASON));
    text.replace('\0', "\u{fffd}")
}

/// Reads one verdict a line; `None` where there are not as many as lines were sent, or one does
/// not parse.
fn lines(body: &[u8], n_lines: usize) -> Option<Vec<Line>> {
    #[derive(Deserialize)]
    struct Verdict {
        success: bool,
        code: Option<u16>,
        error: Option<String>,
    }
    let mut found = Vec::with_capacity(n_lines);
    for line in body.split(|byte| *byte == b'\n') {
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let verdict: Verdict = serde_json::from_slice(line).ok()?;
        found.push(match verdict {
            Verdict { success: true, .. } => Line::Taken,
            Verdict {
                code: Some(429 | 500..),
                ..
            } => Line::Busy,
            Verdict { error, .. } => Line::Refused(cut(error.unwrap_or_default())),
        });
    }
    (found.len() == n_lines).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_belong_to_lines_by_their_place() {
        let body = br#"{"success":true}
{"code":400,"document":"{\"id\":\"2\"}","error":"Field `price` must be a float.","success":false}
{"code":503,"error":"busy","success":false}
"#;
        let refused = Line::Refused("Field `price` must be a float.".to_owned());
        assert_eq!(lines(body, 3), Some(vec![Line::Taken, refused, Line::Busy]));
        assert_eq!(lines(body, 2), None);
        assert_eq!(lines(body, 4), None);
        assert_eq!(lines(b"", 0), Some(Vec::new()));
        assert_eq!(lines(b"{\"success\":tr", 1), None);
    }

    #[test]
    fn a_busy_server_says_when_to_come_back() {
        let answer = |status, after: Option<&str>| {
            let mut response = Response::of(status);
            let header = after.map(|value| ("retry-after".to_owned(), value.to_owned()));
            response.headers.extend(header);
            let now = "2026-11-27T12:00:00Z".parse().unwrap();
            judged("an import", "c", &response, now)
        };
        let wait = |status, after| match answer(status, after) {
            Trouble::Busy { wait, .. } => wait.as_secs(),
            other => panic!("{other}"),
        };
        for status in [422, 429, 503] {
            assert_eq!(wait(status, None), 10);
            assert_eq!(wait(status, Some("120")), 120);
            assert_eq!(wait(status, Some("0")), 1);
            assert_eq!(wait(status, Some("999999999")), 3600);
            assert_eq!(wait(status, Some("Fri, 27 Nov 2026 12:01:30 GMT")), 90);
        }
        assert!(matches!(answer(404, None), Trouble::Missing(name) if name == "c"));
        assert!(matches!(answer(401, None), Trouble::Denied(401)));
        assert!(matches!(
            answer(500, None),
            Trouble::Odd { status: 500, .. }
        ));
    }
}
