//! The merged ranges of an xlsb, by its records (\[MS-XLSB\] 2.4.675).

use std::io::Read;
use std::ops::RangeInclusive;

use super::super::ole::u32_at;
use super::super::refusal::Refusal;
use super::super::xlsb::records::{Records, text_at};
use super::{Range, add, refusal};

/// A merged range: its first row, its last one, its first column, its last one.
const MERGE_CELL: u16 = 176;
/// A sheet of the workbook: its state, its number, its relationship, its name.
const BUNDLE_SHEET: u16 = 156;
/// The begin of a row: its number from 0.
const ROW_HEADER: u16 = 0;
/// Rows that a sheet has at most; calamine takes a number beyond for the end.
const MAX_ROWS: u32 = 1 << 20;
/// The end of a sheet's rows.
const END_SHEET_DATA: u16 = 146;
/// Cells that do not name their column, from blanks to shared strings.
const SHORT_CELLS: RangeInclusive<u16> = 12..=18;
/// Bytes of a record that are kept: a name has 31 characters, a relationship 255.
const LONGEST: u64 = 2048;

/// Returns the merged ranges of a sheet's part.
///
/// # Errors
///
/// [`Refusal::MERGED_CELLS`] for too many; [`Refusal::INVALID_FILE_FORMAT`] when the part is damaged.
pub(in super::super::super::sheet) fn read(part: impl Read) -> Result<Vec<Range>, Refusal> {
    let mut ranges = Vec::new();
    each(part, MERGE_CELL, |data| {
        let [first_row, last_row, first_column, last_column] =
            [0, 4, 8, 12].map(|at| u32_at(data, at));
        let range = (|| {
            Some(Range {
                first_row: first_row?.checked_add(1)?,
                first_column: first_column?,
                last_row: last_row?.checked_add(1)?,
                last_column: last_column?,
            })
        })();
        let range = range.ok_or_else(|| refusal("a merged range of the sheet cannot be read"))?;
        add(&mut ranges, range)
    })?;
    Ok(ranges)
}

/// Returns the relationship by which a workbook's part names the first sheet of a name.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when the part is damaged.
pub(in super::super::super::sheet) fn relationship(
    workbook: impl Read,
    sheet: &str,
) -> Result<Option<String>, Refusal> {
    let mut found = None;
    each(workbook, BUNDLE_SHEET, |data| {
        let id = text_at(data, 8);
        let name = id.as_ref().and_then(|(_, end)| text_at(data, *end));
        if let (Some((id, _)), Some((name, _)), None) = (id, name, &found)
            && name == sheet
        {
            found = Some(id);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Refuses a sheet's part of which calamine would read some of the cells.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] where its rows do not end, or cells are of a kind that is not
/// read.
pub(in super::super::super::sheet) fn check(part: impl Read) -> Result<(), Refusal> {
    let mut records = Records::new(part);
    while let Some(found) = records.next()? {
        if SHORT_CELLS.contains(&found) {
            return Err(Refusal::format(
                "the sheet is written with short records, which are not read; save it as xlsx",
            ));
        }
        if found == END_SHEET_DATA {
            return Ok(());
        }
        let is_row = |row| row < MAX_ROWS;
        if found == ROW_HEADER && !u32_at(records.data(4)?, 0).is_some_and(is_row) {
            return Err(Refusal::format(
                "the sheet is damaged: it has a row beyond the last one of a sheet",
            ));
        }
    }
    Err(Refusal::format(
        "the sheet is damaged: its records break off before the end of its rows",
    ))
}

/// Calls `f` with the first bytes of each record of a kind.
fn each(
    part: impl Read,
    kind: u16,
    mut f: impl FnMut(&[u8]) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let mut records = Records::new(part);
    while let Some(found) = records.next()? {
        if found == kind {
            f(records.data(LONGEST)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_of_any_length_are_passed_over() {
        let cell = |rows: [u32; 2], columns: [u32; 2]| {
            let numbers = rows.into_iter().chain(columns);
            let data: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
            [&[0xb0, 0x01, 16][..], &data].concat()
        };
        let long = [&[0x07, 0xac, 0x02][..], &[0xb0; 300]].concat();
        let part = [
            long,
            cell([1, 3], [0, 0]),
            vec![0x00, 0],
            cell([4, 4], [1, 2]),
        ]
        .concat();
        let shown: Vec<_> = read(part.as_slice())
            .unwrap()
            .iter()
            .map(Range::shown)
            .collect();
        assert_eq!(shown, ["A2:A4", "B5:C5"]);
        let cut = read(&part[..part.len() - 4]).unwrap_err();
        assert_eq!(cut.code, Refusal::MERGED_CELLS);
        assert!(read(&[0xb0][..]).is_err());
        assert!(read(&cell([u32::MAX, u32::MAX], [0, 0])[..]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_ranges_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(read(bytes.as_slice()));
            drop(relationship(bytes.as_slice(), "A"));
        }
    }
}
