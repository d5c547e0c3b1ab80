//! What a reader in a child process and the one that asks it say to each other.
//!
//! A *frame* is its length in 4 bytes, low byte first, a byte that says which
//! kind it is, and as many bytes as the length says. Questions and small answers
//! are JSON, rows are packed: row number, number of cells, and each cell with
//! its column, its type and its value. Nothing that comes in is trusted, neither
//! a length nor a text.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::super::super::row::cell::{Cell, RowBuf};
use super::super::merged::Range;

/// Longest frame: one row of the longest that is read, and what came before it.
pub(super) const MAX_FRAME_BYTES: usize = 40 << 20;
/// Longest row, as in delimited text.
pub(super) const MAX_ROW_BYTES: usize = 32 << 20;

/// What the reader is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// Whether a sheet can be read safely.
    Verify { sheet: String },
    /// The merged ranges of a sheet.
    Merged { sheet: String },
    /// The first rows of a sheet; cells beyond the limits are left out or cut.
    Rows {
        sheet: String,
        max_columns: usize,
        max_cell_bytes: usize,
    },
    /// The rows that come after those last given.
    More,
}

/// What the reader answers, rows aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The workbook is open.
    Opened {
        sheets: Vec<(String, bool)>,
        is_1904: bool,
    },
    /// The sheet can be read, and has no more rows than this.
    Verified { rows_at_most: Option<u64> },
    /// The sheet has these merged ranges.
    Merged { ranges: Vec<Range> },
    /// There are no more rows.
    End,
    /// The file is refused.
    Refused { code: String, message: String },
}

/// What comes in.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// JSON.
    Message(Vec<u8>),
    /// Packed rows.
    Rows(Vec<u8>),
}

const MESSAGE: u8 = b'm';
const ROWS: u8 = b'r';

/// Sends a question or an answer.
///
/// # Errors
///
/// When nobody listens any more.
pub(super) fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    put(to, MESSAGE, &serde_json::to_vec(message)?)
}

/// Sends rows that [`pack`] has packed.
///
/// # Errors
///
/// When nobody listens any more.
pub(super) fn send_rows(to: &mut impl Write, packed: &[u8]) -> io::Result<()> {
    put(to, ROWS, packed)
}

fn put(to: &mut impl Write, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(|_| garbage("a frame of 4 GiB"))?;
    to.write_all(&len.to_le_bytes())?;
    to.write_all(&[kind])?;
    to.write_all(bytes)?;
    to.flush()
}

/// Receives a frame.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`] for what is no frame or too long;
/// [`io::ErrorKind::UnexpectedEof`] when the other side is gone; the stream's own.
pub(super) fn receive(from: &mut impl Read) -> io::Result<Frame> {
    let mut header = [0; 5];
    from.read_exact(&mut header)?;
    let [a, b, c, d, kind] = header;
    let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if len > MAX_FRAME_BYTES {
        return Err(garbage("a frame that is too long"));
    }
    // as much memory as has come, not as much as is claimed
    let mut bytes = Vec::new();
    from.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    match kind {
        MESSAGE => Ok(Frame::Message(bytes)),
        ROWS => Ok(Frame::Rows(bytes)),
        _ => Err(garbage("a frame of unknown kind")),
    }
}

