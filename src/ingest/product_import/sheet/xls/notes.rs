//! What calamine does not tell of the cells of an xls: how many digits a number is shown with, and
//! formulas without a value.
//!
//! Of a number format before Excel 97 calamine loses the first character, and takes `[Red]0.00`
//! for a date, so there every number with a format of numbers is noted.
//!
//! Programs that write formulas and do not calculate them leave an empty text or 0 in the place of
//! the result, which is what a formula may come to. It is no value where a result of text has no
//! text; and where a workbook has an empty text in the place of what can only be a number, all
//! its empty results are none. A 0 cannot be told from one that was calculated.
//!
//! The records are walked over as calamine walks over them (\[MS-XLS\] 2.4), so that a note is of
//! the cell that it gives. What is held is six bytes for a number or formula of one sheet while it
//! is walked over, which the file has more bytes for, and then those of cells with a note.

use std::collections::HashMap;

use super::super::ole::{u16_at, u32_at};
use super::super::scan;
use super::formula::{self, Outcome};
use super::{BOUND_SHEET, all_records, records};

/// Something about a cell; row and column from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) row: u16,
    pub(super) column: u16,
    pub(super) what: What,
}

/// What is noted about a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing.
    Plain,
    /// It is a number, of at least so many digits.
    Number(u8),
    /// It is a formula whose result is an empty text.
    Blank,
    /// It is a formula without a value.
    Uncalculated,
}

/// Returns the notes of each sheet, in the order in which the workbook names them, each in the order
/// of its cells.
pub(super) fn read(stream: &[u8]) -> Vec<Vec<Note>> {
    let is_short = is_short(stream);
    let by_format = notes_by_format(stream);
    let mut is_calculated = true;
    let sheets = records(stream).filter(|(kind, _)| *kind == BOUND_SHEET);
    let notes = sheets.map(|(_, data)| {
        let at = u32_at(data, 0).and_then(|at| usize::try_from(at).ok());
        let sheet = at.and_then(|at| stream.get(at..)).unwrap_or_default();
        let mut walk = Walk::new(&by_format, is_short);
        own_records(sheet).for_each(|(kind, data)| walk.take(kind, data));
        is_calculated &= walk.is_calculated;
        walk.notes()
    });
    let mut notes: Vec<Vec<Note>> = notes.collect();
    for notes in &mut notes {
        if is_calculated {
            notes.retain(|note| note.what != What::Blank);
            notes.shrink_to_fit();
        }
        for note in notes.iter_mut().filter(|note| note.what == What::Blank) {
            note.what = What::Uncalculated;
        }
    }
    notes
}

/// Whether the workbook is of Excel 5 or 95.
fn is_short(stream: &[u8]) -> bool {
    u16_at(stream, 4) == Some(0x0500)
}

/// Returns what is to be noted of a number, by its cell format.
fn notes_by_format(stream: &[u8]) -> Vec<What> {
    const FORMAT: u16 = 0x041e;
    const CELL_FORMAT: u16 = 0x00e0;
    let is_short = is_short(stream);
    let mut by_number = HashMap::new();
    let mut numbers = Vec::new();
    for (kind, data) in records(stream) {
        match kind {
            FORMAT => {
                let code = format_code(data, is_short).unwrap_or_default();
                let what = match scan::number_digits(&code) {
                    Some(digits) if digits > 0 || is_short => What::Number(digits),
                    _ => What::Plain,
                };
                by_number.insert(u16_at(data, 0), what);
            }
            CELL_FORMAT => numbers.push(u16_at(data, 2)),
            _ => {}
        }
    }
    let notes = numbers.iter().map(|number| by_number.get(number).copied());
    notes.map(|what| what.unwrap_or(What::Plain)).collect()
}

/// Returns the code in a record of a number format: before Excel 97 bytes of a code page, whose
/// letters beyond ASCII no such code has.
fn format_code(data: &[u8], is_short: bool) -> Option<String> {
    if is_short {
        let len = usize::from(*data.get(2)?);
        let bytes = data.get(3..3 + len)?;
        return Some(bytes.iter().map(|byte| char::from(*byte)).collect());
    }
    let len = usize::from(u16_at(data, 2)?);
    let is_wide = data.get(4)? & 1 != 0;
    let text = data.get(5..)?;
    if is_wide {
        let units = text.get(..2 * len)?.chunks_exact(2);
        let units: Vec<u16> = units.filter_map(|unit| u16_at(unit, 0)).collect();
        return Some(String::from_utf16_lossy(&units));
    }
    let bytes = text.get(..len)?;
    Some(bytes.iter().map(|byte| char::from(*byte)).collect())
}

impl Note {
    /// Returns the number of its row, from 1.
    pub(super) fn row_no(self) -> u32 {
        u32::from(self.row) + 1
    }

    const fn place(self) -> (u16, u16) {
        (self.row, self.column)
    }
}

/// A walk over the records of a sheet.
struct Walk<'a> {
    by_format: &'a [What],
    is_short: bool,
    notes: Vec<Note>,
    /// Which of the notes is of a formula whose text has not come yet.
    without_text: Option<usize>,
    /// Whether no formula was seen that lacks its result for sure.
    is_calculated: bool,
}

impl<'a> Walk<'a> {
    const fn new(by_format: &'a [What], is_short: bool) -> Self {
        Self {
            by_format,
            is_short,
            notes: Vec::new(),
            without_text: None,
            is_calculated: true,
        }
    }

