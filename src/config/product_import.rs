//! `[product_import]`: the limits of product files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Check;

/// The fields of a product row, as `product_import.aliases` names them.
pub const FIELDS: [&str; 12] = [
    "code",
    "name",
    "description",
    "brand",
    "category",
    "price",
    "currency",
    "stock",
    "ean",
    "url",
    "weight",
    "updated_at",
];

/// What becomes of a file that was imported before in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SameFile {
    /// It is imported again, and the answer says when it was imported before.
    #[default]
    Import,
    /// It is refused.
    Reject,
}

/// How product files are read.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProductImport {
    /// `product_import.chunk_rows`: data rows committed by one transaction, 1 to 100000; fewer where
    /// those take more than 16 MiB. Default 10000.
    pub chunk_rows: u32,
    /// `product_import.connections`: connections of the pool by which one import writes, 1 or 2. By
    /// two it loads a chunk while another one is loaded, as long as half of the pool is free; a pooler
    /// before the server must have room for both. Default 2.
    pub connections: u8,
    /// `product_import.max_rows`: data rows of one file at most. 1 to 1000000000. Default
    /// 2000000.
    pub max_rows: u32,
    /// `product_import.max_columns`: columns of one file at most, 1 to 16384. Default 1024.
    pub max_columns: u16,
    /// `product_import.max_cell_chars`: characters of one cell at most, 1 to 1000000. Default 32767.
    pub max_cell_chars: u32,
    /// `product_import.max_drop_percent`: of a hundred live products an import that replaces all may
    /// archive, 0 to 100; where more are missing from its file, it is refused. Default 20.
    pub max_drop_percent: u8,
    /// `product_import.on_duplicate_file`: what becomes of a file that was imported before in the
    /// same way: `import`, or `reject`. Default `import`.
    pub on_duplicate_file: SameFile,
    /// `product_import.keep_files`: whether an imported file is kept for `queue.retention_days`, so
    /// that the rows that were imported can be downloaded. Default true.
    pub keep_files: bool,
    /// `product_import.retention_days`: how long after its end an import can be undone and its
    /// rejected rows be downloaded, in days, 1 to 3650; then what that takes is deleted, once a day.
    /// Default 90.
    pub retention_days: u16,
    /// `product_import.max_dealer_rows`: dealers of one file at most, 1 to 100000: their import is
    /// waited for. Default 10000.
    pub max_dealer_rows: u32,
    /// `product_import.aliases`: further headers by which a field is known, a list for each field.
    /// Default: none beyond the built-in ones.
    pub aliases: BTreeMap<String, Vec<String>>,
}

impl ProductImport {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        check.range("chunk_rows", self.chunk_rows, 1..=100_000);
        check.range("connections", self.connections, 1..=2);
        check.range("max_rows", self.max_rows, 1..=1_000_000_000);
        check.range("max_columns", self.max_columns, 1..=16_384);
        check.range("max_cell_chars", self.max_cell_chars, 1..=1_000_000);
        check.range("max_dealer_rows", self.max_dealer_rows, 1..=100_000);
        check.range("retention_days", self.retention_days, 1..=3650);
        check.range("max_drop_percent", self.max_drop_percent, 0..=100);
    }
}

impl Default for ProductImport {
    fn default() -> Self {
        Self {
            chunk_rows: 10_000,
            connections: 2,
            max_rows: 2_000_000,
            max_columns: 1024,
            max_cell_chars: 32_767,
            max_drop_percent: 20,
            on_duplicate_file: SameFile::Import,
            keep_files: true,
            retention_days: 90,
            max_dealer_rows: 10_000,
            aliases: BTreeMap::new(),
        }
    }
}
