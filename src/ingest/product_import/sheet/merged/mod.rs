//! Merged cells: where a sheet has them, and their values in every cell they cover.
//!
//! A spreadsheet keeps the value of a merged range in its first cell and shows
//! it over all of them. Who asks for [`MergedCells::Fill`] has it in each: a
//! category that stands once beside ten products is the category of all ten.
//!
//! The ranges stand behind the rows (xlsx) or in the middle of them (ods), so
//! that a look of its own finds them before the rows are read, and only where
//! it is asked for: for xlsx one more inflation of the part and a search for
//! one word, a tenth of what calamine's parser takes for the same.
//!
//! What is held is 16 bytes for a range, of [`MAX_RANGES`] at most, and the
//! values of the ranges that the row at hand is in: one for a column, since
//! ranges that overlap are refused. No range makes rows or columns that the
//! sheet has not, so one over the whole sheet costs nothing.

pub(super) mod xlsb;
pub(super) mod xlsx;

use serde::{Deserialize, Serialize};

use super::super::row::cell::{Cell, RowBuf};
use super::super::row::header::{letters, trim};
use super::refusal::Refusal;
use super::rows::Rows;

/// Merged ranges of a sheet at most.
pub(super) const MAX_RANGES: usize = 100_000;

/// What the cells of a merged range are worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MergedCells {
    /// The first has the value, the others are as the file has them: empty, as a rule.
    #[default]
    First,
    /// Each has the value of the first.
    Fill,
}

/// A merged range: rows from 1, columns from 0, the last ones with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) first_row: u32,
    pub(super) first_column: u32,
    pub(super) last_row: u32,
    pub(super) last_column: u32,
}

impl Range {
    /// Returns the range as a spreadsheet shows it: `A2:B7`.
    fn shown(&self) -> String {
        let column = |column: u32| letters(usize::try_from(column).unwrap_or_default());
        let (from, to) = (column(self.first_column), column(self.last_column));
        format!("{from}{}:{to}{}", self.first_row, self.last_row)
    }

    fn columns(&self, n_columns: usize) -> std::ops::Range<usize> {
        let place = |column: u32| usize::try_from(column).unwrap_or(usize::MAX);
        let end = place(self.last_column).saturating_add(1).min(n_columns);
        place(self.first_column).min(end)..end
    }
}

/// Adds a range that a sheet has; one cell is none.
///
/// # Errors
///
/// [`Refusal::MERGED_CELLS`] beyond [`MAX_RANGES`], and for one that ends before it begins.
pub(super) fn add(ranges: &mut Vec<Range>, range: Range) -> Result<(), Refusal> {
    if range.last_row < range.first_row || range.last_column < range.first_column {
        return Err(refusal("a merged range ends before it begins"));
    }
    if range.last_row == range.first_row && range.last_column == range.first_column {
        return Ok(());
    }
    if ranges.len() >= MAX_RANGES {
        return Err(refusal(format!(
            "the sheet has more than {MAX_RANGES} merged ranges"
        )));
    }
    ranges.push(range);
    Ok(())
}

/// Refuses to fill merged cells.
pub(super) fn refusal(what: impl std::fmt::Display) -> Refusal {
    Refusal::new(
        Refusal::MERGED_CELLS,
        format!("{what}; import it with merged_cells=first, or save it as xlsx without them"),
    )
}

/// The merged ranges below a header row, as the rows come by.
///
/// Ranges that begin in the header row or above it are titles and headers, and no values of rows.
pub(super) struct Fill {
    /// By their first cell.
    ranges: Vec<Range>,
    /// The first of them that has not begun.
    next: usize,
    /// Those that the row at hand is in, with the values of their first cells.
    open: Vec<(Range, RowBuf)>,
    /// By column: whether the row at hand has a merged range there.
    is_covered: Vec<bool>,
}

impl Fill {
    /// Prepares for rows of so many columns.
    pub(super) fn new(mut ranges: Vec<Range>, header_row: u32, n_columns: usize) -> Self {
        ranges.retain(|range| range.first_row > header_row && !range.columns(n_columns).is_empty());
        ranges.sort_unstable();
        Self {
            ranges,
            next: 0,
            open: Vec::new(),
            is_covered: Vec::new(),
        }
    }

