//! `OpenDocument` spreadsheets, by a reader of our own.
//!
//! calamine reads the whole document into tables, pushes as many blanks as
//! `text:c` asks for, copies a cell as often as it is repeated, and waits
//! forever for a table that never ends. Here the rows are streamed, and what
//! is held is one row and one piece of XML of at most 16 MiB. A row that is
//! repeated is given that often, within limits, and a blank one is passed over.

mod cell;
mod content;

use std::io::Read;
use std::path::Path;

use quick_xml::events::Event;

use self::cell::{Owned, Said, Writer};
use self::content::{CONTENT, Content, MAX_TEXT_BYTES, TABLE, content, count, cut_off, is_cell};
use super::super::row::cell::RowBuf;
use super::super::row::header::trim;
use super::archive::{self, Archive};
use super::merged;
use super::package::attribute;
use super::refusal::Refusal;
use super::rows::{Rows, SheetName, Visitor, Workbook};
use super::well_formed;

/// Most that is read of what is said about the document.
const MAX_META_BYTES: u64 = 1 << 20;
/// Columns that a spreadsheet has at most; a value is repeated no further.
const MAX_COLUMNS: usize = 16_384;
/// Rows that are no more than repeats, in a sheet; no table of products has so many.
const MAX_REPEATED_ROWS: u64 = 10_000;
/// Bytes of what is repeated, as if it were written out, in a sheet.
const MAX_REPEATED_BYTES: u64 = archive::FREE_BYTES;
/// What a cell takes besides its text, written out.
const CELL_BYTES: usize = 64;

/// An `OpenDocument` spreadsheet, opened.
pub(super) struct Ods {
    archive: Archive,
    sheets: Vec<SheetName>,
    writer: Writer,
}

impl Ods {
    /// Opens a spreadsheet and lists its sheets, for which the whole content is read once.
    ///
    /// # Errors
    ///
    /// [`Refusal::INVALID_FILE_FORMAT`] when it is damaged, and what [`archive::open`] refuses.
    pub(super) fn open(path: &Path) -> Result<Self, Refusal> {
        let mut archive = archive::open(path)?;
        well_formed::check(archive::part(&mut archive, CONTENT)?)?;
        let sheets = list_sheets(&mut archive)?;
        let writer = writer(&mut archive);
        Ok(Self {
            archive,
            sheets,
            writer,
        })
    }
}

impl Workbook for Ods {
    fn sheets(&self) -> Vec<SheetName> {
        self.sheets.clone()
    }

    fn verify(&mut self, _sheet: &str) -> Result<Option<u64>, Refusal> {
        Ok(None)
    }

    fn with_rows(&mut self, sheet: &str, f: Visitor<'_>) -> Result<(), Refusal> {
        let mut content = content(&mut self.archive)?;
        find_table(&mut content, sheet)?;
        f(&mut OdsRows::new(content, self.writer))
    }

    fn merged(&mut self, sheet: &str) -> Result<Vec<merged::Range>, Refusal> {
        let mut content = content(&mut self.archive)?;
        find_table(&mut content, sheet)?;
        read_merged(content)
    }
}

/// Passes over all that comes before the rows of a sheet.
fn find_table<R: Read>(content: &mut Content<R>, sheet: &str) -> Result<(), Refusal> {
    loop {
        match content.next_event()? {
            Event::Start(element) if element.name().as_ref() == TABLE => {
                if attribute(&element, "name").as_deref() == Some(sheet) {
                    return Ok(());
                }
                content.skip_table()?;
            }
            Event::Eof => {
                return Err(Refusal::format(format!("there is no sheet {sheet:.100}")));
            }
            _ => {}
        }
    }
}

/// Reads the cells of a table that span several, from behind its start to its end.
fn read_merged<R: Read>(mut content: Content<R>) -> Result<Vec<merged::Range>, Refusal> {
    let mut ranges = Vec::new();
    let (mut row, mut next_row, mut column) = (1_u32, 1_u32, 0_u32);
    loop {
        match content.next_event()? {
            Event::Start(element) if element.name().as_ref() == "table:table-row" => {
                row = next_row;
                next_row = row.saturating_add(count(&element, "number-rows-repeated"));
                column = 0;
            }
            Event::Start(element) if is_cell(element.name().as_ref()) => {
                let n_rows = count(&element, "number-rows-spanned").max(1);
                let n_columns = count(&element, "number-columns-spanned").max(1);
                let range = merged::Range {
                    first_row: row,
                    first_column: column,
                    last_row: row.saturating_add(n_rows - 1),
                    last_column: column.saturating_add(n_columns - 1),
                };
                merged::add(&mut ranges, range)?;
                column = column.saturating_add(count(&element, "number-columns-repeated"));
            }
            Event::Start(element) if element.name().as_ref() == TABLE => content.skip_table()?,
            Event::End(element) if element.name().as_ref() == TABLE => return Ok(ranges),
            Event::Eof => return Err(cut_off()),
            _ => {}
        }
    }
}

