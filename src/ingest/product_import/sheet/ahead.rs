//! A part looked through on a thread of its own, beside whatever else an inspection does.
//!
//! To inflate a sheet to its end takes about as long as to read the shared
//! strings, and needs nothing of them.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};

use super::archive::{self, Scan};
use super::refusal::Refusal;

/// A look under way. Dropped, it ends soon, and is waited for.
pub(super) struct Ahead {
    part: String,
    stop: Arc<AtomicBool>,
    looks: Option<JoinHandle<Result<Scan, Refusal>>>,
}

impl Ahead {
    /// Begins to look through a part of an archive as [`archive::scan`] does; `None` where there is
    /// no thread to be had.
    pub(super) fn begin(path: &Path, part: &str) -> Option<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (path, name, is_stopped) = (path.to_owned(), part.to_owned(), Arc::clone(&stop));
        let thread = Builder::new().name("import-looks".to_owned());
        let looks = thread.spawn(move || {
            let mut archive = archive::open(&path)?;
            let part = archive::part(&mut archive, &name)?;
            archive::scan_part(&name, Stoppable { part, is_stopped })
        });
        Some(Self {
            part: part.to_owned(),
            stop,
            looks: Some(looks.ok()?),
        })
    }

    /// Whether it is this part that is looked through.
    pub(super) fn is_of(&self, part: &str) -> bool {
        self.part == part
    }

    /// Waits for the end of the part.
    ///
    /// # Errors
    ///
    /// As [`archive::scan`].
    pub(super) fn end(mut self) -> Result<Scan, Refusal> {
        let looks = self.looks.take().map(JoinHandle::join);
        match looks {
            Some(Ok(found)) => found,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(Refusal::format("the sheet was not looked through")), // cannot be
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.looks.take().map(JoinHandle::join);
        drop(looks); // nobody wants to know what it came to
    }
}

/// A part that ends with an error once nobody waits for it.
struct Stoppable<R> {
    part: R,
    is_stopped: Arc<AtomicBool>,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.is_stopped.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it"));
        }
        self.part.read(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_nobody_waits_for_is_not_read_on() {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let mut part = Stoppable {
            part: io::repeat(b'x'),
            is_stopped: Arc::clone(&is_stopped),
        };
        let mut bytes = [0; 8];
        assert_eq!(part.read(&mut bytes).unwrap(), 8);
        is_stopped.store(true, Ordering::Relaxed);
        assert!(part.read(&mut bytes).is_err());
    }
}
