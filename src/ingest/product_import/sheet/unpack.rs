//! A file that was packed for the way: `.gz`, or a `.zip` that holds one file.
//!
//! It is unpacked into a file without a name, beside the packed one, and read
//! from there; a file that is not packed is read where it lies. One layer is
//! taken off, no more. A `.zip` that is a workbook itself is left alone.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::archive::{self, FREE_BYTES, MAX_ENTRY_BYTES, MAX_RATIO};
use super::detect;
use super::refusal::Refusal;
use super::temporary;

/// A file to read, unpacked where it was packed.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    /// The file without a name that `path` leads to, where there is one.
    unpacked: Option<File>,
}

impl Source {
    /// Whether [`Source::path`] is of another file than the one that was opened.
    pub(super) fn is_unpacked(&self) -> bool {
        self.unpacked.is_some()
    }

    /// Where it can be opened, as often as one likes, while this lives.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

/// Looks whether a file is packed, and unpacks it.
///
/// # Errors
///
/// [`Refusal::ARCHIVE_LIMITS`] when it unpacks to more than 2 GiB, or to more than 200 bytes for
/// one past 64 MiB; [`Refusal::INVALID_FILE_FORMAT`] when it is damaged;
/// [`Refusal::STORAGE_FULL`] when there is no room for it.
pub(super) fn open(path: &Path) -> Result<Source, Refusal> {
    let mut head = [0; 4];
    let file = File::open(path)?;
    let n_bytes = file.metadata()?.len();
    let n_head = file.take(4).read(&mut head)?;
    let unpacked = match head.get(..n_head).unwrap_or_default() {
        [0x1f, 0x8b, ..] => {
            let packed = BufReader::new(File::open(path)?);
            Some(copy(MultiGzDecoder::new(packed), n_bytes, path)?)
        }
        b"PK\x03\x04" => match detect::only_entry(path)? {
            Some((mut archive, name)) => {
                let part = archive::part(&mut archive, &name)?;
                Some(copy(part, n_bytes, path)?)
            }
            None => None,
        },
        _ => None,
    };
    Ok(Source {
        path: match &unpacked {
            // by number, so that every opening begins at the start; a child process opens it, too
            Some(file) => PathBuf::from(format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                file.as_raw_fd()
            )),
            None => path.to_owned(),
        },
        unpacked,
    })
}

fn copy(mut from: impl Read, n_packed: u64, beside: &Path) -> Result<File, Refusal> {
    let no_room =
        |error: &std::io::Error| Refusal::unkept("the packed file could not be unpacked", error);
    let mut to = temporary::file(beside).map_err(|error| no_room(&error))?;
    let mut buffer = vec![0; 128 * 1024];
    let mut n_bytes = 0_u64;
    loop {
        let n_read = from.read(&mut buffer)?;
        if n_read == 0 {
            return Ok(to);
        }
        n_bytes += n_read as u64;
        let is_bomb = n_bytes > FREE_BYTES && n_bytes / MAX_RATIO > n_packed;
        if n_bytes > MAX_ENTRY_BYTES || is_bomb {
            return Err(Refusal::archive(format!(
                "the packed file has {n_packed} bytes and unpacks to more than {n_bytes}; at most \
                 {MAX_ENTRY_BYTES}, and {MAX_RATIO} for one, are read"
            )));
        }
        let bytes = buffer.get(..n_read).unwrap_or_default();
        to.write_all(bytes).map_err(|error| no_room(&error))?;
    }
}