/// Returns what wrote the document, by a part that need be neither there nor whole.
fn writer(archive: &mut Archive) -> Writer {
    let mut meta = Vec::new();
    let name = archive::find(archive, "meta.xml").unwrap_or_default();
    if let Ok(part) = archive::part(archive, &name) {
        let is_whole = part.take(MAX_META_BYTES).read_to_end(&mut meta).is_ok();
        if !is_whole {
            meta.clear();
        }
    }
    Writer::of(&meta)
}

/// Lists the sheets; those with a style that hides tables are not visible.
fn list_sheets(archive: &mut Archive) -> Result<Vec<SheetName>, Refusal> {
    let mut content = content(archive)?;
    let mut sheets = Vec::new();
    let mut style = String::new();
    let mut hidden = Vec::new();
    loop {
        match content.next_event()? {
            Event::Start(element) => match element.name().as_ref() {
                "style:style" => style = attribute(&element, "name").unwrap_or_default(),
                "style:table-properties"
                    if attribute(&element, "display").as_deref() == Some("false") =>
                {
                    hidden.push(style.clone());
                }
                TABLE => {
                    sheets.push(SheetName {
                        name: attribute(&element, "name").unwrap_or_default(),
                        is_visible: attribute(&element, "style-name")
                            .is_none_or(|style| !hidden.contains(&style)),
                    });
                    content.skip_table()?;
                }
                _ => {}
            },
            Event::Eof => return Ok(sheets),
            _ => {}
        }
    }
}

struct OdsRows<R> {
    content: Content<R>,
    writer: Writer,
    /// Number of the last row of the sheet that was read, repeats included.
    row_no: u32,
    /// How often the row in `cells` is still to be given.
    n_repeats: u32,
    cells: Vec<(usize, Owned)>,
    is_done: bool,
    /// Rows so far that are repeats, and bytes of all that is.
    n_repeated_rows: u64,
    n_repeated_bytes: u64,
}

impl<R: Read> Rows for OdsRows<R> {
    fn next_row(&mut self, row: &mut RowBuf) -> Result<bool, Refusal> {
        while self.n_repeats == 0 {
            if self.is_done || !self.read_row()? {
                self.is_done = true;
                return Ok(false);
            }
        }
        self.n_repeats -= 1;
        row.start(self.row_no.saturating_sub(self.n_repeats));
        for (column, cell) in &self.cells {
            row.set(*column, cell.cell());
        }
        Ok(true)
    }
}

impl<R: Read> OdsRows<R> {
    fn new(content: Content<R>, writer: Writer) -> Self {
        Self {
            content,
            writer,
            row_no: 0,
            n_repeats: 0,
            cells: Vec::new(),
            is_done: false,
            n_repeated_rows: 0,
            n_repeated_bytes: 0,
        }
    }

    /// Reads the next row of the table; `false` behind the last one.
    fn read_row(&mut self) -> Result<bool, Refusal> {
        loop {
            match self.content.next_event()? {
                Event::Start(element) if element.name().as_ref() == "table:table-row" => {
                    let n_repeats = count(&element, "number-rows-repeated");
                    self.row_no = self.row_no.saturating_add(n_repeats);
                    self.read_cells()?;
                    // one of spaces, repeated to the end of the sheet, is a format of the sheet
                    let is_blank =
                        |cell: &Owned| matches!(cell, Owned::Text(text) if trim(text).is_empty());
                    let is_blank = self.cells.iter().all(|(_, cell)| is_blank(cell));
                    self.n_repeats = if is_blank { 0 } else { n_repeats };
                    self.bound_repeats()?;
                    return Ok(true);
                }
                // of a shape beside the cells
                Event::Start(element) if element.name().as_ref() == TABLE => {
                    self.content.skip_table()?;
                }
                Event::End(element) if element.name().as_ref() == TABLE => return Ok(false),
                Event::Eof => return Err(cut_off()),
                _ => {}
            }
        }
    }

