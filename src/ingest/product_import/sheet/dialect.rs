//! Which delimiter and which quote a text uses.

use std::io::{BufReader, Read};
use std::path::Path;

use super::super::row::cell::Epoch;
use super::super::row::field::Aliases;
use super::charset::Charset;
use super::delimited::DelimitedRows;
use super::head::Head;
use super::options::{Dialect, Options, Quote};
use super::refusal::Refusal;
use super::text::Utf8Text;

/// How much of the text is looked at, in bytes of UTF-8.
const SAMPLE_BYTES: u64 = 256 * 1024;

/// Finds out delimiter and quote, where the options do not say.
///
/// The delimiter is what a `sep=` line says, else the one of `, ; tab |` with which the first rows
/// make the best header row, else the one that makes most columns. The quote is `'` where it stands
/// around most cells of the first row, and no `"` does.
///
/// # Errors
///
/// When the file cannot be read.
pub(super) fn detect(
    path: &Path,
    charset: Charset,
    aliases: &Aliases,
    options: &Options,
) -> Result<Dialect, Refusal> {
    let file = std::fs::File::open(path)?;
    let mut sample = Vec::new();
    Utf8Text::new(BufReader::new(file), charset, true)
        .take(SAMPLE_BYTES)
        .read_to_end(&mut sample)?;
    let named = sep_line(&sample);
    let delimiters: Vec<u8> = match options.csv_delimiter.or(named) {
        Some(delimiter) => vec![delimiter],
        None => b",;\t|".to_vec(),
    };
    let mut best: Option<(Dialect, (bool, usize, usize))> = None;
    for delimiter in delimiters {
        let candidate = Dialect {
            charset,
            delimiter,
            has_sep_line: named.is_some(),
            quote: options
                .csv_quote
                .unwrap_or_else(|| quote(&sample, delimiter)),
            is_strict: true,
        };
        let mut rows = DelimitedRows::new(sample.as_slice(), candidate)?;
        // a delimiter with which the sample is one endless row is not the one
        let mut head = Head::default();
        let read = head.read(&mut rows, Epoch::Y1900, options.max_columns);
        let fitness = read.map_or((false, 0, 0), |()| head.fitness(aliases));
        if best.as_ref().is_none_or(|(_, most)| fitness > *most) {
            best = Some((candidate, fitness));
        }
    }
    let (dialect, _) = best.ok_or_else(|| Refusal::format("no delimiter was tried"))?;
    Ok(dialect)
}

/// Tells the quote by the first line that holds a delimiter.
fn quote(sample: &[u8], delimiter: u8) -> Quote {
    let lines = sample.split(|b| matches!(b, b'\n' | b'\r'));
    let line = lines.take(50).find(|line| line.contains(&delimiter));
    let is_single = |cell: &&[u8]| matches!(cell, [b'\'', .., b'\'']);
    let line = line.unwrap_or_default();
    let cells = line.split(|b| *b == delimiter);
    let (n_cells, n_single) = cells.fold((0, 0), |(n_cells, n_single), cell| {
        (n_cells + 1, n_single + usize::from(is_single(&cell)))
    });
    if n_single * 2 > n_cells && !line.contains(&b'"') {
        Quote::Single
    } else {
        Quote::Double
    }
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
