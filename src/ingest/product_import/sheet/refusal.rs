//! Why a file is not read: a stable word and a sentence.

/// A file that is refused as a whole, or that turned out to be damaged while it was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, in one stable word for programs; one of the constants of [`Refusal`].
    pub code: &'static str,
    /// What is wrong and what to do, in a sentence for people.
    pub message: String,
}

impl Refusal {
    /// Neither a workbook nor text, or a damaged one.
    pub const INVALID_FILE_FORMAT: &'static str = "invalid_file_format";
    /// Nothing in the file, or no cell in any sheet.
    pub const EMPTY_FILE: &'static str = "empty_file";
    /// Bigger than allowed.
    pub const FILE_TOO_LARGE: &'static str = "file_too_large";
    /// Encrypted.
    pub const PASSWORD_PROTECTED: &'static str = "password_protected";
    /// A zip archive whose directory is beyond the limits: a bomb, or made to look like one.
    pub const ARCHIVE_LIMITS: &'static str = "archive_limits";
    /// No header row among the first 20, or required columns are not in it.
    pub const MISSING_HEADERS: &'static str = "missing_headers";
    /// Two columns mean the same.
    pub const DUPLICATE_HEADERS: &'static str = "duplicate_headers";
    /// More data rows than allowed.
    pub const TOO_MANY_ROWS: &'static str = "too_many_rows";
    /// More columns than allowed.
    pub const TOO_MANY_COLUMNS: &'static str = "too_many_columns";
    /// No sheet of the name asked for.
    pub const NO_SUCH_SHEET: &'static str = "no_such_sheet";
    /// A sheet cannot be read, and what the file lacks is to be archived.
    pub const UNREAD_SHEET: &'static str = "unread_sheet";
    /// No saved mapping of the name asked for.
    pub const NO_SUCH_MAPPING: &'static str = "no_such_mapping";
    /// Hidden rows are to be passed over, and cannot be told from others in this file.
    pub const HIDDEN_ROWS_UNKNOWN: &'static str = "hidden_rows_unknown";
    /// Merged cells are to be filled, and cannot be read, are too many or overlap.
    pub const MERGED_CELLS: &'static str = "merged_cells";
    /// Beyond the limits of memory and time of the process that reads a workbook.
    pub const READER_LIMITS: &'static str = "reader_limits";
    /// The file could not be read from disk, or its reader was ended from outside: not the file's
    /// fault, and another attempt may not meet it again.
    pub const READ_FAILED: &'static str = "read_failed";
    /// `storage.dir` has no room for what is put aside while the file is read: not the file's fault,
    /// and over once somebody makes room.
    pub const STORAGE_FULL: &'static str = "storage_full";

    /// Every code there is.
    pub const CODES: [&'static str; 17] = [
        Self::INVALID_FILE_FORMAT,
        Self::EMPTY_FILE,
        Self::FILE_TOO_LARGE,
        Self::PASSWORD_PROTECTED,
        Self::ARCHIVE_LIMITS,
        Self::MISSING_HEADERS,
        Self::DUPLICATE_HEADERS,
        Self::TOO_MANY_ROWS,
        Self::TOO_MANY_COLUMNS,
        Self::NO_SUCH_SHEET,
        Self::UNREAD_SHEET,
        Self::NO_SUCH_MAPPING,
        Self::HIDDEN_ROWS_UNKNOWN,
        Self::MERGED_CELLS,
        Self::READER_LIMITS,
        Self::READ_FAILED,
        Self::STORAGE_FULL,
    ];

    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(super) fn format(message: impl Into<String>) -> Self {
        Self::new(Self::INVALID_FILE_FORMAT, message)
    }

    pub(super) fn archive(message: impl Into<String>) -> Self {
        Self::new(Self::ARCHIVE_LIMITS, message)
    }

    /// Says that a part of the file cannot be parsed.
    pub(super) fn damaged(what: &str, why: &dyn std::fmt::Display) -> Self {
        let why = why.to_string();
        let why = super::super::row::header::cut(&why, 300);
        Self::format(format!("{what} is damaged: {why}"))
    }

    /// Whether another attempt may succeed with the same file.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        [Self::READ_FAILED, Self::STORAGE_FULL].contains(&self.code)
    }

    /// Says that what is put aside while a file is read could not be.
    pub(super) fn unkept(what: &str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let code = match error.kind() {
            StorageFull | QuotaExceeded => Self::STORAGE_FULL,
            _ => Self::READ_FAILED,
        };
        Self::new(code, format!("{what}: {error}"))
    }
}

/// An error of reading the file itself; damage inside an archive shows as invalid data instead.
impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.kind() {
            InvalidData | InvalidInput | UnexpectedEof => Self::damaged("the file", &error),
            _ => Self::unkept("the file could not be read", &error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn only_a_failed_read_is_worth_another_attempt() {
        let gone = Refusal::from(Error::from(ErrorKind::NotFound));
        assert_eq!(gone.code, Refusal::READ_FAILED);
        assert!(gone.is_transient());
        let full = Refusal::from(Error::from(ErrorKind::StorageFull));
        assert_eq!(full.code, Refusal::STORAGE_FULL);
        assert!(full.is_transient());
        let cut = Refusal::from(Error::from(ErrorKind::UnexpectedEof));
        assert_eq!(cut.code, Refusal::INVALID_FILE_FORMAT);
        assert!(!cut.is_transient());
    }
}
