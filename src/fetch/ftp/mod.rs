//! Files of FTP servers (RFC 959), in the clear or over TLS (RFC 4217).
//!
//! A file is read in binary mode over a passive connection: by `EPSV` (RFC 2428), or `PASV` where
//! the server does not know that. `SIZE` and `MDTM` (RFC 3659), where it knows them, say before
//! the file comes whether it is another one than last time, and after it whether it came whole.
//!
//! A server names the port that a file comes from, and with `PASV` an address. The address is
//! ignored: nothing is connected to but that of the first connection, which was judged.
//!
//! | file | what it decides |
//! |---|---|
//! | `place` | which URLs may be asked for |
//! | `stream` | connections, and whom to trust |
//! | `reply` | what an answer says |
//! | `control` | one question and its answer |
//! | `session` | from the first connection to the file |
//! | `file` | the file, piece by piece |

mod control;
mod file;
mod place;
mod reply;
mod session;
mod stream;

use std::time::{Duration, Instant};

use secrecy::SecretString;

pub use self::file::FtpFile;
pub(super) use self::stream::Trust;
use self::{place::Place, session::Session};
use super::{FetchError, Fetcher, target::Rules};

/// A file that is asked for.
#[derive(Clone)]
pub struct FtpRequest {
    /// Where: `ftp://HOST[:PORT]/PATH`, or `ftps:` for TLS, which begins at once on port 990 and
    /// with `AUTH TLS` on others. The path is below the folder of the login, and from the root
    /// where it begins with two slashes.
    pub url: String,
    /// User and password; `None`: anonymous.
    pub login: Option<(String, SecretString)>,
    /// What [`FtpFile::version`] was: a file that has the same is not sent again.
    pub known: Option<String>,
}

impl std::fmt::Debug for FtpRequest {
    /// Leaves out all of it, as that of other requests.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FtpRequest").finish_non_exhaustive()
    }
}

/// Judges a URL as [`super::check`] does.
pub(super) fn check(rules: &Rules, url: &str) -> Result<(), FetchError> {
    Place::of(rules, url).map(|_| ())
}

impl Fetcher {
    /// Asks for a file and returns once it begins to come; `None`: it is the version known.
    ///
    /// The limits are those of [`Fetcher::download`].
    ///
    /// # Errors
    ///
    /// As [`Fetcher::send`]; the server lets nobody of the login in, has no such file, or one
    /// that is larger than `max_bytes`.
    pub async fn ftp(
        &self,
        request: FtpRequest,
        max_bytes: u64,
        timeout: Duration,
    ) -> Result<Option<FtpFile>, FetchError> {
        let Self::Real(client) = self else {
            let why = "the fake one asks no FTP servers".to_owned();
            return Err(FetchError::Unready(why));
        };
        let until = Instant::now() + timeout;
        let place = Place::of(client.rules(), &request.url)?;
        let late = FetchError::Timeout(place.shown());
        let begun = Box::pin(Session::begin(client, place, &request, max_bytes, until));
        let begun = tokio::time::timeout_at(until.into(), begun).await;
        begun.unwrap_or(Err(late))
    }
}

#[cfg(test)]
mod tests;
