//! `[fetch]`: requests to other servers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::unit;
use crate::fetch::Network;

/// What requests to other servers may do.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fetch {
    /// `fetch.allow_private`: networks that may be reached though they are not public, such as
    /// `10.1.0.0/16` or `127.0.0.1`. Default: none.
    pub allow_private: Vec<String>,
    /// `fetch.ports`: ports that may be connected to. Default 80 and 443.
    pub ports: Vec<u16>,
    /// `fetch.ftp_ports`: ports that FTP servers may be asked at; what a server then opens for a
    /// file is any from 1024 on, of its own address. Default 21 and 990.
    pub ftp_ports: Vec<u16>,
    /// `fetch.user_agent`: how requests introduce themselves. Default `ingestd/VERSION`.
    pub user_agent: String,
    /// `fetch.connect_timeout`: longest time until there is a connection, TLS included. Default
    /// 10 s.
    #[serde(with = "unit::duration")]
    pub connect_timeout: Duration,
    /// `fetch.read_timeout`: longest silence of an answer. Default 15 s.
    #[serde(with = "unit::duration")]
    pub read_timeout: Duration,
    /// `fetch.timeout`: longest time of a request, redirects and body included. Default 60 s.
    #[serde(with = "unit::duration")]
    pub timeout: Duration,
    /// `fetch.max_response_bytes`: largest body that is read, in bytes after decompression, at
    /// most 1 GiB. Default 10 MiB.
    #[serde(with = "unit::size")]
    pub max_response_bytes: u64,
}

impl Fetch {
    /// Returns the networks of `allow_private`.
    #[must_use]
    pub fn networks(&self) -> Vec<Network> {
        let listed = self.allow_private.iter();
        listed.filter_map(|text| text.parse().ok()).collect()
    }

    pub(super) fn validate(&self, check: &mut Check<'_>) {
        for network in &self.allow_private {
            if let Err(error) = network.parse::<Network>() {
                check.fail(&["allow_private"], &format!("names what {error}"));
            }
        }
        let is_text = |c: char| c.is_ascii_graphic() || c == ' ';
        if self.user_agent.is_empty() || !self.user_agent.chars().all(is_text) {
            check.fail(&["user_agent"], "must be printable ASCII, and not empty");
        }
        check.positive("connect_timeout", self.connect_timeout);
        check.positive("read_timeout", self.read_timeout);
        check.positive("timeout", self.timeout);
        check.range("max_response_bytes", self.max_response_bytes, 1..=1 << 30);
    }
}

impl Default for Fetch {
    fn default() -> Self {
        Self {
            allow_private: Vec::new(),
            ports: vec![80, 443],
            ftp_ports: vec![21, 990],
            user_agent: concat!("ingestd/", env!("CARGO_PKG_VERSION")).to_owned(),
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(15),
            timeout: Duration::from_mins(1),
            max_response_bytes: 10 << 20,
        }
    }
}
