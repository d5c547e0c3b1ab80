//! Excel 2007 and later, through calamine's cells reader: the workbooks that `scan` declines.
//!
//! Never through a range: a sheet with cells A1 and XFD1048576 has a rectangle
//! of 17,000 million cells. The cells are streamed; what calamine holds is the
//! shared strings (24 bytes and its text for each) and the styles. It trusts
//! what a file says about both, so [`Xlsx::open`] looks first: a count of
//! strings is reserved at once, and every cell format clones its font.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use calamine::{DataRef, Reader, XlsxError};
use memchr::memmem;

use super::super::row::cell::Epoch;
use super::archive::{self, Archive};
use super::calamine_cell::{CellRows, Found, contain};
use super::formulas::Formulas;
use super::merged;
use super::ole;
use super::package::{self, Package};
use super::refusal::Refusal;
use super::rows::{SheetName, Visitor, Workbook};
use super::scan;
use super::well_formed;

/// Biggest table of shared strings, inflated. It is held in memory.
pub(super) const MAX_STRINGS_BYTES: u64 = 1 << 30;
/// Bytes of the shortest shared string, `<si/>`.
const MIN_STRING_BYTES: u64 = 5;
/// Biggest part of styles.
const MAX_STYLES_BYTES: u64 = 32 << 20;
/// Most memory for styles: 64,000 formats, which is Excel's limit, take 0.2 GB with long names.
const MAX_STYLES_MEMORY: usize = 1 << 30;

/// An Excel workbook, opened.
pub(super) struct Xlsx {
    archive: Archive,
    package: Package,
    workbook: calamine::Xlsx<BufReader<File>>,
}

impl Xlsx {
    /// Opens a workbook and reads its shared strings.
    ///
    /// # Errors
    ///
    /// [`Refusal::ARCHIVE_LIMITS`] or [`Refusal::FILE_TOO_LARGE`] when strings or styles are beyond
    /// the limits; [`Refusal::INVALID_FILE_FORMAT`] when it is damaged.
    pub(super) fn open(path: &Path) -> Result<Self, Refusal> {
        let mut archive = archive::open(path)?;
        let package = package::read(&mut archive)?;
        check_strings(&mut archive)?;
        check_styles(&mut archive)?;
        let file = BufReader::new(File::open(path)?);
        let workbook = match contain("the workbook", || calamine::Xlsx::new(file))? {
            Ok(workbook) => workbook,
            Err(XlsxError::Password) => return Err(ole::password_protected()),
            Err(error) => return Err(Refusal::damaged("the workbook", &error)),
        };
        Ok(Self {
            archive,
            package,
            workbook,
        })
    }
}

impl Workbook for Xlsx {
    fn sheets(&self) -> Vec<SheetName> {
        self.package.sheet_names()
    }

    fn verify(&mut self, sheet: &str) -> Result<Option<u64>, Refusal> {
        let part = self.package.part(sheet)?;
        archive::scan(&mut self.archive, part).map(|scan| Some(scan.n_rows))
    }

    fn with_rows(&mut self, sheet: &str, f: Visitor<'_>) -> Result<(), Refusal> {
        let part = self.package.part(sheet)?;
        well_formed::check(archive::part(&mut self.archive, part)?)?;
        let mut formulas = Formulas::new(archive::part(&mut self.archive, part)?);
        let damaged = |error: XlsxError| Refusal::damaged("the sheet", &error);
        let opened = contain("the sheet", || self.workbook.worksheet_cells_reader(sheet));
        let mut cells = opened?.map_err(damaged)?;
        let digits: Vec<u8> = cells.styles().iter().map(digits_of).collect();
        // A formula gives its last result; one that was never calculated an empty cell.
        f(&mut CellRows::new(|| {
            let Some((cell, style)) = cells.next_cell_with_style_id().map_err(damaged)? else {
                return Ok(None);
            };
            let lacks_value = formulas.next_lacks_value()?;
            Ok(Some(Found {
                is_uncalculated: lacks_value && matches!(cell.get_value(), DataRef::Empty),
                cell,
                digits: digits.get(style).copied().unwrap_or_default(),
            }))
        }))
    }

    fn merged(&mut self, sheet: &str) -> Result<Vec<merged::Range>, Refusal> {
        let part = self.package.part(sheet)?;
        merged::xlsx::read(archive::part(&mut self.archive, part)?)
    }

    fn epoch(&self) -> Epoch {
        if self.workbook.has_1904_epoch() {
            Epoch::Y1904
        } else {
            Epoch::Y1900
        }
    }
}

fn digits_of(style: &calamine::Style) -> u8 {
    let format = style.number_format.as_ref();
    format.map_or(0, |format| scan::least_digits(&format.format_code))
}

fn check_strings(archive: &mut Archive) -> Result<(), Refusal> {
    for name in archive::find_all(archive, "sharedstrings.xml") {
        let scan = archive::scan(archive, &name)?;
        if scan.n_bytes > MAX_STRINGS_BYTES {
            return Err(Refusal::new(
                Refusal::FILE_TOO_LARGE,
                "the workbook's texts are bigger than 1 GiB; split it, or save it as CSV",
            ));
        }
        if scan.unique_count > scan.n_bytes / MIN_STRING_BYTES {
            return Err(Refusal::archive(
                "the workbook claims more texts than it has room for",
            ));
        }
    }
    Ok(())
}

/// Refuses styles of which the formats, each with a copy of every name in it, would fill the memory.
fn check_styles(archive: &mut Archive) -> Result<(), Refusal> {
    for name in archive::find_all(archive, "styles.xml") {
        let styles = archive::read_part(archive, &name, MAX_STYLES_BYTES)?;
        let n_formats = memmem::find_iter(&styles, "xf").count();
        let quotes = memchr::memchr2_iter(b'"', b'\'', &styles);
        let ends = quotes.chain([styles.len()]);
        let (longest, _) = ends.fold((0, 0), |(longest, before), at| {
            (longest.max(at - before), at)
        });
        if n_formats.saturating_mul(600 + 8 * longest) > MAX_STYLES_MEMORY {
            return Err(Refusal::archive("the workbook's styles are too big"));
        }
    }
    Ok(())
}
