//! How much of an answer is read: counted after decompression, and never more than one piece
//! beyond the limit is held.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;

use super::FetchError;

/// Takes the pieces of a body as they come.
pub(super) struct Body {
    reader: Reader,
    max: u64,
    is_empty: bool,
}

enum Reader {
    Plain(Capped),
    Gzip(Box<MultiGzDecoder<Capped>>),
}

impl Body {
    /// Begins a body of that content encoding.
    ///
    /// An encoding that is not read, twice encoded bodies among them, is an error: to take it for
    /// the content would be to misread it.
    pub(super) fn new(encodings: &[&str], max: u64) -> Result<Self, FetchError> {
        let capped = Capped {
            bytes: Vec::new(),
            max,
        };
        let is_plain = |name: &&&str| name.is_empty() || name.eq_ignore_ascii_case("identity");
        let is_gzip =
            |name: &str| name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
        let mut named = encodings.iter().filter(|name| !is_plain(name));
        let reader = match (named.next(), named.next()) {
            (None, _) => Reader::Plain(capped),
            (Some(name), None) if is_gzip(name) => {
                Reader::Gzip(Box::new(MultiGzDecoder::new(capped)))
            }
            _ => return Err(FetchError::Encoding),
        };
        Ok(Self {
            reader,
            max,
            is_empty: true,
        })
    }

    /// Takes a piece.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), FetchError> {
        self.is_empty &= piece.is_empty();
        let pushed = match &mut self.reader {
            Reader::Plain(capped) => capped.write_all(piece),
            Reader::Gzip(decoder) => decoder.write_all(piece),
        };
        pushed.map_err(|error| refused(&error, self.max))
    }

    /// Returns the whole.
    pub(super) fn finish(self) -> Result<Vec<u8>, FetchError> {
        match self.reader {
            Reader::Plain(capped) => Ok(capped.bytes),
            // No bytes are no gzip, but what a 204 has.
            Reader::Gzip(_) if self.is_empty => Ok(Vec::new()),
            Reader::Gzip(mut decoder) => {
                let finished = decoder.try_finish();
                finished.map_err(|error| refused(&error, self.max))?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }
}

fn refused(error: &io::Error, max: u64) -> FetchError {
    if error.kind() == io::ErrorKind::FileTooLarge {
        FetchError::TooLarge(max)
    } else {
        FetchError::Encoding
    }
}

/// Holds at most `max` bytes.
pub(super) struct Capped {
    bytes: Vec<u8>,
    max: u64,
}

impl Write for Capped {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + piece.len()) as u64 > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
