//! What kind of file it is, by its content and never by its name.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::archive::{self, Archive};
use super::charset::Charset;
use super::ole;
use super::options::Format;
use super::refusal::Refusal;

/// The kinds of files that are read; a text is looked at more closely by `text.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Xlsx,
    Xlsb,
    Xls,
    Ods,
    Text,
}

impl Kind {
    /// Returns the format of a workbook; `None` for text, of which more has to be found out.
    pub(super) const fn workbook(self) -> Option<Format> {
        match self {
            Self::Xlsx => Some(Format::Xlsx),
            Self::Xlsb => Some(Format::Xlsb),
            Self::Xls => Some(Format::Xls),
            Self::Ods => Some(Format::Ods),
            Self::Text => None,
        }
    }
}

/// How much of a file is looked at.
const HEAD_BYTES: u64 = 64 * 1024;

/// Begins of files that people upload by mistake.
const OTHERS: &[(&[u8], &str)] = &[
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"GIF8", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (
        b"\x1f\x8b",
        "a gzip archive in another archive; unpack it first",
    ),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a rar archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"SQLite format 3", "a database"),
    (b"PAR1", "a Parquet file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (
        b"{\\rtf",
        "an RTF document; open it and save its table as xlsx",
    ),
    (b"\xff\xfe\0\0", "UTF-32 text; save it as UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32 text; save it as UTF-8"),
    (b"\x09\0\x04\0", OLD_EXCEL),
    (b"\x09\x02\x06\0", OLD_EXCEL),
    (b"\x09\x04\x06\0", OLD_EXCEL),
    (
        b"TABLE\r\n0,1\r\n",
        "a DIF file; open it and save it as xlsx",
    ),
    (b"TABLE\n0,1\n", "a DIF file; open it and save it as xlsx"),
];

const OLD_EXCEL: &str = "a workbook of Excel 2 to 4; open it and save it as xlsx";

/// Finds out what kind of file it is; `named` is the encoding that somebody says it has, if it is text.
///
/// # Errors
///
/// [`Refusal::EMPTY_FILE`]; [`Refusal::PASSWORD_PROTECTED`]; [`Refusal::ARCHIVE_LIMITS`];
/// [`Refusal::INVALID_FILE_FORMAT`] for every other kind of file, naming it where it is known.
pub(super) fn detect(path: &Path, named: Option<Charset>) -> Result<Kind, Refusal> {
    let mut head = Vec::new();
    File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    if head.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::new(Refusal::EMPTY_FILE, "the file is empty"));
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return of_archive(path);
    }
    if head.starts_with(ole::MAGIC) {
        return ole::check_contents(path).map(|()| Kind::Xls);
    }
    of_text(&head, named)
}

/// Returns an archive that holds one file and is no workbook, and that file's name.
///
/// # Errors
///
/// As [`archive::open`].
pub(super) fn only_entry(path: &Path) -> Result<Option<(Archive, String)>, Refusal> {
    let archive = archive::open(path)?;
    // folders, and what a Mac puts beside every file
    let is_noise = |name: &str| name.ends_with('/') || name.starts_with("__MACOSX/");
    let only = {
        let names = archive.file_names().filter_map(Result::ok);
        let mut names = names.filter(|name| !is_noise(name));
        match (names.next(), names.next()) {
            (Some(name), None) => name.into_owned(),
            _ => return Ok(None),
        }
    };
    Ok(Some((archive, only)))
}

fn of_archive(path: &Path) -> Result<Kind, Refusal> {
    let mut archive = archive::open(path)?;
    let has = |name: &str| archive::find(&archive, name).is_some();
    if has("xl/workbook.bin") {
        return Ok(Kind::Xlsb);
    }
    let is_package = has("_rels/.rels") && !archive::find_all(&archive, "workbook.xml").is_empty();
    if has("xl/workbook.xml") || is_package {
        return Ok(Kind::Xlsx);
    }
    let other = [
        ("word/document.xml", "a Word document"),
        ("ppt/presentation.xml", "a PowerPoint presentation"),
        (
            "Index/Document.iwa",
            "a Numbers document; export it as xlsx",
        ),
    ];
    if let Some((_, what)) = other.into_iter().find(|(name, _)| has(name)) {
        return Err(not_a_sheet(what));
    }
    if has("mimetype") && has("content.xml") {
        return of_open_document(&mut archive);
    }
    Err(not_a_sheet(
        "a zip archive of several files and no workbook; upload one of them",
    ))
}

