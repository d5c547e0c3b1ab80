//! The connection that questions are asked on, one at a time.

use std::{io, time::Duration};

use tokio::time::timeout;

use super::{
    reply::{self, Reply},
    stream::{Encryption, Stream},
};
use crate::fetch::FetchError;

/// Longest line of an answer, in bytes.
const LONGEST_LINE: usize = 4096;

/// Most lines of an answer.
const MOST_LINES: usize = 500;

/// Most answers that announce another one.
const MOST_WAITS: usize = 5;

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Control {
    stream: Stream,
    /// What came behind the last answer.
    rest: Vec<u8>,
    /// The server, for errors.
    host: String,
    /// Longest silence.
    silence: Duration,
}

impl Control {
    pub(super) const fn new(stream: Stream, host: String, silence: Duration) -> Self {
        Self {
            stream,
            rest: Vec::new(),
            host,
            silence,
        }
    }

    /// Goes on over TLS.
    ///
    /// What came before, in the clear, anybody may have put in: it is no answer to anything that
    /// is asked from here on.
    pub(super) async fn encrypted(
        self,
        by: &Encryption,
        limit: Duration,
    ) -> Result<Self, FetchError> {
        if !self.rest.is_empty() {
            return Err(self.broken("it went on in the clear where TLS was to begin"));
        }
        let Self { host, silence, .. } = self;
        let Stream::Plain(tcp) = self.stream else {
            return Ok(Self {
                stream: self.stream,
                rest: self.rest,
                host,
                silence,
            });
        };
        match timeout(limit, by.wrap(tcp)).await {
            Ok(Ok(stream)) => Ok(Self::new(stream, host, silence)),
            Ok(Err(error)) => Err(FetchError::Connect {
                host,
                why: error.to_string(),
            }),
            Err(_) => Err(FetchError::Timeout(host)),
        }
    }

    /// Sends a command, which has one line, and returns the answer.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Reply, FetchError> {
        self.send(command).await?;
        self.answer().await
    }

    /// Sends a command without waiting for the answer.
    pub(super) async fn send(&mut self, command: &str) -> Result<(), FetchError> {
        // Everything in it was judged; this is the belt to the braces.
        if command.contains(char::is_control) {
            return Err(FetchError::BadUrl("it or the login has control characters"));
        }
        let line = format!("{command}\r\n");
        match timeout(self.silence, self.stream.write(line.as_bytes())).await {
            Ok(sent) => sent.map_err(|error| self.broken_by(&error)),
            Err(_) => Err(FetchError::Timeout(self.host.clone())),
        }
    }

    /// Returns the next answer.
    pub(super) async fn answer(&mut self) -> Result<Reply, FetchError> {
        let line = self.line().await?;
        let begun = reply::begun(&line);
        let (code, is_whole) = begun.ok_or_else(|| self.broken("what it says is no FTP"))?;
        if is_whole {
            return Ok(reply::ended(code, &line));
        }
        for _ in 0..MOST_LINES {
            let line = self.line().await?;
            if reply::begun(&line) == Some((code, true)) {
                return Ok(reply::ended(code, &line));
            }
        }
        Err(self.broken("an answer of it has no end"))
    }

    /// Returns the next answer that is more than a request to wait.
    pub(super) async fn settled(&mut self) -> Result<Reply, FetchError> {
        for _ in 0..MOST_WAITS {
            let reply = self.answer().await?;
            if reply.code >= 200 {
                return Ok(reply);
            }
        }
        Err(self.broken("it asks to wait and to wait again"))
    }

    async fn line(&mut self) -> Result<Vec<u8>, FetchError> {
        let mut piece = [0; 1024];
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.rest) {
                let mut line: Vec<u8> = self.rest.drain(..=end).collect();
                while matches!(line.last(), Some(b'\n' | b'\r')) {
                    line.pop();
                }
                return Ok(line);
            }
            if self.rest.len() > LONGEST_LINE {
                return Err(self.broken("a line of it has no end"));
            }
            let come = timeout(self.silence, self.stream.read(&mut piece)).await;
            let come = come.map_err(|_| FetchError::Timeout(self.host.clone()))?;
            match come.map_err(|error| self.broken_by(&error))? {
                0 => return Err(self.broken("it hung up")),
                n_bytes => self
                    .rest
                    .extend_from_slice(piece.get(..n_bytes).unwrap_or_default()),
            }
        }
    }

    pub(super) fn broken(&self, why: &str) -> FetchError {
        FetchError::Broken {
            host: self.host.clone(),
            why: why.to_owned(),
        }
    }

    pub(super) fn broken_by(&self, error: &io::Error) -> FetchError {
        self.broken(&error.to_string())
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) const fn silence(&self) -> Duration {
        self.silence
    }

    /// Says how a step was refused.
    pub(super) fn refused(&self, reply: &Reply, advice: &'static str) -> FetchError {
        FetchError::Ftp {
            host: self.host.clone(),
            code: reply.code,
            advice,
        }
    }
}
