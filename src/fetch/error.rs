//! Why a request was not sent or not answered.

use std::net::IpAddr;

/// Why a request was not sent or not answered. The text names at most the host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The URL does not parse, or is one that no honest sender writes.
    #[error("bad URL: {0}")]
    BadUrl(&'static str),
    /// Another scheme than http and https.
    #[error("bad URL: only http and https are fetched")]
    Scheme,
    /// A port that `fetch.ports` does not list.
    #[error("port {0} is not among fetch.ports")]
    Port(u16),
    /// A port that `fetch.ftp_ports` does not list.
    #[error("port {0} is not among fetch.ftp_ports")]
    FtpPort(u16),
    /// An address that is none of the public Internet.
    #[error(
        "{host} is at {address}, which is {why}; only public addresses are fetched, and those of \
         networks that fetch.allow_private lists"
    )]
    Address {
        /// The host asked for.
        host: String,
        /// One of its addresses.
        address: IpAddr,
        /// What the address is.
        why: &'static str,
    },
    /// The name has no address.
    #[error("{0} cannot be resolved")]
    Dns(String),
    /// No connection: refused, unreachable, or no TLS that can be trusted.
    #[error("cannot connect to {host}: {why}")]
    Connect {
        /// The host asked for.
        host: String,
        /// What the system or the TLS library says.
        why: String,
    },
    /// It took too long.
    #[error("{0} took too long")]
    Timeout(String),
    /// The answer is larger than the limit, in bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(u64),
    /// More redirects than are followed.
    #[error("redirected more than {0} times")]
    TooManyRedirects(u8),
    /// A redirect that is not followed.
    #[error("redirect not followed: {0}")]
    Redirect(&'static str),
    /// An encoding of the body that is not read.
    #[error("the answer's content encoding is none that is read")]
    Encoding,
    /// The connection broke, or what came is no HTTP.
    #[error("the exchange with {host} broke off: {why}")]
    Broken {
        /// The host asked for.
        host: String,
        /// What was wrong.
        why: String,
    },
    /// An FTP server refused a step.
    #[error("{host} answered {code}{advice}")]
    Ftp {
        /// The server.
        host: String,
        /// Its answer: 4xx may pass, 5xx will not by itself.
        code: u16,
        /// What that means and what to do, after a comma; may be empty.
        advice: &'static str,
    },
    /// The client cannot be made on this machine.
    #[error("no HTTP client: {0}")]
    Unready(String),
}

impl FetchError {
    /// Says whether the same request would be refused again, for as long as the URL and the
    /// configuration are the same.
    ///
    /// An address is final where the URL names it; a name that led to it may lead elsewhere in a
    /// minute.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self {
            Self::BadUrl(_) | Self::Scheme | Self::Port(_) | Self::FtpPort(_) => true,
            Self::Address { host, .. } => host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok(),
            _ => false,
        }
    }
}
