//! The child's side: opens the workbook it was given and answers questions about it.

use std::io::{self, Read, Write};

use super::super::super::row::cell::{Epoch, RowBuf};
use super::super::refusal::Refusal;
use super::super::rows::{Rows, Workbook};
use super::wire::{self, Answer, MAX_ROW_BYTES, Question};

/// Rows are sent once they take this much.
const BATCH_BYTES: usize = 256 * 1024;

/// Answers questions about a workbook, or says why it was not opened, until nobody asks any more.
///
/// # Errors
///
/// When what is asked is no question. The other side being gone is the usual end.
pub(super) fn serve(
    opened: Result<Box<dyn Workbook>, Refusal>,
    stream: &mut (impl Read + Write),
) -> io::Result<()> {
    let mut workbook = match opened {
        Ok(workbook) => workbook,
        Err(refusal) => return wire::send(stream, &refused(refusal)),
    };
    let sheets = workbook.sheets().into_iter();
    let opened = Answer::Opened {
        sheets: sheets.map(|it| (it.name, it.is_visible)).collect(),
        is_1904: workbook.epoch() == Epoch::Y1904,
    };
    wire::send(stream, &opened)?;
    let mut next = question(stream)?;
    while let Some(asked) = next.take() {
        next = match asked {
            Question::Verify { sheet } => {
                let answer = match workbook.verify(&sheet) {
                    Ok(rows_at_most) => Answer::Verified { rows_at_most },
                    Err(refusal) => refused(refusal),
                };
                wire::send(stream, &answer)?;
                question(stream)?
            }
            Question::Merged { sheet } => {
                let answer = match workbook.merged(&sheet) {
                    Ok(ranges) => Answer::Merged { ranges },
                    Err(refusal) => refused(refusal),
                };
                wire::send(stream, &answer)?;
                question(stream)?
            }
            Question::Rows {
                sheet,
                max_columns,
                max_cell_bytes,
            } => {
                let row = RowBuf::new(max_columns, max_cell_bytes);
                give_rows(workbook.as_mut(), &sheet, row, stream)?
            }
            Question::More => {
                wire::send(stream, &Answer::End)?;
                question(stream)?
            }
        };
    }
    Ok(())
}

fn question(stream: &mut impl Read) -> io::Result<Option<Question>> {
    match wire::receive_message(stream) {
        Ok(question) => Ok(Some(question)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

/// Gives the rows of a sheet, a batch at a time as they are asked for; returns the next question.
fn give_rows(
    workbook: &mut dyn Workbook,
    sheet: &str,
    mut row: RowBuf,
    stream: &mut (impl Read + Write),
) -> io::Result<Option<Question>> {
    let mut next = Ok(None);
    let mut is_left = false;
    let ended = workbook.with_rows(sheet, &mut |rows| {
        loop {
            let mut packed = Vec::new();
            let went = batch(rows, &mut row, &mut packed);
            if !packed.is_empty() {
                next = wire::send_rows(stream, &packed).and_then(|()| question(stream));
                if !matches!(next, Ok(Some(Question::More))) {
                    is_left = true;
                    return Ok(());
                }
            }
            if !went? {
                return Ok(());
            }
        }
    });
    if is_left {
        return next;
    }
    let answer = ended.map_or_else(refused, |()| Answer::End);
    wire::send(stream, &answer)?;
    question(stream)
}

/// Packs rows until they are enough; `false` when there are no more.
fn batch(rows: &mut dyn Rows, row: &mut RowBuf, packed: &mut Vec<u8>) -> Result<bool, Refusal> {
    while packed.len() < BATCH_BYTES {
        if !rows.next_row(row)? {
            return Ok(false);
        }
        let before = packed.len();
        wire::pack(row, packed);
        if packed.len() - before > MAX_ROW_BYTES {
            packed.truncate(before);
            return Err(Refusal::format(format!(
                "row {} has more than {MAX_ROW_BYTES} bytes",
                row.row_no()
            )));
        }
    }
    Ok(true)
}

fn refused(refusal: Refusal) -> Answer {
    Answer::Refused {
        code: refusal.code.to_owned(),
        message: refusal.message,
    }
}
