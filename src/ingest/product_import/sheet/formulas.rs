//! Which cells of an xlsx are formulas without a value, beside calamine, which gives them as empty
//! cells.

use std::io::{BufReader, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::package::{ShortRuns, attribute, events};
use super::refusal::Refusal;

/// Longest piece of XML between two tags.
const MAX_RUN_BYTES: usize = 64 << 20;

/// The cells of a sheet, in the order of its part, as calamine gives them.
pub(super) struct Formulas<R> {
    reader: Reader<BufReader<ShortRuns<R>>>,
    buffer: Vec<u8>,
    has_begun: bool,
}

impl<R: Read> Formulas<R> {
    /// Begins before the first cell of a sheet's part.
    pub(super) fn new(part: R) -> Self {
        Self {
            reader: events(part, MAX_RUN_BYTES),
            buffer: Vec::new(),
            has_begun: false,
        }
    }

    /// Goes on to the next cell and returns whether it is a formula without a value, if it is empty.
    ///
    /// # Errors
    ///
    /// [`Refusal::INVALID_FILE_FORMAT`] when the XML is damaged.
    pub(super) fn next_lacks_value(&mut self) -> Result<bool, Refusal> {
        loop {
            self.buffer.clear();
            let event = self.reader.read_event_into(&mut self.buffer);
            match event.map_err(|error| Refusal::damaged("the sheet", &error))? {
                Event::Start(element) => match element.local_name().as_ref() {
                    "sheetData" => self.has_begun = true,
                    "c" if self.has_begun => {
                        let is_text = is_text(&element);
                        return self.cell(is_text);
                    }
                    _ => {}
                },
                Event::Eof => return Ok(false),
                _ => {}
            }
        }
    }

    /// Reads the rest of a cell. A text may be empty.
    fn cell(&mut self, is_text: bool) -> Result<bool, Refusal> {
        let (mut is_formula, mut has_value) = (false, false);
        let mut depth = 0_u64;
        loop {
            self.buffer.clear();
            let event = self.reader.read_event_into(&mut self.buffer);
            match event.map_err(|error| Refusal::damaged("the sheet", &error))? {
                Event::Start(element) => {
                    if depth == 0 {
                        is_formula |= element.local_name().as_ref() == "f";
                        has_value |= element.local_name().as_ref() == "v";
                    }
                    depth += 1;
                }
                Event::End(_) if depth > 0 => depth -= 1,
                Event::End(_) | Event::Eof => break,
                _ => {}
            }
        }
        Ok(is_formula && !(is_text && has_value))
    }
}

/// Whether a cell is a formula that comes to a text.
fn is_text(element: &BytesStart<'_>) -> bool {
    attribute(element, "t").as_deref() == Some("str")
}
