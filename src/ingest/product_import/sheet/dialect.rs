//! Which delimiter a text uses.

use std::io::{BufReader, Read};
use std::path::Path;

use super::super::cell::Epoch;
use super::super::field::Aliases;
use super::delimited::DelimitedRows;
use super::head::Head;
use super::options::{Charset, Dialect};
use super::refusal::Refusal;
use super::text::Utf8Text;

/// How much of the text is looked at, in bytes of UTF-8.
const SAMPLE_BYTES: u64 = 256 * 1024;

/// Finds out the delimiter: what a `sep=` line says, else the one of `, ; tab |` with which the
/// first rows make the best header row, else the one that makes most columns.
///
/// # Errors
///
/// When the file cannot be read.
pub(super) fn detect(
    path: &Path,
    charset: Charset,
    aliases: &Aliases,
    max_columns: usize,
) -> Result<Dialect, Refusal> {
    let file = std::fs::File::open(path)?;
    let mut sample = Vec::new();
    Utf8Text::new(BufReader::new(file), charset)
        .take(SAMPLE_BYTES)
        .read_to_end(&mut sample)?;
    let dialect = |delimiter, has_sep_line| Dialect {
        charset,
        delimiter,
        has_sep_line,
    };
    if let Some(delimiter) = sep_line(&sample) {
        return Ok(dialect(delimiter, true));
    }
    let mut best = (dialect(b',', false), (false, 0, 0));
    for delimiter in *b",;\t|" {
        let candidate = dialect(delimiter, false);
        let mut rows = DelimitedRows::new(sample.as_slice(), candidate)?;
        // a delimiter with which the sample is one endless row is not the one
        let mut head = Head::default();
        if head.read(&mut rows, Epoch::Y1900, max_columns).is_err() {
            continue;
        }
        let fitness = head.fitness(aliases);
        if fitness > best.1 {
            best = (candidate, fitness);
        }
    }
    Ok(best.0)
}

/// Returns the delimiter that the first line names, as in `sep=;`.
fn sep_line(sample: &[u8]) -> Option<u8> {
    let end = memchr::memchr2(b'\n', b'\r', sample).unwrap_or(sample.len());
    match sample.get(..end)? {
        [sep @ .., b'=', delimiter] | [b'"', sep @ .., b'=', delimiter, b'"']
            if sep.eq_ignore_ascii_case(b"sep")
                && delimiter.is_ascii()
                && !matches!(delimiter, b'"' | 0) =>
        {
            Some(*delimiter)
        }
        _ => None,
    }
}