fn of_open_document(archive: &mut Archive) -> Result<Kind, Refusal> {
    const SPREADSHEET: &[u8] = b"application/vnd.oasis.opendocument.spreadsheet";
    let mimetype = archive::read_part(archive, "mimetype", 1000)?;
    if !mimetype.starts_with(SPREADSHEET) {
        return Err(not_a_sheet("an OpenDocument file that is no spreadsheet"));
    }
    if let Some(name) = archive::find(archive, "META-INF/manifest.xml") {
        let manifest = archive::read_part(archive, &name, 16 << 20)?;
        if memchr::memmem::find(&manifest, b"encryption-data").is_some() {
            return Err(Refusal::new(
                Refusal::PASSWORD_PROTECTED,
                "the spreadsheet is protected by a password; save it without one",
            ));
        }
    }
    Ok(Kind::Ods)
}

fn not_a_sheet(what: &str) -> Refusal {
    Refusal::format(format!(
        "the file is {what}; upload xlsx, xlsm, xlsb, xls, ods, CSV or TSV, alone or in a gz or zip"
    ))
}

fn of_text(head: &[u8], named: Option<Charset>) -> Result<Kind, Refusal> {
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(not_a_sheet(what));
    }
    let is_named_utf16 = named.is_some_and(Charset::is_utf16);
    if is_named_utf16 || super::text::utf16_of(head).is_some() {
        return Ok(Kind::Text);
    }
    refuse_binary(head)?;
    if is_sylk(head) {
        return Err(not_a_sheet("a SYLK file; open it and save it as xlsx"));
    }
    let start = String::from_utf8_lossy(head)
        .trim_start_matches(|c: char| c == '\u{feff}' || c.is_whitespace())
        .to_lowercase();
    let begins = |with: &[&str]| with.iter().any(|with| start.starts_with(with));
    if begins(&[
        "<!doctype html",
        "<html",
        "<table",
        "<head",
        "<body",
        "<meta",
    ]) {
        return Err(not_a_sheet(
            "an HTML page, whatever its name says; open it and save it as xlsx",
        ));
    }
    if begins(&["<?xml"]) && start.contains("schemas-microsoft-com:office:spreadsheet") {
        return Err(not_a_sheet(
            "an Excel 2003 XML file; open it and save it as xlsx",
        ));
    }
    if begins(&["<?xml"]) {
        let what = if start.contains("urn:oasis:names:tc:opendocument") {
            "a flat OpenDocument file; open it and save it as xlsx or ods"
        } else {
            "an XML file"
        };
        return Err(not_a_sheet(what));
    }
    if begins(&["mime-version:"]) {
        return Err(not_a_sheet(
            "a web archive (MHT); open it and save it as xlsx",
        ));
    }
    if begins(&["{", "["]) {
        return Err(not_a_sheet("a JSON file"));
    }
    Ok(Kind::Text)
}

/// Refuses what has characters that no text has, saying which.
fn refuse_binary(head: &[u8]) -> Result<(), Refusal> {
    // DOS wrote it at the end of a text
    let text = head.strip_suffix(b"\x1a").unwrap_or(head);
    let is_control = |b: &&u8| matches!(b, 0..=8 | 14..=26 | 28..=31);
    let n_control = text.iter().filter(is_control).count();
    let is_dbase = matches!(
        text,
        [
            0x03 | 0x30 | 0x31 | 0x83 | 0x8b | 0xf5,
            _,
            1..=12,
            1..=31,
            ..
        ]
    );
    match memchr::memchr(0, text) {
        Some(_) if is_dbase => Err(not_a_sheet("a dBase table; open it and save it as xlsx")),
        _ if n_control * 100 > text.len() => Err(not_a_sheet("neither a workbook nor text")),
        Some(at) => {
            let before = text.get(..at).unwrap_or_default();
            let n_line = memchr::memchr_iter(b'\n', before).count() + 1;
            Err(Refusal::format(format!(
                "the file holds the character U+0000 (NUL) in line {n_line}, which no text has; take \
                 it away, or name the encoding if it is utf16_le or utf16_be"
            )))
        }
        None => Ok(()),
    }
}

/// Whether it has the records of SYLK: a header `ID;Preis` alone is no sign.
fn is_sylk(head: &[u8]) -> bool {
    let has = |record: &[u8]| memchr::memmem::find(head, record).is_some();
    head.starts_with(b"ID;P") && (has(b"\nC;Y") || has(b"\nC;X")) && (has(b"\nP;") || has(b"\nF;"))
}
