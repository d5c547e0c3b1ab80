//! Files that are refused, with the word and the sentence.

use super::*;

fn refusal_of(bytes: impl AsRef<[u8]>) -> (&'static str, String) {
    let refusal = refused(&Files::new().bytes(bytes));
    (refusal.code, refusal.message)
}

fn code_of(bytes: impl AsRef<[u8]>) -> &'static str {
    refusal_of(bytes).0
}

#[test]
fn empty_files() {
    assert_eq!(code_of(""), Refusal::EMPTY_FILE);
    assert_eq!(code_of(" \r\n\n"), Refusal::EMPTY_FILE);
    let mut workbook = Workbook::new();
    workbook.add_worksheet();
    assert_eq!(
        refused(&Files::new().xlsx(&mut workbook)).code,
        Refusal::EMPTY_FILE
    );
}

#[test]
fn other_files_are_named() {
    for (bytes, what) in [
        (&b"%PDF-1.7\n..."[..], "a PDF document"),
        (b"\x89PNG\r\n\x1a\n", "a picture"),
        (b"7z\xbc\xaf\x27\x1c", "7z"),
        (b"<html><table><tr><td>code</td></tr></table></html>", "an HTML page"),
        (b"<?xml version=\"1.0\"?>\n<Workbook xmlns=\"urn:schemas-microsoft-com:office:spreadsheet\">", "Excel 2003 XML"),
        (b"[{\"code\": 1}]", "a JSON file"),
        (b"{\\rtf1 code}", "an RTF document"),
        (b"\r\n\xef\xbb\xbf <TABLE><tr>", "an HTML page"),
        (b"ID;PWXL;N;E\nP;PGeneral\nC;Y1;X1;K\"code\"\nE\n", "a SYLK file"),
        (b"TABLE\r\n0,1\r\n\"EXCEL\"\r\n", "a DIF file"),
        (b"\x03\x7a\x0b\x1c\x02\0\0\0code", "a dBase table"),
        (b"MIME-Version: 1.0\r\n", "a web archive"),
        (b"\xff\xfe\0\0c\0\0\0", "UTF-32"),
        (b"\x09\x04\x06\0\0\0", "Excel 2 to 4"),
        (b"<?xml version=\"1.0\"?><office:document xmlns:office=\"urn:oasis:names:tc:opendocument:xmlns:office:1.0\">", "save it as xlsx or ods"),
        (b"\x00\x01\x02\x03\xff\xfe\x00\x00\x01", "neither a workbook nor text"),
    ] {
        let (code, message) = refusal_of(bytes);
        assert_eq!(code, Refusal::INVALID_FILE_FORMAT, "{what}");
        assert!(message.contains(what), "{message}");
    }
    let files = Files::new();
    for (part, what) in [("word/document.xml", "Word"), ("photo.jpg", "no workbook")] {
        let refusal = refused(&files.zip(&[(part, b"x"), ("other", b"x")]));
        assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT);
        assert!(refusal.message.contains(what), "{refusal}");
    }
}

#[test]
fn the_file_is_named_and_its_extension_does_not_matter() {
    let files = Files::new();
    let path = files.bytes("code,name\n1,x\n");
    assert!(inspect(&path, "products.xlsx", &Options::default()).is_ok());
    let path = files.bytes("%PDF-");
    let refusal = inspect(&path, "products.xlsx", &Options::default()).unwrap_err();
    assert!(
        refusal
            .message
            .starts_with("products.xlsx: the file is a PDF document")
    );
}

