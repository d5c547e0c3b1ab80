//! A daemon as a process of its own, to be asked, killed and started again.

use std::{
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::net::TcpSocket;

/// How long anything may take before a test gives up: generous, because the machine may be busy
/// compiling. Nothing is asserted about time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// A running `ingestd run`; killed when dropped.
pub(crate) struct Daemon {
    child: Child,
    place: Place,
    log: PathBuf,
}

impl Daemon {
    /// Starts a daemon on a database and a storage folder and waits until it is ready.
    ///
    /// Its timings are short: a silent worker is lost after 3 s.
    pub(crate) async fn start(
        database_url: &str,
        storage: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_ingestd"));
        Self::start_as(program, database_url, storage, settings).await
    }

    /// As [`Self::start`], of a program that may be an older one.
    pub(crate) async fn start_as(
        program: &Path,
        database_url: &str,
        storage: &Path,
        settings: &[(&str, &str)],
    ) -> Self {
        let place = Place::reserve();
        let log = storage.join(format!("daemon-{}.log", fastrand::u32(..)));
        let mut command = Command::new(program);
        command
            .arg("run")
            .env("DATABASE_URL", database_url)
            .env("INGESTD_HTTP__LISTEN", place.address.to_string())
            .env("INGESTD_STORAGE__DIR", storage)
            .env("INGESTD_LOG__FORMAT", "text")
            .env("INGESTD_QUEUE__HEARTBEAT_INTERVAL", "500ms")
            .env("INGESTD_QUEUE__TRUST_WINDOW", "2s")
            .env("INGESTD_QUEUE__LOST_AFTER", "3s")
            .env("INGESTD_QUEUE__RESCUE_INTERVAL", "1s")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap());
        let daemon = Self {
            child: command.spawn().unwrap(),
            place,
            log,
        };
        until("the daemon is ready", || async {
            let answer = reqwest::get(daemon.url("/readyz")).await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        daemon
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.place.address)
    }

    /// Sends the process a signal, SIGSTOP for example.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
    }

    /// Ends the process as a power cut would, and waits for that.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Returns how much memory the process holds, in KiB.
    pub(crate) fn resident_kib(&self) -> i64 {
        let said = self.status("VmRSS:").unwrap();
        said.trim_end_matches(" kB").parse().unwrap()
    }

    /// Returns a figure of the process, `VmRSS:` for example (proc(5)); `None`: this kernel has none.
    pub(crate) fn status(&self, name: &str) -> Option<String> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let said = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(said.trim().to_owned())
    }

    /// Returns how many of its threads have a name.
    pub(crate) fn n_threads(&self, name: &str) -> usize {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let names = threads.flatten().map(|thread| {
            // a thread that ends meanwhile has none
            std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default()
        });
        names.filter(|found| found.trim() == name).count()
    }

    /// Waits until the process ends by itself and returns how.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        let child = std::cell::RefCell::new(&mut self.child);
        until("the daemon ends", || async {
            child.borrow_mut().try_wait().unwrap().is_some()
        })
        .await;
        self.child.wait().unwrap()
    }

    /// Asks the process to stop and returns how it ended.
    pub(crate) fn terminate(&mut self) -> std::process::ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap()
    }

    /// Returns what the daemon logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Past the capture of the test's own output, which a failing drop would lose.
            let text = format!("--- the daemon's log ---\n{}\n", self.log());
            drop(std::io::stderr().write_all(text.as_bytes()));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a condition; fails the test when patience ends.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A loopback address for a daemon. Its port is given to nobody else for as long as this value lives:
/// it is bound, but not listened on, so that a listener who names it may have it, too.
pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    _bound: TcpSocket,
}

impl Place {
    pub(crate) fn reserve() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self {
            address: socket.local_addr().unwrap(),
            _bound: socket,
        }
    }
}
