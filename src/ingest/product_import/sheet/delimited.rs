//! Delimited text (CSV): which delimiter, and the rows.
//!
//! The parser is the csv crate's core, driven by hand for three things its
//! reader does not give: the number of a row as a spreadsheet shows it, in
//! which blank lines count and line breaks inside quotes do not; a bound on
//! the memory of a row; and whether the last quote was closed.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};

use csv_core::{ReadRecordResult, Reader, ReaderBuilder};

use super::super::row::cell::{Cell, RowBuf};
use super::merged;
use super::options::Dialect;
use super::refusal::Refusal;
use super::rows::{Rows, SheetName, Visitor, Workbook};
use super::stray_quote::StrayQuote;
use super::text::Utf8Text;

/// Biggest row: 1,024 cells of 32,767 letters. A quote that is never closed runs into it.
const MAX_ROW_BYTES: usize = 32 << 20;
/// Most cells of a row; those beyond the last header are refused anyway.
const MAX_CELLS: usize = 65_536;

/// A delimited text.
pub(super) struct Delimited {
    file: File,
    dialect: Dialect,
}

impl Delimited {
    /// Makes a text of a known dialect; nothing is read yet.
    pub(super) fn new(file: File, dialect: Dialect) -> Self {
        Self { file, dialect }
    }
}

impl Workbook for Delimited {
    fn sheets(&self) -> Vec<SheetName> {
        vec![SheetName {
            name: String::new(),
            is_visible: true,
        }]
    }

    fn merged(&mut self, _sheet: &str) -> Result<Vec<merged::Range>, Refusal> {
        Ok(Vec::new())
    }

    fn verify(&mut self, _sheet: &str) -> Result<Option<u64>, Refusal> {
        Ok(None)
    }

    fn with_rows(&mut self, _sheet: &str, f: Visitor<'_>) -> Result<(), Refusal> {
        self.file.seek(SeekFrom::Start(0))?;
        let text = Utf8Text::new(
            BufReader::new(&self.file),
            self.dialect.charset,
            self.dialect.is_strict,
        );
        f(&mut DelimitedRows::new(text, self.dialect)?)
    }
}

fn parser(dialect: Dialect) -> Reader {
    let mut builder = ReaderBuilder::new();
    builder.delimiter(dialect.delimiter);
    match dialect.quote.byte() {
        Some(quote) => builder.quote(quote),
        None => builder.quoting(false),
    };
    builder.build()
}

/// What is wrong with the quotes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quotes {
    Closed,
    /// The last one is open at the end of the text.
    Open,
    /// One swallowed so many lines and closes in the middle of a text.
    Stray(u32),
}

/// The rows of a delimited text.
pub(super) struct DelimitedRows<R> {
    text: R,
    parser: Reader,
    quote: Option<u8>,
    /// Looks for stray quotes; `None`: nobody does.
    stray: Option<StrayQuote>,
    input: Vec<u8>,
    start: usize,
    end: usize,
    is_end: bool,
    /// The last row ended with `\r`, so that a `\n` at once is the rest of that line end.
    after_return: bool,
    row_no: u32,
    fields: Vec<u8>,
    ends: Vec<usize>,
}

impl<R: Read> DelimitedRows<R> {
    const BUFFER: usize = 64 * 1024;

    /// Reads rows of UTF-8 text; a `sep=` line is passed over, as spreadsheets do.
    pub(super) fn new(text: R, dialect: Dialect) -> Result<Self, Refusal> {
        let mut rows = Self {
            text,
            parser: parser(dialect),
            quote: dialect.quote.byte(),
            stray: (dialect.quote.byte())
                .filter(|_| dialect.is_strict)
                .map(|quote| StrayQuote::new(quote, dialect.delimiter)),
            input: vec![0; Self::BUFFER],
            start: 0,
            end: 0,
            is_end: false,
            after_return: false,
            row_no: 0,
            fields: vec![0; 4096],
            ends: vec![0; 64],
        };
        if dialect.has_sep_line {
            rows.skip_line()?;
        }
        Ok(rows)
    }

    /// Makes sure that there is input; `false` at the end of the text.
    fn fill(&mut self) -> Result<bool, Refusal> {
        while self.start == self.end && !self.is_end {
            (self.start, self.end) = (0, self.text.read(&mut self.input)?);
            self.is_end = self.end == 0;
        }
        Ok(!self.is_end)
    }

    fn skip_line(&mut self) -> Result<(), Refusal> {
        while self.fill()? {
            let byte = self.input.get(self.start).copied();
            self.start += 1;
            self.after_return = byte == Some(b'\r');
            if self.after_return || byte == Some(b'\n') {
                break;
            }
        }
        Ok(())
    }

    /// Passes over line ends, counting the blank lines among them; `false` at the end of the text.
    fn skip_blank_lines(&mut self) -> Result<bool, Refusal> {
        while self.fill()? {
            let byte = self.input.get(self.start).copied();
            match byte {
                Some(b'\n') if self.after_return => self.after_return = false,
                Some(b'\n' | b'\r') => {
                    self.row_no = self.row_no.saturating_add(1);
                    self.after_return = byte == Some(b'\r');
                }
                _ => return Ok(true),
            }
            self.start += 1;
        }
        Ok(false)
    }

