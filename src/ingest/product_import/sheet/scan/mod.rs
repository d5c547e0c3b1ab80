//! Our own reader of xlsx: one pass over a sheet while it inflates.
//!
//! It knows the one way in which spreadsheet programs write workbooks and
//! declines whatever else XML allows: prefixed names, other namespaces,
//! comments, sections, attributes in single quotes, other encodings, entities
//! that are declared, Excel's `_x000D_`, rows or cells out of place. What it
//! declines is *foreign*, no fault of the file: calamine takes over, from the
//! row at which that showed. A differential test holds the two together.
//!
//! In memory are a window of 128 KiB (at most 1 MiB, for a cell of that size),
//! the styles, where the shared strings lie on disk and 4,096 blocks of them:
//! some 10 MB however big the workbook is.

mod cell;
mod cursor;
mod rows;
mod strings;
mod styles;
mod table;
mod text;
mod window;

use std::path::{Path, PathBuf};

use super::super::row::cell::{Epoch, RowBuf};
use super::ahead::Ahead;
use super::archive::{self, Archive};
use super::choice;
use super::head::MAX_HEADER_CHARS;
use super::merged;
use super::options::Options;
use super::package::{self, Package};
use super::refusal::Refusal;
use super::rows::{Rows, SheetName, Visitor, Workbook};
use rows::{SheetRows, declined};
use strings::Strings;
use styles::Style;
pub(super) use styles::{least_digits, number_digits};
use window::Halt;

/// Opens a workbook for another reader.
type OpenOther = fn(&Path, &Options) -> Result<Box<dyn Workbook>, Refusal>;

/// A workbook of which the strings and styles are in the dialect.
pub(super) struct Scanned {
    archive: Archive,
    package: Package,
    strings: Strings,
    styles: Vec<Style>,
    path: PathBuf,
    options: Options,
    other: OpenOther,
    /// The look through the sheet that will be asked for first.
    ahead: Option<Ahead>,
}

/// What a workbook is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Its sheets will be verified: the first of them begins to be at once.
    Look,
    /// It was looked at before.
    Read,
}

/// Opens a workbook, with `other` where its strings or styles are foreign.
///
/// # Errors
///
/// [`Refusal::ARCHIVE_LIMITS`] and [`Refusal::FILE_TOO_LARGE`] beyond the limits;
/// [`Refusal::INVALID_FILE_FORMAT`] when it is damaged; what `other` says.
pub(super) fn open(
    path: &Path,
    options: &Options,
    purpose: Purpose,
    other: OpenOther,
) -> Result<Box<dyn Workbook>, Refusal> {
    match Scanned::open(path, options, purpose, other) {
        Ok(scanned) => Ok(Box::new(scanned)),
        Err(Halt::Foreign(_)) => other(path, options),
        Err(Halt::Refused(refusal)) => Err(refusal),
    }
}

impl Scanned {
    fn open(
        path: &Path,
        options: &Options,
        purpose: Purpose,
        other: OpenOther,
    ) -> Result<Self, Halt> {
        let mut archive = archive::open(path)?;
        let package = package::read(&mut archive)?;
        let ahead = match purpose {
            Purpose::Look => look_ahead(path, &package, options),
            Purpose::Read => None,
        };
        let styles = match &package.styles {
            Some(part) => styles::read(archive::part(&mut archive, part)?)?,
            None => Vec::new(),
        };
        // as rows cut them, and those in which headers are looked for
        let max_chars = options.max_cell_chars.max(MAX_HEADER_CHARS);
        let strings = match &package.strings {
            Some(part) => {
                let part = archive::part(&mut archive, part)?;
                table::read(part, path, max_chars.saturating_mul(4))?
            }
            None => table::none(path)?,
        };
        Ok(Self {
            archive,
            package,
            strings,
            styles,
            path: path.to_owned(),
            options: options.clone(),
            other,
            ahead,
        })
    }

    /// Goes on at another path of the same file, under other options.
    pub(super) fn moved(self, path: &Path, options: &Options) -> Self {
        Self {
            path: path.to_owned(),
            options: options.clone(),
            ..self
        }
    }

    /// Whether it was opened under options that give the same rows as these.
    pub(super) fn is_fit_for(&self, options: &Options) -> bool {
        self.options.max_cell_chars == options.max_cell_chars
    }

    /// Calls `f` with the rows down to where they are foreign, which is said with the last row.
    fn scan(&mut self, part: &str, f: Visitor<'_>) -> Result<(), (u32, Halt)> {
        let at_start = |halt| (0, halt);
        let part = archive::part(&mut self.archive, part).map_err(|it| (0, Halt::Refused(it)))?;
        let rows = SheetRows::begin(part, &mut self.strings, &self.styles);
        let mut rows = rows.map_err(at_start)?;
        f(&mut rows).map_err(|refusal| match rows.foreign() {
            // the rows are read ahead: what `f` refuses may be a row before the foreign one
            Some(why) if refusal == declined(why) => (rows.last(), Halt::Foreign(why)),
            _ => (rows.last(), Halt::Refused(refusal)),
        })
    }
}

impl Workbook for Scanned {
    fn sheets(&self) -> Vec<SheetName> {
        self.package.sheet_names()
    }

    fn verify(&mut self, sheet: &str) -> Result<Option<u64>, Refusal> {
        let part = self.package.part(sheet)?;
        let scan = match self.ahead.take() {
            Some(ahead) if ahead.is_of(part) => ahead.end(),
            _ => archive::scan(&mut self.archive, part),
        };
        scan.map(|scan| Some(scan.n_rows))
    }

    fn with_rows(&mut self, sheet: &str, f: Visitor<'_>) -> Result<(), Refusal> {
        let part = self.package.part(sheet)?.to_owned();
        match self.scan(&part, f) {
            Ok(()) => Ok(()),
            Err((_, Halt::Refused(refusal))) => Err(refusal),
            Err((last, Halt::Foreign(_))) => {
                let mut other = (self.other)(&self.path, &self.options)?;
                other.with_rows(sheet, &mut |rows| f(&mut Behind { rows, last }))
            }
        }
    }

    fn merged(&mut self, sheet: &str) -> Result<Vec<merged::Range>, Refusal> {
        let part = self.package.part(sheet)?;
        merged::xlsx::read(archive::part(&mut self.archive, part)?)
    }

    fn epoch(&self) -> Epoch {
        self.package.epoch
    }

    fn keep(self: Box<Self>) -> Option<Scanned> {
        Some(Scanned {
            ahead: None,
            ..*self
        })
    }
}

/// Begins to look through the sheet that an inspection asks for first, where there is one.
fn look_ahead(path: &Path, package: &Package, options: &Options) -> Option<Ahead> {
    let chosen = choice::choose(package.sheet_names(), options).ok()?;
    let part = package.part(chosen.names.first()?).ok()?;
    Ahead::begin(path, part)
}

/// The rows behind row `last`.
struct Behind<'r> {
    rows: &'r mut dyn Rows,
    last: u32,
}

impl Rows for Behind<'_> {
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        while self.rows.next_row(row)? {
            if row.row_no() > self.last {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
