//! What may be asked for, against a table; and real exchanges with servers on loopback.

use std::{
    collections::HashMap,
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{Client, FetchError, Request, Response, resolve::Lookup};
use crate::config;

/// Knows some names and counts how often it was asked.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: HashMap<&'static str, Vec<IpAddr>>,
    n_asked: AtomicUsize,
}

impl Names {
    pub(super) fn of(known: &[(&'static str, &[&str])]) -> Arc<Self> {
        let parsed = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self {
            known: known
                .iter()
                .map(|(name, ips)| (*name, parsed(ips)))
                .collect(),
            n_asked: AtomicUsize::new(0),
        })
    }
}

impl Lookup for Names {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.n_asked.fetch_add(1, Ordering::Relaxed);
        let found = self.known.get(host.as_str()).cloned();
        Box::pin(async move { found.ok_or_else(|| io::ErrorKind::NotFound.into()) })
    }
}

/// What a server says to a connection, given the request's head.
type Script = Arc<dyn Fn(String, TcpStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// A server on loopback that says what the test wants, also what is no HTTP.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    #[expect(clippy::disallowed_methods, reason = "the test ends it")]
    async fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let script = Arc::clone(&script);
                tokio::spawn(async move {
                    let head = head(&mut stream).await;
                    script(head, stream).await;
                });
            }
        });
        Self { address, task }
    }

    /// Answers every request alike.
    async fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = Arc::new(answer.into());
        Self::start(Arc::new(move |_, mut stream| {
            let answer = Arc::clone(&answer);
            Box::pin(async move {
                stream.write_all(&answer).await.ok();
                stream.shutdown().await.ok();
            })
        }))
        .await
    }

    fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Settings by which this server may be reached, and no other place of this machine's net.
    fn settings(&self) -> config::Fetch {
        config::Fetch {
            allow_private: vec!["127.0.0.1".into()],
            ports: vec![80, 443, self.address.port()],
            max_response_bytes: 1 << 20,
            ..config::Fetch::default()
        }
    }

    async fn get(&self) -> Result<Response, FetchError> {
        let client = Client::new(&self.settings());
        client.send(Request::get(self.url())).await
    }
}

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).await.unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