    /// Fills the merged cells of the next row.
    ///
    /// A row that has nothing but what is merged from above is none of its own, and becomes blank:
    /// where every column is merged, two rows of the sheet are one row of the table.
    ///
    /// # Errors
    ///
    /// [`Refusal::MERGED_CELLS`] where two ranges overlap.
    fn row(&mut self, row: &mut RowBuf) -> Result<(), Refusal> {
        let row_no = row.row_no();
        self.open.retain(|(range, _)| range.last_row >= row_no);
        let begins = |range: &Range| range.first_row <= row_no;
        if self.open.is_empty() && !self.ranges.get(self.next).is_some_and(begins) {
            return Ok(());
        }
        let (max_columns, _) = row.limits();
        self.is_covered.clear();
        self.is_covered.resize(row.width(), false);
        for (range, _) in &self.open {
            cover(&mut self.is_covered, range, max_columns)?;
        }
        // those that began in rows which the file leaves out
        self.begin(row, row_no.saturating_sub(1))?;
        let is_own = |column: usize, is_covered: bool| !is_covered && !is_blank(row.cell(column));
        let is_own = |(column, is_covered): (usize, &bool)| is_own(column, *is_covered);
        let has_own = self.is_covered.iter().enumerate().any(is_own);
        let n_from_above = self.open.len();
        self.begin(row, row_no)?;
        for (place, (range, value)) in self.open.iter().enumerate() {
            let is_filled = has_own || place >= n_from_above;
            let cell = if is_filled {
                value.cell(0)
            } else {
                Cell::Empty
            };
            let columns = range.columns(max_columns);
            columns.for_each(|column| row.put(column, cell));
        }
        Ok(())
    }

    /// Opens the ranges that begin in the row at hand or above it, down to this row.
    fn begin(&mut self, row: &RowBuf, last_first_row: u32) -> Result<(), Refusal> {
        let (row_no, (max_columns, max_cell_bytes)) = (row.row_no(), row.limits());
        let begins = |range: &Range| range.first_row <= last_first_row;
        while let Some(range) = self.ranges.get(self.next).copied().filter(begins) {
            self.next += 1;
            if range.last_row < row_no {
                continue;
            }
            cover(&mut self.is_covered, &range, max_columns)?;
            let mut value = RowBuf::new(1, max_cell_bytes);
            let first = usize::try_from(range.first_column).unwrap_or(usize::MAX);
            if range.first_row == row_no {
                value.set(0, row.cell(first));
            }
            self.open.push((range, value));
        }
        Ok(())
    }
}

/// Notes the columns of a range that begins in the row at hand or goes on in it.
fn cover(is_covered: &mut Vec<bool>, range: &Range, max_columns: usize) -> Result<(), Refusal> {
    for column in range.columns(max_columns) {
        if is_covered.len() <= column {
            is_covered.resize(column + 1, false);
        }
        if let Some(is_covered) = is_covered.get_mut(column)
            && std::mem::replace(is_covered, true)
        {
            return Err(refusal(format!(
                "the merged range {} overlaps another",
                range.shown()
            )));
        }
    }
    Ok(())
}

fn is_blank(cell: Cell<'_>) -> bool {
    match cell {
        Cell::Empty => true,
        Cell::Text(text) => trim(text).is_empty(),
        _ => false,
    }
}

/// Rows with their merged cells filled.
pub(super) struct Filled<'f, 'r> {
    pub(super) fill: &'f mut Fill,
    pub(super) rows: &'r mut dyn Rows,
}

