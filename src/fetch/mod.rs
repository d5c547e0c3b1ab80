//! The one way out: every request that ingestd sends over HTTP or FTP passes here.
//!
//! URLs come from people, so each is judged before anything is sent, and what is
//! judged is what is connected to: a host is resolved once, **every** address of
//! the answer is checked, and only those addresses are connected to. Redirects
//! are followed by hand, each as if it were a new URL. Nothing is read from the
//! environment: a proxy would connect in our stead, unjudged.
//!
//! | file | what it decides |
//! |---|---|
//! | `address` | which addresses may be connected to |
//! | `target` | which URLs may be asked for |
//! | `origin` | the one server that a client may be made for |
//! | `resolve` | names to addresses, all of them checked |
//! | `redirect` | where an answer sends us, and what goes along |
//! | `body` | how much of an answer is read |
//! | `client` | the request itself |
//! | `download` | the same for a file, piece by piece |
//! | `ftp` | the same for a file of an FTP server |
//!
//! No other module may name the crates that connect; a test looks.

mod address;
mod body;
mod client;
mod download;
mod error;
mod fake;
mod ftp;
mod message;
mod origin;
mod redirect;
mod resolve;
mod target;

pub use address::{BadNetwork, Network};
pub use client::Client;
pub use download::Download;
pub use error::FetchError;
pub use fake::Fake;
pub use ftp::{FtpFile, FtpRequest};
pub use message::{Method, Request, Response};
pub use origin::Origin;

/// Judges a URL as far as that is possible without asking anybody: a name may still turn out to
/// lead to an address that is not reached.
///
/// # Errors
///
/// Why a request to it would not be sent.
pub fn check(settings: &crate::config::Fetch, url: &str) -> Result<(), FetchError> {
    target::Rules::new(settings).target(url).map(|_| ())
}

/// As [`check`], for a file of an FTP server: an `ftp` or `ftps` URL.
///
/// # Errors
///
/// Why it would not be asked for.
pub fn check_ftp(settings: &crate::config::Fetch, url: &str) -> Result<(), FetchError> {
    ftp::check(&target::Rules::new(settings), url)
}

/// Sends requests, or in a test only notes them.
#[derive(Debug, Clone)]
pub enum Fetcher {
    /// Over the network, within the limits of `[fetch]`.
    Real(Client),
    /// To nobody: answers as the test said.
    Fake(Fake),
}

impl Fetcher {
    /// Makes the real one.
    #[must_use]
    pub fn new(settings: &crate::config::Fetch) -> Self {
        Self::Real(Client::new(settings))
    }

    /// Sends a request and reads the answer, whatever its status.
    ///
    /// # Errors
    ///
    /// [`FetchError`], whose text names the host but never the path, the query or a header: those
    /// may hold secrets.
    pub async fn send(&self, request: Request) -> Result<Response, FetchError> {
        match self {
            Self::Real(client) => client.send(request).await,
            Self::Fake(fake) => fake.send(request),
        }
    }
}

#[cfg(test)]
mod tests;
