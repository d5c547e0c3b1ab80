//! Tables of text as CSV or xlsx, written as they come: no more than a row is in memory.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use zip::{
    ZipWriter,
    result::ZipError,
    write::{SimpleFileOptions, StreamWriter},
};

/// Rows of one sheet of a workbook; what is more goes to a further sheet.
const SHEET_ROWS: u32 = 1_048_576;

/// Characters of one cell of a workbook.
const CELL_CHARS: usize = 32_767;

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// CSV: UTF-8 with byte order mark, commas, CRLF.
    Csv,
    /// A workbook of text cells.
    Xlsx,
}

impl TableFormat {
    /// Returns its extension.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
        }
    }

    /// Returns its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        }
    }
}

/// A table in the making. Every text is [`escaped`].
pub(super) enum Table<W: Write> {
    Csv(Box<csv::Writer<W>>),
    Xlsx(Box<Book<W>>),
}

impl<W: Write> Table<W> {
    /// Begins a table with its headers.
    pub(super) fn begin(format: TableFormat, mut out: W, headers: &[String]) -> io::Result<Self> {
        let mut table = match format {
            TableFormat::Csv => {
                out.write_all("\u{feff}".as_bytes())?;
                let mut builder = csv::WriterBuilder::new();
                builder.terminator(csv::Terminator::CRLF);
                Self::Csv(Box::new(builder.from_writer(out)))
            }
            TableFormat::Xlsx => Self::Xlsx(Box::new(Book::begin(out, headers)?)),
        };
        if format == TableFormat::Csv {
            table.row(headers.iter().map(|header| Some(header.as_str())))?;
        }
        Ok(table)
    }

    /// Adds a row.
    pub(super) fn row<'t>(
        &mut self,
        cells: impl Iterator<Item = Option<&'t str>>,
    ) -> io::Result<()> {
        match self {
            Self::Csv(writer) => {
                for cell in cells {
                    writer.write_field(&*escaped(cell.unwrap_or_default()))?;
                }
                writer.write_record(None::<&[u8]>)?;
                Ok(())
            }
            Self::Xlsx(book) => book.row(cells),
        }
    }

    /// Ends the table.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::Csv(mut writer) => writer.flush(),
            Self::Xlsx(book) => book.finish(),
        }
    }
}

/// Signs that make a spreadsheet program take a text for a formula, or cut it.
const FORMULA_SIGNS: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Puts an apostrophe before a text that a spreadsheet program would take for a formula (OWASP, CSV
/// injection), and before one that has such an apostrophe of its own; a number stays a number,
/// negative or not.
fn escaped(text: &str) -> std::borrow::Cow<'_, str> {
    if is_formula(text) {
        format!("'{text}").into()
    } else {
        text.into()
    }
}

/// Takes off the apostrophe of [`escaped`].
pub(in crate::ingest::product_import) fn unescaped(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(rest) if is_formula(rest) => rest,
        _ => text,
    }
}

/// Whether a text would be taken for a formula, or is escaped so that it is not.
fn is_formula(text: &str) -> bool {
    let bare = text.trim_start_matches('\'');
    bare.starts_with(FORMULA_SIGNS) && !is_number(bare)
}

fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut chars = unsigned.chars();
    chars.next().is_some_and(|c| c.is_ascii_digit())
        && chars.all(|c| c.is_ascii_digit() || matches!(c, '.' | ',' | ' ' | '\u{a0}' | '\u{202f}'))
}

/// A workbook in the making. Sheets come first in the archive and what lists them last, so that
/// their number need not be known.
pub(super) struct Book<W: Write> {
    zip: ZipWriter<StreamWriter<W>>,
    headers: Vec<String>,
    n_sheets: u32,
    n_rows: u32,
    text: String,
}

const SHEET_HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n\
    <worksheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"><sheetData>";
const SHEET_TAIL: &str = "</sheetData></worksheet>";

impl<W: Write> Book<W> {
    fn begin(out: W, headers: &[String]) -> io::Result<Self> {
        let mut book = Self {
            zip: ZipWriter::new_stream(out),
            headers: headers.to_vec(),
            n_sheets: 0,
            n_rows: 0,
            text: String::new(),
        };
        book.begin_sheet()?;
        Ok(book)
    }

    fn begin_sheet(&mut self) -> io::Result<()> {
        self.n_sheets += 1;
        self.n_rows = 0;
        let name = format!("xl/worksheets/sheet{}.xml", self.n_sheets);
        let options = SimpleFileOptions::default().large_file(true);
        self.zip.start_file(name, options).map_err(zip_error)?;
        self.zip.write_all(SHEET_HEAD.as_bytes())?;
        let headers = self.headers.clone();
        self.write_row(headers.iter().map(|header| Some(header.as_str())))
    }

