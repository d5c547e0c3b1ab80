//! A strict FTP server on loopback, in the clear or over TLS, that may also misbehave.
//!
//! `ftp_rig/` has the certificates of an authority that nobody trusts but who is told to: one for
//! 127.0.0.1, one for another host, valid for a hundred years.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use rustls::{
    HandshakeKind, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

const SERVER: &str = include_str!("ftp_rig/server.pem");
const OTHER: &str = include_str!("ftp_rig/other.pem");

/// The authority's certificate.
pub(crate) const CA: &str = include_str!("ftp_rig/ca.pem");

/// Something said in place of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Say {
    /// This, whatever it is.
    This(&'static str),
    /// This, again and again.
    Forever(&'static str),
    /// Nothing, with the connection kept.
    Nothing,
    /// Nothing, with the connection closed.
    Bye,
}

/// Who encrypts what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Unknown,
    /// Nobody logs in, and nothing is sent, without.
    Demanded,
    /// As `Demanded`, with the certificate of another host.
    OfAnother,
}

/// How a file is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sends {
    Whole,
    /// So many bytes, and the end.
    Only(usize),
    /// So many bytes, and silence.
    Stalls(usize),
    /// So many bytes, and the connection breaks.
    Breaks(usize),
    /// One byte after another, without end.
    Drips,
    /// As fast as it can, without end.
    Floods,
}

/// What the server is and does.
#[derive(Debug, Clone)]
pub(crate) struct Manner {
    pub(crate) login: Option<(&'static str, &'static str)>,
    pub(crate) tls: Tls,
    pub(crate) path: &'static str,
    pub(crate) body: Vec<u8>,
    pub(crate) time: &'static str,
    /// What the time is once the file was sent.
    pub(crate) time_after: Option<&'static str>,
    pub(crate) knows_epsv: bool,
    pub(crate) knows_versions: bool,
    pub(crate) sends: Sends,
    /// By command; `WELCOME`, and `SENT` for what is said of a file that was sent.
    pub(crate) says: HashMap<&'static str, Say>,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            login: None,
            tls: Tls::Unknown,
            path: "a.csv",
            body: b"code,name,price\nA1,Lamp,10\n".to_vec(),
            time: "20260102030405",
            time_after: None,
            knows_epsv: true,
            knows_versions: true,
            sends: Sends::Whole,
            says: HashMap::new(),
        }
    }
}

struct Inner {
    manner: Mutex<Manner>,
    came: Mutex<Vec<String>>,
    elsewhere: Mutex<usize>,
}

/// The server.
pub(crate) struct Ftp {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Drop for Ftp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Ftp {
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            manner: Mutex::new(manner),
            came: Mutex::default(),
            elsewhere: Mutex::default(),
        });
        let shared = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            // Connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let visit = Visit::new(Arc::clone(&shared), Box::new(stream));
                connections.spawn(visit.serve());
            }
        });
        Self {
            address,
            inner,
            task,
        }
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.inner.manner.lock().unwrap());
    }

    /// Returns the commands that came, and forgets them.
    pub(crate) fn came(&self) -> Vec<String> {
        std::mem::take(&mut *self.inner.came.lock().unwrap())
    }

    /// Returns how many connections came to where `PASV` pointed.
    pub(crate) fn n_elsewhere(&self) -> usize {
        *self.inner.elsewhere.lock().unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let manner = self.inner.manner.lock().unwrap();
        let scheme = if manner.tls == Tls::Unknown {
            "ftp"
        } else {
            "ftps"
        };
        format!("{scheme}://{}/{path}", self.address)
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// One connection, and what was said on it.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a step that a client may leave out"
)]
struct Visit {
    inner: Arc<Inner>,
    stream: Box<dyn Connection>,
    acceptor: Option<TlsAcceptor>,
    is_encrypted: bool,
    user: String,
    is_let_in: bool,
    is_binary: bool,
    is_private: bool,
    is_sent: bool,
    data: Option<TcpListener>,
    /// Whoever `PASV` pointed to.
    victim: Option<JoinHandle<()>>,
}

impl Visit {
    fn new(inner: Arc<Inner>, stream: Box<dyn Connection>) -> Self {
        Self {
            inner,
            stream,
            acceptor: None,
            is_encrypted: false,
            user: String::new(),
            is_let_in: false,
            is_binary: false,
            is_private: false,
            is_sent: false,
            data: None,
            victim: None,
        }
    }

    fn manner(&self) -> Manner {
        self.inner.manner.lock().unwrap().clone()
    }

    async fn serve(mut self) {
        // Who hangs up is not waited for.
        if self.welcome().await.is_ok() {
            while self.answer().await.is_ok() {}
        }
        if let Some(victim) = self.victim {
            victim.abort();
        }
    }

    async fn welcome(&mut self) -> io::Result<()> {
        match self.manner().says.get("WELCOME") {
            Some(say) => self.say(*say).await,
            None => self.tell("220-strict\r\n 220 inside\r\n220 ready").await,
        }
    }

    async fn tell(&mut self, text: &str) -> io::Result<()> {
        self.stream
            .write_all(format!("{text}\r\n").as_bytes())
            .await?;
        self.stream.flush().await
    }

    async fn say(&mut self, say: Say) -> io::Result<()> {
        match say {
            Say::This(text) => {
                self.stream.write_all(text.as_bytes()).await?;
                self.stream.flush().await
            }
            Say::Forever(text) => loop {
                self.stream.write_all(text.as_bytes()).await?;
            },
            Say::Nothing => std::future::pending().await,
            Say::Bye => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            match self.stream.read_u8().await? {
                b'\n' => return Ok(String::from_utf8(line).unwrap().trim_end().to_owned()),
                byte => line.push(byte),
            }
        }
    }

