//! What calamine does not tell of the cells of an xls: how many digits a number is shown with.
//!
//! Of a number format before Excel 97 calamine loses the first character, and takes `[Red]0.00`
//! for a date, so there every number with a format of numbers is noted.
//!
//! The records are walked over as calamine walks over them (\[MS-XLS\] 2.4), so that a note is of
//! the cell that it gives. What is held is six bytes for a number cell of one sheet while it is
//! walked over, which the file has more bytes for, and then those of cells with leading zeros.

use std::collections::HashMap;

use super::super::ole::{u16_at, u32_at};
use super::super::scan;
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
}

/// Returns the notes of each sheet, in the order in which the workbook names them, each in the order
/// of its cells.
pub(super) fn read(stream: &[u8]) -> Vec<Vec<Note>> {
    let by_format = notes_by_format(stream);
    let sheets = records(stream).filter(|(kind, _)| *kind == BOUND_SHEET);
    let sheets = sheets.map(|(_, data)| {
        let at = u32_at(data, 0).and_then(|at| usize::try_from(at).ok());
        let sheet = at.and_then(|at| stream.get(at..)).unwrap_or_default();
        of_sheet(sheet, &by_format)
    });
    sheets.collect()
}

/// Returns what is to be noted of a number, by its cell format; nothing where that is nothing.
fn notes_by_format(stream: &[u8]) -> Vec<What> {
    const FORMAT: u16 = 0x041e;
    const CELL_FORMAT: u16 = 0x00e0;
    let is_short = u16_at(stream, 4) == Some(0x0500);
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
    if by_number.values().all(|what| *what == What::Plain) {
        return Vec::new();
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

/// Returns the notes of a sheet.
fn of_sheet(sheet: &[u8], by_format: &[What]) -> Vec<Note> {
    let mut notes = Vec::new();
    if by_format.is_empty() {
        return notes;
    }
    for (kind, data) in own_records(sheet) {
        take(kind, data, by_format, &mut notes);
    }
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

impl Note {
    const fn place(self) -> (u16, u16) {
        (self.row, self.column)
    }
}

/// Notes the numbers in a record.
fn take(kind: u16, data: &[u8], by_format: &[What], notes: &mut Vec<Note>) {
    const FORMULA: u16 = 0x0006;
    const MANY_RK: u16 = 0x00bd;
    const NUMBER: u16 = 0x0203;
    const RK: u16 = 0x027e;
    let (Some(row), Some(column)) = (u16_at(data, 0), u16_at(data, 2)) else {
        return;
    };
    let mut add = |column: u16, cell: &[u8]| {
        let format = u16_at(cell, 0).map(usize::from);
        let what = format.and_then(|at| by_format.get(at)).copied();
        let what = what.unwrap_or(What::Plain);
        notes.push(Note { row, column, what });
    };
    let cells = data.get(4..).unwrap_or_default();
    match kind {
        NUMBER | RK | FORMULA => add(column, cells),
        // each of six bytes, and the last column behind them
        MANY_RK => (column..=u16::MAX)
            .zip(cells.chunks_exact(6))
            .for_each(|(column, cell)| add(column, cell)),
        _ => {}
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
            picks in prop::collection::vec((0_usize..9, prop::collection::vec(any::<u8>(), 0..30)), 0..40)
        ) {
            const KINDS: [u16; 9] = [0x0006, 0x00bd, 0x0203, 0x027e, 0x0809, 0x000a, 0x041e, 0x00e0, 0x0085];
            let mut stream = vec![0x09, 0x08, 4, 0, 0, 6, 5, 0];
            for (kind, data) in picks {
                stream.extend(KINDS[kind].to_le_bytes());
                stream.extend(u16::try_from(data.len()).unwrap().to_le_bytes());
                stream.extend(data);
            }
            drop(read(&stream));
            let notes = of_sheet(&stream, &[What::Number(5); 256]);
            prop_assert!(notes.is_sorted_by_key(|note| (note.row, note.column)));
        }
    }
}
