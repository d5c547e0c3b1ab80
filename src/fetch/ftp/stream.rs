//! Connections, in the clear or over TLS, and whom to trust.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use rustls::{ClientConfig, client::Resumption, pki_types::ServerName};
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::fetch::FetchError;

/// Whose certificates are trusted: those that HTTP's client trusts, read when first needed.
#[derive(Debug, Clone, Default)]
pub(in crate::fetch) struct Trust(Arc<OnceLock<Result<ClientConfig, String>>>);

impl Trust {
    /// Returns what connections to a host are encrypted with. Sessions are resumed among them and
    /// no others: many servers demand that of a file's connection.
    pub(super) fn of(&self, host: &str) -> Result<Encryption, FetchError> {
        let base = self.0.get_or_init(|| config().map_err(|e| e.to_string()));
        let base = base.as_ref();
        let mut config = base.map_err(|e| FetchError::Unready(e.clone()))?.clone();
        config.resumption = Resumption::in_memory_sessions(8);
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| FetchError::BadUrl("no certificate can have its host"))?;
        Ok(Encryption {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }
}

fn config() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_platform_verifier()?;
    Ok(config.with_no_client_auth())
}

/// What connections to one server are encrypted with.
pub(super) struct Encryption {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Encryption {
    /// Encrypts a connection, if the other side proves that it is the server.
    pub(super) async fn wrap(&self, tcp: TcpStream) -> io::Result<Stream> {
        let tls = self.connector.connect(self.name.clone(), tcp).await?;
        Ok(Stream::Tls(Box::new(tls)))
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Reads some bytes; 0 at the end.
    pub(super) async fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(into).await,
            Self::Tls(tls) => tls.read(into).await,
        }
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.write_all(bytes).await,
            Self::Tls(tls) => {
                tls.write_all(bytes).await?;
                tls.flush().await
            }
        }
    }

    /// Says that no more is written.
    pub(super) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.shutdown().await,
            Self::Tls(tls) => tls.shutdown().await,
        }
    }
}

/// Most addresses of a host that are tried.
const MOST_TRIES: usize = 4;

/// Connects to the first address that answers, in `limit` for all of them.
pub(super) async fn connect(
    addresses: &[IpAddr],
    port: u16,
    limit: Duration,
) -> io::Result<(TcpStream, IpAddr)> {
    let n_tries = addresses.len().clamp(1, MOST_TRIES);
    let share = limit / u32::try_from(n_tries).unwrap_or(1);
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses.iter().take(n_tries) {
        let connecting = TcpStream::connect(SocketAddr::new(*address, port));
        match timeout(share, connecting).await {
            Ok(Ok(tcp)) => {
                tcp.set_nodelay(true)?;
                return Ok((tcp, *address));
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, "no answer"),
        }
    }
    Err(last)
}