impl Rows for Filled<'_, '_> {
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        if !self.rows.next_row(row)? {
            return Ok(false);
        }
        self.fill.row(row)?;
        Ok(true)
    }

    fn tells_hidden(&self) -> bool {
        self.rows.tells_hidden()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Range {
        xlsx::range(text.as_bytes()).unwrap()
    }

    /// Rows of the sheet by number and cells, after their merged cells are filled; `-` is empty.
    fn filled(ranges: &[&str], rows: &[(u32, &[&str])]) -> Result<Vec<String>, Refusal> {
        let ranges = ranges.iter().map(|text| range(text)).collect();
        let mut fill = Fill::new(ranges, 1, 4);
        let mut row = RowBuf::new(4, 100);
        let mut shown = Vec::new();
        for (row_no, cells) in rows {
            row.start(*row_no);
            for (column, cell) in cells.iter().enumerate().filter(|(_, cell)| **cell != "-") {
                row.set(column, Cell::Text(cell));
            }
            fill.row(&mut row)?;
            let cells = (0..4).map(|column| match row.cell(column) {
                Cell::Text(text) => text.to_owned(),
                Cell::Empty => "-".to_owned(),
                other => format!("{other:?}"),
            });
            shown.push(cells.collect::<Vec<_>>().join(" "));
        }
        Ok(shown)
    }

    #[test]
    fn each_cell_has_the_value_of_the_first() {
        let rows: &[(u32, &[&str])] = &[
            (2, &["A", "lamps", "x"]),
            (3, &["B", "-", "y"]),
            (4, &["C", "left over", "z", "-"]),
            (5, &["D", "-", "w"]),
        ];
        let shown = filled(&["B2:B4", "C5:D5"], rows).unwrap();
        assert_eq!(
            shown,
            ["A lamps x -", "B lamps y -", "C lamps z -", "D - w w"]
        );
        // a range of two rows and two columns, and an empty first cell
        let rows: &[(u32, &[&str])] = &[(2, &["A", "u"]), (3, &["B", "-", "c"]), (5, &["C", "d"])];
        let shown = filled(&["B2:C3", "B4:D5"], rows).unwrap();
        assert_eq!(shown, ["A u u -", "B u u -", "C - - -"]);
    }

    #[test]
    fn a_row_of_nothing_of_its_own_is_blank() {
        let rows: &[(u32, &[&str])] = &[
            (2, &["A", "lamp"]),
            (3, &["-", "left over"]),
            (4, &["-", " "]),
            (5, &["B", "-"]),
        ];
        let shown = filled(&["A2:A3", "B2:B4"], rows).unwrap();
        assert_eq!(shown, ["A lamp - -", "- - - -", "- - - -", "B - - -"]);
        // a range that began in a row which the file leaves out
        let rows: &[(u32, &[&str])] = &[(2, &["A"]), (4, &["-", "left over"])];
        let shown = filled(&["A2:A4", "B3:B4"], rows).unwrap();
        assert_eq!(shown, ["A - - -", "- - - -"]);
    }

    #[test]
    fn titles_and_headers_are_not_filled_down() {
        let rows: &[(u32, &[&str])] =
            &[(1, &["code", "name"]), (2, &["-", "net"]), (3, &["A", "x"])];
        let shown = filled(&["A1:A2", "A1:XFD1048576", "C1:D3"], rows).unwrap();
        assert_eq!(shown, ["code name - -", "- net - -", "A x - -"]);
    }

    #[test]
    fn far_and_huge_ranges_cost_nothing_and_overlapping_ones_are_refused() {
        let rows: &[(u32, &[&str])] = &[(2, &["A", "x"]), (3, &["B", "y"])];
        let shown = filled(&["C2:XFD1048576", "E2:F9"], rows).unwrap();
        assert_eq!(shown, ["A x - -", "B y - -"]);
        for overlapping in [["A2:B3", "B3:C4"], ["A2:A3", "A2:B2"], ["A3:B3", "A2:A9"]] {
            let refusal = filled(&overlapping, rows).unwrap_err();
            assert_eq!(refusal.code, Refusal::MERGED_CELLS, "{overlapping:?}");
            assert!(refusal.message.contains("overlaps"), "{refusal}");
        }
    }

    #[test]
    fn there_are_not_too_many_of_them() {
        let mut ranges = Vec::new();
        for _ in 0..MAX_RANGES {
            add(&mut ranges, range("A2:A3")).unwrap();
        }
        add(&mut ranges, range("A2:A2")).unwrap();
        assert_eq!(
            add(&mut ranges, range("A2:A3")).unwrap_err().code,
            Refusal::MERGED_CELLS
        );
        assert!(add(&mut Vec::new(), range("B3:A3")).is_err());
    }
}
