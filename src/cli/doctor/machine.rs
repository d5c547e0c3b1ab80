//! What this machine can tell: the storage folder, the HTTP port.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use nix::{
    sys::statvfs::statvfs,
    unistd::{AccessFlags, access},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::Finding;
use crate::config;

/// Less free space than this is worth a look: a few large uploads fill it.
const LITTLE_SPACE: u64 = 2 << 30;
/// How long the daemon may take to answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks at the folder of uploaded files: may this user write it, and how much fits.
pub(super) fn storage(dir: &Path) -> Finding {
    let shown = dir.display();
    if !dir.exists() {
        let text = format!("{shown} does not exist yet");
        return Finding::warn(
            "storage",
            text,
            "the daemon makes it when it starts; storage.dir names it",
        );
    }
    if let Err(errno) = access(dir, AccessFlags::W_OK | AccessFlags::X_OK) {
        let text = format!("{shown}: {errno}");
        let hint = "run as the daemon's user, or give it the folder: chown ingestd";
        return Finding::fail("storage", text, hint);
    }
    let free = match statvfs(dir) {
        Ok(stat) => stat.blocks_available().saturating_mul(stat.fragment_size()),
        Err(errno) => {
            return Finding::fail("storage", format!("{shown}: {errno}"), "is it mounted?");
        }
    };
    let text = format!("{shown} is writable, {:.1} GiB free", gib(free));
    if free < LITTLE_SPACE {
        return Finding::warn("storage", text, "uploads are kept there; make room");
    }
    Finding::ok("storage", text)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "free space, shown with one decimal"
)]
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Asks the daemon of this machine whether it is ready.
pub(super) async fn http(config: &config::Http, has_daemon: bool) -> Finding {
    let address = reachable(config.listen);
    match timeout(HTTP_TIMEOUT, ask(address)).await {
        Ok(Ok(status)) if status.contains(" 200 ") => {
            Finding::ok("http", format!("http://{address}/readyz says ready"))
        }
        Ok(Ok(status)) => {
            let text = format!("http://{address}/readyz says {status}");
            Finding::fail(
                "http",
                text,
                format!("curl http://{address}/readyz names the reason"),
            )
        }
        Ok(Err(error)) if has_daemon => {
            let text = format!("a daemon runs here, but {address}: {error}");
            Finding::fail(
                "http",
                text,
                "does it listen on another address? http.listen",
            )
        }
        Ok(Err(_)) => {
            let hint = "no daemon runs on this machine; elsewhere is fine";
            Finding::warn("http", format!("nothing listens on {address}"), hint)
        }
        Err(_) => {
            let text = format!("{address} does not answer within 5 s");
            Finding::fail(
                "http",
                text,
                "something else may have the port: http.listen",
            )
        }
    }
}

/// Returns an address to connect to where the daemon listens on every one.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Returns the status line of `/readyz`.
async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut head = [0; 128];
    let n_bytes = stream.read(&mut head).await?;
    let text = String::from_utf8_lossy(head.get(..n_bytes).unwrap_or_default());
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_on_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.1.2.3:80", "10.1.2.3:80"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()), asked.parse().unwrap());
        }
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            storage(&dir.path().join("none")).status,
            super::super::Status::Warn
        );
        assert_eq!(storage(dir.path()).status, super::super::Status::Ok);
    }
}
