//! From the first connection to the file.

use std::{net::IpAddr, time::Instant};

use secrecy::ExposeSecret as _;
use tokio::time::timeout;

use super::{
    FtpFile, FtpRequest,
    control::Control,
    place::{Place, Tls},
    reply::Reply,
    stream::{Encryption, Stream, connect},
};
use crate::fetch::{Client, FetchError};

/// A server that somebody is connected to.
pub(super) struct Session<'a> {
    client: &'a Client,
    control: Control,
    place: Place,
    /// Where it is, as it was judged.
    address: IpAddr,
    encryption: Option<Encryption>,
}

impl<'a> Session<'a> {
    /// Connects, logs in and has the file begin to come, unless it is the version known.
    pub(super) async fn begin(
        client: &'a Client,
        place: Place,
        request: &FtpRequest,
        max_bytes: u64,
        until: Instant,
    ) -> Result<Option<FtpFile>, FetchError> {
        let mut session = Self::connect(client, place).await?;
        session.log_in(request).await?;
        session
            .expect("TYPE I", &[200], ", it sends no files as they are")
            .await?;
        let (path, control) = (session.place.path.clone(), &mut session.control);
        let version = Version::of(control, &path).await?;
        if version.known().is_some() && version.known() == request.known {
            control.send("QUIT").await.ok(); // it has said all that is needed
            return Ok(None);
        }
        if version.n_bytes.is_some_and(|n_bytes| n_bytes > max_bytes) {
            return Err(FetchError::TooLarge(max_bytes));
        }
        let data = session.retrieve().await?;
        Ok(Some(FtpFile::begin(
            session.control,
            data,
            path,
            version,
            max_bytes,
            until,
        )))
    }

    async fn connect(client: &'a Client, place: Place) -> Result<Self, FetchError> {
        let shown = place.shown();
        let addresses = match place.host.parse() {
            Ok(address) => vec![address], // judged with the URL
            Err(_) => client.guard.clone().addresses(place.host.clone()).await?,
        };
        let encryption = match place.tls {
            Tls::Never => None,
            Tls::Asked | Tls::AtOnce => Some(client.trust.of(&place.host)?),
        };
        let connected = connect(&addresses, place.port, client.connect_timeout).await;
        let (tcp, address) = connected.map_err(|error| FetchError::Connect {
            host: shown.clone(),
            why: error.to_string(),
        })?;
        let mut control = Control::new(Stream::Plain(tcp), shown, client.read_timeout);
        if let (Tls::AtOnce, Some(by)) = (place.tls, &encryption) {
            control = control.encrypted(by, client.connect_timeout).await?;
        }
        let welcome = control.settled().await?;
        if welcome.code != 220 {
            return Err(control.refused(&welcome, ", no welcome: is it busy?"));
        }
        if let (Tls::Asked, Some(by)) = (place.tls, &encryption) {
            let reply = control.ask("AUTH TLS").await?;
            if reply.code != 234 {
                return Err(control.refused(&reply, NO_TLS));
            }
            control = control.encrypted(by, client.connect_timeout).await?;
        }
        Ok(Self {
            client,
            control,
            place,
            address,
            encryption,
        })
    }

    async fn log_in(&mut self, request: &FtpRequest) -> Result<(), FetchError> {
        let (user, password) = match &request.login {
            Some((user, password)) => (user.as_str(), password.expose_secret()),
            None => ("anonymous", "anonymous@"),
        };
        let mut reply = self.control.ask(&format!("USER {user}")).await?;
        if reply.code == 331 {
            reply = self.control.ask(&format!("PASS {password}")).await?;
        }
        if !matches!(reply.code, 202 | 230 | 232) {
            let advice = self.not_let_in(&reply, request.login.is_none());
            return Err(self.control.refused(&reply, advice));
        }
        if self.encryption.is_some() {
            self.expect("PBSZ 0", &[200], NOT_PRIVATE).await?;
            self.expect("PROT P", &[200], NOT_PRIVATE).await?;
        }
        Ok(())
    }

