//! Large answers, piece by piece: a file goes to disk as it comes and is never held in memory.

use std::time::{Duration, Instant};

use reqwest::Url;

use super::{
    Client, FetchError, Fetcher, Request, Response,
    client::{explained, head},
    redirect,
    target::place,
};

/// An answer whose body is taken piece by piece.
#[derive(Debug)]
pub struct Download {
    /// The answer without its body.
    pub head: Response,
    body: Pieces,
    max: u64,
    n_taken: u64,
    until: Instant,
}

#[derive(Debug)]
enum Pieces {
    Coming(Box<(Url, reqwest::Response)>),
    /// A fake's whole body.
    Whole(Option<Vec<u8>>),
}

impl Fetcher {
    /// Sends a request and returns once the answer's head is there.
    ///
    /// The body is asked for as it is, without compression, and has `max_bytes` and `timeout`,
    /// from now to its last piece, as limits of its own: those of `[fetch]` are meant for small
    /// answers. Its longest silence is that of `[fetch]`. Where requests may go is decided as for
    /// any other. `request.max_bytes` and `request.timeout` do not count.
    ///
    /// # Errors
    ///
    /// As [`Fetcher::send`]; an answer that says it is larger than `max_bytes`, or that is
    /// compressed all the same.
    pub async fn download(
        &self,
        request: Request,
        max_bytes: u64,
        timeout: Duration,
    ) -> Result<Download, FetchError> {
        let until = Instant::now() + timeout;
        match self {
            Self::Real(client) => client.download(request, max_bytes, until).await,
            Self::Fake(fake) => {
                let mut head = fake.send(request)?;
                let body = std::mem::take(&mut head.body);
                Ok(Download {
                    head,
                    body: Pieces::Whole(Some(body)),
                    max: max_bytes,
                    n_taken: 0,
                    until,
                })
            }
        }
    }
}

impl Client {
    async fn download(
        &self,
        request: Request,
        max: u64,
        until: Instant,
    ) -> Result<Download, FetchError> {
        let url = self.rules().target(&request.url)?;
        let late = FetchError::Timeout(place(&url));
        let begun = tokio::time::timeout_at(until.into(), self.open(url, request)).await;
        let (url, response) = begun.unwrap_or(Err(late))?;
        let head = head(&url, &response);
        let encoding = head.header("content-encoding").unwrap_or("identity");
        if !encoding.trim().eq_ignore_ascii_case("identity") {
            return Err(FetchError::Encoding);
        }
        // Only what will be taken counts: an error's page is left unread.
        if head.status == 200 && response.content_length().is_some_and(|n| n > max) {
            return Err(FetchError::TooLarge(max));
        }
        Ok(Download {
            head,
            body: Pieces::Coming(Box::new((url, response))),
            max,
            n_taken: 0,
            until,
        })
    }

    /// Follows redirects to the answer itself.
    async fn open(
        &self,
        mut url: Url,
        mut request: Request,
    ) -> Result<(Url, reqwest::Response), FetchError> {
        let max = request.max_redirects;
        for _ in 0..=max {
            let response = self.begin(&url, &request, "identity").await?;
            let answer = head(&url, &response);
            let Some(location) = redirect::location(&answer).filter(|_| max > 0) else {
                return Ok((url, response));
            };
            url = redirect::follow(self.rules(), &url, &answer, location, &mut request)?;
        }
        Err(FetchError::TooManyRedirects(max))
    }
}

impl Download {
    /// Returns the body's next piece; `None` at its end.
    ///
    /// # Errors
    ///
    /// The body is larger than its limit, took longer, or broke off.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        let piece = match &mut self.body {
            Pieces::Whole(whole) => whole.take(),
            Pieces::Coming(coming) => {
                let (url, response) = &mut **coming;
                let come = tokio::time::timeout_at(self.until.into(), response.chunk()).await;
                let come = come.map_err(|_| FetchError::Timeout(place(url)))?;
                come.map_err(|error| explained(url, error))?.map(Vec::from)
            }
        };
        self.n_taken += piece.as_ref().map_or(0, |piece| piece.len() as u64);
        if self.n_taken > self.max {
            return Err(FetchError::TooLarge(self.max));
        }
        Ok(piece)
    }
}
