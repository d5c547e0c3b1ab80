//! Which URLs may be asked for.

use std::net::IpAddr;

use reqwest::Url;

use super::{FetchError, Network, address, origin::Origin};
use crate::config;

/// Longest URL, in bytes.
pub(super) const LONGEST_URL: usize = 4096;

/// What the operator decided about where requests may go.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// Networks that may be reached though they are not public.
    pub(super) allowed: Vec<Network>,
    /// Ports that may be connected to.
    pub(super) ports: Vec<u16>,
    /// Ports that FTP servers may be asked at.
    pub(super) ftp_ports: Vec<u16>,
    /// Where this is set nothing else is asked, and it may be on any port.
    pub(super) only: Option<Origin>,
}

impl Rules {
    pub(super) fn new(settings: &config::Fetch) -> Self {
        Self {
            allowed: settings.networks(),
            ports: settings.ports.clone(),
            ftp_ports: settings.ftp_ports.clone(),
            only: None,
        }
    }

    pub(super) fn only(settings: &config::Fetch, origin: Origin) -> Self {
        Self {
            only: Some(origin),
            ..Self::new(settings)
        }
    }

    /// Reads a URL and judges all of it that can be judged before its host is resolved.
    pub(super) fn target(&self, text: &str) -> Result<Url, FetchError> {
        let url = parsed(text)?;
        self.judge(&url)?;
        Ok(url)
    }

    /// Judges a parsed URL: scheme, user, port, and its host where that is an address.
    pub(super) fn judge(&self, url: &Url) -> Result<(), FetchError> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(FetchError::Scheme);
        }
        let host = host_alone(url)?;
        let port = url.port_or_known_default().unwrap_or_default();
        match &self.only {
            Some(only) if !only.is_of(url, host, port) => {
                return Err(FetchError::BadUrl(
                    "it is another server's than the one configured",
                ));
            }
            None if !self.ports.contains(&port) => return Err(FetchError::Port(port)),
            _ => {}
        }
        self.judge_host(host)
    }

    /// Judges a host where it is an address.
    ///
    /// The resolver is never asked about an address, so it is judged here, as the parser
    /// understood it: `http://2130706433/` has one.
    pub(super) fn judge_host(&self, host: &str) -> Result<(), FetchError> {
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => self.judge_address(host, address),
            Err(_) => Ok(()),
        }
    }

    /// Judges an address that `host` is, or was resolved to.
    pub(super) fn judge_address(&self, host: &str, address: IpAddr) -> Result<(), FetchError> {
        let is_listed = self.only.as_ref().is_some_and(Origin::may_be_private)
            || self.allowed.iter().any(|network| network.contains(address));
        match address::reserved(address) {
            Some(why) if !is_listed => Err(FetchError::Address {
                host: host.to_owned(),
                address,
                why,
            }),
            _ => Ok(()),
        }
    }
}

/// Reads a URL that is written as honest senders write them.
pub(super) fn parsed(text: &str) -> Result<Url, FetchError> {
    if text.len() > LONGEST_URL {
        return Err(FetchError::BadUrl("it is longer than 4096 bytes"));
    }
    // The parser drops some of these and reads others as `/`: what was judged must be what
    // other readers see, so nothing of the sort is mended.
    if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
        let why = "it has blanks, control characters or backslashes";
        return Err(FetchError::BadUrl(why));
    }
    Url::parse(text).map_err(|_| FetchError::BadUrl("it does not parse"))
}

/// Returns the host of a URL that names nobody.
pub(super) fn host_alone(url: &Url) -> Result<&str, FetchError> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err(FetchError::BadUrl("it names a user or a password"));
    }
    let host = url.host_str().filter(|host| !host.is_empty());
    host.ok_or(FetchError::BadUrl("it has no host"))
}

/// Names where a URL goes, for errors: scheme, host and port, nothing that may hold a secret.
pub(super) fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}
