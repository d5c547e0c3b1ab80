//! What is found out about a file before its rows are read, and what reading them came to.

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;

use super::super::row::hash::FORMAT_VERSION;
use super::super::row::header::Mapping;
use super::merged::MergedCells;
use super::options::{CHUNK_BYTES_BEFORE, Dialect, Format, Options};

/// Version of the rules of `check` and `value`: raised when the same file gives other rows.
const RULES_VERSION: u32 = 1;

/// What is known of a file before its rows are read. A run may store it and read with it later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The kind of file.
    pub format: Format,
    /// The sheet that is read, of several the first; `None` where the file has none, as in CSV.
    pub sheet: Option<String>,
    /// Row number of the header row, from 1; data rows come after it.
    pub header_row: u32,
    /// What the columns mean.
    pub mapping: Mapping,
    /// No more data rows than this, of all sheets together; `None` when it cannot be told without
    /// reading.
    pub rows_at_most: Option<u64>,
    /// The sheets that are read after the first, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<FurtherSheet>,
    /// The sheets that are not read although several are, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedSheet>,
    /// The other sheets where nobody said which one to read, and why they are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<SkippedSheet>,
}

/// A sheet that is read after the first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherSheet {
    /// Its name.
    pub sheet: String,
    /// Row number of its header row, from 1.
    pub header_row: u32,
    /// What its columns mean.
    pub mapping: Mapping,
}

/// A sheet that is not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedSheet {
    /// Its name.
    pub sheet: String,
    /// Why, in one stable word: the code of a [`Refusal`](super::Refusal), or one of the constants
    /// here.
    pub code: String,
    /// Why, in a sentence for people.
    pub message: String,
}

impl SkippedSheet {
    /// It is hidden, and hidden ones are not asked for.
    pub const HIDDEN: &'static str = "hidden_sheet";
    /// A sheet before it has the same name.
    pub const REPEATED: &'static str = "repeated_name";
    /// Nobody asked for it, and one before it has the required columns.
    pub const FURTHER: &'static str = "further_sheet";
}

/// One of the sheets that are read.
#[derive(Debug, Clone, Copy)]
pub struct SheetHead<'i> {
    /// Its name; `None` where the file has no sheets.
    pub sheet: Option<&'i str>,
    /// Row number of its header row, from 1.
    pub header_row: u32,
    /// What its columns mean.
    pub mapping: &'i Mapping,
}

impl Inspection {
    /// Returns the sheets that are read, in order: at least one.
    pub fn heads(&self) -> impl Iterator<Item = SheetHead<'_>> {
        let first = SheetHead {
            sheet: self.sheet.as_deref(),
            header_row: self.header_row,
            mapping: &self.mapping,
        };
        let more = self.more.iter().map(|head| SheetHead {
            sheet: Some(&head.sheet),
            header_row: head.header_row,
            mapping: &head.mapping,
        });
        std::iter::once(first).chain(more)
    }

    /// Returns the sheet of a chunk, by [`Chunk::sheet`](super::super::row::Chunk::sheet).
    #[must_use]
    pub fn head(&self, sheet: usize) -> SheetHead<'_> {
        let found = self.heads().nth(sheet);
        found.unwrap_or(SheetHead {
            sheet: self.sheet.as_deref(),
            header_row: self.header_row,
            mapping: &self.mapping,
        })
    }

    /// Whether several sheets were asked for and looked at.
    #[must_use]
    pub fn is_of_several(&self) -> bool {
        !self.more.is_empty() || !self.skipped.is_empty()
    }

    /// Returns a number that changes whenever the chunks of the same file could differ.
    ///
    /// A run that resumes compares it with the one it began with, and starts over when they
    /// differ: the format, the sheets, the header row, the mapping, `chunk_rows` and `chunk_bytes`,
    /// the cell limit, the version of the row hash or of the rules have changed. It is the same in every release.
    #[must_use]
    pub fn fingerprint(&self, options: &Options) -> i64 {
        let Self {
            format,
            sheet,
            header_row,
            mapping,
            rows_at_most: _,
            more,
            skipped: _,
            left_out: _,
        } = self;
        // as it was before texts were strict: whether this one is, is kept with it
        let format = match *format {
            Format::Csv(dialect) => Format::Csv(Dialect {
                is_strict: false,
                ..dialect
            }),
            format => format,
        };
        let file = serde_json::json!([format, sheet, header_row, mapping]);
        // as it was before there could be several, where there is one
        let more = match more.as_slice() {
            [] => String::new(),
            more => format!(" and {}", serde_json::json!(more)),
        };
        let (chunk_rows, max_cell_chars) = (options.chunk_rows, options.max_cell_chars);
        // as it was before there was the option, where it is not used
        let hidden = if options.skip_hidden_rows {
            " without hidden rows"
        } else {
            ""
        };
        let merged = match options.merged_cells {
            MergedCells::First => "",
            MergedCells::Fill => " merged cells filled",
        };
        let bytes = match options.chunk_bytes {
            usize::MAX => String::new(),
            n_bytes => format!(" {n_bytes} bytes"),
        };
        let text = format!(
            "{FORMAT_VERSION} {RULES_VERSION} {file} {chunk_rows} {max_cell_chars}{hidden}{merged}{bytes}{more}"
        );
        XxHash3_64::oneshot(text.as_bytes()).cast_signed()
    }

    /// Makes the options those of a run that began with this fingerprint; `false`: it cannot, and
    /// chunks could differ.
    ///
    /// A run that began when chunks had another bound of bytes, or none, goes on with that.
    #[must_use]
    pub fn go_on(&self, options: &mut Options, fingerprint: i64) -> bool {
        let bounds = [options.chunk_bytes, CHUNK_BYTES_BEFORE, usize::MAX];
        bounds.into_iter().any(|chunk_bytes| {
            options.chunk_bytes = chunk_bytes;
            self.fingerprint(options) == fingerprint
        })
    }
}

/// What reading a file to its end came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Data rows, good and bad.
    pub n_rows: u64,
    /// Rows with at least one error.
    pub n_bad: u64,
    /// Chunks handed on.
    pub n_chunks: u32,
    /// Row number of the last data row, in the last sheet that has any; 0 when there is none.
    pub last_row: u32,
    /// Rows below the header row that are hidden in the sheet: read like others, or passed over
    /// where [`Options::skip_hidden_rows`] says so. 0 where it cannot be told.
    pub n_hidden: u64,
    /// Whether the receiver of the chunks ended it before the end of the file.
    pub stopped: bool,
}
