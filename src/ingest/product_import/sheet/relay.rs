//! Rows from the thread that reads them to another that checks them.
//!
//! Inflating and scanning a row costs about what its checks and its hash do, so
//! that a file is read in half the time. Rows go over in batches that go round:
//! a slow taker holds up the reader, and what is held is bounded by the batches.
//! Whichever thread ends first, of whatever, the other one's end of a channel is
//! gone then, so that it ends, too.

use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::super::row::cell::RowBuf;
use super::refusal::Refusal;
use super::rows::Rows;

/// Batches under way: one being filled, one being checked, one between.
const N_BATCHES: usize = 3;
/// Rows of a batch, at most.
const BATCH_ROWS: usize = 256;
/// A batch is full with the row that brings it to this many bytes.
const BATCH_BYTES: usize = 256 * 1024;
/// A batch of so many bytes has a row that is a load of its own: nothing is read beside it.
const HEAVY_BYTES: usize = 1024 * 1024;

/// What is done with each row, on the other thread.
pub(super) type Take<'t> = &'t mut (dyn FnMut(&RowBuf) -> Result<ControlFlow<()>, Refusal> + Send);

/// Reads rows to their end and has another thread take each, in their order; `limits` are those of
/// the [`RowBuf`]s. It may have read on a little behind the row with which the taker ends it.
///
/// # Errors
///
/// The taker's refusal, else the reader's, which comes after the rows before it were taken; and when
/// there is no thread to be had.
pub(super) fn relay(
    rows: &mut dyn Rows,
    limits: (usize, usize),
    take: Take<'_>,
) -> Result<(), Refusal> {
    let (full, filled) = sync_channel(N_BATCHES);
    let (empty, emptied) = sync_channel(N_BATCHES);
    for _ in 0..N_BATCHES {
        drop(empty.try_send(Batch::default())); // there is room, and the other end is here
    }
    thread::scope(|scope| {
        let checks = thread::Builder::new().name("import-checks".to_owned());
        let checks = checks.spawn_scoped(scope, move || take_all(filled, empty, take))?;
        let read = read_all(rows, limits, emptied, full);
        match checks.join() {
            Ok(Ok(ControlFlow::Continue(()))) => read,
            Ok(Ok(ControlFlow::Break(()))) => Ok(()),
            Ok(Err(refusal)) => Err(refusal),
            Err(panic) => resume_unwind(panic),
        }
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "their end is how the other thread knows"
)]
fn read_all(
    rows: &mut dyn Rows,
    limits: (usize, usize),
    emptied: Receiver<Batch>,
    full: SyncSender<Batch>,
) -> Result<(), Refusal> {
    let mut spare: Vec<Batch> = Vec::new();
    while let Some(mut batch) = spare.pop().or_else(|| emptied.recv().ok()) {
        let has_more = batch.fill(rows, limits);
        let is_heavy = batch.held_bytes() >= HEAVY_BYTES;
        let is_taken = full.send(batch).is_ok();
        if !has_more? || !is_taken {
            break;
        }
        if is_heavy {
            let others = N_BATCHES.saturating_sub(spare.len());
            spare.extend(emptied.iter().take(others));
        }
    }
    Ok(())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "their end is how the other thread knows"
)]
fn take_all(
    filled: Receiver<Batch>,
    empty: SyncSender<Batch>,
    take: Take<'_>,
) -> Result<ControlFlow<()>, Refusal> {
    for batch in &filled {
        for row in batch.rows.iter().take(batch.n_rows) {
            if take(row)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        drop(empty.try_send(batch)); // the reader may have ended
    }
    Ok(ControlFlow::Continue(()))
}

/// Rows that go over together, and those of an earlier turn behind them, kept for their memory.
#[derive(Default)]
struct Batch {
    rows: Vec<RowBuf>,
    n_rows: usize,
}

impl Batch {
    /// Fills the batch with the next rows; `false` when there are none behind them.
    fn fill(&mut self, rows: &mut dyn Rows, limits: (usize, usize)) -> Result<bool, Refusal> {
        if self.held_bytes() > 2 * BATCH_BYTES {
            self.rows.clear();
        }
        self.n_rows = 0;
        let mut n_bytes = 0;
        while self.n_rows < BATCH_ROWS && n_bytes < BATCH_BYTES {
            if self.rows.len() == self.n_rows {
                self.rows.push(RowBuf::new(limits.0, limits.1));
            }
            let Some(row) = self.rows.get_mut(self.n_rows) else {
                break; // cannot be: it was just pushed
            };
            if !rows.next_row(row)? {
                return Ok(false);
            }
            self.n_rows += 1;
            n_bytes += row.held_bytes();
        }
        Ok(true)
    }

    fn held_bytes(&self) -> usize {
        self.rows.iter().map(RowBuf::held_bytes).sum()
    }
}

#[cfg(test)]
#[path = "tests/relay.rs"]
mod tests;
