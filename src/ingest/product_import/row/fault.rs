//! What can be wrong with a cell or a row: a stable word for programs, a sentence for people.

use super::{header::cut, locale};

/// One thing wrong with a cell or a row. `code()` is stored and never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A required value is not there.
    Required,
    /// The code was seen before in the file, in this row; the first one wins.
    DuplicateCode {
        /// `row_no` of the first row with the code, good or bad.
        first_row: u32,
        /// Its sheet where that is another one.
        sheet: Option<String>,
    },
    /// Not a number as `1234.56`.
    InvalidNumber,
    /// Not a number as the import's locale has it.
    ForeignNumber {
        /// One that is.
        example: &'static str,
    },
    /// Another row of the file with the code counts, or none.
    Superseded {
        /// `row_no` of the last row with the code.
        last_row: u32,
        /// Its sheet where that is another one.
        sheet: Option<String>,
        /// Whether that one counts.
        last_counts: bool,
    },
    /// Only new products are imported, and this one is in the catalog otherwise.
    AlreadyThere,
    /// Only products of the catalog are imported, and this is none.
    NotThere,
    /// Below zero.
    NegativeNumber,
    /// More than the catalog holds.
    NumberTooLarge,
    /// Has a fraction and must not.
    NotWholeNumber,
    /// No day of the calendar, or not in a form that is read.
    InvalidDate,
    /// Digits were lost before the file was saved, as in `7.92E+12`.
    PrecisionLost,
    /// A spreadsheet program turned the code into a date.
    DateInCode,
    /// The cell holds an error such as `#N/A`.
    CellError,
    /// The cell holds a formula without a value.
    Uncalculated,
    /// Longer than allowed.
    TooLong {
        /// The most that is allowed.
        max: usize,
        /// What is counted: `characters` or `bytes`.
        unit: &'static str,
    },
    /// Holds a character that no text may have (U+0000), or bytes that are none of the encoding.
    InvalidCharacter,
    /// There are values beyond the last header, as after a delimiter that was not quoted.
    TooManyCells,
    /// A quote is opened and never closed, so that the rest of the file is in one cell.
    UnclosedQuote,
    /// A quote is opened, and text follows where the next one closes it, lines below.
    StrayQuote {
        /// The lines that so became part of one cell.
        n_lines: u32,
    },
}

impl Fault {
    /// The word of a row whose code is another row's, too.
    pub const DUPLICATE_CODE: &'static str = "duplicate_code";

    /// Returns the stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::DuplicateCode { .. } | Self::Superseded { .. } => Self::DUPLICATE_CODE,
            Self::InvalidNumber | Self::ForeignNumber { .. } => "invalid_number",
            Self::AlreadyThere => "already_in_catalog",
            Self::NotThere => "not_in_catalog",
            Self::NegativeNumber => "negative_number",
            Self::NumberTooLarge => "number_too_large",
            Self::NotWholeNumber => "not_whole_number",
            Self::InvalidDate => "invalid_date",
            Self::PrecisionLost => "precision_lost",
            Self::DateInCode => "date_in_code",
            Self::CellError => "cell_error",
            Self::Uncalculated => "formula_without_value",
            Self::TooLong { .. } => "too_long",
            Self::InvalidCharacter => "invalid_character",
            Self::TooManyCells => "too_many_cells",
            Self::UnclosedQuote | Self::StrayQuote { .. } => "unclosed_quote",
        }
    }

    /// Returns a sentence for people; `column` is the header as in the file, `value` the cell.
    #[must_use]
    pub fn message(&self, column: &str, value: &str) -> String {
        match self {
            Self::Required => format!("{column} is empty"),
            Self::DuplicateCode { first_row, sheet } => format!(
                "code \"{value}\" is already in row {first_row}{}; the first one counts",
                of_sheet(sheet.as_deref())
            ),
            Self::InvalidNumber => format!(
                "{column} \"{value}\" is not a plain number such as 1234.56{}",
                locale::ways_to_read(value)
            ),
            Self::ForeignNumber { example } => {
                format!("{column} \"{value}\" is not a number such as {example}")
            }
            Self::Superseded {
                last_row,
                sheet,
                last_counts: true,
            } => format!(
                "code \"{value}\" comes again in row {last_row}{}; the last one counts",
                of_sheet(sheet.as_deref())
            ),
            Self::Superseded {
                last_row, sheet, ..
            } => format!(
                "code \"{value}\" is in several rows, the last of them row {last_row}{}; none counts",
                of_sheet(sheet.as_deref())
            ),
            Self::AlreadyThere => format!(
                "code \"{value}\" is in the catalog with other values; this import only inserts"
            ),
            Self::NotThere => {
                format!("code \"{value}\" is not in the catalog; this import only updates")
            }
            Self::NegativeNumber => format!("{column} {value} is below zero"),
            Self::NumberTooLarge => format!("{column} {value} is too large"),
            Self::NotWholeNumber => format!("{column} {value} is not a whole number"),
            Self::InvalidDate => format!(
                "{column} \"{value}\" is not a date; use a date cell, or text such as 2026-01-31 \
                 or 2026-01-31T14:30:00"
            ),
            Self::PrecisionLost => format!(
                "{column} \"{value}\" has lost digits; store the column as text and export again"
            ),
            Self::DateInCode => {
                format!("{column} was turned into the date {value}; store the column as text")
            }
            Self::CellError => format!("{column} holds the error {value}"),
            Self::Uncalculated => format!(
                "{column} holds a formula that was never calculated; open the file in a \
                 spreadsheet program, save it, and import it again"
            ),
            Self::TooLong { max, unit } => format!("{column} is longer than {max} {unit}"),
            Self::InvalidCharacter => format!(
                "{column} holds the character U+0000, or bytes that are no text of the file's \
                 encoding; correct it, or name the encoding"
            ),
            Self::TooManyCells => format!(
                "there is a value (\"{value}\") beyond the last header; is a delimiter not quoted?"
            ),
            Self::UnclosedQuote => {
                "a quote opened in this row is never closed; the rest of the file is part of it"
                    .to_owned()
            }
            Self::StrayQuote { n_lines } => format!(
                "a quote opened in this row closes {n_lines} lines below in the middle of a text, \
                 and none of these lines was imported; take the stray quote away, or double it in a \
                 quoted cell"
            ),
        }
    }
}

/// Returns the words that name a sheet behind a row of it.
fn of_sheet(sheet: Option<&str>) -> String {
    let name = sheet.map(|name| cut(name, 100));
    name.map_or_else(String::new, |name| format!(" of sheet \"{name}\""))
}
