//! Stands between the engine and Postgres and does what networks do: swallows, delays, cuts, resets,
//! and loses the answer to a commit. It reads the protocol as far as that takes.

use std::{
    collections::{HashMap, VecDeque},
    io,
    net::SocketAddr,
    ops::Range,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use sqlx::postgres::PgConnectOptions;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{oneshot, watch},
};
use tokio_util::task::TaskTracker;

use crate::queue_rig::PATIENCE;

/// What becomes of a connection whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    /// It ends at once, by RST.
    Reset,
    /// It stays open, and nothing comes any more.
    Silence,
    /// The answer is late, until [`Proxy::deliver`] or [`Proxy::drop_late`] says what becomes of it.
    Late,
}

/// What the network does at present.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weather {
    /// How long what was read waits before it goes on, in milliseconds.
    pub(crate) delay_ms: Range<u64>,
    /// Bytes per second that all connections together get in each direction; 0: no limit.
    pub(crate) bytes_per_sec: u32,
    /// One in so many reads goes on by half, and the connection is reset; 0: none.
    pub(crate) cut_one_in: u32,
    /// One in so many answers to a finished transaction is lost; 0: none.
    pub(crate) lose_one_in: u32,
}

/// Answers that are to be lost: those to transactions whose statements contain a text.
#[derive(Debug)]
struct Loss {
    needle: &'static str,
    n_left: usize,
    then: Then,
}

#[derive(Debug)]
struct World {
    target: Mutex<PathBuf>,
    weather: Mutex<Weather>,
    loss: Mutex<Option<Loss>>,
    /// Answers that are late, the first one first.
    late: Mutex<VecDeque<oneshot::Sender<()>>>,
    chance: Mutex<fastrand::Rng>,
    up: tokio::sync::Mutex<()>,
    down: tokio::sync::Mutex<()>,
    frozen: watch::Sender<u32>,
    reset: watch::Sender<u32>,
    n_lost: watch::Sender<usize>,
    n_late: watch::Sender<usize>,
}

/// A running proxy before one server; ends with the runtime of its test.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    user: String,
    database: String,
    world: Arc<World>,
}

impl Proxy {
    /// Starts one before the server of `url`, which is reached through a socket.
    pub(crate) async fn start(url: &str) -> Self {
        Self::seeded(url, fastrand::u64(..)).await
    }

    /// As [`Proxy::start`]; what it does by chance it does by this seed.
    pub(crate) async fn seeded(url: &str, seed: u64) -> Self {
        let server: PgConnectOptions = url.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Arc::new(World {
            target: Mutex::new(socket(&server)),
            weather: Mutex::default(),
            loss: Mutex::default(),
            late: Mutex::default(),
            chance: Mutex::new(fastrand::Rng::with_seed(seed)),
            up: tokio::sync::Mutex::default(),
            down: tokio::sync::Mutex::default(),
            frozen: watch::Sender::new(0),
            reset: watch::Sender::new(0),
            n_lost: watch::Sender::new(0),
            n_late: watch::Sender::new(0),
        });
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            user: server.get_username().to_owned(),
            database: server.get_database().unwrap().to_owned(),
            world: Arc::clone(&world),
        };
        let tasks = TaskTracker::new();
        tasks.clone().spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tasks.spawn(Arc::clone(&world).serve(client));
            }
        });
        proxy
    }

    /// Returns the URL of the same database through the proxy.
    pub(crate) fn url(&self) -> String {
        let Self {
            address,
            user,
            database,
            ..
        } = self;
        format!("postgres://{user}@{address}/{database}?sslmode=disable")
    }

    /// Sends new connections to the server of `url`.
    pub(crate) fn turn_to(&self, url: &str) {
        *self.world.target.lock().unwrap() = socket(&url.parse().unwrap());
    }

    /// Changes the weather.
    pub(crate) fn weather(&self, weather: Weather) {
        *self.world.weather.lock().unwrap() = weather;
    }

    /// Silences every connection there is, for ever; new ones work.
    pub(crate) fn freeze(&self) {
        self.world.frozen.send_modify(|n| *n += 1);
    }

    /// Resets every connection there is; new ones work.
    pub(crate) fn reset(&self) {
        self.world.reset.send_modify(|n| *n += 1);
    }

    /// Loses the answers to the next `n` transactions that have a statement with `needle` in it:
    /// the server has done them, and nobody is told.
    pub(crate) fn lose(&self, needle: &'static str, n: usize, then: Then) {
        *self.world.loss.lock().unwrap() = Some(Loss {
            needle,
            n_left: n,
            then,
        });
    }

    /// Waits until so many answers were lost.
    pub(crate) async fn until_lost(&self, n: usize) {
        until_as_many(&self.world.n_lost, n).await;
    }

    /// Waits until so many answers were late, whatever became of them.
    pub(crate) async fn until_late(&self, n: usize) {
        until_as_many(&self.world.n_late, n).await;
    }

    /// Delivers the answer that has been late for the longest.
    pub(crate) fn deliver(&self) {
        let first = self.world.late.lock().unwrap().pop_front();
        first.unwrap().send(()).unwrap();
    }

    /// Loses the answer that has been late for the longest; its connection is reset.
    pub(crate) fn drop_late(&self) {
        let first = self.world.late.lock().unwrap().pop_front();
        drop(first.unwrap());
    }

    /// Returns how many answers were lost.
    pub(crate) fn n_lost(&self) -> usize {
        *self.world.n_lost.borrow()
    }
}

