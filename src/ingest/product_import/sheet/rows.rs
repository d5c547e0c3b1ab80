//! The seam between the formats and the checks.
//!
//! A format is a [`Workbook`]: it names its sheets and gives the [`Rows`] of
//! one. Another scanner for xlsx takes the place of the one here by
//! implementing these two and being named in [`open`]; nothing else changes. What is
//! not known to be safe is opened in a child process (`child`), through the same two.

use std::fs::File;
use std::path::Path;

use super::super::row::cell::{Epoch, RowBuf};
use super::options::{Format, Options};
use super::refusal::Refusal;
use super::{child, delimited, merged, ods, scan, xls, xlsb, xlsx};

/// A sheet of a workbook, in the order of its tabs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SheetName {
    /// The name on the tab; empty where the format has none.
    pub(super) name: String,
    /// Whether the tab is shown.
    pub(super) is_visible: bool,
}

/// An opened file.
pub(super) trait Workbook {
    /// Returns the sheets that hold cells, in the order of their tabs.
    fn sheets(&self) -> Vec<SheetName>;

    /// Makes sure that a sheet can be read safely, as far as that can be told beforehand, and
    /// returns a number that its rows do not exceed.
    ///
    /// # Errors
    ///
    /// A refusal when the sheet is damaged or beyond the limits.
    fn verify(&mut self, sheet: &str) -> Result<Option<u64>, Refusal>;

    /// Calls `f` with the rows of a sheet from its top.
    ///
    /// `f` is called again with the rows that are left when it returns the refusal of a reader that
    /// declines the rest, so it keeps what it has taken.
    ///
    /// # Errors
    ///
    /// What `f` returns, and a refusal when there is no such sheet.
    fn with_rows(&mut self, sheet: &str, f: Visitor<'_>) -> Result<(), Refusal>;

    /// Returns the merged ranges of a sheet, by a look of its own.
    ///
    /// # Errors
    ///
    /// [`Refusal::MERGED_CELLS`] where they cannot be read or are too many.
    fn merged(&mut self, sheet: &str) -> Result<Vec<merged::Range>, Refusal>;

    /// Returns what day 0 of its serial dates is.
    fn epoch(&self) -> Epoch {
        Epoch::Y1900
    }

    /// Returns the workbook for a reading later on, where what it holds meanwhile is little: no
    /// process, and no more memory than where its strings lie.
    fn keep(self: Box<Self>) -> Option<scan::Scanned> {
        None
    }
}

/// What is done with the rows of a sheet. Rows borrow from their workbook, hence this way round.
pub(super) type Visitor<'f> = &'f mut dyn FnMut(&mut dyn Rows) -> Result<(), Refusal>;

/// The rows of a sheet, one at a time.
pub(super) trait Rows {
    /// Fills `row` with the next row that the file has; rows that it leaves out are blank.
    ///
    /// Row numbers rise. Returns `false` behind the last row.
    ///
    /// # Errors
    ///
    /// A refusal when the file is damaged; there are no rows behind that.
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal>;

    /// Whether hidden rows are marked.
    fn tells_hidden(&self) -> bool {
        false
    }
}

/// Opens a file of a known format that was looked at: workbooks other than the xlsx of `scan` in a
/// child process.
///
/// # Errors
///
/// A refusal when it is damaged, encrypted or beyond the limits.
pub(super) fn open(
    path: &Path,
    format: Format,
    options: &Options,
) -> Result<Box<dyn Workbook>, Refusal> {
    open_for(scan::Purpose::Read, path, format, options)
}

/// As [`open`], for who verifies its sheets.
///
/// # Errors
///
/// As [`open`].
pub(super) fn open_to_look(
    path: &Path,
    format: Format,
    options: &Options,
) -> Result<Box<dyn Workbook>, Refusal> {
    open_for(scan::Purpose::Look, path, format, options)
}

fn open_for(
    purpose: scan::Purpose,
    path: &Path,
    format: Format,
    options: &Options,
) -> Result<Box<dyn Workbook>, Refusal> {
    match format {
        Format::Csv(dialect) => Ok(Box::new(delimited::Delimited::new(
            File::open(path)?,
            dialect,
        ))),
        Format::Xlsx => scan::open(path, options, purpose, |path, options| {
            child::open(path, Format::Xlsx, options)
        }),
        format => child::open(path, format, options),
    }
}

/// Opens a workbook by calamine and whatever else is not safe, in this process.
///
/// # Errors
///
/// As [`open`].
pub(super) fn open_here(path: &Path, format: Format) -> Result<Box<dyn Workbook>, Refusal> {
    Ok(match format {
        Format::Xlsx => Box::new(xlsx::Xlsx::open(path)?),
        Format::Xlsb => Box::new(xlsb::Xlsb::open(path)?),
        Format::Xls => Box::new(xls::Xls::open(path)?),
        Format::Ods => Box::new(ods::Ods::open(path)?),
        Format::Csv(dialect) => Box::new(delimited::Delimited::new(File::open(path)?, dialect)),
    })
}
