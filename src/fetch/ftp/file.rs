//! A file that comes, piece by piece.

use std::{io, time::Instant};

use tokio::time::{timeout, timeout_at};

use super::{control::Control, session::Version, stream::Stream};
use crate::fetch::FetchError;

/// How much is read at once, in bytes.
const PIECE: usize = 64 << 10;

const BROKE_OFF: &str = ", the file broke off";

/// A file that is taken piece by piece.
#[derive(Debug)]
pub struct FtpFile {
    control: Control,
    /// Where it comes from; `None` once it is whole.
    data: Option<Stream>,
    path: String,
    said: Version,
    max_bytes: u64,
    n_taken: u64,
    until: Instant,
}

impl FtpFile {
    pub(super) const fn begin(
        control: Control,
        data: Stream,
        path: String,
        said: Version,
        max_bytes: u64,
        until: Instant,
    ) -> Self {
        Self {
            control,
            data: Some(data),
            path,
            said,
            max_bytes,
            n_taken: 0,
            until,
        }
    }

    /// Returns how many bytes the server says it has.
    #[must_use]
    pub const fn n_bytes(&self) -> Option<u64> {
        self.said.n_bytes
    }

    /// Returns what tells this version of it from another: its size and when it was changed. `None`
    /// where the server does not say both.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        self.said.known()
    }

    /// Returns the next piece; `None` at the end of a file that came whole.
    ///
    /// # Errors
    ///
    /// It is larger than its limit, took longer, broke off, or is not the one it was when it began
    /// to come.
    pub async fn piece(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        let late = FetchError::Timeout(self.control.host().to_owned());
        let next = timeout_at(self.until.into(), self.next());
        next.await.unwrap_or(Err(late))
    }

    async fn next(&mut self) -> Result<Option<Vec<u8>>, FetchError> {
        let Some(data) = &mut self.data else {
            return Ok(None);
        };
        let mut piece = vec![0; PIECE];
        let come = timeout(self.control.silence(), data.read(&mut piece)).await;
        let come = come.map_err(|_| FetchError::Timeout(self.control.host().to_owned()))?;
        let n_bytes = match come {
            // TLS that ends without a word may have been cut off; not where all bytes are there.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && self.is_all_there() => 0,
            Ok(n_bytes) => n_bytes,
            Err(error) => return Err(self.broken_off(&error).await),
        };
        if n_bytes == 0 {
            return self.end().await.map(|()| None);
        }
        piece.truncate(n_bytes);
        self.n_taken += n_bytes as u64;
        if self.n_taken > self.max_bytes {
            return Err(FetchError::TooLarge(self.max_bytes));
        }
        Ok(Some(piece))
    }

    /// Says why the file broke off: the server, where it does, knows better than the connection.
    async fn broken_off(&mut self, error: &io::Error) -> FetchError {
        match self.control.answer().await {
            Ok(reply) if reply.code >= 400 => self.control.refused(&reply, BROKE_OFF),
            _ => self.control.broken(&format!("the file broke off: {error}")),
        }
    }

    fn is_all_there(&self) -> bool {
        self.said.n_bytes == Some(self.n_taken)
    }

    /// Sees to it that the file came whole: a connection that ends says nothing of the sort.
    async fn end(&mut self) -> Result<(), FetchError> {
        if let Some(mut data) = self.data.take() {
            // Some servers wait for it; those that do not have closed theirs.
            timeout(self.control.silence(), data.close()).await.ok();
        }
        let reply = self.control.answer().await?;
        if !matches!(reply.code, 226 | 250) {
            return Err(self.control.refused(&reply, BROKE_OFF));
        }
        if let Some(n_bytes) = self.said.n_bytes
            && n_bytes != self.n_taken
        {
            let why = format!("{} bytes came of the {n_bytes} it has", self.n_taken);
            return Err(self.control.broken(&why));
        }
        if self.version().is_some() {
            let now = Version::of(&mut self.control, &self.path).await?;
            if now != self.said {
                return Err(self.control.broken("the file changed while it came"));
            }
        }
        self.control.send("QUIT").await.ok(); // it has sent all that is needed
        Ok(())
    }
}
