//! Excel binary workbooks, through calamine's cells reader.
//!
//! The cells are streamed; what is held is the shared strings, of a part of at
//! most 1 GiB, and one record of at most 256 MiB. Formats of cells are not
//! given; where a workbook has some with leading zeros, a second reading of the
//! sheet beside calamine's finds them (`styles.rs`).

pub(super) mod records;
mod styles;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use calamine::{Reader, XlsbError};

use self::styles::Formats;
use super::super::row::cell::Epoch;
use super::archive::{self, Archive};
use super::calamine_cell::{CellRows, Found, contain, worksheets};
use super::merged;
use super::ole;
use super::package;
use super::refusal::Refusal;
use super::rows::{SheetName, Visitor, Workbook};
use super::xlsx::MAX_STRINGS_BYTES;

/// An Excel binary workbook, opened.
pub(super) struct Xlsb {
    archive: Archive,
    workbook: calamine::Xlsb<BufReader<File>>,
    /// Least digits by cell format; empty where none has leading zeros.
    digits: Vec<u8>,
}

impl Xlsb {
    /// Opens a workbook and reads its shared strings.
    ///
    /// # Errors
    ///
    /// [`Refusal::FILE_TOO_LARGE`] when the strings are; [`Refusal::INVALID_FILE_FORMAT`] when it is
    /// damaged.
    pub(super) fn open(path: &Path) -> Result<Self, Refusal> {
        let mut archive = archive::open(path)?;
        check_parts(&mut archive)?;
        let digits = match archive::find(&archive, "xl/styles.bin") {
            Some(name) => styles::digits(archive::part(&mut archive, &name)?)?,
            None => Vec::new(),
        };
        let file = BufReader::new(File::open(path)?);
        match contain("the workbook", || calamine::Xlsb::new(file))? {
            Ok(workbook) => Ok(Self {
                archive,
                workbook,
                digits,
            }),
            Err(XlsbError::Password) => Err(ole::password_protected()),
            Err(error) => Err(Refusal::damaged("the workbook", &error)),
        }
    }

    /// Returns the name of a sheet's part.
    fn part(&mut self, sheet: &str) -> Result<String, Refusal> {
        const BOOK: &str = "xl/workbook.bin";
        let id = archive::part(&mut self.archive, BOOK)?;
        let id = merged::xlsb::relationship(id, sheet)?;
        let parts = package::relationships(&mut self.archive, "xl/_rels/workbook.bin.rels")?;
        let part = parts
            .into_iter()
            .rfind(|part| Some(&part.id) == id.as_ref());
        let part =
            part.and_then(|it| archive::find(&self.archive, &package::join("xl", &it.target)));
        part.ok_or_else(|| Refusal::format(format!("the sheet {sheet:.100} has no part")))
    }
}

/// Inflates everything that will be read once, so that damage shows before the first row.
fn check_parts(archive: &mut Archive) -> Result<(), Refusal> {
    let names: Vec<String> = archive
        .file_names()
        .filter_map(Result::ok)
        .map(Into::into)
        .collect();
    for name in names {
        if !name.to_ascii_lowercase().ends_with(".bin") {
            continue;
        }
        let n_bytes = archive::verify(archive, &name)?;
        let is_strings = name.to_ascii_lowercase().ends_with("sharedstrings.bin");
        if is_strings && n_bytes > MAX_STRINGS_BYTES {
            return Err(Refusal::new(
                Refusal::FILE_TOO_LARGE,
                "the workbook's texts are bigger than 1 GiB; split it, or save it as CSV",
            ));
        }
    }
    Ok(())
}

impl Workbook for Xlsb {
    fn sheets(&self) -> Vec<SheetName> {
        worksheets(self.workbook.sheets_metadata())
    }

    fn verify(&mut self, _sheet: &str) -> Result<Option<u64>, Refusal> {
        Ok(None)
    }

    fn with_rows(&mut self, sheet: &str, f: Visitor<'_>) -> Result<(), Refusal> {
        let part = self.part(sheet)?;
        merged::xlsb::check(archive::part(&mut self.archive, &part)?)?;
        let damaged = |error: XlsbError| Refusal::damaged("the sheet", &error);
        let opened = contain("the sheet", || self.workbook.worksheet_cells_reader(sheet));
        let mut cells = opened?.map_err(damaged)?;
        let mut formats = if self.digits.is_empty() {
            None
        } else {
            let part = archive::part(&mut self.archive, &part)?;
            Some(Formats::new(part, &self.digits))
        };
        f(&mut CellRows::new(|| {
            let Some(cell) = cells.next_cell().map_err(damaged)? else {
                return Ok(None);
            };
            let digits = match &mut formats {
                Some(formats) => formats.of_next(cell.get_position())?,
                None => 0,
            };
            // a formula has always a value, whether it was calculated or not
            let is_uncalculated = false;
            Ok(Some(Found {
                cell,
                digits,
                is_uncalculated,
            }))
        }))
    }

    fn merged(&mut self, sheet: &str) -> Result<Vec<merged::Range>, Refusal> {
        let part = self.part(sheet)?;
        merged::xlsb::read(archive::part(&mut self.archive, &part)?)
    }

    fn epoch(&self) -> Epoch {
        if self.workbook.has_1904_epoch() {
            Epoch::Y1904
        } else {
            Epoch::Y1900
        }
    }
}
