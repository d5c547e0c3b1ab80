//! Gathers checked rows into chunks.

use std::ops::ControlFlow;
use std::path::Path;

use super::super::row::cell::RowBuf;
use super::super::row::check::{Checker, Outcome, Rules};
use super::super::row::fault::Fault;
use super::super::row::seen::{LAST_ROW, Spots};
use super::super::row::{Chunk, RowError};
use super::inspection::{Inspection, Summary};
use super::options::Options;
use super::refusal::Refusal;
use super::relay::relay;
use super::rows::Rows;

/// Rows for which a chunk has room from its first one on, at most.
const MOST_ROOM: u32 = 10_000;

/// Who takes the chunks.
pub(super) type Sink<'s> = &'s mut (dyn FnMut(Chunk) -> ControlFlow<()> + Send);

/// Refuses rows of which it cannot be told whether they are hidden, where those are passed over.
///
/// # Errors
///
/// [`Refusal::HIDDEN_ROWS_UNKNOWN`].
pub(super) fn refuse_unknown_hidden(rows: &dyn Rows, skip_hidden: bool) -> Result<(), Refusal> {
    if skip_hidden && !rows.tells_hidden() {
        return Err(Refusal::new(
            Refusal::HIDDEN_ROWS_UNKNOWN,
            "hidden rows cannot be told from others in this file; import them, too, or save it as \
             xlsx",
        ));
    }
    Ok(())
}

/// The reading of one file.
pub(super) struct Reading<'s> {
    checker: Checker,
    inspection: &'s Inspection,
    sink: Sink<'s>,
    chunk_rows: u32,
    chunk_bytes: usize,
    /// What the rows of the chunk begun weigh.
    n_bytes: usize,
    /// Rows for which a chunk has room from its first one on.
    room: usize,
    max_rows: u64,
    chunk: Chunk,
    summary: Summary,
    skip_hidden: bool,
}

impl<'s> Reading<'s> {
    /// Prepares to hand chunks of [`Options::chunk_rows`] rows to `sink`, and smaller ones where
    /// those weigh more than [`Options::chunk_bytes`]; the codes seen may lie in a file beside
    /// `path`.
    pub(super) fn new(
        path: &Path,
        inspection: &'s Inspection,
        rules: Rules,
        options: &Options,
        sink: Sink<'s>,
    ) -> Self {
        let spots = Spots::of_sheets(inspection);
        let mut checker = Checker::new(inspection.mapping.clone(), rules, spots);
        let n_rows = inspection.rows_at_most.unwrap_or_default();
        checker.expect_rows(n_rows.min(options.max_rows.into()), path);
        Self {
            checker,
            inspection,
            sink,
            chunk_rows: options.chunk_rows.max(1),
            chunk_bytes: options.chunk_bytes,
            n_bytes: 0,
            room: usize::try_from(options.chunk_rows.min(MOST_ROOM)).unwrap_or_default(),
            max_rows: options.max_rows.into(),
            skip_hidden: options.skip_hidden_rows,
            chunk: Chunk::default(),
            summary: Summary::default(),
        }
    }

    /// Goes on with another sheet: the codes seen stay, the columns are its own.
    pub(super) fn turn_to(&mut self, sheet: usize) {
        self.chunk.sheet = sheet;
        if sheet > 0 {
            let mapping = self.inspection.head(sheet).mapping.clone();
            self.checker.turn_to(sheet, mapping);
        }
    }