fn redirect(to: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

fn gzipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn encoded(encoding: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// Nothing is sent for these, and why. `names` resolves what has a name.
const REFUSED: [(&str, &str); 74] = [
    // addresses, plainly
    ("http://127.0.0.1/", "this machine"),
    ("http://127.255.255.254/", "this machine"),
    ("http://0.0.0.0/", "this network"),
    ("http://0.1.2.3/", "this network"),
    ("http://10.0.0.1/", "private"),
    ("http://172.16.0.1/", "private"),
    ("http://172.31.255.255/", "private"),
    ("http://192.168.1.1/", "private"),
    ("http://100.64.0.1/", "carrier"),
    ("http://100.127.255.255/", "carrier"),
    ("http://169.254.169.254/latest/meta-data/", "link-local"),
    ("http://169.254.170.2/", "link-local"),
    ("http://192.0.0.1/", "protocols"),
    ("http://192.0.2.1/", "documentation"),
    ("http://198.51.100.1/", "documentation"),
    ("http://203.0.113.1/", "documentation"),
    ("http://192.88.99.1/", "6to4"),
    ("http://198.18.0.1/", "benchmarks"),
    ("http://198.19.255.255/", "benchmarks"),
    ("http://224.0.0.1/", "multicast"),
    ("http://239.255.255.255/", "multicast"),
    ("http://240.0.0.1/", "reserved"),
    ("http://255.255.255.255/", "broadcast"),
    // the same in other clothes
    ("http://2130706433/", "this machine"),
    ("http://0x7f000001/", "this machine"),
    ("http://0x7f.1/", "this machine"),
    ("http://017700000001/", "this machine"),
    ("http://0177.0.0.1/", "this machine"),
    ("http://127.1/", "this machine"),
    ("http://127.0.1/", "this machine"),
    ("http://127.0.0.1./", "this machine"),
    ("http://0/", "this network"),
    ("http://3232235777/", "private"),
    ("http://0xa9fea9fe/", "link-local"),
    ("http://0251.0376.0251.0376/", "link-local"),
    ("http://169.254.43518/", "link-local"),
    ("http://%31%32%37.0.0.1/", "this machine"),
    ("http://１２７.0.0.1/", "this machine"),
    ("http://127。0。0。1/", "this machine"),
    ("http://①②⑦.0.0.1/", "this machine"),
    // IPv6
    ("http://[::1]/", "this machine"),
    ("http://[::]/", "no address"),
    ("http://[0:0:0:0:0:0:0:1]/", "this machine"),
    ("http://[::127.0.0.1]/", "no address"),
    ("http://[::ffff:127.0.0.1]/", "this machine"),
    ("http://[::ffff:7f00:1]/", "this machine"),
    ("http://[::ffff:169.254.169.254]/", "link-local"),
    ("http://[64:ff9b::127.0.0.1]/", "this machine"),
    ("http://[64:ff9b::a9fe:a9fe]/", "link-local"),
    ("http://[64:ff9b:1::1]/", "reserved"),
    ("http://[2002:7f00:1::]/", "6to4"),
    ("http://[2001::1]/", "Teredo"),
    ("http://[2001:20::1]/", "protocols"),
    ("http://[2001:db8::1]/", "documentation"),
    ("http://[3fff::1]/", "documentation"),
    ("http://[fc00::1]/", "private"),
    ("http://[fd12:3456::1]/", "private"),
    ("http://[fe80::1]/", "link-local"),
    ("http://[ff02::1]/", "multicast"),
    ("http://[100::1]/", "reserved"),
    ("http://[2606:4700::5efe:10.0.0.1]/", "ISATAP"),
    // names
    ("http://inside.test/", "private"),
    ("http://mixed.test/", "private"),
    ("http://six.test/", "private"),
    ("http://nowhere.test/", "resolved"),
    // what is no plain http URL
    ("file:///etc/passwd", "http and https"),
    ("ftp://93.184.216.34/", "http and https"),
    ("gopher://93.184.216.34:80/", "http and https"),
    ("http://user@93.184.216.34/", "a user"),
    ("http://93.184.216.34@127.0.0.1/", "a user"),
    ("http://93.184.216.34\\@127.0.0.1/", "backslashes"),
    ("http://127.0.0.1\r\n.test/", "control characters"),
    ("http://93.184.216.34:22/", "fetch.ports"),
    ("//93.184.216.34/", "parse"),
];

#[tokio::test]
async fn nothing_is_sent_to_where_nobody_should_look() {
    let names = Names::of(&[
        ("inside.test", &["10.0.0.7"]),
        ("mixed.test", &["93.184.216.34", "192.168.0.1"]),
        ("six.test", &["2606:2800:220:1::1", "fd00::1"]),
    ]);
    let client = Client::with_lookup(&config::Fetch::default(), names);
    for (url, why) in REFUSED {
        let answer = client.send(Request::get(url)).await;
        let error = answer.expect_err(url);
        assert!(error.to_string().contains(why), "{url}: {error}");
        // What a name leads to may be another thing in a minute.
        let may_pass = match &error {
            FetchError::Dns(_) => true,
            FetchError::Address { host, .. } => host.contains(".test"),
            _ => false,
        };
        assert_eq!(error.is_final(), !may_pass, "{url}: {error}");
    }
}

#[test]
fn public_addresses_and_listed_networks_may_be_reached() {
    let settings = config::Fetch {
        allow_private: vec![
            "10.1.0.0/16".into(),
            "fd00:1::/32".into(),
            "127.0.0.1".into(),
        ],
        ports: vec![80, 443, 8080],
        ..config::Fetch::default()
    };
    let client = Client::new(&settings);
    let fine = [
        "http://93.184.216.34/",
        "https://93.184.216.34/a?b#c",
        "http://93.184.216.34:8080/",
        "http://9.255.255.255/",
        "http://11.0.0.0/",
        "http://100.63.255.255/",
        "http://172.15.255.255/",
        "http://172.32.0.0/",
        "http://223.255.255.255/",
        "http://[2606:4700::1]/",
        "http://[64:ff9b::93.184.216.34]/",
        "http://[2001:200::1]/",
        "http://10.1.255.255/",
        "http://[::ffff:10.1.0.1]/",
        "http://[fd00:1::5]/",
        "http://127.0.0.1/",
        "http://example.com/",
        "http://münchen.example/",
    ];
    for url in fine {
        assert!(client.rules().target(url).is_ok(), "{url}");
    }
    for url in [
        "http://10.2.0.0/",
        "http://127.0.0.2/",
        "http://[fd00:2::5]/",
    ] {
        assert!(client.rules().target(url).is_err(), "{url}");
    }
    let long = format!("http://93.184.216.34/{}", "a".repeat(4096));
    assert!(client.rules().target(&long).is_err());
}

#[test]
fn networks_are_read_strictly() {
    for text in [
        "10.0.0.0/8",
        "0.0.0.0/0",
        "::/0",
        "fd00::/8",
        "::1",
        "1.2.3.4",
    ] {
        assert!(text.parse::<super::Network>().is_ok(), "{text}");
    }
    for text in [
        "",
        "10.0.0.1/8",
        "10.0.0.0/33",
        "fd00::/129",
        "localhost",
        "10/8",
        "1.2.3.4/-1",
    ] {
        assert!(text.parse::<super::Network>().is_err(), "{text}");
    }
}

#[tokio::test]
async fn a_name_is_resolved_once_and_its_answer_connected_to() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").await;
    let names = Names::of(&[("hook.test", &["127.0.0.1"])]);
    let client = Client::with_lookup(&server.settings(), Arc::clone(&names) as Arc<dyn Lookup>);
    let url = format!("http://hook.test:{}/", server.address.port());
    let answer = client.send(Request::get(url)).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"hi"[..]));
    assert_eq!(names.n_asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn redirects_lead_to_no_other_place_than_requests() {
    for (to, why) in [
        ("http://127.0.0.2/", "this machine"),
        ("http://169.254.169.254/latest/", "link-local"),
        ("http://[::1]/", "this machine"),
        ("http://2130706434/", "this machine"),
        ("//192.168.0.1/", "private"),
        ("file:///etc/passwd", "http and https"),
        ("http://user:pw@93.184.216.34/", "a user"),
        ("http://93.184.216.34:25/", "fetch.ports"),
    ] {
        let error = Server::saying(redirect(to)).await.get().await.unwrap_err();
        assert!(error.to_string().contains(why), "{to}: {error}");
    }
}

#[tokio::test]
async fn redirects_are_followed_five_times_and_not_at_all_where_nobody_asks() {
    let server = Server::saying(redirect("/again")).await;
    assert_eq!(server.get().await, Err(FetchError::TooManyRedirects(5)));
    let request = Request {
        max_redirects: 0,
        ..Request::get(server.url())
    };
    let answer = Client::new(&server.settings()).send(request).await.unwrap();
    assert_eq!(answer.status, 302);
}

#[tokio::test]
async fn what_was_meant_for_one_origin_does_not_reach_another() {
    let echo: Script = Arc::new(|head, mut stream| {
        Box::pin(async move {
            let length = head.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}");
            stream.write_all(answer.as_bytes()).await.ok();
        })
    });
    let other = Server::start(echo).await;
    let first = Server::saying(redirect(&other.url())).await;
    let mut settings = first.settings();
    settings.ports.push(other.address.port());
    let client = Client::new(&settings);
    let mut request = Request::post(first.url(), b"body".to_vec());
    request.max_redirects = 5;
    request.headers = vec![
        ("x-api-key", "sesame".into()),
        ("content-type", "a/b".into()),
    ];
    let answer = client.send(request.clone()).await.unwrap();
    let seen = String::from_utf8(answer.body).unwrap();
    assert!(seen.starts_with("GET / HTTP/1.1\r\n"), "{seen}");
    assert!(!seen.contains("sesame") && !seen.contains("a/b"), "{seen}");
    assert!(!seen.to_lowercase().contains("referer"), "{seen}");
    assert!(seen.contains("user-agent: ingestd/"), "{seen}");
    let answer = redirect(&other.url()).replace("302 Found", "307 Temporary Redirect");
    let first = Server::saying(answer).await;
    request.url = first.url();
    settings.ports.push(first.address.port());
    let error = Client::new(&settings).send(request).await.unwrap_err();
    assert!(error.to_string().contains("body elsewhere"), "{error}");
}