    /// Parses one row into `fields` and `ends`; returns its number of cells and what is wrong with
    /// its quotes.
    fn parse(&mut self) -> Result<(usize, Quotes), Refusal> {
        let (mut n_bytes, mut n_ends, mut n_quotes) = (0, 0, 0);
        let mut last = 0;
        let mut stray = self.stray.clone();
        // where the bytes begin that `stray` has not looked at
        let mut unseen;
        loop {
            self.fill()?;
            unseen = self.start;
            let input = self.input.get(self.start..self.end).unwrap_or_default();
            let fields = self.fields.get_mut(n_bytes..).unwrap_or_default();
            let ends = self.ends.get_mut(n_ends..).unwrap_or_default();
            let (result, n_in, n_out, n_new) = self.parser.read_record(input, fields, ends);
            let read = input.get(..n_in).unwrap_or_default();
            n_quotes += self
                .quote
                .map_or(0, |quote| memchr::memchr_iter(quote, read).count());
            last = read.last().copied().unwrap_or(last);
            self.start += n_in;
            n_bytes += n_out;
            n_ends += n_new;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => self.grow_fields()?,
                ReadRecordResult::OutputEndsFull => self.grow_ends()?,
                ReadRecordResult::Record | ReadRecordResult::End => break,
            }
            // few rows are parsed in pieces; the others are looked at where they have to be
            if let Some(stray) = &mut stray {
                stray.look(self.input.get(unseen..self.start).unwrap_or_default());
            }
        }
        self.after_return = last == b'\r';
        // An odd quote alone may be an inch (`12" pipe`). At the end of the text, in a row that goes
        // over lines, it was opened and never closed.
        let is_open = self.is_end && n_quotes % 2 == 1 && self.has_line_end(n_bytes);
        let is_long = n_quotes > 0 && self.stray.is_some() && self.has_line_end(n_bytes);
        if let Some(stray) = stray.as_mut().filter(|_| is_long && !is_open) {
            stray.look(self.input.get(unseen..self.start).unwrap_or_default());
            if stray.is_found() {
                return Ok((n_ends, Quotes::Stray(self.n_line_ends(n_bytes))));
            }
        }
        let quotes = if is_open {
            Quotes::Open
        } else {
            Quotes::Closed
        };
        Ok((n_ends, quotes))
    }

    fn n_line_ends(&self, n_bytes: usize) -> u32 {
        let fields = self.fields.get(..n_bytes).unwrap_or_default();
        let count = |sign| memchr::memchr_iter(sign, fields).count();
        let n_ends = count(b'\n').max(count(b'\r'));
        u32::try_from(n_ends).unwrap_or(u32::MAX)
    }

    fn has_line_end(&self, n_bytes: usize) -> bool {
        let fields = self.fields.get(..n_bytes).unwrap_or_default();
        memchr::memchr2(b'\n', b'\r', fields).is_some()
    }

    fn grow_fields(&mut self) -> Result<(), Refusal> {
        if self.fields.len() >= MAX_ROW_BYTES {
            return Err(Refusal::format(format!(
                "row {} is longer than 32 MiB; is a quote opened in it and never closed?",
                self.row_no
            )));
        }
        self.fields.resize(self.fields.len() * 2, 0);
        Ok(())
    }

    fn grow_ends(&mut self) -> Result<(), Refusal> {
        if self.ends.len() >= MAX_CELLS {
            return Err(Refusal::new(
                Refusal::TOO_MANY_COLUMNS,
                format!("row {} has more than {MAX_CELLS} cells", self.row_no),
            ));
        }
        self.ends.resize(self.ends.len() * 2, 0);
        Ok(())
    }
}

impl<R: Read> Rows for DelimitedRows<R> {
    fn tells_hidden(&self) -> bool {
        true // there are none
    }

    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        if !self.skip_blank_lines()? {
            return Ok(false);
        }
        self.row_no = self.row_no.saturating_add(1);
        let (n_cells, quotes) = self.parse()?;
        row.start(self.row_no);
        let ends = self.ends.get(..n_cells).unwrap_or_default();
        let fields = self.fields.get(..ends.last().copied().unwrap_or(0));
        // the text is UTF-8 by now, and so is every part of it between delimiters
        let fields = String::from_utf8_lossy(fields.unwrap_or_default());
        let mut start = 0;
        for (column, end) in ends.iter().enumerate() {
            let text = fields.get(start..*end).unwrap_or_default();
            row.set(column, Cell::Text(text));
            start = *end;
        }
        match quotes {
            Quotes::Closed => {}
            Quotes::Open => row.mark_unclosed_quote(),
            Quotes::Stray(n_lines) => row.mark_stray_quote(n_lines),
        }
        Ok(true)
    }
}