async fn until_as_many(count: &watch::Sender<usize>, n: usize) {
    let mut count = count.subscribe();
    let reached = count.wait_for(|count| *count >= n);
    let waited = tokio::time::timeout(PATIENCE, reached).await;
    assert!(waited.is_ok(), "no such transaction came by");
}

fn socket(server: &PgConnectOptions) -> PathBuf {
    let folder = server.get_socket().unwrap();
    folder.join(format!(".s.PGSQL.{}", server.get_port()))
}

/// What one connection has said so far.
#[derive(Debug, Default)]
struct Talk {
    statements: HashMap<Vec<u8>, String>,
    /// What was executed since no transaction was open.
    executed: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl World {
    async fn serve(self: Arc<Self>, mut client: TcpStream) {
        let target = self.target.lock().unwrap().clone();
        // However it ends, it ends by RST: whoever waits is told at once, and what is under way is
        // lost.
        client.set_zero_linger().unwrap();
        client.set_nodelay(true).unwrap();
        let (frozen, reset) = (self.frozen.subscribe(), self.reset.subscribe());
        let Ok(mut server) = UnixStream::connect(target).await else {
            return;
        };
        if greet(&mut client, &mut server).await.is_err() {
            return;
        }
        let talk = Mutex::new(Talk::default());
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let both = async {
            tokio::select! {
                _ = self.carry(Way::Up, from_client, to_server, &talk) => {}
                _ = self.carry(Way::Down, from_server, to_client, &talk) => {}
            }
        };
        let (mut frozen, mut reset) = (frozen, reset);
        tokio::select! {
            biased;
            _ = reset.changed() => {}
            _ = frozen.changed() => std::future::pending().await,
            () = both => {}
        }
    }

    /// Carries one direction of a connection until it ends.
    async fn carry(
        &self,
        way: Way,
        mut from: impl AsyncReadExt + Unpin,
        mut to: impl AsyncWriteExt + Unpin,
        talk: &Mutex<Talk>,
    ) -> io::Result<()> {
        let (mut read, mut kept) = (Vec::new(), Vec::new());
        while from.read_buf(&mut read).await? > 0 {
            let whole = whole_messages(&read);
            let mut now: Vec<u8> = read.drain(..whole).collect();
            match way {
                Way::Up => talk.lock().unwrap().hear(&now),
                Way::Down => {
                    kept.append(&mut now);
                    match self.judge(talk, &kept) {
                        Verdict::Keep => continue,
                        Verdict::Lose(Then::Late) if self.is_delivered().await => {
                            now = std::mem::take(&mut kept);
                        }
                        Verdict::Lose(then) => {
                            self.n_lost.send_modify(|n| *n += 1);
                            if then == Then::Silence {
                                std::future::pending::<()>().await;
                            }
                            return Ok(());
                        }
                        Verdict::Pass => now = std::mem::take(&mut kept),
                    }
                }
            }
            if now.is_empty() {
                continue;
            }
            self.weather_the(way, now.len()).await;
            if self.one_in(|weather| weather.cut_one_in) {
                now.truncate(now.len() / 2);
                to.write_all(&now).await?;
                return Ok(());
            }
            to.write_all(&now).await?;
        }
        Ok(())
    }

    /// Waits until somebody says what becomes of a late answer.
    async fn is_delivered(&self) -> bool {
        let (sender, verdict) = oneshot::channel();
        self.late.lock().unwrap().push_back(sender);
        self.n_late.send_modify(|n| *n += 1);
        verdict.await.is_ok()
    }

    /// Waits as long as `n` bytes take.
    async fn weather_the(&self, way: Way, n: usize) {
        let weather = self.weather.lock().unwrap().clone();
        if !weather.delay_ms.is_empty() {
            let delay = self.chance.lock().unwrap().u64(weather.delay_ms);
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        if weather.bytes_per_sec > 0 {
            let _line = match way {
                Way::Up => self.up.lock().await,
                Way::Down => self.down.lock().await,
            };
            let n = u32::try_from(n).unwrap();
            let takes = f64::from(n) / f64::from(weather.bytes_per_sec);
            tokio::time::sleep(Duration::from_secs_f64(takes)).await;
        }
    }

    fn one_in(&self, of: impl Fn(&Weather) -> u32) -> bool {
        let n = of(&self.weather.lock().unwrap());
        n > 0 && self.chance.lock().unwrap().u32(0..n) == 0
    }

    /// Says what becomes of messages of the server.
    fn judge(&self, talk: &Mutex<Talk>, messages: &[u8]) -> Verdict {
        let mut talk = talk.lock().unwrap();
        let by_chance = self.weather.lock().unwrap().lose_one_in > 0;
        let mut loss = self.loss.lock().unwrap();
        let is_meant = loss
            .as_ref()
            .is_some_and(|loss| loss.n_left > 0 && talk.executed.contains(loss.needle));
        let may_lose = !talk.executed.is_empty() && (is_meant || by_chance);
        let readiness = each_message(messages)
            .filter(|(tag, _)| *tag == b'Z')
            .last();
        match readiness.and_then(|(_, body)| body.first()) {
            // Ready, and no transaction is open: what was executed is committed, or refused.
            Some(b'I') => {
                talk.executed.clear();
                if is_meant {
                    let loss = loss.as_mut().unwrap();
                    loss.n_left -= 1;
                    return Verdict::Lose(loss.then);
                }
                if may_lose && self.one_in(|weather| weather.lose_one_in) {
                    return Verdict::Lose(Then::Reset);
                }
                Verdict::Pass
            }
            None if may_lose => Verdict::Keep,
            _ => Verdict::Pass,
        }
    }
}

enum Verdict {
    Pass,
    /// The answer is not whole yet.
    Keep,
    Lose(Then),
}

impl Talk {
    /// Notes what the client has the server execute.
    fn hear(&mut self, messages: &[u8]) {
        for (tag, body) in each_message(messages) {
            let mut words = body.split(|byte| *byte == 0);
            let mut word = || words.next().unwrap_or_default();
            match tag {
                b'Q' => self.executed += &String::from_utf8_lossy(word()),
                b'P' => {
                    let (name, text) = (word().to_vec(), String::from_utf8_lossy(word()));
                    self.statements.insert(name, text.into_owned());
                }
                b'B' => {
                    let (_portal, name) = (word(), word());
                    self.executed += self.statements.get(name).map_or("?", |text| text);
                }
                _ => {}
            }
        }
    }
}

/// Carries the first messages of a connection, which have no tag.
async fn greet(client: &mut TcpStream, server: &mut UnixStream) -> io::Result<()> {
    let n = client.read_u32().await?;
    let mut rest = vec![0; n as usize - 4];
    client.read_exact(&mut rest).await?;
    server.write_u32(n).await?;
    server.write_all(&rest).await
}

/// Returns how many bytes of `bytes` are whole messages: a tag, a length that counts itself, a body.
fn whole_messages(bytes: &[u8]) -> usize {
    each_message(bytes).map(|(_, body)| body.len() + 5).sum()
}

fn each_message(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (tag, rest) = bytes.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk::<4>()?) as usize;
        let body = rest.get(4..length)?;
        bytes = &rest[length..];
        Some((*tag, body))
    })
}
