use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::super::super::row::cell::Cell;
use super::*;

/// What comes behind the last row.
#[derive(Clone, Copy)]
enum End {
    Good,
    Damage,
    Panic,
}

/// So many rows with a text each, and then an end.
struct Made<'n> {
    n_rows: u32,
    text: String,
    end: End,
    n_read: &'n AtomicU32,
}

impl Rows for Made<'_> {
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        let last = self.n_read.load(SeqCst);
        if last == self.n_rows {
            row.start(u32::MAX);
            return match self.end {
                End::Good => Ok(false),
                End::Damage => Err(Refusal::format("the rest is missing")),
                End::Panic => panic!("the reader breaks off"),
            };
        }
        row.start(last + 1);
        row.set(0, Cell::Text(&self.text));
        self.n_read.store(last + 1, SeqCst);
        Ok(true)
    }
}

const LIMITS: (usize, usize) = (4, 4 * HEAVY_BYTES);

/// Relays rows of a text; `stop_at` ends it. Returns the rows taken, and with each how many had been
/// read.
fn taken(
    n_rows: u32,
    text: &str,
    end: End,
    stop_at: u32,
) -> (Vec<(u32, u32)>, Result<(), Refusal>) {
    let n_read = AtomicU32::new(0);
    let mut rows = Made {
        n_rows,
        text: text.to_owned(),
        end,
        n_read: &n_read,
    };
    let mut taken = Vec::new();
    let ended = relay(&mut rows, LIMITS, &mut |row| {
        assert_eq!(row.cell(0), Cell::Text(text));
        taken.push((row.row_no(), n_read.load(SeqCst)));
        Ok(if row.row_no() == stop_at {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        })
    });
    (taken, ended)
}

fn numbers(taken: &[(u32, u32)]) -> Vec<u32> {
    taken.iter().map(|(row_no, _)| *row_no).collect()
}

#[test]
fn every_row_comes_once_and_in_order() {
    for n_rows in [0, 1, 255, 256, 257, 5_000] {
        let (taken, ended) = taken(n_rows, "text", End::Good, 0);
        assert!(ended.is_ok());
        assert_eq!(numbers(&taken), (1..=n_rows).collect::<Vec<_>>());
    }
}

#[test]
fn the_reader_is_ahead_by_the_batches_and_no_more() {
    let (taken, _) = taken(20_000, "text", End::Good, 0);
    let most = u32::try_from(N_BATCHES * BATCH_ROWS).unwrap();
    for (row_no, n_read) in taken {
        assert!(
            n_read <= row_no + most,
            "at row {row_no} {n_read} were read"
        );
    }
}

#[test]
fn nothing_is_read_beside_a_heavy_row() {
    let text = "x".repeat(HEAVY_BYTES);
    let (taken, ended) = taken(7, &text, End::Good, 0);
    assert!(ended.is_ok());
    assert_eq!(taken, (1..=7).map(|n| (n, n)).collect::<Vec<_>>());
}

#[test]
fn a_heavy_batch_does_not_keep_its_memory() {
    let n_read = AtomicU32::new(0);
    let mut rows = Made {
        n_rows: 2,
        text: "x".repeat(HEAVY_BYTES),
        end: End::Good,
        n_read: &n_read,
    };
    let mut batch = Batch::default();
    assert!(batch.fill(&mut rows, LIMITS).unwrap());
    assert_eq!(batch.n_rows, 1);
    assert!(batch.held_bytes() >= HEAVY_BYTES);
    rows.text.truncate(4);
    assert!(!batch.fill(&mut rows, LIMITS).unwrap());
    assert_eq!(batch.n_rows, 1);
    assert!(batch.held_bytes() < BATCH_BYTES);
}

#[test]
fn rows_before_the_damage_are_taken_first() {
    let (taken, ended) = taken(600, "text", End::Damage, 0);
    assert_eq!(taken.len(), 600);
    assert!(ended.is_err());
}

#[test]
fn who_has_enough_hears_nothing_of_what_comes_behind() {
    for end in [End::Good, End::Damage] {
        for n_rows in [600, 50_000] {
            let (taken, ended) = taken(n_rows, "text", end, 599);
            assert_eq!(taken.len(), 599);
            assert!(ended.is_ok());
        }
    }
}

#[test]
fn the_takers_refusal_comes_first() {
    for n_rows in [300, 50_000] {
        let n_read = AtomicU32::new(0);
        let mut rows = Made {
            n_rows,
            text: "text".to_owned(),
            end: End::Damage,
            n_read: &n_read,
        };
        let mut n_taken = 0;
        let ended = relay(&mut rows, LIMITS, &mut |row| {
            n_taken += 1;
            match row.row_no() {
                7 => Err(Refusal::new(Refusal::TOO_MANY_ROWS, "enough")),
                _ => Ok(ControlFlow::Continue(())),
            }
        });
        assert_eq!(ended.unwrap_err().code, Refusal::TOO_MANY_ROWS);
        assert_eq!(n_taken, 7);
    }
}

/// Whoever it is, the other one does not wait for ever, and the panic is the caller's.
#[test]
fn a_panic_of_either_thread_ends_both() {
    let reader = catch_unwind(|| taken(600, "text", End::Panic, 0));
    let why = reader.unwrap_err();
    assert_eq!(why.downcast_ref(), Some(&"the reader breaks off"));
    let taker = catch_unwind(|| {
        let n_read = AtomicU32::new(0);
        let mut rows = Made {
            n_rows: 50_000,
            text: "text".to_owned(),
            end: End::Good,
            n_read: &n_read,
        };
        relay(&mut rows, LIMITS, &mut |row| {
            assert!(row.row_no() < 300, "the taker breaks off");
            Ok(ControlFlow::Continue(()))
        })
    });
    assert!(taker.is_err());
}
