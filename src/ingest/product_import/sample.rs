//! The sample workbook that `ingestd dev` imports, and what it comes to.
//!
//! Made by `cargo run --example make_sample -- --rows 5000 --bad 40 samples/products.xlsx`;
//! a test reads it and compares every row with what that makes.

/// The workbook.
pub const WORKBOOK: &[u8] = include_bytes!("../../../samples/products.xlsx");

/// Its name.
pub const FILE_NAME: &str = "products.xlsx";

/// Its data rows, good and bad.
pub const N_ROWS: u32 = 5000;

/// Its bad rows, with every sort of row error that a workbook can have.
pub const N_BAD: u32 = 40;

/// Its row errors; a bad row can have several.
pub const N_ERRORS: u32 = 44;

#[cfg(test)]
#[path = "tests/sample.rs"]
mod tests;