    fn row<'t>(&mut self, cells: impl Iterator<Item = Option<&'t str>>) -> io::Result<()> {
        if self.n_rows >= SHEET_ROWS {
            self.zip.write_all(SHEET_TAIL.as_bytes())?;
            self.begin_sheet()?;
        }
        self.write_row(cells)
    }

    fn write_row<'t>(&mut self, cells: impl Iterator<Item = Option<&'t str>>) -> io::Result<()> {
        self.n_rows += 1;
        let n_row = self.n_rows;
        self.text.clear();
        write!(self.text, "<row r=\"{n_row}\">").ok();
        for (column, cell) in cells.enumerate() {
            let Some(cell) = cell.filter(|cell| !cell.is_empty()) else {
                continue;
            };
            let letters = super::super::row::header::letters(column);
            let escaped = escaped(cell);
            if escaped.chars().nth(CELL_CHARS).is_some() {
                // not its beginning, which would be imported as if it were the whole
                write!(
                    self.text,
                    "<c r=\"{letters}{n_row}\" t=\"e\"><v>#VALUE!</v></c>"
                )
                .ok();
                continue;
            }
            write!(
                self.text,
                "<c r=\"{letters}{n_row}\" t=\"inlineStr\"><is><t xml:space=\"preserve\">"
            )
            .ok();
            push_xml(&mut self.text, &escaped);
            self.text.push_str("</t></is></c>");
        }
        self.text.push_str("</row>");
        self.zip.write_all(self.text.as_bytes())
    }

    fn finish(mut self) -> io::Result<()> {
        self.zip.write_all(SHEET_TAIL.as_bytes())?;
        let sheets = 1..=self.n_sheets;
        let (mut types, mut list, mut links) = (String::new(), String::new(), String::new());
        for n in sheets {
            write!(types, "<Override PartName=\"/xl/worksheets/sheet{n}.xml\" ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml\"/>").ok();
            write!(
                list,
                "<sheet name=\"Rows {n}\" sheetId=\"{n}\" r:id=\"rId{n}\"/>"
            )
            .ok();
            write!(links, "<Relationship Id=\"rId{n}\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet\" Target=\"worksheets/sheet{n}.xml\"/>").ok();
        }
        let parts = [
            ("xl/workbook.xml", format!("<workbook xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\" xmlns:r=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships\"><sheets>{list}</sheets></workbook>")),
            ("xl/_rels/workbook.xml.rels", format!("<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\">{links}</Relationships>")),
            ("_rels/.rels", "<Relationships xmlns=\"http://schemas.openxmlformats.org/package/2006/relationships\"><Relationship Id=\"rId1\" Type=\"http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument\" Target=\"xl/workbook.xml\"/></Relationships>".to_owned()),
            ("[Content_Types].xml", format!("<Types xmlns=\"http://schemas.openxmlformats.org/package/2006/content-types\"><Default Extension=\"rels\" ContentType=\"application/vnd.openxmlformats-package.relationships+xml\"/><Default Extension=\"xml\" ContentType=\"application/xml\"/><Override PartName=\"/xl/workbook.xml\" ContentType=\"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml\"/>{types}</Types>")),
        ];
        for (name, text) in parts {
            let options = SimpleFileOptions::default();
            self.zip.start_file(name, options).map_err(zip_error)?;
            self.zip
                .write_all(b"<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\n")?;
            self.zip.write_all(text.as_bytes())?;
        }
        self.zip.finish().map_err(zip_error)?.flush()
    }
}

fn zip_error(error: ZipError) -> io::Error {
    match error {
        ZipError::Io(error) => error,
        error => io::Error::other(error),
    }
}

/// Appends a text as XML has it; signs that XML cannot hold are replaced. What reads like a sign in
/// Excel's own way of escaping, `_x000D_`, is escaped in that way.
fn push_xml(out: &mut String, text: &str) {
    for (at, c) in text.char_indices() {
        match c {
            '_' if text.get(at..).is_some_and(is_escape) => out.push_str("_x005F_"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => out.push_str("&#13;"),
            '\t' | '\n' => out.push(c),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
}

fn is_escape(text: &str) -> bool {
    let digits = text
        .strip_prefix("_x")
        .and_then(|rest| rest.as_bytes().first_chunk::<5>());
    digits.is_some_and(|digits| {
        let (end, digits) = (digits.last(), digits.get(..4).unwrap_or_default());
        end == Some(&b'_') && digits.iter().all(u8::is_ascii_hexdigit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_escaped_and_numbers_are_not() {
        for (text, expected) in [
            ("=1+1", "'=1+1"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("-ABC", "'-ABC"),
            ("-2+3", "'-2+3"),
            ("-1234.56", "-1234.56"),
            ("-1.234,56", "-1.234,56"),
            ("+420 123 456", "+420 123 456"),
            ("\tx", "'\tx"),
            ("plain", "plain"),
            ("'quoted", "'quoted"),
            ("'=A", "''=A"),
            ("''@A", "'''@A"),
            ("'-5", "'-5"),
        ] {
            assert_eq!(escaped(text), expected);
            assert_eq!(unescaped(&escaped(text)), text);
        }
    }

    #[test]
    fn what_reads_like_an_escape_is_escaped() {
        for (text, expected) in [
            ("a_x000D_b", "a_x005F_x000D_b"),
            ("_x0041_", "_x005F_x0041_"),
            ("_x005F_x0041_", "_x005F_x005F_x005F_x0041_"),
            ("_x41_ _xyz12_ _x0041 _", "_x41_ _xyz12_ _x0041 _"),
        ] {
            let mut out = String::new();
            push_xml(&mut out, text);
            assert_eq!(out, expected);
        }
    }
}