#[test]
fn missing_and_duplicate_headers() {
    let (code, message) = refusal_of("Cde,price,Product names\n1,2,3\n");
    assert_eq!(code, Refusal::MISSING_HEADERS);
    assert_eq!(
        message,
        "missing required columns: code, name; \"Cde\" may be code; \"Product names\" may be name; \
         found: Cde, price, Product names; mapping says what a header means, as in: Cde=code"
    );
    let (code, message) = refusal_of("SKU;Titel;Artikelnummer\n1;2;3\n");
    assert_eq!(code, Refusal::DUPLICATE_HEADERS);
    assert!(message.contains("columns A (\"SKU\") and C (\"Artikelnummer\") both mean code"));
    let mut workbook = Workbook::new();
    workbook
        .add_worksheet()
        .write_row(0, 0, ["code", "name", "Note", "NOTE"])
        .unwrap();
    let refusal = refused(&Files::new().xlsx(&mut workbook));
    assert_eq!(refusal.code, Refusal::DUPLICATE_HEADERS);
}

#[test]
fn sizes() {
    let files = Files::new();
    let path = files.bytes("code,name\n1,x\n");
    let small = Options {
        max_file_bytes: 5,
        ..Options::default()
    };
    let refusal = inspect(&path, "", &small).unwrap_err();
    assert_eq!(refusal.code, Refusal::FILE_TOO_LARGE);
    let narrow = Options {
        max_columns: 1,
        ..Options::default()
    };
    assert_eq!(
        inspect(&path, "", &narrow).unwrap_err().code,
        Refusal::TOO_MANY_COLUMNS
    );
    assert_eq!(code_of("x,".repeat(70_000)), Refusal::TOO_MANY_COLUMNS);
    let far = format!("code,name{}note\n1,x\n", ",".repeat(5_000));
    assert_eq!(code_of(far), Refusal::TOO_MANY_COLUMNS);
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["code", "name"]).unwrap();
    sheet.write_row(1, 0, ["A", "x"]).unwrap();
    sheet.write(1, 16_383, "a note").unwrap();
    assert_eq!(read_ok(&files.xlsx(&mut workbook)).codes(), ["A"]);
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["code", "name"]).unwrap();
    sheet.write(0, 16_383, "note").unwrap();
    let refusal = refused(&files.xlsx(&mut workbook));
    assert_eq!(refusal.code, Refusal::TOO_MANY_COLUMNS);
}

#[test]
fn a_file_that_is_not_there_is_worth_another_attempt() {
    let gone = inspect(Path::new("/nonexistent/file"), "", &Options::default());
    assert!(gone.unwrap_err().is_transient());
}

#[test]
fn a_nul_is_told_with_its_line_and_an_end_mark_is_none() {
    let rows = "1,abcdefgh\n".repeat(30);
    let (code, message) = refusal_of(format!("code,name\n{rows}2,a\0b\n"));
    assert_eq!(code, Refusal::INVALID_FILE_FORMAT);
    assert!(message.contains("U+0000 (NUL) in line 32"), "{message}");
    let files = Files::new();
    let marked = files.bytes("code,name\n1,x\n\x1a");
    assert!(inspect(&marked, "", &Options::default()).is_ok());
}

#[test]
fn a_named_encoding_is_heard_before_the_content_is_judged() {
    let text = "code;name\n1;Лампа 😀\n";
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files = Files::new();
    let path = files.bytes(bytes);
    assert!(inspect(&path, "", &Options::default()).is_err());
    let named = Options {
        csv_charset: Some(Charset::UTF_16LE),
        ..Options::default()
    };
    assert_eq!(read_all(&path, &named).unwrap().1.rows[0].name, "Лампа 😀");
}

#[test]
fn a_guess_that_gives_control_characters_is_none() {
    let none = b"code,name\n1,a\x81\x98\x83b\n2,\xff\x81 \x90\n";
    let (code, message) = refusal_of(none);
    assert_eq!(code, Refusal::INVALID_FILE_FORMAT);
    assert!(message.contains("name its encoding"), "{message}");
    let files = Files::new();
    let path = files.bytes(none);
    let named = Options {
        csv_charset: Some(Charset::WINDOWS_1252),
        ..Options::default()
    };
    assert!(inspect(&path, "", &named).is_ok());
}