    async fn answer(&mut self) -> io::Result<()> {
        let line = self.line().await?;
        self.inner.came.lock().unwrap().push(line.clone());
        let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let manner = self.manner();
        if let Some(say) = manner.says.get(verb) {
            return self.say(*say).await;
        }
        let is_closed = manner.tls != Tls::Unknown && !self.is_encrypted;
        match verb {
            "AUTH" => self.encrypt(&manner).await,
            "USER" if is_closed => self.tell("530 sessions must use encryption").await,
            "USER" => {
                rest.clone_into(&mut self.user);
                self.tell("331 and the password?").await
            }
            "PASS" => {
                let given = (self.user.as_str(), rest);
                let wanted = manner.login;
                self.is_let_in = match wanted {
                    None => given == ("anonymous", "anonymous@"),
                    Some(login) => given == login,
                };
                let said = if self.is_let_in {
                    "230 come in"
                } else {
                    "530 no"
                };
                self.tell(said).await
            }
            _ if !self.is_let_in => self.tell("530 log in first").await,
            "PBSZ" if rest == "0" && self.is_encrypted => self.tell("200 ok").await,
            "PROT" if rest == "P" && self.is_encrypted => {
                self.is_private = true;
                self.tell("200 ok").await
            }
            "TYPE" if rest == "I" => {
                self.is_binary = true;
                self.tell("200 ok").await
            }
            "SIZE" | "MDTM" if !manner.knows_versions => self.tell("502 what?").await,
            "SIZE" if !self.is_binary => self.tell("550 not in ASCII").await,
            "SIZE" | "MDTM" | "RETR" if rest != manner.path => self.tell("550 none there").await,
            "SIZE" => self.tell(&format!("213 {}", manner.body.len())).await,
            "MDTM" => {
                let after = manner.time_after.filter(|_| self.is_sent);
                self.tell(&format!("213 {}", after.unwrap_or(manner.time)))
                    .await
            }
            "EPSV" if manner.knows_epsv => {
                let port = self.open().await?.port();
                self.tell(&format!("229 come (|||{port}|)")).await
            }
            "PASV" => self.point_elsewhere().await,
            "RETR" if manner.tls != Tls::Unknown && !self.is_private => {
                self.tell("522 not in the clear").await
            }
            "RETR" => self.send(&manner).await,
            "QUIT" => {
                self.tell("221 bye").await?;
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            _ => self.tell("502 what?").await,
        }
    }

    async fn encrypt(&mut self, manner: &Manner) -> io::Result<()> {
        let pem = match manner.tls {
            Tls::Unknown => return self.tell("502 what?").await,
            Tls::Demanded => SERVER,
            Tls::OfAnother => OTHER,
        };
        self.tell("234 go on").await?;
        let acceptor = acceptor(pem);
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        self.stream = Box::new(acceptor.accept(plain).await?);
        self.acceptor = Some(acceptor);
        self.is_encrypted = true;
        Ok(())
    }

    async fn open(&mut self) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        self.data = Some(listener);
        Ok(address)
    }

    /// Points to the port of the file at another address, where somebody counts who comes.
    #[expect(clippy::disallowed_methods, reason = "the visit ends it")]
    async fn point_elsewhere(&mut self) -> io::Result<()> {
        let port = self.open().await?.port();
        let victim = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), port)).await?;
        let inner = Arc::clone(&self.inner);
        self.victim = Some(tokio::spawn(async move {
            while victim.accept().await.is_ok() {
                *inner.elsewhere.lock().unwrap() += 1;
            }
        }));
        let [high, low] = port.to_be_bytes();
        self.tell(&format!("227 come (127,0,0,2,{high},{low})."))
            .await
    }

    async fn send(&mut self, manner: &Manner) -> io::Result<()> {
        let Some(listener) = self.data.take() else {
            return self.tell("425 where to?").await;
        };
        self.tell("150 here it is").await?;
        let (tcp, _) = listener.accept().await?;
        if let Sends::Breaks(_) = manner.sends {
            tcp.set_zero_linger()?;
        }
        let mut data: Box<dyn Connection> = match &self.acceptor {
            None => Box::new(tcp),
            Some(acceptor) => {
                let tls = acceptor.accept(tcp).await?;
                // As servers do that want to know that it is the same client.
                if tls.get_ref().1.handshake_kind() != Some(HandshakeKind::Resumed) {
                    drop(tls);
                    return self.tell("522 not the session of the login").await;
                }
                Box::new(tls)
            }
        };
        match manner.sends {
            Sends::Whole => {
                data.write_all(&manner.body).await?;
            }
            Sends::Only(n_bytes) | Sends::Breaks(n_bytes) => {
                data.write_all(&manner.body[..n_bytes]).await?;
            }
            Sends::Stalls(n_bytes) => {
                data.write_all(&manner.body[..n_bytes]).await?;
                data.flush().await?;
                std::future::pending::<()>().await;
            }
            Sends::Drips => loop {
                data.write_all(b"x").await?;
                data.flush().await?;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            },
            Sends::Floods => loop {
                data.write_all(&[b'x'; 4096]).await?;
            },
        }
        if let Sends::Breaks(_) = manner.sends {
            drop(data);
            return self.tell("451 the disk is full").await;
        }
        data.shutdown().await?;
        self.is_sent = true;
        match manner.says.get("SENT") {
            Some(say) => self.say(*say).await,
            None => self.tell("226 that was all").await,
        }
    }
}

fn acceptor(pem: &str) -> TlsAcceptor {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes());
    let chain = chain.collect::<Result<_, _>>().unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}