    /// Reads the rows below the header row to the end, or until the sink stops it; `limits` are
    /// those of a [`RowBuf`].
    ///
    /// # Errors
    ///
    /// When the file is damaged, and [`Refusal::TOO_MANY_ROWS`]; the chunks up to there have been
    /// handed on.
    pub(super) fn run(
        &mut self,
        rows: &mut dyn Rows,
        limits: (usize, usize),
        header_row: u32,
    ) -> Result<(), Refusal> {
        refuse_unknown_hidden(rows, self.skip_hidden)?;
        relay(rows, limits, &mut |row| {
            if row.row_no() > header_row {
                self.summary.n_hidden += u64::from(row.is_hidden());
                if !(row.is_hidden() && self.skip_hidden) {
                    self.take(row)?;
                }
            }
            Ok(if self.summary.stopped {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        })?;
        if self.chunk.n_rows > 0 && !self.summary.stopped {
            self.hand_on()?;
        }
        Ok(())
    }

    /// Returns what it came to.
    pub(super) fn summary(&self) -> Summary {
        self.summary
    }

    fn take(&mut self, row: &RowBuf) -> Result<(), Refusal> {
        let n_errors = match self.checker.check(row) {
            Outcome::Blank => return Ok(()),
            Outcome::Good(product) => {
                if self.chunk.rows.capacity() == 0 {
                    // at once: doubling holds what is outgrown for a while, and room beyond the end
                    self.chunk.rows.reserve_exact(self.room);
                }
                self.chunk.rows.push(product);
                0
            }
            Outcome::Bad(errors, row) => {
                // Not whether it is a duplicate: a reading that allows those ends chunks alike.
                let is_own = |error: &&RowError| error.code != Fault::DUPLICATE_CODE;
                let n_errors = errors.iter().filter(is_own).count();
                self.chunk.errors.extend(errors);
                self.chunk.rejected.push(row);
                self.chunk.n_bad += 1;
                self.summary.n_bad += 1;
                n_errors
            }
        };
        self.n_bytes += self.checker.weight(row, n_errors);
        self.summary.n_rows += 1;
        if self.summary.n_rows > self.max_rows {
            return Err(Refusal::new(
                Refusal::TOO_MANY_ROWS,
                match self.inspection.more.len() {
                    0 => format!("the sheet has more than {} data rows", self.max_rows),
                    n => format!(
                        "the {} sheets have more than {} data rows together",
                        n + 1,
                        self.max_rows
                    ),
                },
            ));
        }
        self.chunk.n_rows += 1;
        self.chunk.last_row = row.row_no();
        self.summary.last_row = row.row_no();
        if self.chunk.n_rows >= self.chunk_rows || self.n_bytes >= self.chunk_bytes {
            self.hand_on()?;
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), Refusal> {
        if let Some(error) = self.checker.fault() {
            let what = "the codes of the file could not be kept while it is read";
            return Err(Refusal::unkept(what, &error));
        }
        if self.chunk.last_row > LAST_ROW && !self.inspection.more.is_empty() {
            // duplicates are named by sheet and row, which share a word
            return Err(Refusal::new(
                Refusal::TOO_MANY_ROWS,
                format!("a sheet has rows beyond {LAST_ROW}; import it by itself"),
            ));
        }
        let next = Chunk {
            seq: self.chunk.seq.saturating_add(1),
            sheet: self.chunk.sheet,
            ..Chunk::default()
        };
        let chunk = std::mem::replace(&mut self.chunk, next);
        self.n_bytes = 0;
        self.summary.n_chunks += 1;
        self.summary.stopped = (self.sink)(chunk).is_break();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::row::cell::{Cell, Epoch};
    use super::*;

    /// Two rows of one code.
    struct Twice(u32);

    impl Rows for Twice {
        fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
            self.0 += 1;
            row.start(self.0 + 1);
            row.set(0, Cell::Text("A"));
            row.set(1, Cell::Text("Lamp"));
            Ok(self.0 <= 2)
        }
    }

    fn read(breaks: bool) -> (Result<(), Refusal>, u32) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "code,name\nA,Lamp\n").unwrap();
        let options = Options::default();
        let inspection = super::super::inspect(&path, "", &options).unwrap();
        let rules = super::super::rules(Epoch::Y1900, true, &options);
        let mut n_good = 0;
        let mut sink = |chunk: Chunk| {
            n_good += chunk.rows.len();
            ControlFlow::Continue(())
        };
        let mut reading = Reading::new(&path, &inspection, rules, &options, &mut sink);
        if breaks {
            reading.checker.fail();
        }
        let read = reading.run(&mut Twice(0), (10, 1000), 1);
        (read, u32::try_from(n_good).unwrap())
    }

    #[test]
    fn no_row_is_handed_on_of_which_it_is_not_known_whether_it_is_a_duplicate() {
        assert_eq!(read(false), (Ok(()), 1));
        let (ended, n_good) = read(true);
        assert_eq!(n_good, 0);
        assert!(ended.unwrap_err().is_transient(), "another attempt may do");
    }
}
