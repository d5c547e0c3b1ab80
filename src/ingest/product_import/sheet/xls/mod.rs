//! Excel 97–2003 workbooks, through calamine.
//!
//! calamine reads the whole workbook: the file, the stream, every cell, and
//! for every sheet one dense table of the rectangle around its cells. What
//! bounds it is looked at before: the file is at most 128 MiB (`ole.rs`), and
//! the rectangles of all sheets together, as declared and as the cells have
//! it, at most 8,388,608 cells ([`MAX_CELLS`], 65,536 rows of 128 columns),
//! 200 MB; calamine keeps a second such table while a sheet is read. It gives no
//! number formats and takes a formula without a value for an empty text, so
//! those are looked up before (`notes.rs`).

mod formula;
mod notes;

use std::fs::File;
use std::io::BufReader;
use std::iter::Peekable;
use std::path::Path;

use calamine::{Data, DataRef, Dimensions, Reader, XlsOptions};

use self::notes::{Note, What};
use super::super::row::cell::{Cell, Epoch, RowBuf};
use super::calamine_cell::{borrowed, contain, put, worksheets};
use super::merged;
use super::ole::{self, Compound, u16_at, u32_at};
use super::refusal::Refusal;
use super::rows::{Rows, SheetName, Visitor, Workbook};

/// Most cells of the rectangles of all sheets together.
const MAX_CELLS: u64 = 65_536 * 128;

/// A record that names a sheet and where it begins.
const BOUND_SHEET: u16 = 0x0085;
/// The code page of UTF-16.
const UTF_16: u16 = 1200;

/// An Excel 97–2003 workbook, read into memory.
pub(super) struct Xls {
    workbook: calamine::Xls<BufReader<File>>,
    /// By sheet, in the order in which the workbook names them.
    notes: Vec<Vec<Note>>,
}

impl Xls {
    /// Opens a workbook.
    ///
    /// # Errors
    ///
    /// [`Refusal::PASSWORD_PROTECTED`]; [`Refusal::FILE_TOO_LARGE`] when the sheets' rectangles are
    /// too big; [`Refusal::INVALID_FILE_FORMAT`] when it is damaged.
    pub(super) fn open(path: &Path) -> Result<Self, Refusal> {
        let stream = Compound::open(path)?.workbook()?;
        check_stream(&stream)?;
        let mut options = XlsOptions::default();
        if is_unicode(&stream) {
            // whatever code page is named: calamine would take it for that of UTF-16
            options.force_codepage = Some(UTF_16);
        }
        let notes = notes::read(&stream);
        drop(stream);
        let file = BufReader::new(File::open(path)?);
        match contain("the workbook", || {
            calamine::Xls::new_with_options(file, options)
        })? {
            Ok(workbook) => Ok(Self { workbook, notes }),
            Err(calamine::XlsError::Password) => Err(ole::password_protected()),
            Err(error) => Err(Refusal::damaged("the workbook", &error)),
        }
    }
}

impl Workbook for Xls {
    fn sheets(&self) -> Vec<SheetName> {
        worksheets(self.workbook.sheets_metadata())
    }

    fn verify(&mut self, _sheet: &str) -> Result<Option<u64>, Refusal> {
        Ok(None)
    }

    fn with_rows(&mut self, sheet: &str, f: Visitor<'_>) -> Result<(), Refusal> {
        let range = self
            .workbook
            .worksheet_range(sheet)
            .map_err(|error| Refusal::damaged("the sheet", &error))?;
        let (first_row, first_column) = range.start().unwrap_or_default();
        // of two sheets of one name calamine keeps the last
        let sheets = self.workbook.sheets_metadata();
        let at = sheets.iter().rposition(|found| found.name == sheet);
        let notes = at.and_then(|at| self.notes.get(at));
        f(&mut DenseRows {
            notes: notes.map(Vec::as_slice).unwrap_or_default(),
            next_row_no: first_row + 1,
            first_column: usize::try_from(first_column).unwrap_or_default(),
            rows: range.rows().peekable(),
        })
    }

