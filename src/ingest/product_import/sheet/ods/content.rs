//! The XML of a spreadsheet's content, event by event.

use std::io::{BufReader, Read};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::super::archive::Archive;
use super::super::package::{ShortRuns, attribute, events};
use super::super::refusal::Refusal;

/// The part with the sheets.
pub(super) const CONTENT: &str = "content.xml";
/// The name of a sheet, and of a table inside a cell.
pub(super) const TABLE: &str = "table:table";
const MAX_RUN_BYTES: usize = 16 << 20;
/// Text of a cell beyond this is not kept; cells are cut shorter later.
pub(super) const MAX_TEXT_BYTES: usize = 4 << 20;

/// The content's XML.
pub(super) struct Content<R> {
    reader: Reader<BufReader<ShortRuns<R>>>,
    buffer: Vec<u8>,
}

impl<R: Read> Content<R> {
    pub(super) fn next_event(&mut self) -> Result<Event<'_>, Refusal> {
        self.buffer.clear();
        self.reader
            .read_event_into(&mut self.buffer)
            .map_err(|error| Refusal::damaged(CONTENT, &error))
    }

    /// Begins before the XML in `part`.
    pub(super) fn new(part: R) -> Self {
        Self {
            reader: events(part, MAX_RUN_BYTES),
            buffer: Vec::new(),
        }
    }

    /// Passes over the rest of a table and those inside it.
    pub(super) fn skip_table(&mut self) -> Result<(), Refusal> {
        let mut depth = 1_u64;
        while depth > 0 {
            match self.next_event()? {
                Event::Start(element) if element.name().as_ref() == TABLE => depth += 1,
                Event::End(element) if element.name().as_ref() == TABLE => depth -= 1,
                Event::Eof => return Err(cut_off()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Reads to the end of a cell and returns its paragraphs, one a line, without what stands beside
    /// them: annotations, shapes, how a word is read aloud, and tables inside the cell.
    pub(super) fn text_of_cell(&mut self) -> Result<String, Refusal> {
        let mut text = String::new();
        let mut n_paragraphs = 0_usize;
        let mut n_asides = 0_usize;
        loop {
            let mut add = |piece: &str| {
                if n_asides == 0 && text.len() + piece.len() <= MAX_TEXT_BYTES {
                    text.push_str(piece);
                }
            };
            match self.next_event()? {
                Event::Text(piece) => add(&piece.xml10_content()),
                Event::CData(piece) => add(&piece.xml10_content()),
                Event::GeneralRef(entity) => {
                    let known = match entity.as_ref() {
                        "amp" => Some('&'),
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "quot" => Some('"'),
                        "apos" => Some('\''),
                        _ => entity.resolve_char_ref().ok().flatten(),
                    };
                    let known =
                        known.ok_or_else(|| Refusal::format("an unknown entity in a cell"))?;
                    add(known.encode_utf8(&mut [0; 4]));
                }
                Event::Start(element) => match element.name().as_ref() {
                    name if is_aside(name) => n_asides += 1,
                    "text:p" if n_asides == 0 => {
                        if n_paragraphs > 0 {
                            add("\n");
                        }
                        n_paragraphs += 1;
                    }
                    // more than a screenful of blanks is nobody's text
                    "text:s" => (0..count(&element, "c").min(1000)).for_each(|_| add(" ")),
                    "text:tab" => add("\t"),
                    "text:line-break" => add("\n"),
                    _ => {}
                },
                Event::End(element) => match element.name().as_ref() {
                    name if is_aside(name) => n_asides = n_asides.saturating_sub(1),
                    name if is_cell(name) && n_asides == 0 => return Ok(text),
                    _ => {}
                },
                Event::Eof => return Err(cut_off()),
                _ => {}
            }
        }
    }
}

/// Begins to read the content.
///
/// # Errors
///
/// [`Refusal::INVALID_FILE_FORMAT`] when there is none.
pub(super) fn content(archive: &mut Archive) -> Result<Content<impl Read>, Refusal> {
    let part = archive
        .by_name(CONTENT)
        .map_err(|error| Refusal::damaged(CONTENT, &error))?;
    Ok(Content::new(part))
}

/// Returns what is said of a part that ends too early.
pub(super) fn cut_off() -> Refusal {
    Refusal::format("content.xml is cut off")
}

/// Whether what is inside is no text of the cell that it stands in.
fn is_aside(name: &str) -> bool {
    name.starts_with("draw:") || matches!(name, "office:annotation" | "text:ruby-text" | TABLE)
}

/// Whether an element is a cell.
pub(super) fn is_cell(name: &str) -> bool {
    name == "table:table-cell" || name == "table:covered-table-cell"
}

/// Returns an attribute that counts, 1 when there is none.
pub(super) fn count(element: &BytesStart<'_>, name: &str) -> u32 {
    let count = attribute(element, name).and_then(|count| count.parse().ok());
    count.unwrap_or(1)
}
