//! From rows of cells to what the reader hands to the loader: product rows, row errors, and chunks
//! of both. Pure.
//!
//! [`header`] says what the columns mean, and [`check`] makes products or row errors of [`cell`]s
//! with the help of [`value`], [`seen`] and [`hash`]. Here is the plain data. The words: a *row* is one data row of the sheet
//! that is not wholly empty; a row is *bad* when it has at least one
//! [`RowError`], and a bad row is never among [`Chunk::rows`].

pub mod attributes;
pub mod cell;
pub mod check;
pub mod fault;
pub mod field;
pub mod hash;
pub mod header;
pub mod header_map;
pub mod locale;
pub mod seen;
mod seen_codes;
pub mod value;

use chrono::NaiveDateTime;
use rust_decimal::Decimal;
use smol_str::SmolStr;

use attributes::Attributes;

/// One good row of the sheet, every value checked and converted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ProductRow {
    /// Row number as the user sees it in the sheet, from 1, the header and blank rows counted.
    pub row_no: u32,
    /// The product's code, text whatever the cell was; never empty, at most 1024 bytes, and unique
    /// in the file.
    pub code: SmolStr,
    /// The product's name; never empty.
    pub name: SmolStr,
    /// Free text.
    pub description: Option<SmolStr>,
    /// The maker's name.
    pub brand: Option<SmolStr>,
    /// The category as the file names it.
    pub category: Option<SmolStr>,
    /// Price in units of `currency`: from 0 to below 10^15, at most 15 significant digits and 12
    /// decimals.
    pub price: Option<Decimal>,
    /// The currency as the file names it, usually an ISO 4217 code.
    pub currency: Option<SmolStr>,
    /// Pieces in stock, at least 0.
    pub stock: Option<i64>,
    /// The article's bar code, digits as text.
    pub ean: Option<SmolStr>,
    /// The product's page.
    pub url: Option<SmolStr>,
    /// Weight as the file gives it (the unit is the file's own); bounds as those of `price`.
    pub weight: Option<Decimal>,
    /// When the source last changed the product, to the microsecond: UTC where the file names an
    /// offset, else the file's own wall clock.
    pub updated_at: Option<NaiveDateTime>,
    /// Values of the extra columns by header as in the file; `None` when there are none.
    pub attributes: Option<Attributes>,
    /// 64-bit hash of every value above but `row_no`, of which columns the file has, and of the
    /// hash's format version; `hash` writes the algorithm down.
    pub hash: i64,
}

/// One thing that is wrong with one row; a row can have several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    /// Row number as the user sees it in the sheet, from 1.
    pub row_no: u32,
    /// The column's header as in the file; `None` when the row as a whole is meant.
    pub column: Option<String>,
    /// What is wrong, in one stable word for programs: `invalid_number`, `duplicate_code`, …
    pub code: &'static str,
    /// What is wrong, in a sentence for people.
    pub message: String,
    /// The cell as the file has it, cut to a few hundred characters; `None` when it is empty.
    pub value: Option<String>,
}

/// A row that is not imported, with its cells as the file has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RejectedRow {
    /// Row number as the user sees it in the sheet, from 1.
    pub row_no: u32,
    /// Its code; `None` where it has none that can be read.
    pub code: Option<String>,
    /// The texts of the columns that are read, in the order of the mapping; `None`: empty.
    pub cells: Vec<Option<String>>,
}

/// The next `chunk_rows` rows of a sheet, good and bad together; fewer where those would be more
/// than `chunk_bytes`, and at the end of the sheet.
///
/// The same file read with the same options gives the same chunks, so a
/// loader that resumes skips every `seq` it has committed.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Chunk {
    /// Position among the chunks of the file, from 0.
    pub seq: u32,
    /// Which of the sheets that are read its rows are of, from 0.
    pub sheet: usize,
    /// The good rows in the sheet's order.
    pub rows: Vec<ProductRow>,
    /// Every error of every bad row, in the sheet's order.
    pub errors: Vec<RowError>,
    /// The bad rows in the sheet's order.
    pub rejected: Vec<RejectedRow>,
    /// Rows read, good and bad.
    pub n_rows: u32,
    /// Rows with at least one error.
    pub n_bad: u32,
    /// `row_no` of the last row read into this chunk.
    pub last_row: u32,
}