#[tokio::test]
async fn a_body_is_counted_after_decompression() {
    let text = b"a page of text".repeat(1000);
    let answer = Server::saying(encoded("gzip", &gzipped(&text)))
        .await
        .get()
        .await;
    assert!(answer.unwrap().body == text);
    // 5 MiB of zeros in some 5 KB.
    let bomb = gzipped(&vec![0; 5 << 20]);
    assert!(bomb.len() < 10_000);
    let answer = Server::saying(encoded("gzip", &bomb)).await.get().await;
    assert_eq!(answer, Err(FetchError::TooLarge(1 << 20)));
    for wrong in ["br", "gzip, gzip", "deflate"] {
        let answer = Server::saying(encoded(wrong, &gzipped(&text)))
            .await
            .get()
            .await;
        assert_eq!(answer, Err(FetchError::Encoding), "{wrong}");
    }
    let cut = &gzipped(&text)[..30];
    let answer = Server::saying(encoded("gzip", cut)).await.get().await;
    assert_eq!(answer, Err(FetchError::Encoding));
}

#[tokio::test]
async fn an_endless_body_is_cut_off() {
    let server = Server::start(Arc::new(|_, mut stream| {
        Box::pin(async move {
            let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            let mut sent = stream.write_all(head).await;
            while sent.is_ok() {
                sent = stream.write_all(&[b'x'; 8192]).await;
            }
        })
    }))
    .await;
    assert_eq!(server.get().await, Err(FetchError::TooLarge(1 << 20)));
    let request = Request {
        max_bytes: Some(u64::MAX),
        ..Request::get(server.url())
    };
    let answer = Client::new(&server.settings()).send(request).await;
    assert_eq!(answer, Err(FetchError::TooLarge(1 << 20)));
    let request = Request {
        max_bytes: Some(0),
        ..Request::get(server.url())
    };
    let answer = Client::new(&server.settings()).send(request).await.unwrap();
    assert!(answer.body.is_empty(), "left unread");
}

