//! The first rows of a sheet, and the header row among them.

use std::borrow::Cow;

use super::super::row::cell::{Cell, Epoch, RowBuf};
use super::super::row::field::Aliases;
use super::super::row::header::{HeaderFault, Mapping, cut, explain_missing, map};
use super::super::row::value;
use super::refusal::Refusal;
use super::rows::Rows;

/// The header row is looked for down to here.
const LAST_ROW: u32 = 20;
/// A longer text is no header.
pub(super) const MAX_HEADER_CHARS: usize = 1000;

/// The first rows of a sheet that are not blank, as text.
#[derive(Debug, Default)]
pub(super) struct Head {
    rows: Vec<(u32, Vec<String>)>,
}

/// A sheet without a header row that can be used.
#[derive(Debug)]
pub(super) struct NoHeader {
    /// Why.
    pub(super) refusal: Refusal,
    /// How many columns were known: the sheet with most of them is the one that was meant.
    pub(super) n_known: usize,
}

impl NoHeader {
    /// Returns which of two sheets without a header was rather meant; greater is better.
    pub(super) fn rank(&self) -> (bool, usize) {
        (self.refusal.code != Refusal::EMPTY_FILE, self.n_known)
    }

    /// Whether there is a header row, which cannot be used: the sheet is one that is meant.
    pub(super) fn is_faulty(&self) -> bool {
        let codes = [Refusal::DUPLICATE_HEADERS, Refusal::TOO_MANY_COLUMNS];
        codes.contains(&self.refusal.code)
    }

    /// Says which of several sheets is refused.
    pub(super) fn of_sheet(self, sheet: &str) -> Refusal {
        let Refusal { code, message } = self.refusal;
        let message = format!("sheet \"{}\": {message}", cut(sheet, 100));
        Refusal { code, message }
    }
}

impl Head {
    /// Adds the rows down to row 20.
    ///
    /// # Errors
    ///
    /// When the sheet is damaged.
    pub(super) fn read(
        &mut self,
        rows: &mut dyn Rows,
        epoch: Epoch,
        max_columns: usize,
    ) -> Result<(), Refusal> {
        let mut row = RowBuf::new(max_columns + 1, MAX_HEADER_CHARS * 4);
        while rows.next_row(&mut row)? && row.row_no() <= LAST_ROW {
            let mut mended = String::new();
            let mut cells: Vec<String> = (0..row.width())
                .map(|column| {
                    let header = shown(row.cell(column), &mut mended);
                    let text = value::text(header, epoch, MAX_HEADER_CHARS);
                    text.ok()
                        .flatten()
                        .map_or_else(String::new, Cow::into_owned)
                })
                .collect();
            if row.is_cut() {
                cells.resize(max_columns + 1, String::new());
            }
            if cells.iter().any(|cell| !cell.is_empty()) {
                self.rows.push((row.row_no(), cells));
            }
        }
        Ok(())
    }

    /// Returns the header row's number and what its columns mean: the first row with all required
    /// columns.
    ///
    /// # Errors
    ///
    /// [`Refusal::MISSING_HEADERS`], about the row with most known columns;
    /// [`Refusal::DUPLICATE_HEADERS`]; [`Refusal::TOO_MANY_COLUMNS`]; [`Refusal::EMPTY_FILE`].
    pub(super) fn find(
        &self,
        aliases: &Aliases,
        max_columns: usize,
    ) -> Result<(u32, Mapping), NoHeader> {
        let mut best: Option<(usize, &[String], HeaderFault)> = None;
        for (row_no, cells) in &self.rows {
            match map(cells, aliases) {
                Ok(_) if cells.len() > max_columns => return Err(too_many_columns(max_columns)),
                Ok(mapping) => return Ok((*row_no, mapping)),
                Err(HeaderFault::Duplicate(message)) => return Err(duplicate(message)),
                Err(fault) => {
                    let n_known = fault.n_known();
                    if best.as_ref().is_none_or(|(n_best, ..)| n_known > *n_best) {
                        best = Some((n_known, cells, fault));
                    }
                }
            }
        }
        Err(match best {
            Some((n_known, cells, HeaderFault::Missing { fields, .. })) => NoHeader {
                refusal: Refusal::new(
                    Refusal::MISSING_HEADERS,
                    explain_missing(&fields, cells, aliases),
                ),
                n_known,
            },
            _ => NoHeader {
                refusal: Refusal::new(Refusal::EMPTY_FILE, "the file has no rows"),
                n_known: 0,
            },
        })
    }

    /// Returns how well the rows fit the headers that are known: whether one is a header row, and
    /// the most known columns and the most columns of a row. Greater is better.
    pub(super) fn fitness(&self, aliases: &Aliases) -> (bool, usize, usize) {
        let fits = self
            .rows
            .iter()
            .map(|(_, cells)| match map(cells, aliases) {
                Ok(mapping) => (true, mapping.columns.len(), cells.len()),
                Err(HeaderFault::Duplicate(_)) => (true, 0, cells.len()),
                Err(fault) => (false, fault.n_known(), cells.len()),
            });
        fits.max().unwrap_or_default()
    }
}

/// Shows what could not be decoded in a header: its column must not be lost.
fn shown<'c>(cell: Cell<'c>, mended: &'c mut String) -> Cell<'c> {
    match cell {
        Cell::Text(text) if text.contains('\0') => {
            *mended = text.replace('\0', "\u{fffd}");
            Cell::Text(mended)
        }
        cell => cell,
    }
}

fn too_many_columns(max_columns: usize) -> NoHeader {
    NoHeader {
        refusal: Refusal::new(
            Refusal::TOO_MANY_COLUMNS,
            format!("the header row has more than {max_columns} columns"),
        ),
        n_known: usize::MAX,
    }
}

fn duplicate(message: String) -> NoHeader {
    NoHeader {
        refusal: Refusal::new(Refusal::DUPLICATE_HEADERS, message),
        n_known: usize::MAX,
    }
}
