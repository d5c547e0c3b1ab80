//! A workbook that a child process reads.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use super::super::super::row::cell::{Epoch, RowBuf};
use super::super::merged;
use super::super::options::{ChildLimits, StopFlag};
use super::super::refusal::Refusal;
use super::super::rows::{Rows, SheetName, Visitor, Workbook};
use super::process::Process;
use super::wire::{self, Answer, Frame, Packed, Question};

/// A workbook, opened by a child process.
pub(super) struct Remote {
    process: Process,
    sheets: Vec<SheetName>,
    epoch: Epoch,
    /// Rows were asked for and have not come, but are not wanted any more.
    owes_rows: bool,
}

impl Remote {
    /// Begins the child that `command` is, and waits until it has opened the workbook.
    ///
    /// # Errors
    ///
    /// What the child says of the file; [`Refusal::READER_LIMITS`] when it was beyond its limits.
    pub(super) fn open(
        command: Command,
        path: &Path,
        limits: ChildLimits,
        stop: &StopFlag,
    ) -> Result<Self, Refusal> {
        let file = File::open(path)?;
        let process = Process::begin(command, file, limits, stop.clone()).map_err(|error| {
            Refusal::new(
                Refusal::READ_FAILED,
                format!("the reader of workbooks could not be started: {error}"),
            )
        })?;
        let mut remote = Self {
            process,
            sheets: Vec::new(),
            epoch: Epoch::Y1900,
            owes_rows: false,
        };
        match remote.answer()? {
            Answer::Opened { sheets, is_1904 } => {
                let sheets = sheets.into_iter();
                remote.sheets = sheets
                    .map(|(name, is_visible)| SheetName { name, is_visible })
                    .collect();
                if is_1904 {
                    remote.epoch = Epoch::Y1904;
                }
                Ok(remote)
            }
            other => Err(remote.unexpected(&other)),
        }
    }

    fn ask(&mut self, question: &Question) -> Result<(), Refusal> {
        if std::mem::take(&mut self.owes_rows) {
            self.frame()?;
        }
        wire::send(&mut self.process, question).map_err(|error| self.process.explain(&error))
    }

    fn frame(&mut self) -> Result<Frame, Refusal> {
        wire::receive(&mut self.process).map_err(|error| self.process.explain(&error))
    }

    fn answer(&mut self) -> Result<Answer, Refusal> {
        let answer = wire::receive_message(&mut self.process)
            .map_err(|error| self.process.explain(&error))?;
        match answer {
            Answer::Refused { code, message } => Err(refused(&code, message)),
            answer => Ok(answer),
        }
    }

    fn unexpected(&mut self, answer: &Answer) -> Refusal {
        let answer = format!("{answer:.40?}");
        self.process.explain(&std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            answer,
        ))
    }
}

/// Makes a refusal of one that came over the wire.
fn refused(code: &str, message: String) -> Refusal {
    let known = Refusal::CODES.iter().find(|known| **known == code);
    Refusal {
        code: known.copied().unwrap_or(Refusal::INVALID_FILE_FORMAT),
        message,
    }
}

impl Workbook for Remote {
    fn sheets(&self) -> Vec<SheetName> {
        self.sheets.clone()
    }

    fn verify(&mut self, sheet: &str) -> Result<Option<u64>, Refusal> {
        let sheet = sheet.to_owned();
        self.ask(&Question::Verify { sheet })?;
        match self.answer()? {
            Answer::Verified { rows_at_most } => Ok(rows_at_most),
            other => Err(self.unexpected(&other)),
        }
    }

    fn with_rows(&mut self, sheet: &str, f: Visitor<'_>) -> Result<(), Refusal> {
        f(&mut RemoteRows {
            remote: self,
            sheet,
            packed: Packed::default(),
            state: State::Fresh,
        })
    }

    fn merged(&mut self, sheet: &str) -> Result<Vec<merged::Range>, Refusal> {
        let sheet = sheet.to_owned();
        self.ask(&Question::Merged { sheet })?;
        let found = match self.answer()? {
            Answer::Merged { ranges } => ranges,
            other => return Err(self.unexpected(&other)),
        };
        let mut ranges = Vec::new();
        for range in found {
            merged::add(&mut ranges, range)?;
        }
        Ok(ranges)
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Going,
    Ended,
}

struct RemoteRows<'r> {
    remote: &'r mut Remote,
    sheet: &'r str,
    packed: Packed,
    state: State,
}

impl RemoteRows<'_> {
    /// Receives the rows asked for and asks for those after them at once, so that the child reads
    /// while we work.
    fn receive(&mut self) -> Result<(), Refusal> {
        let frame = self.remote.frame()?;
        self.remote.owes_rows = false;
        let message = match frame {
            Frame::Rows(bytes) => {
                self.packed = Packed::new(bytes);
                self.remote.ask(&Question::More)?;
                self.remote.owes_rows = true;
                return Ok(());
            }
            Frame::Message(message) => message,
        };
        self.state = State::Ended;
        match serde_json::from_slice(&message) {
            Ok(Answer::End) => Ok(()),
            Ok(Answer::Refused { code, message }) => Err(refused(&code, message)),
            Ok(other) => Err(self.remote.unexpected(&other)),
            Err(error) => Err(self.remote.process.explain(&error.into())),
        }
    }
}

impl Rows for RemoteRows<'_> {
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        if self.state == State::Fresh {
            let (max_columns, max_cell_bytes) = row.limits();
            self.remote.ask(&Question::Rows {
                sheet: self.sheet.to_owned(),
                max_columns,
                max_cell_bytes,
            })?;
            self.remote.owes_rows = true;
            self.state = State::Going;
        }
        loop {
            match self.packed.next(row) {
                Ok(true) => return Ok(true),
                Ok(false) if self.state == State::Ended => return Ok(false),
                Ok(false) => self.receive()?,
                Err(error) => {
                    self.state = State::Ended;
                    return Err(self.remote.process.explain(&error));
                }
            }
        }
    }
}
