//! What the service manager is told: readiness, status, reload, stop (`sd_notify(3)`).

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

/// Longest that a message may wait for the manager to read earlier ones.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The way to the service manager; without one, everything said is dropped.
///
/// A message that cannot be sent is logged at DEBUG and no error: the process
/// does not fail because nobody listens.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    socket: Option<OsString>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(
            std::env::var_os("NOTIFY_SOCKET"),
            sd_notify::watchdog_enabled(),
        )
    }

    /// Speaks to a datagram socket: a path, or an abstract name after `@`.
    ///
    /// `watchdog` is the time after which the manager gives the process up when
    /// it hears no [`Self::alive`].
    #[must_use]
    pub fn new(socket: Option<OsString>, watchdog: Option<Duration>) -> Self {
        Self {
            socket: socket.filter(|name| !name.is_empty()),
            watchdog: watchdog.filter(|interval| !interval.is_zero()),
        }
    }

    /// Returns the manager's watchdog interval, `None` where it keeps none.
    #[must_use]
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Start-up, or a reload, is finished.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// The stop has begun.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, text: &str) {
        self.send(&[NotifyState::Status(&text.replace('\n', " "))]);
    }

    /// A reload has begun; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => debug!(%error, "no monotonic clock"),
        }
    }

    /// The process works; resets the manager's watchdog.
    pub fn alive(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let message = lines.join("\n") + "\n";
        if let Err(error) = send_to(socket, message.as_bytes()) {
            debug!(%error, ?socket, "service manager does not listen");
        }
    }
}

fn send_to(socket: &OsString, message: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_write_timeout(Some(SEND_TIMEOUT))?;
    sender.send_to_addr(message, &address)?;
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A service manager of the test's own.
    pub(in crate::lifecycle) struct Manager {
        socket: tokio::net::UnixDatagram,
        dir: tempfile::TempDir,
    }

    impl Manager {
        pub(in crate::lifecycle) fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let socket = tokio::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
            Self { socket, dir }
        }

        pub(in crate::lifecycle) fn notifier(&self, watchdog: Option<Duration>) -> Notifier {
            let path = self.dir.path().join("notify");
            Notifier::new(Some(path.into_os_string()), watchdog)
        }

        /// Waits for one message.
        pub(in crate::lifecycle) async fn heard(&self) -> String {
            let mut buffer = [0; 1024];
            let n = self.socket.recv(&mut buffer).await.unwrap();
            String::from_utf8(buffer[..n].to_vec()).unwrap()
        }
    }

    #[tokio::test]
    async fn the_manager_hears_each_state() {
        let manager = Manager::new();
        let notifier = manager.notifier(None);
        notifier.ready();
        assert_eq!(manager.heard().await, "READY=1\n");
        notifier.status("3 jobs run\nREADY=1");
        assert_eq!(manager.heard().await, "STATUS=3 jobs run READY=1\n");
        notifier.reloading();
        let message = manager.heard().await;
        let usec = message
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(usec.trim_end().parse::<u64>().unwrap() > 0);
        notifier.stopping();
        assert_eq!(manager.heard().await, "STOPPING=1\n");
        notifier.alive();
        assert_eq!(manager.heard().await, "WATCHDOG=1\n");
    }

    #[tokio::test]
    async fn an_abstract_name_works_too() {
        let name = format!("ingestd-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::new(Some(format!("@{name}").into()), None).ready();
        let mut buffer = [0; 16];
        let n = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1\n");
    }

    #[test]
    fn nobody_listening_is_no_error() {
        Notifier::default().ready();
        Notifier::new(Some("/nowhere/notify".into()), None).ready();
        Notifier::new(Some("@".into()), None).ready();
    }
}