    fn not_let_in(&self, reply: &Reply, is_anonymous: bool) -> &'static str {
        if self.encryption.is_none() && reply.asks_for_tls() {
            return ", it wants TLS: write ftps:// in place of ftp://";
        }
        match reply.code {
            400..500 => ", the login was put off: is it busy?",
            332 => ", it asks for an account beside user and password, which is not supported",
            _ if is_anonymous => {
                ", the login was refused: it wants a user and a password, which a secret is for"
            }
            _ => ", the login was refused: do user and password of the secret fit?",
        }
    }

    async fn expect(
        &mut self,
        command: &str,
        codes: &[u16],
        advice: &'static str,
    ) -> Result<Reply, FetchError> {
        let reply = self.control.ask(command).await?;
        if codes.contains(&reply.code) {
            Ok(reply)
        } else {
            Err(self.control.refused(&reply, advice))
        }
    }

    /// Opens the file's connection and has it sent.
    async fn retrieve(&mut self) -> Result<Stream, FetchError> {
        let port = self.passive().await?;
        let limit = self.client.connect_timeout;
        // Never to an address that the server names.
        let connected = connect(&[self.address], port, limit).await;
        let (tcp, _) = connected.map_err(|error| FetchError::Connect {
            host: self.control.host().to_owned(),
            why: format!("its port {port} for the file: {error}"),
        })?;
        let path = &self.place.path;
        let reply = self.control.ask(&format!("RETR {path}")).await?;
        if !matches!(reply.code, 125 | 150) {
            let advice = match reply.code {
                550 => ", no such file, or none that the login may read",
                450 => ", the file is in use",
                425 | 426 => ", the file's connection did not come about",
                _ if self.encryption.is_some() && reply.asks_for_tls() => {
                    ", it asks more of TLS than is supported"
                }
                _ => ", the file was refused",
            };
            return Err(self.control.refused(&reply, advice));
        }
        let Some(by) = &self.encryption else {
            return Ok(Stream::Plain(tcp));
        };
        match timeout(limit, by.wrap(tcp)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(FetchError::Connect {
                host: self.control.host().to_owned(),
                why: format!("the file's connection: {error}"),
            }),
            Err(_) => Err(FetchError::Timeout(self.control.host().to_owned())),
        }
    }

    /// Returns the port that the file is to come from.
    async fn passive(&mut self) -> Result<u16, FetchError> {
        let reply = self.control.ask("EPSV").await?;
        let port = if reply.code == 229 {
            reply.extended_port()
        } else {
            let no = ", it opens no passive connections, and no others are supported";
            self.expect("PASV", &[227], no).await?.passive_port()
        };
        port.ok_or_else(|| {
            self.control
                .broken("it names no port from 1024 on for the file")
        })
    }
}

const NO_TLS: &str = ", it begins no TLS: is it one that is reached without, by ftp://, or by \
                      ftps:// on port 990?";

const NOT_PRIVATE: &str = ", it encrypts no files, only the login";

/// What tells one version of a file from another, as far as the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) n_bytes: Option<u64>,
    time: Option<String>,
}

impl Version {
    /// Asks for it. A server that does not know the questions says so, and is not asked in vain
    /// for anything else.
    pub(super) async fn of(control: &mut Control, path: &str) -> Result<Self, FetchError> {
        let size = control.ask(&format!("SIZE {path}")).await?;
        let time = control.ask(&format!("MDTM {path}")).await?;
        Ok(Self {
            n_bytes: size.size(),
            time: time.time().map(str::to_owned),
        })
    }

    /// Returns it in words to be remembered; `None` where it tells too little.
    pub(super) fn known(&self) -> Option<String> {
        let time = self.time.as_ref()?;
        Some(format!("{} {time}", self.n_bytes?))
    }
}
