//! Duplicates within a file where the first one does not win: settled chunk by chunk, once the codes
//! of the whole file are known. Pure.

use super::{
    load::rejected,
    plan::Duplicates,
    row::{
        Chunk, ProductRow, RowError,
        fault::Fault,
        field::Field,
        header::{Mapping, cut},
        locale::Locale,
        seen::{FileCodes, Spots},
    },
};

/// A row error shows at most this many characters of a code.
const SHOWN_CHARS: usize = 200;

/// Says which rows of a file count.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settler<'a> {
    pub(super) codes: &'a FileCodes,
    /// At the chunk's sheet.
    pub(super) spots: &'a Spots,
    pub(super) duplicates: Duplicates,
    pub(super) mapping: &'a Mapping,
    pub(super) locale: Locale,
}

impl Settler<'_> {
    /// Makes row errors of the rows of a chunk that do not count.
    pub(super) fn settle(&self, chunk: &mut Chunk) {
        let rows = std::mem::take(&mut chunk.rows);
        for row in rows {
            let Some(fault) = self.fault(&row) else {
                chunk.rows.push(row);
                continue;
            };
            let shown = cut(&row.code, SHOWN_CHARS);
            chunk.errors.push(RowError {
                row_no: row.row_no,
                column: self.mapping.header_of(Field::Code).map(ToOwned::to_owned),
                code: fault.code(),
                message: fault.message("", shown),
                value: Some(shown.to_owned()),
            });
            let rejected = rejected::of(&row, self.mapping, self.locale);
            chunk.rejected.push(rejected);
            chunk.n_bad += 1;
        }
    }

    fn fault(&self, row: &ProductRow) -> Option<Fault> {
        let (last, has_others) = self.codes.last(&row.code)?;
        let last_counts = self.duplicates == Duplicates::LastWins;
        let counts = match self.duplicates {
            Duplicates::FirstWins => true,
            Duplicates::LastWins => last == self.spots.of(row.row_no),
            Duplicates::Reject => !has_others,
        };
        (!counts).then(|| {
            let (last_row, sheet) = self.spots.read(last);
            Fault::Superseded {
                last_row,
                sheet,
                last_counts,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(duplicates: Duplicates) -> (Vec<u32>, Vec<u32>) {
        let mut codes = FileCodes::default();
        let mut chunk = Chunk::default();
        for (row_no, code) in (2..).zip(["A", "B", "A", "C", "A"]) {
            codes.note(code, row_no);
            chunk.rows.push(ProductRow {
                row_no,
                code: code.into(),
                ..ProductRow::default()
            });
        }
        let settler = Settler {
            codes: &codes,
            spots: &Spots::default(),
            duplicates,
            mapping: &Mapping::default(),
            locale: Locale::default(),
        };
        settler.settle(&mut chunk);
        assert_eq!(chunk.n_bad as usize, chunk.errors.len());
        assert_eq!(chunk.rejected.len(), chunk.errors.len());
        (
            chunk.rows.iter().map(|row| row.row_no).collect(),
            chunk.errors.iter().map(|error| error.row_no).collect(),
        )
    }

    #[test]
    fn the_policy_says_which_rows_count() {
        assert_eq!(
            settled(Duplicates::FirstWins),
            (vec![2, 3, 4, 5, 6], vec![])
        );
        assert_eq!(settled(Duplicates::LastWins), (vec![3, 5, 6], vec![2, 4]));
        assert_eq!(settled(Duplicates::Reject), (vec![3, 5], vec![2, 4, 6]));
    }
}
