//! Which cells of an xlsb have leading zeros: calamine does not give the formats of cells.

use std::collections::HashMap;
use std::io::Read;
use std::ops::RangeInclusive;

use super::super::ole::{u16_at, u32_at};
use super::super::refusal::Refusal;
use super::super::scan;
use super::records::{Records, text_at};

/// Most cell formats; Excel has 64,000 at most.
const MAX_STYLES: usize = 65_536;
/// Bytes of a record of a format: its code has 255 characters.
const LONGEST: u64 = 2048;

/// Returns how many digits each cell format asks for at least, by a part of styles; nothing where
/// none does.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when the part is damaged, [`Refusal::ARCHIVE_LIMITS`] when it has
/// more cell formats than a workbook has.
pub(super) fn digits(part: impl Read) -> Result<Vec<u8>, Refusal> {
    const FORMAT: u16 = 44;
    const CELL_FORMAT: u16 = 47;
    const BEGIN_CELL_FORMATS: u16 = 617;
    const END_CELL_FORMATS: u16 = 618;
    let mut by_number = HashMap::new();
    let mut digits = Vec::new();
    let mut is_of_cells = false;
    let mut records = Records::new(part);
    while let Some(kind) = records.next()? {
        match kind {
            FORMAT => {
                let data = records.data(LONGEST)?;
                let code = text_at(data, 2).map(|(code, _)| code).unwrap_or_default();
                by_number.insert(u16_at(data, 0), scan::least_digits(&code));
            }
            BEGIN_CELL_FORMATS => is_of_cells = true,
            END_CELL_FORMATS => break,
            CELL_FORMAT if is_of_cells => {
                if digits.len() == MAX_STYLES {
                    return Err(Refusal::archive(format!(
                        "the workbook has more than {MAX_STYLES} cell formats"
                    )));
                }
                let number = u16_at(records.data(4)?, 2);
                digits.push(by_number.get(&number).copied().unwrap_or(0));
            }
            _ => {}
        }
    }
    if digits.iter().all(|digits| *digits == 0) {
        digits.clear();
    }
    Ok(digits)
}

/// The formats of a sheet's cells, in step with calamine, which gives their values.
pub(super) struct Formats<'a, R> {
    records: Records<R>,
    has_begun: bool,
    row: u32,
    digits: &'a [u8],
}

impl<'a, R: Read> Formats<'a, R> {
    /// Begins a sheet's part; `digits` is by cell format.
    pub(super) fn new(part: R, digits: &'a [u8]) -> Self {
        Self {
            records: Records::new(part),
            has_begun: false,
            row: 0,
            digits,
        }
    }

    /// Returns how many digits the next cell asks for at least, which is the one at this place.
    ///
    /// # Errors
    ///
    /// [`Refusal::INVALID_FILE_FORMAT`] when it is not.
    pub(super) fn of_next(&mut self, place: (u32, u32)) -> Result<u8, Refusal> {
        const BEGIN_SHEET_DATA: u16 = 145;
        const ROW_HEADER: u16 = 0;
        /// From numbers to the results of formulas.
        const CELLS: RangeInclusive<u16> = 2..=10;
        while let Some(kind) = self.records.next()? {
            self.has_begun |= kind == BEGIN_SHEET_DATA;
            if kind == ROW_HEADER {
                self.row = u32_at(self.records.data(4)?, 0).unwrap_or(u32::MAX);
            }
            if self.has_begun && CELLS.contains(&kind) {
                let data = self.records.data(8)?;
                let format = u32_at(data, 4).map(|format| format & 0x00ff_ffff);
                if u32_at(data, 0).map(|column| (self.row, column)) != Some(place) {
                    break;
                }
                let at = format.and_then(|format| usize::try_from(format).ok());
                let digits = at.and_then(|at| self.digits.get(at));
                return Ok(digits.copied().unwrap_or(0));
            }
        }
        Err(Refusal::format(
            "the sheet is damaged: what its cells are can be read in two ways",
        ))
    }
}
