//! From a row of cells to a product or to the list of what is wrong with it. Pure.
//!
//! What decides counts, in one place:
//!
//! - A row whose read columns are all blank is no row: not counted, not an error.
//! - Every error of a row is listed, and a row with any error is not imported.
//! - The first row with a code has it, *also when that row is bad*: a later one
//!   is a duplicate that names it. Which of two rows is meant is for people to
//!   say, and a row must not become right because another one is wrong.

use std::io;
use std::path::Path;

use chrono::NaiveDateTime;
use rust_decimal::Decimal;
use serde_json::Value;
use smol_str::SmolStr;

use super::super::export::unescaped;
use super::attributes::Attributes;
use super::cell::{Cell, Epoch, RowBuf};
use super::fault::Fault;
use super::field::Field;
use super::hash::{HAS_ATTRIBUTES, RowHasher};
use super::header::{Column, Mapping, Target, cut, trim};
use super::locale::Locale;
use super::seen::Spots;
use super::seen_codes::SeenCodes;
use super::value;
use super::{ProductRow, RejectedRow, RowError};

/// Codes are keys of an index and no longer than this many bytes of UTF-8.
const MAX_CODE_BYTES: usize = 1024;
/// A row error shows at most this many characters of its cell.
const SHOWN_CHARS: usize = 200;

/// What an attribute takes besides its header and its text, in bytes; see [`Checker::weight`].
const ATTRIBUTE_BYTES: usize = 64;
/// What a row error takes, in bytes.
const ERROR_BYTES: usize = 1024;

/// What a row turned out to be.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are good, and a box each is what costs"
)]
pub enum Outcome {
    /// Nothing in any column that is read.
    Blank,
    /// A product.
    Good(ProductRow),
    /// What is wrong, one entry for each thing, and the row as it is.
    Bad(Vec<RowError>, RejectedRow),
}

/// How a file is checked.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// What day 0 of the file's serial dates is.
    pub epoch: Epoch,
    /// A longer text is a row error; in characters.
    pub max_cell_chars: usize,
    /// Whether values beyond the last header are an error: in CSV they are the sign of a delimiter
    /// that was not quoted, in a sheet they are somebody's notes.
    pub refuse_extra_cells: bool,
    /// How numbers and dates are written in text cells.
    pub locale: Locale,
    /// Whether a code seen before is no error: somebody else settles duplicates.
    pub allow_duplicates: bool,
}

/// Checks the rows of one file, in order.
#[derive(Debug)]
pub struct Checker {
    mapping: Mapping,
    rules: Rules,
    seen: SeenCodes,
    spots: Spots,
    hasher: RowHasher,
    /// Whether texts have the apostrophes of a download.
    is_download: bool,
}

impl Checker {
    /// Makes a checker for a file whose first sheet has these columns; `spots` names its rows.
    #[must_use]
    pub fn new(mapping: Mapping, rules: Rules, spots: Spots) -> Self {
        Self {
            hasher: hasher(&mapping),
            is_download: mapping.is_download(),
            mapping,
            rules,
            seen: SeenCodes::new(std::env::temp_dir().join("codes"), fastrand::u64(..)),
            spots,
        }
    }

    /// Goes on with another sheet of the file, by its place from 0: a code that was in one before is
    /// a duplicate.
    pub fn turn_to(&mut self, sheet: usize, mapping: Mapping) {
        self.spots.turn_to(sheet);
        self.hasher = hasher(&mapping);
        self.is_download = mapping.is_download();
        self.mapping = mapping;
    }

    /// Makes room for the codes of so many rows, before the first is checked; what memory has none
    /// for goes to a file in the folder of `beside`.
    pub fn expect_rows(&mut self, n_rows: u64, beside: &Path) {
        if !self.rules.allow_duplicates {
            let seen = SeenCodes::new(beside.to_owned(), fastrand::u64(..));
            self.seen = seen.with_room(n_rows);
        }
    }

    /// Takes out why it cannot be told any more which codes were there before: what was said of the
    /// rows since this was asked last may be wrong.
    pub fn fault(&mut self) -> Option<io::Error> {
        self.seen.fault()
    }

    /// Fails as a full disk makes it fail.
    #[cfg(test)]
    pub(crate) fn fail(&mut self) {
        self.seen.fail(io::ErrorKind::StorageFull.into());
    }