/// Receives a question or an answer.
///
/// # Errors
///
/// As [`receive`], and for anything else.
pub(super) fn receive_message<T: for<'d> Deserialize<'d>>(from: &mut impl Read) -> io::Result<T> {
    match receive(from)? {
        Frame::Message(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
        Frame::Rows(_) => Err(garbage("rows that nobody asked for")),
    }
}

pub(super) fn garbage(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Appends a row.
pub(super) fn pack(row: &RowBuf, out: &mut Vec<u8>) {
    out.extend(row.row_no().to_le_bytes());
    let count_at = out.len();
    out.extend([0; 4]);
    let mut n_cells = 0_u32;
    for column in 0..row.width() {
        let cell = row.cell(column);
        if cell != Cell::Empty {
            out.extend(u32::try_from(column).unwrap_or(u32::MAX).to_le_bytes());
            pack_cell(cell, out);
            n_cells += 1;
        }
    }
    if let Some(count) = out.get_mut(count_at..count_at + 4) {
        count.copy_from_slice(&n_cells.to_le_bytes());
    }
}

fn pack_cell(cell: Cell<'_>, out: &mut Vec<u8>) {
    match cell {
        Cell::Empty => out.push(b'-'),
        Cell::Number { value, digits } => {
            out.extend([b'n', digits]);
            out.extend(value.to_le_bytes());
        }
        Cell::Serial(days) => {
            out.push(b's');
            out.extend(days.to_le_bytes());
        }
        Cell::Bool(value) => out.extend([b'b', u8::from(value)]),
        Cell::Text(text) => pack_text(b't', text, out),
        Cell::LongText(text) => pack_text(b'l', text, out),
        Cell::IsoDate(text) => pack_text(b'i', text, out),
        Cell::Duration(text) => pack_text(b'd', text, out),
        Cell::Error(text) => pack_text(b'e', text, out),
        Cell::Uncalculated => out.push(b'u'),
    }
}

fn pack_text(kind: u8, text: &str, out: &mut Vec<u8>) {
    out.push(kind);
    // a text is cut long before it has 4 GiB
    out.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Packed rows that are taken one by one.
#[derive(Debug, Default)]
pub(super) struct Packed {
    bytes: Vec<u8>,
    at: usize,
}

impl Packed {
    /// Takes rows that came in.
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    /// Puts the next row into `row`; `false` when there is none.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] when it was not packed by [`pack`].
    pub(super) fn next(&mut self, row: &mut RowBuf) -> io::Result<bool> {
        if self.at == self.bytes.len() {
            return Ok(false);
        }
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let mut reader = Reader { rest };
        let left = reader.row(row).map(|()| reader.rest.len());
        let left = left.ok_or_else(|| garbage("a row that is damaged"))?;
        self.at = self.bytes.len() - left;
        Ok(true)
    }
}

struct Reader<'b> {
    rest: &'b [u8],
}

impl<'b> Reader<'b> {
    fn row(&mut self, row: &mut RowBuf) -> Option<()> {
        row.start(self.number()?);
        for _ in 0..self.number()? {
            let column = usize::try_from(self.number()?).ok()?;
            let cell = self.cell()?;
            row.set(column, cell);
        }
        Some(())
    }

    fn cell(&mut self) -> Option<Cell<'b>> {
        let [kind] = self.take()?;
        Some(match kind {
            b'n' => {
                let [digits] = self.take()?;
                let value = f64::from_le_bytes(self.take()?);
                Cell::Number { value, digits }
            }
            b's' => Cell::Serial(f64::from_le_bytes(self.take()?)),
            b'b' => Cell::Bool(self.take()? == [1]),
            b't' => Cell::Text(self.text()?),
            b'l' => Cell::LongText(self.text()?),
            b'i' => Cell::IsoDate(self.text()?),
            b'd' => Cell::Duration(self.text()?),
            b'e' => Cell::Error(self.text()?),
            b'u' => Cell::Uncalculated,
            _ => return None,
        })
    }

    fn text(&mut self) -> Option<&'b str> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        std::str::from_utf8(text).ok()
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cells() -> impl Strategy<Value = Vec<(usize, u8, String, f64)>> {
        prop::collection::vec((0_usize..30, 0_u8..10, "\\PC{0,12}", any::<f64>()), 0..20)
    }

    fn fill(row: &mut RowBuf, cells: &[(usize, u8, String, f64)]) {
        for (column, kind, text, value) in cells {
            let cell = match kind {
                0 => Cell::Number {
                    value: *value,
                    digits: 5,
                },
                1 => Cell::Serial(*value),
                2 => Cell::Bool(value.is_sign_positive()),
                3 => Cell::LongText(text),
                4 => Cell::IsoDate(text),
                5 => Cell::Duration(text),
                6 => Cell::Error(text),
                7 => Cell::Empty,
                8 => Cell::Uncalculated,
                _ => Cell::Text(text),
            };
            row.set(*column, cell);
        }
    }

    fn shown(row: &RowBuf) -> (u32, Vec<String>) {
        let cells = (0..25).map(|column| format!("{:?}", row.cell(column)));
        (row.row_no(), cells.collect())
    }

    proptest! {
        #[test]
        fn rows_come_out_as_they_went_in(rows in prop::collection::vec(cells(), 0..5)) {
            let mut packed = Vec::new();
            let mut expected = Vec::new();
            let mut row = RowBuf::new(25, 20);
            for (row_no, cells) in (1..).zip(&rows) {
                row.start(row_no);
                fill(&mut row, cells);
                pack(&row, &mut packed);
                expected.push(shown(&row));
            }
            let mut packed = Packed::new(packed);
            for expected in expected {
                prop_assert!(packed.next(&mut row).unwrap());
                prop_assert_eq!(shown(&row), expected);
            }
            prop_assert!(!packed.next(&mut row).unwrap());
        }

        #[test]
        fn any_bytes_are_rows_or_garbage(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut row = RowBuf::new(25, 20);
            let mut packed = Packed::new(bytes.clone());
            while let Ok(true) = packed.next(&mut row) {}
            drop(receive(&mut bytes.as_slice()));
            drop(receive_message::<Answer>(&mut bytes.as_slice()));
        }
    }

    #[test]
    fn a_length_that_is_claimed_takes_no_memory() {
        let mut huge = &[0xff, 0xff, 0xff, 0xff, b'r'][..];
        assert_eq!(
            receive(&mut huge).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        let mut cut = &[0xff, 0xff, 0, 0, b'r', 1][..];
        assert_eq!(
            receive(&mut cut).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
    }
}