    /// Counts the repeats of the row in `cells`: a few bytes must not become millions of rows, each
    /// with its errors.
    fn bound_repeats(&mut self) -> Result<(), Refusal> {
        let n_more = u64::from(self.n_repeats.saturating_sub(1));
        let bytes = self
            .cells
            .iter()
            .map(|(_, cell)| cell.cell().text_bytes() + CELL_BYTES);
        let bytes = u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX);
        self.n_repeated_rows = self.n_repeated_rows.saturating_add(n_more);
        self.n_repeated_bytes = self
            .n_repeated_bytes
            .saturating_add(n_more.saturating_mul(bytes));
        if self.n_repeated_rows > MAX_REPEATED_ROWS || self.n_repeated_bytes > MAX_REPEATED_BYTES {
            let n_row = self.row_no.saturating_sub(self.n_repeats.saturating_sub(1));
            return Err(Refusal::archive(format!(
                "row {n_row} is there {} times over; with those before it more than \
                 {MAX_REPEATED_ROWS} repeated rows, or {MAX_REPEATED_BYTES} bytes of them, are not \
                 read",
                self.n_repeats
            )));
        }
        Ok(())
    }

    fn read_cells(&mut self) -> Result<(), Refusal> {
        self.cells.clear();
        let mut column = 0_usize;
        loop {
            let (said, n_repeats) = match self.content.next_event()? {
                Event::Start(element) if is_cell(element.name().as_ref()) => {
                    let n_repeats = count(&element, "number-columns-repeated");
                    (Said::of(&element), n_repeats)
                }
                Event::End(element) if element.name().as_ref() == "table:table-row" => {
                    return Ok(());
                }
                Event::Eof => return Err(cut_off()),
                _ => continue,
            };
            let text = self.content.text_of_cell()?;
            let end = column.saturating_add(usize::try_from(n_repeats).unwrap_or(usize::MAX));
            if column < MAX_COLUMNS && !said.is_empty(&text) {
                // a value is repeated for a handful of columns and a blank for thousands, so only
                // the values cost anything; long ones are not copied without end
                let last = end
                    .min(MAX_COLUMNS)
                    .min(column + 1 + MAX_TEXT_BYTES / (text.len() + 1));
                let n_more = last.saturating_sub(column + 1) * (text.len() + CELL_BYTES);
                let n_more = u64::try_from(n_more).unwrap_or(u64::MAX);
                self.n_repeated_bytes = self.n_repeated_bytes.saturating_add(n_more);
                for at in column..last {
                    if let Some(cell) = said.cell(&text, self.writer) {
                        self.cells.push((at, cell));
                    }
                }
            }
            column = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns how many cells of the first row are held, and the bytes of their texts.
    fn held(cell: &str) -> (usize, usize) {
        let row = format!("<table:table-row>{cell}</table:table-row>");
        let mut rows = OdsRows::new(Content::new(row.as_bytes()), Writer::Other);
        assert!(rows.read_row().unwrap());
        let texts = rows.cells.iter().map(|(_, cell)| cell.cell().text_bytes());
        (rows.cells.len(), texts.sum())
    }

    fn repeated(n: u32, text: &str) -> String {
        format!(
            "<table:table-cell table:number-columns-repeated=\"{n}\" office:value-type=\"string\">\
             <text:p>{text}</text:p></table:table-cell>"
        )
    }

    #[test]
    fn what_a_file_repeats_is_held_no_more_often_than_a_sheet_has_columns() {
        assert_eq!(held(&repeated(3, "x")), (3, 3));
        assert_eq!(held(&repeated(4_000_000_000, "x")).0, MAX_COLUMNS);
        let blanks = "<table:table-cell table:number-columns-repeated=\"16384\"/>".to_owned();
        let behind = blanks + &repeated(1, "x");
        assert_eq!(held(&behind).0, 0);
        let (n_cells, n_bytes) = held(&repeated(10_000, &"x".repeat(100_000)));
        assert!(
            n_cells > 1 && n_bytes < 2 * MAX_TEXT_BYTES,
            "{n_cells}: {n_bytes}"
        );
    }

    #[test]
    fn what_is_repeated_counts_as_if_it_were_written_out() {
        let read = |xml: String| {
            let mut content = Content::new(xml.as_bytes());
            find_table(&mut content, "S")?;
            let mut rows = OdsRows::new(content, Writer::Other);
            let (mut row, mut n_rows) = (RowBuf::new(2_000, 100), 0);
            while rows.next_row(&mut row)? {
                n_rows += 1;
            }
            Ok(n_rows)
        };
        let table = |rows: &[(u32, String)]| {
            let rows = rows.iter().map(|(n, cells)| {
                format!(
                    "<table:table-row table:number-rows-repeated=\"{n}\">{cells}</table:table-row>"
                )
            });
            format!(
                "<table:table table:name=\"S\">{}</table:table>",
                rows.collect::<String>()
            )
        };
        let code = |result: Result<i32, Refusal>| result.map_err(|refusal| refusal.code);
        let empty = "<table:table-cell/>".to_owned();
        let no_text = repeated(3, "");
        assert_eq!(code(read(table(&[(5_000, repeated(2, "x"))]))), Ok(5_000));
        let blanks = table(&[(1_048_000, empty), (500, no_text), (1, repeated(1, "x"))]);
        assert_eq!(code(read(blanks)), Ok(1));
        let refused = Err(Refusal::ARCHIVE_LIMITS);
        assert_eq!(code(read(table(&[(1_048_570, repeated(2, "x"))]))), refused);
        assert_eq!(
            code(read(table(&[(5_000, repeated(1_002, "#N/A"))]))),
            refused
        );
        let often = vec![(900, repeated(1, "x")); 12];
        assert_eq!(code(read(table(&often))), refused);
        let wide = vec![(1, repeated(1_002, "#N/A")); 2_000];
        assert_eq!(code(read(table(&wide))), refused);
    }

    #[test]
    fn a_text_in_pieces_is_no_longer_than_one_that_is_kept() {
        let pieces = format!("<text:span>{}</text:span>", "x".repeat(1 << 20)).repeat(10);
        assert_eq!(held(&repeated(1, &pieces)), (1, MAX_TEXT_BYTES));
        let blanks = "<text:s text:c=\"4000000000\"/>".repeat(3);
        assert_eq!(held(&repeated(1, &format!("a{blanks}b"))), (1, 3002));
    }
}