    /// Checks the next row below the header row.
    pub fn check(&mut self, row: &RowBuf) -> Outcome {
        let extra = self.extra_cell(row);
        if extra.is_none() && self.is_blank(row) {
            return Outcome::Blank;
        }
        let mut draft = Draft::new(row, self.rules);
        if let Some(cell) = extra {
            draft.fault(None, cell, &Fault::TooManyCells);
        }
        if row.has_unclosed_quote() {
            draft.fault(None, Cell::Empty, &Fault::UnclosedQuote);
        }
        if let Some(n_lines) = row.stray_quote() {
            draft.fault(None, Cell::Empty, &Fault::StrayQuote { n_lines });
        }
        for column in &self.mapping.columns {
            let cell = self.cell(row, column);
            draft.read(column, cell, &mut self.seen, &self.spots);
        }
        let Draft {
            mut product,
            attributes,
            errors,
            ..
        } = draft;
        if !errors.is_empty() {
            return Outcome::Bad(errors, self.rejected(row, &product.code));
        }
        product.attributes = (!attributes.is_empty()).then(|| Attributes::new(attributes));
        product.hash = self.hasher.hash(&product);
        Outcome::Good(product)
    }

    /// Returns about how many bytes a row takes that was checked and has so many errors.
    ///
    /// Chunks are cut by it, so that it depends on nothing but the row and the columns: who changes
    /// it changes the fingerprint of the options, too.
    #[must_use]
    pub fn weight(&self, row: &RowBuf, n_errors: usize) -> usize {
        let cells = self.mapping.kept().map(|column| {
            let cell = row.cell(column.index);
            match column.target {
                Target::Attribute if cell != Cell::Empty => {
                    ATTRIBUTE_BYTES + column.header.len() + cell.text_bytes()
                }
                _ => cell.text_bytes(),
            }
        });
        cells.sum::<usize>() + n_errors * ERROR_BYTES
    }

    fn cell<'r>(&self, row: &'r RowBuf, column: &Column) -> Cell<'r> {
        match row.cell(column.index) {
            Cell::Text(text) if self.is_download => Cell::Text(unescaped(text)),
            cell => cell,
        }
    }

    /// Keeps the cells of a bad row; `code` is empty where it could not be read.
    fn rejected(&self, row: &RowBuf, code: &str) -> RejectedRow {
        let cells = self.mapping.kept().map(|column| {
            let shown = value::shown(self.cell(row, column), self.rules.epoch);
            (!shown.is_empty()).then(|| shown.replace('\0', "\u{fffd}"))
        });
        RejectedRow {
            row_no: row.row_no(),
            code: (!code.is_empty()).then(|| code.to_owned()),
            cells: cells.collect(),
        }
    }

    fn is_blank(&self, row: &RowBuf) -> bool {
        let mut columns = self.mapping.kept();
        columns.all(|column| is_blank(row.cell(column.index)))
            && !row.has_unclosed_quote()
            && row.stray_quote().is_none()
    }

    fn extra_cell<'r>(&self, row: &'r RowBuf) -> Option<Cell<'r>> {
        if !self.rules.refuse_extra_cells {
            return None;
        }
        let last = self.mapping.columns.last().map_or(0, |column| column.index);
        (last + 1..row.width())
            .map(|column| row.cell(column))
            .find(|cell| !is_blank(*cell))
    }
}

fn hasher(mapping: &Mapping) -> RowHasher {
    let extra = if mapping.has_attributes() {
        HAS_ATTRIBUTES
    } else {
        0
    };
    RowHasher::new(mapping.fields().bits() | extra)
}

fn is_blank(cell: Cell<'_>) -> bool {
    match cell {
        Cell::Empty => true,
        Cell::Text(text) => trim(text).is_empty(),
        _ => false,
    }
}

/// A product in the making, and what was wrong on the way.
struct Draft<'r> {
    row: &'r RowBuf,
    rules: Rules,
    product: ProductRow,
    attributes: Vec<(SmolStr, Value)>,
    errors: Vec<RowError>,
}

impl<'r> Draft<'r> {
    fn new(row: &'r RowBuf, rules: Rules) -> Self {
        Self {
            row,
            rules,
            product: ProductRow {
                row_no: row.row_no(),
                ..ProductRow::default()
            },
            attributes: Vec::new(),
            errors: Vec::new(),
        }
    }