#[tokio::test]
async fn a_slow_body_and_a_silent_server_are_given_up() {
    let drip: Script = Arc::new(|_, mut stream| {
        Box::pin(async move {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sent = stream.write_all(b"x").await;
            }
        })
    });
    let server = Server::start(drip).await;
    let client = Client::new(&server.settings());
    let request = Request {
        timeout: Some(Duration::from_millis(300)),
        ..Request::get(server.url())
    };
    let error = client.send(request).await.unwrap_err();
    assert!(matches!(error, FetchError::Timeout(_)), "{error}");

    let silent: Script = Arc::new(|_, stream| {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_mins(10)).await;
            drop(stream);
        })
    });
    let server = Server::start(silent).await;
    let mut settings = server.settings();
    settings.read_timeout = Duration::from_millis(200);
    let error = Client::new(&settings)
        .send(Request::get(server.url()))
        .await
        .unwrap_err();
    assert!(matches!(error, FetchError::Timeout(_)), "{error}");
}

#[tokio::test]
async fn errors_name_the_host_and_keep_the_rest_to_themselves() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let settings = config::Fetch {
        allow_private: vec!["127.0.0.1".into()],
        ports: vec![port],
        ..config::Fetch::default()
    };
    drop(listener); // nobody listens there any more
    let client = Client::new(&settings);
    let secret = format!("http://127.0.0.1:{port}/sesame?key=sesame");
    let refused = client.send(Request::get(&secret)).await.unwrap_err();
    assert!(matches!(refused, FetchError::Connect { .. }), "{refused:?}");
    assert!(
        refused
            .to_string()
            .contains(&format!("http://127.0.0.1:{port}")),
        "{refused}"
    );
    let server = Server::saying("this is no HTTP\r\n\r\n").await;
    let url = format!("{}sesame", server.url());
    let broken = Client::new(&server.settings())
        .send(Request::get(url))
        .await
        .unwrap_err();
    assert!(matches!(broken, FetchError::Broken { .. }), "{broken:?}");
    // A server without TLS cannot prove who it is.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    let settings = config::Fetch {
        ports: vec![port],
        ..settings
    };
    let client = Client::new(&settings);
    let asked = client.send(Request::get(format!("https://127.0.0.1:{port}/sesame")));
    let answered = async {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        stream // closed once the client has given up
    };
    let (untrusted, _) = tokio::join!(asked, answered);
    let untrusted = untrusted.unwrap_err();
    assert!(
        matches!(untrusted, FetchError::Connect { .. }),
        "{untrusted:?}"
    );
    for error in [refused, broken, untrusted] {
        assert!(
            !format!("{error} {error:?}").contains("sesame"),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn the_fake_answers_as_told_and_notes_what_it_was_asked() {
    let fake = super::Fake::default();
    fake.answer(Ok(Response::of(503)));
    let fetcher = super::Fetcher::Fake(fake.clone());
    let statuses = [
        fetcher
            .send(Request::get("http://a.test/"))
            .await
            .unwrap()
            .status,
        fetcher
            .send(Request::get("http://b.test/"))
            .await
            .unwrap()
            .status,
    ];
    assert_eq!(statuses, [503, 200]);
    assert_eq!(fake.seen()[1].url, "http://b.test/");
}
