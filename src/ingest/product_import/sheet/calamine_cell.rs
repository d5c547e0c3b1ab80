//! From calamine's cells to ours, for the formats it reads cell by cell or whole.

use std::panic::{AssertUnwindSafe, catch_unwind};

use calamine::{Data, DataRef, Sheet, SheetType, SheetVisible};

use super::super::row::cell::{Cell, RowBuf};
use super::refusal::Refusal;
use super::rows::{Rows, SheetName};

/// Puts a cell into a row; `digits` is what its number format asks for, or 0.
pub(super) fn put(row: &mut RowBuf, column: usize, value: &DataRef<'_>, digits: u8) {
    let number = |value| Cell::Number { value, digits };
    match value {
        DataRef::Empty => {}
        DataRef::SharedString(text) => row.set(column, Cell::Text(text)),
        DataRef::String(text) => row.set(column, Cell::Text(text)),
        DataRef::Float(value) => row.set(column, number(*value)),
        #[expect(
            clippy::cast_precision_loss,
            reason = "spreadsheets know no other numbers"
        )]
        DataRef::Int(value) => row.set(column, number(*value as f64)),
        DataRef::Bool(value) => row.set(column, Cell::Bool(*value)),
        DataRef::DateTime(moment) if moment.is_datetime() => {
            row.set(column, Cell::Serial(moment.as_f64()));
        }
        DataRef::DateTime(length) => {
            row.set(column, Cell::Duration(&format!("{} days", length.as_f64())));
        }
        DataRef::DateTimeIso(text) => row.set(column, Cell::IsoDate(text)),
        DataRef::DurationIso(text) => row.set(column, Cell::Duration(text)),
        DataRef::Error(error) => row.set(column, Cell::Error(&error.to_string())),
    }
}

/// Returns the sheets that hold cells: no charts, no macros.
pub(super) fn worksheets(sheets: &[Sheet]) -> Vec<SheetName> {
    let worksheets = sheets
        .iter()
        .filter(|sheet| sheet.typ == SheetType::WorkSheet);
    let names = worksheets.map(|sheet| SheetName {
        name: sheet.name.clone(),
        is_visible: sheet.visible == SheetVisible::Visible,
    });
    names.collect()
}

/// Returns a cell that borrows from one that calamine owns.
pub(super) fn borrowed(data: &Data) -> DataRef<'_> {
    match data {
        Data::Int(value) => DataRef::Int(*value),
        Data::Float(value) => DataRef::Float(*value),
        Data::String(text) => DataRef::SharedString(text),
        Data::Bool(value) => DataRef::Bool(*value),
        Data::DateTime(moment) => DataRef::DateTime(*moment),
        Data::DateTimeIso(text) => DataRef::DateTimeIso(text.clone()),
        Data::DurationIso(text) => DataRef::DurationIso(text.clone()),
        Data::Error(error) => DataRef::Error(error.clone()),
        Data::Empty => DataRef::Empty,
    }
}

/// Calls into calamine and takes a panic for damage of `what`.
///
/// calamine does panic on damaged files: records of xls and xlsb are indexed without looking at
/// their length, and in debug builds cell references overflow. What it was working on is not used
/// again after a panic.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] after a panic.
pub(super) fn contain<T>(what: &str, f: impl FnOnce() -> T) -> Result<T, Refusal> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|_| Refusal::format(format!("{what} is damaged")))
}

/// One cell as a streaming reader gives it.
#[derive(Debug)]
pub(super) struct Found<'a> {
    /// What is in it and where.
    pub(super) cell: calamine::Cell<DataRef<'a>>,
    /// Least digits that its number format asks for.
    pub(super) digits: u8,
    /// Whether it is a formula without a value.
    pub(super) is_uncalculated: bool,
}

/// Makes rows of a stream of cells.
pub(super) struct CellRows<'a, F> {
    next_cell: F,
    ahead: Option<Found<'a>>,
    is_done: bool,
}

impl<'a, F> CellRows<'a, F>
where
    F: FnMut() -> Result<Option<Found<'a>>, Refusal>,
{
    /// Takes cells from `next_cell` until it returns `None`.
    pub(super) fn new(next_cell: F) -> Self {
        Self {
            next_cell,
            ahead: None,
            is_done: false,
        }
    }

    fn fill(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        let first = match self.ahead.take() {
            Some(found) => found,
            None => match (self.next_cell)()? {
                Some(found) => found,
                None => return Ok(false),
            },
        };
        let (number, _) = first.cell.get_position();
        row.start(number.saturating_add(1));
        let mut found = first;
        loop {
            let (_, column) = found.cell.get_position();
            let column = usize::try_from(column).unwrap_or(usize::MAX);
            if found.is_uncalculated {
                row.set(column, Cell::Uncalculated);
            } else {
                put(row, column, found.cell.get_value(), found.digits);
            }
            let Some(next_found) = (self.next_cell)()? else {
                self.is_done = true;
                return Ok(true);
            };
            found = next_found;
            let (next, _) = found.cell.get_position();
            if next < number {
                return Err(Refusal::format(format!(
                    "the sheet's rows are not in order: row {} comes after row {}",
                    next.saturating_add(1),
                    number.saturating_add(1)
                )));
            }
            if next > number {
                self.ahead = Some(found);
                return Ok(true);
            }
        }
    }
}

impl<'a, F> Rows for CellRows<'a, F>
where
    F: FnMut() -> Result<Option<Found<'a>>, Refusal>,
{
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        if self.is_done {
            return Ok(false);
        }
        let filled = contain("the sheet", || self.fill(row)).flatten();
        self.is_done |= !matches!(filled, Ok(true));
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(row: u32, column: u32) -> Found<'static> {
        Found {
            cell: calamine::Cell::new((row, column), DataRef::Int(i64::from(column))),
            digits: 0,
            is_uncalculated: false,
        }
    }

    fn numbers(cells: Vec<Found<'static>>) -> Result<Vec<(u32, usize)>, Refusal> {
        let mut cells = cells.into_iter();
        let mut rows = CellRows::new(|| Ok(cells.next()));
        let mut row = RowBuf::new(10, 10);
        let mut found = Vec::new();
        while rows.next_row(&mut row)? {
            found.push((row.row_no(), row.width()));
        }
        assert_eq!(rows.next_row(&mut row), Ok(false));
        Ok(found)
    }

    #[test]
    fn cells_become_rows_with_the_numbers_of_the_sheet() {
        let cells = vec![found(0, 0), found(0, 2), found(4, 1), found(5, 16_000)];
        assert_eq!(numbers(cells), Ok(vec![(1, 3), (5, 2), (6, 0)]));
        assert_eq!(numbers(vec![]), Ok(vec![]));
    }

    #[test]
    fn rows_out_of_order_are_refused() {
        let refusal = numbers(vec![found(4, 0), found(3, 0)]).unwrap_err();
        assert!(
            refusal.message.contains("row 4 comes after row 5"),
            "{refusal}"
        );
    }

    #[test]
    fn a_panic_is_damage() {
        let mut rows = CellRows::new(|| panic!("as calamine does"));
        let mut row = RowBuf::new(10, 10);
        assert_eq!(
            rows.next_row(&mut row).unwrap_err().code,
            Refusal::INVALID_FILE_FORMAT
        );
        assert_eq!(rows.next_row(&mut row), Ok(false));
    }
}