    fn read(&mut self, column: &Column, cell: Cell<'_>, seen: &mut SeenCodes, spots: &Spots) {
        let read = match column.target {
            Target::Ignored => return,
            Target::Attribute => self.read_attribute(column, cell),
            Target::Field(Field::Code) => self.read_code(cell, seen, spots),
            Target::Field(field) => self.read_field(field, cell),
        };
        if let Err(fault) = read {
            self.fault(Some(column), cell, &fault);
        }
    }

    fn read_code(
        &mut self,
        cell: Cell<'_>,
        seen: &mut SeenCodes,
        spots: &Spots,
    ) -> Result<(), Fault> {
        let Rules {
            epoch,
            max_cell_chars,
            ..
        } = self.rules;
        let code = value::code(cell, epoch, max_cell_chars)?.ok_or(Fault::Required)?;
        if code.len() > MAX_CODE_BYTES {
            return Err(Fault::TooLong {
                max: MAX_CODE_BYTES,
                unit: "bytes",
            });
        }
        self.product.code = code.into();
        if self.rules.allow_duplicates {
            return Ok(());
        }
        match seen.insert(&self.product.code, spots.of(self.row.row_no())) {
            Some(first) => {
                let (first_row, sheet) = spots.read(first);
                Err(Fault::DuplicateCode { first_row, sheet })
            }
            None => Ok(()),
        }
    }

    fn read_field(&mut self, field: Field, cell: Cell<'_>) -> Result<(), Fault> {
        let epoch = self.rules.epoch;
        match field {
            Field::Code => {}
            Field::Name => self.product.name = self.text(cell)?.ok_or(Fault::Required)?,
            Field::Description => self.product.description = self.text(cell)?,
            Field::Brand => self.product.brand = self.text(cell)?,
            Field::Category => self.product.category = self.text(cell)?,
            Field::Price => self.product.price = self.amount(cell)?,
            Field::Currency => self.product.currency = self.text(cell)?,
            Field::Stock => self.product.stock = self.count(cell)?,
            Field::Ean => {
                let ean = value::code(cell, epoch, self.rules.max_cell_chars)?;
                self.product.ean = ean.map(SmolStr::from);
            }
            Field::Url => self.product.url = self.text(cell)?,
            Field::Weight => self.product.weight = self.amount(cell)?,
            Field::UpdatedAt => self.product.updated_at = self.datetime(cell)?,
        }
        Ok(())
    }

    fn amount(&self, cell: Cell<'_>) -> Result<Option<Decimal>, Fault> {
        match self.rules.locale.number_in(cell)? {
            Some(text) => value::amount(Cell::Text(&text)),
            None => value::amount(cell),
        }
    }

    fn count(&self, cell: Cell<'_>) -> Result<Option<i64>, Fault> {
        match self.rules.locale.number_in(cell)? {
            Some(text) => value::count(Cell::Text(&text)),
            None => value::count(cell),
        }
    }

    fn datetime(&self, cell: Cell<'_>) -> Result<Option<NaiveDateTime>, Fault> {
        let epoch = self.rules.epoch;
        match self.rules.locale.date_in(cell) {
            Some(text) => value::datetime(Cell::Text(&text), epoch),
            None => value::datetime(cell, epoch),
        }
    }

    fn text(&self, cell: Cell<'_>) -> Result<Option<SmolStr>, Fault> {
        let text = value::text(cell, self.rules.epoch, self.rules.max_cell_chars)?;
        Ok(text.map(SmolStr::from))
    }

    fn read_attribute(&mut self, column: &Column, cell: Cell<'_>) -> Result<(), Fault> {
        let value = value::attribute(cell, self.rules.epoch, self.rules.max_cell_chars)?;
        if let Some(value) = value {
            self.attributes.push((column.header.as_str().into(), value));
        }
        Ok(())
    }

    fn fault(&mut self, column: Option<&Column>, cell: Cell<'_>, fault: &Fault) {
        let shown = value::shown(cell, self.rules.epoch);
        let shown = cut(&shown, SHOWN_CHARS).replace('\0', "\u{fffd}");
        let header = column.map_or("", |column| column.header.as_str());
        self.errors.push(RowError {
            row_no: self.row.row_no(),
            column: column.map(|column| column.header.clone()),
            code: fault.code(),
            message: fault.message(header, &shown),
            value: (!shown.is_empty()).then_some(shown),
        });
    }
}

#[cfg(test)]
#[path = "tests/check.rs"]
mod tests;
