//! The real client.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use reqwest::{
    Url,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue},
};

use super::{
    FetchError, Method, Request, Response,
    body::Body,
    ftp::Trust,
    origin::Origin,
    redirect,
    resolve::{Guard, Lookup, System},
    target::{Rules, place},
};
use crate::config;

/// Idle connections kept to one host, and for how long.
const IDLE: (usize, Duration) = (4, Duration::from_secs(30));

/// Headers of an answer at most; with the reader's own limit on their size the answer's head is
/// bounded.
const MOST_HEADERS: usize = 100;

/// Sends requests within the limits of `[fetch]`. Clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    http: Result<reqwest::Client, String>,
    rules: Arc<Rules>,
    /// What HTTP's connections pass, for those of other protocols.
    pub(super) guard: Guard,
    pub(super) trust: Trust,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    timeout: Duration,
    max_bytes: u64,
}

impl Client {
    /// Makes a client of these limits.
    ///
    /// A machine without certificates to trust makes none; every request says so then, and the
    /// daemon does its other work.
    #[must_use]
    pub fn new(settings: &config::Fetch) -> Self {
        Self::make(settings, Rules::new(settings), Arc::new(System))
    }

    /// Makes a client that asks one server and no other; answers of up to `max_bytes` are read.
    #[must_use]
    pub fn only(settings: &config::Fetch, origin: Origin, max_bytes: u64) -> Self {
        let rules = Rules::only(settings, origin);
        Self {
            max_bytes,
            ..Self::make(settings, rules, Arc::new(System))
        }
    }

    #[cfg(test)]
    pub(super) fn with_lookup(settings: &config::Fetch, lookup: Arc<dyn Lookup>) -> Self {
        Self::make(settings, Rules::new(settings), lookup)
    }

    pub(super) fn make(settings: &config::Fetch, rules: Rules, lookup: Arc<dyn Lookup>) -> Self {
        let rules = Arc::new(rules);
        let guard = Guard {
            rules: Arc::clone(&rules),
            lookup,
        };
        // Refused only where there is one already, which is as good.
        drop(rustls::crypto::ring::default_provider().install_default());
        let http = reqwest::Client::builder()
            .user_agent(&settings.user_agent)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .dns_resolver(Arc::new(guard.clone()))
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .pool_max_idle_per_host(IDLE.0)
            .pool_idle_timeout(IDLE.1)
            .http1_max_headers(MOST_HEADERS)
            .http1_only()
            .build();
        Self {
            http: http.map_err(|error| causes(&error)),
            rules,
            guard,
            trust: Trust::default(),
            connect_timeout: settings.connect_timeout,
            read_timeout: settings.read_timeout,
            timeout: settings.timeout,
            max_bytes: settings.max_response_bytes,
        }
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Sends a request and reads the answer, whatever its status.
    ///
    /// # Errors
    ///
    /// As [`super::Fetcher::send`].
    pub async fn send(&self, request: Request) -> Result<Response, FetchError> {
        let url = self.rules.target(&request.url)?;
        let limit = request.timeout.unwrap_or(self.timeout).min(self.timeout);
        let late = FetchError::Timeout(place(&url));
        let sent = tokio::time::timeout(limit, self.follow(url, request));
        sent.await.unwrap_or(Err(late))
    }

    async fn follow(&self, mut url: Url, mut request: Request) -> Result<Response, FetchError> {
        let max = request.max_redirects;
        for _ in 0..=max {
            let response = self.exchange(&url, &request).await?;
            let location = redirect::location(&response).filter(|_| max > 0);
            let Some(location) = location else {
                return Ok(response);
            };
            url = redirect::follow(&self.rules, &url, &response, location, &mut request)?;
        }
        Err(FetchError::TooManyRedirects(max))
    }

    /// Sends one request to a URL that was judged, and reads the answer.
    async fn exchange(&self, url: &Url, request: &Request) -> Result<Response, FetchError> {
        let response = self.begin(url, request, "gzip").await?;
        let max = request.max_bytes.unwrap_or(self.max_bytes);
        read(url, response, max.min(self.max_bytes)).await
    }

    /// Sends one request to a URL that was judged; the answer's body is still to come.
    pub(super) async fn begin(
        &self,
        url: &Url,
        request: &Request,
        encoding: &'static str,
    ) -> Result<reqwest::Response, FetchError> {
        let http = self.http.as_ref();
        let http = http.map_err(|why| FetchError::Unready(why.clone()))?;
        let mut sending = match request.method {
            Method::Get => http.get(url.clone()),
            Method::Post => http.post(url.clone()).body(request.body.clone()),
            Method::Put => http.put(url.clone()).body(request.body.clone()),
            Method::Delete => http.delete(url.clone()),
        };
        sending = sending.header(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        for (name, value) in &request.headers {
            sending = sending.header(*name, value);
        }
        let sent = sending.send().await;
        let response = sent.map_err(|error| explained(url, error))?;
        // The guard saw to it before the connection; this is the belt to the braces.
        if let Some(address) = response.remote_addr() {
            let host = url.host_str().unwrap_or_default();
            self.rules.judge_address(host, address.ip())?;
        }
        Ok(response)
    }
}

/// Returns an answer without its body.
pub(super) fn head(url: &Url, response: &reqwest::Response) -> Response {
    let text = |(name, value): (&reqwest::header::HeaderName, &HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    Response {
        status: response.status().as_u16(),
        headers: response.headers().iter().filter_map(text).collect(),
        body: Vec::new(),
        url: url.to_string(),
    }
}

async fn read(
    url: &Url,
    mut response: reqwest::Response,
    max: u64,
) -> Result<Response, FetchError> {
    let mut answer = head(url, &response);
    let headers = response.headers();
    // What a redirect says beside its location is not read.
    if max == 0 || redirect::location(&answer).is_some() {
        return Ok(answer);
    }
    let encodings = headers.get_all(CONTENT_ENCODING).iter();
    let encodings: Vec<&str> = encodings
        .flat_map(|value| value.to_str().unwrap_or("?").split(','))
        .map(str::trim)
        .collect();
    let mut body = Body::new(&encodings, max)?;
    loop {
        let piece = response.chunk().await;
        let Some(piece) = piece.map_err(|error| explained(url, error))? else {
            break;
        };
        body.push(&piece)?;
    }
    answer.body = body.finish()?;
    Ok(answer)
}

/// Says what went wrong, in our words where we said it first, without the URL.
pub(super) fn explained(url: &Url, error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(this) = cause {
        if let Some(ours) = this.downcast_ref::<FetchError>() {
            return ours.clone();
        }
        cause = this.source();
    }
    let host = place(url);
    if error.is_timeout() {
        return FetchError::Timeout(host);
    }
    let why = causes(&error);
    if error.is_connect() {
        FetchError::Connect { host, why }
    } else {
        FetchError::Broken { host, why }
    }
}

/// Longest explanation, in bytes.
const LONGEST_WHY: usize = 300;

/// Tells the causes of an error, the innermost two at most.
fn causes(error: &reqwest::Error) -> String {
    let mut chain = Vec::new();
    let mut cause = error.source();
    while let Some(this) = cause {
        chain.push(this.to_string());
        cause = this.source();
    }
    let from = chain.len().saturating_sub(2);
    let mut why = chain.split_off(from).join(": ");
    if why.is_empty() {
        why = error.to_string();
    }
    why.truncate(why.floor_char_boundary(LONGEST_WHY));
    why
}