    /// Notes the numbers and the formula in a record.
    fn take(&mut self, kind: u16, data: &[u8]) {
        const FORMULA: u16 = 0x0006;
        const MANY_RK: u16 = 0x00bd;
        const NUMBER: u16 = 0x0203;
        const TEXT_OF_FORMULA: u16 = 0x0207;
        const RK: u16 = 0x027e;
        if kind == TEXT_OF_FORMULA {
            let at = self.without_text.take();
            if let Some(note) = at.and_then(|at| self.notes.get_mut(at)) {
                note.what = What::Plain;
            }
            return;
        }
        let (Some(row), Some(column)) = (u16_at(data, 0), u16_at(data, 2)) else {
            return;
        };
        let cells = data.get(4..).unwrap_or_default();
        match kind {
            NUMBER | RK => self.add(row, column, self.of_number(cells)),
            FORMULA => {
                let what = self.of_formula(data);
                let is_without = what == What::Uncalculated;
                self.without_text = is_without.then_some(self.notes.len());
                self.add(row, column, what);
            }
            // each of six bytes, and the last column behind them
            MANY_RK => (column..=u16::MAX)
                .zip(cells.chunks_exact(6))
                .for_each(|(column, cell)| self.add(row, column, self.of_number(cell))),
            _ => {}
        }
    }

    fn add(&mut self, row: u16, column: u16, what: What) {
        self.notes.push(Note { row, column, what });
    }

    /// Returns what is to be noted of a number that begins with its cell format.
    fn of_number(&self, cell: &[u8]) -> What {
        let format = u16_at(cell, 0).map(usize::from);
        let what = format.and_then(|at| self.by_format.get(at)).copied();
        what.unwrap_or(What::Plain)
    }

    /// Returns what is to be noted of a formula: its result, where it is no number, is a kind of
    /// value.
    fn of_formula(&mut self, data: &[u8]) -> What {
        let is_number = u16_at(data, 12) != Some(0xffff);
        match data.get(6) {
            _ if is_number => self.of_number(data.get(4..).unwrap_or_default()),
            Some(0) => What::Uncalculated, // as long as no text has come
            Some(3) => {
                let len = u16_at(data, 20).map_or(0, usize::from);
                let code = data.get(22..22 + len).unwrap_or_default();
                match formula::outcome(code, self.is_short) {
                    Outcome::EmptyText => return What::Plain,
                    Outcome::NoText => self.is_calculated = false,
                    Outcome::Unknown => {}
                }
                What::Blank
            }
            _ => What::Plain,
        }
    }

    /// Returns the notes in the order of their cells.
    fn notes(self) -> Vec<Note> {
        let mut notes = self.notes;
        notes.sort_by_key(|note| note.place());
        // the last record of a cell is what counts
        notes.dedup_by(|later, earlier| {
            let is_same = later.place() == earlier.place();
            if is_same {
                *earlier = *later;
            }
            is_same
        });
        notes.retain(|note| note.what != What::Plain);
        notes.shrink_to_fit();
        notes
    }
}

/// Returns the records of a sheet, without those of charts inside it.
fn own_records(sheet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    const BEGIN: u16 = 0x0809;
    const END: u16 = 0x000a;
    let mut has_begun = false;
    let mut depth = 0_u32;
    let of_sheet = all_records(sheet).map_while(move |record| {
        match record.0 {
            BEGIN if has_begun => depth += 1,
            BEGIN => has_begun = true,
            END if depth == 0 => return None,
            END => depth -= 1,
            _ if depth == 0 => return Some(Some(record)),
            _ => {}
        }
        Some(None)
    });
    of_sheet.flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_of_formats_in_every_spelling() {
        let code = |data: &[u8], is_short| format_code(data, is_short);
        let five = Some("00000".to_owned());
        let wide = "00000".encode_utf16().flat_map(u16::to_le_bytes);
        let wide: Vec<u8> = [164, 0, 5, 0, 1].into_iter().chain(wide).collect();
        assert_eq!(code(b"\xa4\0\x0500000", true), five);
        assert_eq!(
            code(&[&[164, 0, 5, 0, 0], &b"00000"[..]].concat(), false),
            five
        );
        assert_eq!(code(&wide, false), five);
        for cut in [&b""[..], b"\xa4", b"\xa4\0\xff", b"\xa4\0\xff\xff\x01ab"] {
            assert_eq!(code(cut, false), None);
            assert_eq!(code(cut, true).is_some(), cut.len() > 3 && cut[2] == 0);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_notes_or_none(
            picks in prop::collection::vec((0_usize..10, prop::collection::vec(any::<u8>(), 0..30)), 0..40)
        ) {
            const KINDS: [u16; 10] = [0x0006, 0x0207, 0x00bd, 0x0203, 0x027e, 0x0809, 0x000a, 0x041e, 0x00e0, 0x0085];
            let mut stream = vec![0x09, 0x08, 4, 0, 0, 6, 5, 0];
            for (kind, data) in picks {
                stream.extend(KINDS[kind].to_le_bytes());
                stream.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
                stream.extend(data);
            }
            drop(read(&stream));
            let mut walk = Walk::new(&[What::Number(5); 256], false);
            own_records(&stream).for_each(|(kind, data)| walk.take(kind, data));
            let notes = walk.notes();
            prop_assert!(notes.is_sorted_by_key(|note| (note.row, note.column)));
        }
    }
}
