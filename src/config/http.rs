//! `[http]`: the admin API, the pages and the uploads.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{secret, unit};

/// The HTTP server.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// `http.listen`: address and port. Default `127.0.0.1:8477`; from other machines nobody is
    /// served without a credential.
    #[serde(with = "unit::address")]
    pub listen: SocketAddr,
    /// `http.token`: a bearer token that opens everything, or `credential:NAME`. Secret; no
    /// default: without any credential, here, in `[auth]` or in the database, only loopback is served.
    #[serde(serialize_with = "secret::serialize")]
    pub token: Option<SecretString>,
    /// `http.token_file`: a file that holds the token, instead of `token`. No default.
    pub token_file: Option<PathBuf>,
    /// `http.max_upload_bytes`: largest uploaded file, in bytes. Default 512 MiB.
    #[serde(with = "unit::size")]
    pub max_upload_bytes: u64,
    /// `http.max_body_bytes`: largest request body of any other kind, in bytes. Default 1 MiB.
    #[serde(with = "unit::size")]
    pub max_body_bytes: u64,
    /// `http.max_event_streams`: streams of server-sent events open at once, each of which holds a
    /// connection. Default 256.
    pub max_event_streams: u16,
    /// `http.request_timeout`: longest time a request may take, uploads excepted. Default 30 s.
    #[serde(with = "unit::duration")]
    pub request_timeout: Duration,
    /// `http.drain_timeout`: how long open requests may go on once the daemon stops. Default 5 s.
    #[serde(with = "unit::duration")]
    pub drain_timeout: Duration,
}

impl Http {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        check.range("max_upload_bytes", self.max_upload_bytes, 1..=1 << 40);
        check.range("max_body_bytes", self.max_body_bytes, 1..=1 << 30);
        check.range("max_event_streams", self.max_event_streams, 0..=512);
        check.positive("request_timeout", self.request_timeout);
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8477)),
            token: None,
            token_file: None,
            max_upload_bytes: 512 << 20,
            max_body_bytes: 1 << 20,
            max_event_streams: 256,
            request_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
        }
    }
}