    fn merged(&mut self, sheet: &str) -> Result<Vec<merged::Range>, Refusal> {
        let found = self.workbook.merge_cells_by_sheet_name(sheet);
        let found = found.map_err(|error| Refusal::damaged("the sheet", &error))?;
        let mut ranges = Vec::new();
        for Dimensions { start, end } in found {
            let range = merged::Range {
                first_row: start.0.saturating_add(1),
                first_column: start.1,
                last_row: end.0.saturating_add(1),
                last_column: end.1,
            };
            merged::add(&mut ranges, range)?;
        }
        Ok(ranges)
    }

    fn epoch(&self) -> Epoch {
        if self.workbook.has_1904_epoch() {
            Epoch::Y1904
        } else {
            Epoch::Y1900
        }
    }
}

struct DenseRows<'a> {
    /// Number of the next of `rows`.
    next_row_no: u32,
    first_column: usize,
    rows: Peekable<calamine::Rows<'a, Data>>,
    /// Those of the rows that are left.
    notes: &'a [Note],
}

impl<'a> DenseRows<'a> {
    /// Takes the notes of a row.
    fn notes_of(&mut self, row_no: u32) -> &'a [Note] {
        let n_of_row = self.notes.partition_point(|note| note.row_no() <= row_no);
        let (of_row, rest) = self.notes.split_at(n_of_row);
        self.notes = rest;
        of_row
    }

    /// Takes the cells of the next row.
    fn cells(&mut self) -> impl Iterator<Item = (usize, &'a Data)> + use<'a> {
        self.next_row_no = self.next_row_no.saturating_add(1);
        let cells = self.rows.next().unwrap_or_default();
        (self.first_column..).zip(cells)
    }
}

/// Returns what is noted about the cell in a column of the row of these notes.
fn noted_at(notes: &[Note], column: usize) -> What {
    let at = notes.binary_search_by_key(&column, |note| usize::from(note.column));
    let note = at.ok().and_then(|at| notes.get(at));
    note.map_or(What::Plain, |note| note.what)
}

impl Rows for DenseRows<'_> {
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        let next = self.rows.peek().map(|_| self.next_row_no);
        // a formula without a value is no cell of calamine's, and may be the only one of its row
        let without_value = self.notes.first().map(|note| note.row_no());
        let Some(row_no) = next.into_iter().chain(without_value).min() else {
            return Ok(false);
        };
        row.start(row_no);
        let notes = self.notes_of(row_no);
        if next == Some(row_no) {
            for (column, cell) in self.cells() {
                match (noted_at(notes, column), cell) {
                    (What::Number(digits), Data::DateTime(number)) => {
                        put(row, column, &DataRef::Float(number.as_f64()), digits);
                    }
                    (What::Number(digits), cell) => put(row, column, &borrowed(cell), digits),
                    (_, cell) => put(row, column, &borrowed(cell), 0),
                }
            }
        }
        for note in notes.iter().filter(|it| it.what == What::Uncalculated) {
            row.set(usize::from(note.column), Cell::Uncalculated);
        }
        Ok(true)
    }
}

/// Whether the workbook is of Excel 97 or later, whose texts are UTF-16; those before have a code
/// page.
fn is_unicode(stream: &[u8]) -> bool {
    u16_at(stream, 0) == Some(0x0809) && u16_at(stream, 4) == Some(0x0600)
}

/// Refuses what would make calamine allocate more than the file deserves, by walking over the
/// records of the workbook and its sheets (\[MS-XLS\] 2.3) as it will.
fn check_stream(stream: &[u8]) -> Result<(), Refusal> {
    const FILE_PASS: u16 = 0x002f;
    let mut n_cells = 0_u64;
    for (kind, data) in records(stream) {
        match kind {
            FILE_PASS => return Err(ole::password_protected()),
            BOUND_SHEET => {
                let at = u32_at(data, 0).and_then(|at| usize::try_from(at).ok());
                let sheet = at.and_then(|at| stream.get(at..));
                let sheet = sheet.ok_or_else(|| Refusal::format("the workbook is damaged"))?;
                let n_more = rectangle(sheet)?;
                n_cells = n_cells.saturating_add(n_more);
            }
            _ => {}
        }
        if n_cells > MAX_CELLS {
            return Err(Refusal::new(
                Refusal::FILE_TOO_LARGE,
                "the sheets of an xls file span too many cells; save it as xlsx",
            ));
        }
    }
    Ok(())
}

