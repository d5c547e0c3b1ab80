//! Messages of the Postgres protocol, version 3, as bytes.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Longest message: what the server itself takes and sends at most.
const LONGEST: usize = 1 << 30;
/// Longest startup packet; the server's own limit.
const LONGEST_STARTUP: usize = 10_000;

/// One message, without its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'b> {
    pub(super) kind: u8,
    pub(super) body: &'b [u8],
}

impl<'b> Frame<'b> {
    /// Returns the first message and what follows it, or nothing where it is not whole yet.
    pub(super) fn first(bytes: &'b [u8]) -> io::Result<Option<(Self, &'b [u8])>> {
        let Some((&[kind, a, b, c, d], rest)) = bytes.split_first_chunk::<5>() else {
            return Ok(None);
        };
        let n_bytes = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let n_body = n_bytes.checked_sub(4).filter(|n| *n <= LONGEST);
        let n_body = n_body.ok_or_else(|| broken("a message of impossible length"))?;
        let split = rest.split_at_checked(n_body);
        Ok(split.map(|(body, rest)| (Self { kind, body }, rest)))
    }

    /// Appends the message.
    pub(super) fn write(self, out: &mut Vec<u8>) -> io::Result<()> {
        write(out, self.kind, &[self.body])
    }
}

/// Appends a message whose body is the parts, one after the other.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
    let n_bytes = 4 + parts.iter().map(|part| part.len()).sum::<usize>();
    let n_bytes = u32::try_from(n_bytes).map_err(|_| broken("a message too long"))?;
    out.push(kind);
    out.extend(n_bytes.to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// Splits text that ends with a zero byte off the front; the zero byte is in neither part.
pub(super) fn text(bytes: &[u8]) -> io::Result<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let split = end.and_then(|end| bytes.split_at_checked(end));
    let split = split.and_then(|(text, rest)| Some((text, rest.get(1..)?)));
    split.ok_or_else(|| broken("text without an end"))
}

/// Reads the packet with which a connection begins; returns it without its length.
pub(super) async fn read_startup(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let n_bytes = usize::try_from(from.read_u32().await?).unwrap_or(usize::MAX);
    let n_body = n_bytes.checked_sub(4).filter(|n| *n <= LONGEST_STARTUP);
    let mut body = vec![0; n_body.ok_or_else(|| broken("a startup packet too long"))?];
    from.read_exact(&mut body).await?;
    Ok(body)
}

/// Returns what a server says that cannot be reached.
pub(super) fn unreachable(why: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let why = why.replace('\0', "");
    let parts: [&[u8]; 3] = [b"SFATAL\0VFATAL\0C08006\0M", why.as_bytes(), b"\0\0"];
    if write(&mut out, b'E', &parts).is_err() {
        out.clear();
    }
    out
}

/// What is said where the other side does not speak the protocol.
pub(super) fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
