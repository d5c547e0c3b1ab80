//! How a product file is read, and what was found out about it before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::row::header_map::HeaderMap;
use super::super::row::locale::Locale;
use super::charset::Charset;
use super::choice::Sheets;
use super::merged::MergedCells;
use crate::config::ProductImport;

/// Bytes of one chunk. A few chunks of each import are in memory, and copies of those that are
/// written.
const CHUNK_BYTES: usize = 8 << 20;

/// The same of imports that began before two chunks were written at a time.
pub(super) const CHUNK_BYTES_BEFORE: usize = 16 << 20;

/// How product files are read.
#[derive(Debug, Clone)]
pub struct Options {
    /// Data rows of one chunk, good and bad together; at least 1.
    pub chunk_rows: u32,
    /// A chunk that takes as many bytes ends, however few rows it has: cells of 30,000 characters
    /// compress well, and 10,000 rows of them would be gigabytes. `usize::MAX`: no bound.
    pub chunk_bytes: usize,
    /// More data rows than this end the reading with a refusal.
    pub max_rows: u32,
    /// A header row with more columns than this is refused.
    pub max_columns: usize,
    /// A text of more characters than this is a row error.
    pub max_cell_chars: usize,
    /// A file of more bytes than this is refused.
    pub max_file_bytes: u64,
    /// Further headers by field name.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// What somebody says headers of this file mean.
    pub mapping: HeaderMap,
    /// The sheet to read; `None`: the first visible one that has the required headers.
    pub sheet: Option<String>,
    /// The sheet to read by its place among those with cells, from 1, where `sheet` names none.
    pub sheet_number: Option<u32>,
    /// The sheets to read where several are; `None`: one, as `sheet` and `sheet_number` say.
    pub sheets: Option<Sheets>,
    /// Whether hidden sheets are looked at, too, where none is asked for.
    pub include_hidden_sheets: bool,
    /// Whether rows that are hidden, by a filter or by hand, are passed over. Files in which that
    /// cannot be told are refused then.
    pub skip_hidden_rows: bool,
    /// What the cells of merged ranges are worth.
    pub merged_cells: MergedCells,
    /// The delimiter of delimited text; `None`: it is found out.
    pub csv_delimiter: Option<u8>,
    /// The quote of delimited text; `None`: it is found out.
    pub csv_quote: Option<Quote>,
    /// The encoding of delimited text; `None`: it is found out.
    pub csv_charset: Option<Charset>,
    /// What a process that reads a workbook may take; see `read_in_children`.
    pub child_limits: ChildLimits,
    /// Raised by whoever does not want the rows any more.
    pub stop: StopFlag,
    /// How numbers and dates are written in text cells.
    pub locale: Locale,
    /// Whether a code seen before is no error: whoever takes the chunks settles duplicates.
    pub allow_duplicates: bool,
}

/// What a process that reads a workbook for this one may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildLimits {
    /// Address space in bytes. The texts of an xlsx that is not of the usual dialect, and the whole
    /// of an xls, lie in it.
    pub memory_bytes: u64,
    /// Time of computing, to the second.
    pub cpu: Duration,
    /// How long one answer may take.
    pub answer: Duration,
    /// How long all answers together may take; the time we take for them does not count.
    pub all_answers: Duration,
}

impl Default for ChildLimits {
    /// 3 GiB, 5 minutes of computing, 2 minutes for an answer, 30 for all.
    fn default() -> Self {
        Self {
            memory_bytes: 3 << 30,
            cpu: Duration::from_mins(5),
            answer: Duration::from_mins(2),
            all_answers: Duration::from_mins(30),
        }
    }
}

/// A flag that its clones share; raised once, it stays so.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Raises it.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Says whether it is raised.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::from(&ProductImport::default())
    }
}

impl From<&ProductImport> for Options {
    fn from(config: &ProductImport) -> Self {
        Self {
            chunk_rows: config.chunk_rows,
            chunk_bytes: CHUNK_BYTES,
            max_rows: config.max_rows,
            max_columns: usize::from(config.max_columns),
            max_cell_chars: usize::try_from(config.max_cell_chars).unwrap_or(usize::MAX),
            max_file_bytes: 512 * 1024 * 1024,
            aliases: config.aliases.clone(),
            mapping: HeaderMap::default(),
            sheet: None,
            sheet_number: None,
            sheets: None,
            include_hidden_sheets: false,
            skip_hidden_rows: false,
            merged_cells: MergedCells::First,
            csv_delimiter: None,
            csv_quote: None,
            csv_charset: None,
            child_limits: ChildLimits::default(),
            stop: StopFlag::default(),
            locale: Locale::default(),
            allow_duplicates: false,
        }
    }
}

/// What kind of file it is, by its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Excel 2007 and later, with or without macros.
    Xlsx,
    /// Excel binary workbook.
    Xlsb,
    /// Excel 97–2003.
    Xls,
    /// `OpenDocument` spreadsheet.
    Ods,
    /// Delimited text.
    Csv(Dialect),
}

impl Format {
    /// Returns the usual extension.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Xlsx => "xlsx",
            Self::Xlsb => "xlsb",
            Self::Xls => "xls",
            Self::Ods => "ods",
            Self::Csv(_) => "csv",
        }
    }
}

/// How a delimited text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dialect {
    /// The encoding.
    pub charset: Charset,
    /// Between two cells: one of `, ; | tab`, or what a `sep=` line says.
    pub delimiter: u8,
    /// Whether the first line is `sep=…` and no row.
    pub has_sep_line: bool,
    /// Around cells in which delimiters and line ends are text.
    #[serde(default, skip_serializing_if = "Quote::is_double")]
    pub quote: Quote,
    /// Whether bytes that are no text of the encoding, and quotes that swallow lines, are row errors;
    /// imports that began before they were go on as they began.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_strict: bool,
}

/// What stands around cells of delimited text in which delimiters and line ends are text; inside,
/// it is doubled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quote {
    /// `"`.
    #[default]
    Double,
    /// `'`.
    Single,
    /// Nothing: every delimiter and every line end is one.
    None,
}

impl Quote {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
    fn is_double(&self) -> bool {
        *self == Self::Double
    }

    /// Returns the character, where there is one.
    pub(super) const fn byte(self) -> Option<u8> {
        match self {
            Self::Double => Some(b'"'),
            Self::Single => Some(b'\''),
            Self::None => None,
        }
    }
}