/// Returns the records from here to the end of this part of the stream.
fn records(stream: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const END: u16 = 0x000a;
    all_records(stream).take_while(|(kind, _)| *kind != END)
}

/// Returns the records from here on, as far as they are whole.
fn all_records(stream: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = stream;
    std::iter::from_fn(move || {
        let kind = u16_at(rest, 0)?;
        let len = usize::from(u16_at(rest, 2)?);
        let data = rest.get(4..4 + len)?;
        rest = rest.get(4 + len..)?;
        Some((kind, data))
    })
}

fn broken_off() -> Refusal {
    Refusal::format("a sheet of the workbook is damaged: its records break off before its end")
}

/// Refuses a record that is longer than its kind: it has taken in others, whose cells would be lost.
fn check_length(kind: u16, data: &[u8]) -> Result<(), Refusal> {
    let most = match kind {
        // blank, shared text, number, truth value or error, row, RK
        0x0201 => 6,
        0x0205 => 8,
        0x00fd | 0x027e => 10,
        0x0203 => 14,
        0x0208 => 16,
        _ => return Ok(()),
    };
    if data.len() > most {
        return Err(Refusal::format(
            "a sheet of the workbook is damaged: a record of a cell goes on over those behind it",
        ));
    }
    Ok(())
}

/// Returns the cells of the rectangle around a sheet's cells, or of the one it declares.
///
/// Cells of charts inside the sheet are counted too, which calamine passes over: rather too much.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] where its records do not lead to the one that ends it, or one is
/// longer than it can be, so that rows may be missing.
fn rectangle(sheet: &[u8]) -> Result<u64, Refusal> {
    let mut declared = 0;
    let mut rows = Extent::default();
    let mut columns = Extent::default();
    let mut rest = sheet;
    let mut depth = 0_u32;
    while let (Some(kind), Some(len)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let end = 4 + usize::from(len);
        let data = rest.get(4..end).ok_or_else(broken_off)?;
        rest = rest.get(end..).unwrap_or_default();
        check_length(kind, data)?;
        match kind {
            0x0809 => depth += 1,
            0x000a if depth <= 1 => return Ok(declared.max(rows.len() * columns.len())),
            0x000a => depth -= 1,
            0x0200 => declared = declared.max(declared_cells(data)),
            // a formula's text; without a formula before it calamine takes it for cell A1
            0x0207 => {
                rows.include(Some(rows.0.map_or(0, |(low, _)| low)));
                columns.include(Some(columns.0.map_or(0, |(low, _)| low)));
            }
            // formula, label, rich label, blank and the like, number, truth value, RK
            0x0006 | 0x00d6 | 0x00fd | 0x0203 | 0x0204 | 0x0205 | 0x027e => {
                rows.include(u16_at(data, 0));
                columns.include(u16_at(data, 2));
            }
            // many RK: its last column is its last word
            0x00bd => {
                rows.include(u16_at(data, 0));
                columns.include(u16_at(data, 2));
                columns.include(u16_at(data, data.len().saturating_sub(2)));
            }
            _ => {}
        }
    }
    Err(broken_off())
}

#[derive(Default)]
struct Extent(Option<(u16, u16)>);

impl Extent {
    fn include(&mut self, at: Option<u16>) {
        let Some(at) = at else { return };
        let (low, high) = self.0.unwrap_or((at, at));
        self.0 = Some((low.min(at), high.max(at)));
    }

    fn len(&self) -> u64 {
        self.0.map_or(0, |(low, high)| u64::from(high - low) + 1)
    }
}

/// Returns the cells that a record of dimensions makes calamine reserve memory for.
fn declared_cells(data: &[u8]) -> u64 {
    let short = |at| u16_at(data, at).map_or(0, u64::from);
    let long = |at| u32_at(data, at).map_or(0, u64::from);
    let (first_row, end_row, first_column, end_column) = if data.len() == 10 {
        (short(0), short(2), short(4), short(6))
    } else {
        (long(0), long(4), short(8), short(10))
    };
    let first_column = if first_column > 0xff || end_column < first_column {
        0
    } else {
        first_column
    };
    if end_row == 0 || end_column == 0 {
        return 1;
    }
    if end_row <= first_row || end_column <= first_column {
        return u64::MAX; // the difference would wrap
    }
    (end_row - first_row).saturating_mul(end_column - first_column)
}
