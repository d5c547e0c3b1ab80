//! What came of each sheet of an import of several, and what was passed over: part of the run's
//! details, counted in the transaction of each chunk, so that an import that is resumed goes on
//! counting where it was. Pure.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::{
    row::{Chunk, header::cut},
    sheet::{Inspection, SkippedSheet},
};
use super::Loaded;

/// Members of a run's details.
const SHEETS: &str = "sheets";
const SKIPPED: &str = "skipped_sheets";
const HIDDEN: &str = "hidden_rows";

/// What came of one sheet.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Its name.
    pub sheet: String,
    /// Row number of its header row, from 1.
    pub header_row: u32,
    /// Data rows that were dealt with.
    pub total_rows: i64,
    /// Rows that are in the catalog as the sheet has them.
    pub success_count: i64,
    /// Rows that were refused.
    pub error_count: i64,
}

/// What came of the sheets.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tallies {
    /// Those that are read; none where several were not asked for.
    sheets: Vec<Tally>,
    skipped: Vec<SkippedSheet>,
    /// Rows that are hidden in the sheets, once all are read.
    n_hidden: u64,
}

impl Tallies {
    /// Goes on from the details of the run.
    pub(crate) fn of(inspection: &Inspection, details: &Value) -> Self {
        if !inspection.is_of_several() {
            return Self {
                skipped: inspection.left_out.clone(),
                ..Self::default()
            };
        }
        let fresh = inspection.heads().map(|head| Tally {
            sheet: head.sheet.unwrap_or_default().to_owned(),
            header_row: head.header_row,
            ..Tally::default()
        });
        Self {
            sheets: sheets(details).unwrap_or_else(|| fresh.collect()),
            skipped: inspection.skipped.clone(),
            n_hidden: 0,
        }
    }

    /// Takes how many rows of the whole file are hidden.
    pub(crate) const fn hide(&mut self, n_rows: u64) {
        self.n_hidden = n_rows;
    }

    /// Counts the rows of a chunk.
    pub(crate) fn count(&mut self, chunk: &Chunk, loaded: &Loaded) {
        if let Some(tally) = self.sheets.get_mut(chunk.sheet) {
            tally.total_rows += i64::from(loaded.n_ok() + loaded.n_failed());
            tally.success_count += i64::from(loaded.n_ok());
            tally.error_count += i64::from(loaded.n_failed());
        }
    }

    /// Says which sheet is being read.
    pub(crate) fn stage(&self, sheet: usize) -> Option<String> {
        let tally = self.sheets.get(sheet)?;
        let (name, n) = (cut(&tally.sheet, 100), self.sheets.len());
        Some(format!("sheet {} of {n}: {name}", sheet + 1))
    }

    /// Adds them to the details of the run.
    pub(crate) fn show(&self, details: &mut Map<String, Value>) -> serde_json::Result<()> {
        if !self.sheets.is_empty() {
            details.insert(SHEETS.to_owned(), serde_json::to_value(&self.sheets)?);
        }
        if !self.sheets.is_empty() || !self.skipped.is_empty() {
            details.insert(SKIPPED.to_owned(), serde_json::to_value(&self.skipped)?);
        }
        if self.n_hidden > 0 {
            details.insert(HIDDEN.to_owned(), self.n_hidden.into());
        }
        Ok(())
    }
}

/// Returns what came of each sheet by the details of a run; `None`: it was not asked for several, or
/// has not begun.
#[must_use]
pub fn sheets(details: &Value) -> Option<Vec<Tally>> {
    serde_json::from_value(details.get(SHEETS)?.clone()).ok()
}

/// Returns how many rows are hidden in the file, by the details of a completed run; `None` where none
/// is, or it cannot be told.
#[must_use]
pub fn hidden(details: &Value) -> Option<u64> {
    details.get(HIDDEN)?.as_u64()
}

/// Returns the sheets that were not read, by the details of a run, but for those that nobody would
/// have expected to be: one was named, and they are others.
#[must_use]
pub fn skipped(details: &Value) -> Vec<SkippedSheet> {
    let skipped = details.get(SKIPPED).cloned();
    let skipped = skipped.and_then(|skipped| serde_json::from_value(skipped).ok());
    skipped.unwrap_or_default()
}
