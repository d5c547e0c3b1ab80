//! Gathers checked rows into chunks.

use std::ops::ControlFlow;

use super::super::cell::RowBuf;
use super::super::check::{Checker, Outcome};
use super::super::fault::Fault;
use super::super::row::{Chunk, RowError};
use super::options::{Options, Summary};
use super::refusal::Refusal;
use super::rows::Rows;

/// Who takes the chunks.
pub(super) type Sink<'s> = &'s mut dyn FnMut(Chunk) -> ControlFlow<()>;

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
    sink: Sink<'s>,
    chunk_rows: u32,
    chunk_bytes: usize,
    /// What the rows of the chunk begun weigh.
    n_bytes: usize,
    max_rows: u64,
    chunk: Chunk,
    summary: Summary,
    skip_hidden: bool,
}

impl<'s> Reading<'s> {
    /// Prepares to hand chunks of [`Options::chunk_rows`] rows to `sink`, and smaller ones where
    /// those weigh more than [`Options::chunk_bytes`].
    pub(super) fn new(checker: Checker, options: &Options, sink: Sink<'s>) -> Self {
        Self {
            checker,
            sink,
            chunk_rows: options.chunk_rows.max(1),
            chunk_bytes: options.chunk_bytes,
            n_bytes: 0,
            max_rows: options.max_rows.into(),
            skip_hidden: options.skip_hidden_rows,
            chunk: Chunk::default(),
            summary: Summary::default(),
        }
    }

    /// Reads the rows below the header row to the end, or until the sink stops it.
    ///
    /// # Errors
    ///
    /// When the file is damaged, and [`Refusal::TOO_MANY_ROWS`]; the chunks up to there have been
    /// handed on.
    pub(super) fn run(
        &mut self,
        rows: &mut dyn Rows,
        row: &mut RowBuf,
        header_row: u32,
    ) -> Result<(), Refusal> {
        refuse_unknown_hidden(rows, self.skip_hidden)?;
        while !self.summary.stopped && rows.next_row(row)? {
            if row.row_no() > header_row {
                self.summary.n_hidden += u64::from(row.is_hidden());
                if !(row.is_hidden() && self.skip_hidden) {
                    self.take(row)?;
                }
            }
        }
        if self.chunk.n_rows > 0 && !self.summary.stopped {
            self.hand_on();
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
                self.chunk.rows.push(*product);
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
                format!("the sheet has more than {} data rows", self.max_rows),
            ));
        }
        self.chunk.n_rows += 1;
        self.chunk.last_row = row.row_no();
        self.summary.last_row = row.row_no();
        if self.chunk.n_rows >= self.chunk_rows || self.n_bytes >= self.chunk_bytes {
            self.hand_on();
        }
        Ok(())
    }

    fn hand_on(&mut self) {
        let next = Chunk {
            seq: self.chunk.seq.saturating_add(1),
            ..Chunk::default()
        };
        let chunk = std::mem::replace(&mut self.chunk, next);
        self.n_bytes = 0;
        self.summary.n_chunks += 1;
        self.summary.stopped = (self.sink)(chunk).is_break();
    }
}
