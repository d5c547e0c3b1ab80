//! Damaged and malicious files: an answer, never a panic, never all of the memory.

use std::io::{Cursor, Read as _};

use proptest::prelude::*;

use super::*;

/// Returns an archive with one part changed.
pub(super) fn with_part(archive: &[u8], name: &str, f: impl FnOnce(Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut parts = Vec::new();
    for index in 0..from.len() {
        let mut entry = from.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        parts.push((entry.name().unwrap().into_owned(), bytes));
    }
    let part = parts.iter_mut().find(|(part, _)| part == name).unwrap();
    part.1 = f(std::mem::take(&mut part.1));
    let parts: Vec<_> = parts
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
        .collect();
    zipped(&parts)
}

/// Reads whatever it is; the answer does not matter, only that there is one.
fn survives(bytes: &[u8]) {
    let files = Files::new();
    let options = Options {
        max_rows: 10_000,
        ..Options::default()
    };
    drop(read_all(&files.bytes(bytes), &options));
}

fn workbook() -> Vec<u8> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet
        .write_row(0, 0, ["code", "name", "price", "note"])
        .unwrap();
    for row in 1..40 {
        sheet.write(row, 0, format!("C{row}")).unwrap();
        sheet.write(row, 1, "Lamp & shade").unwrap();
        sheet.write(row, 2, f64::from(row) * 1.1).unwrap();
        sheet.write(row, 3, row % 2 == 0).unwrap();
    }
    workbook.save_to_buffer().unwrap()
}

/// One file of each format.
fn samples() -> Vec<Vec<u8>> {
    vec![
        workbook(),
        xlsb::workbook(),
        include_bytes!("../../fixtures/products.xls").to_vec(),
        include_bytes!("../../fixtures/products.ods").to_vec(),
        "code;name\r\n1;\"a\"\"b\r\nc\"\r\n2;ä\r\n"
            .as_bytes()
            .to_vec(),
    ]
}

#[test]
fn files_cut_off_anywhere() {
    for whole in samples() {
        for end in (0..whole.len()).step_by(1 + whole.len() / 150) {
            survives(&whole[..end]);
        }
    }
}

/// Changes bytes of the parts inside an archive, which behind a checksum would never be parsed.
pub(super) fn with_parts_changed(archive: &[u8], changes: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let names = [
        "xl/worksheets/sheet1.xml",
        "xl/sharedStrings.xml",
        "xl/styles.xml",
        "xl/workbook.xml",
        "xl/worksheets/sheet1.bin",
        "xl/sharedStrings.bin",
        "xl/styles.bin",
        "xl/workbook.bin",
        "content.xml",
    ];
    let present: Vec<&str> = names
        .into_iter()
        .filter(|name| memchr::memmem::find(archive, name.as_bytes()).is_some())
        .collect();
    let mut bytes = archive.to_vec();
    for (at, byte) in changes {
        let name = present[at.index(present.len())];
        bytes = with_part(&bytes, name, |mut part| {
            let at = at.index(part.len().max(1));
            if let Some(place) = part.get_mut(at) {
                *place = *byte;
            }
            part
        });
    }
    bytes
}

/// Rows that other readers take for a part of an attribute.
#[test]
fn a_tag_within_a_tag_is_no_xml() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["code", "name"]).unwrap();
    for row in 1..60 {
        let code = format!("C{row}");
        sheet.write_row(row, 0, [code.as_str(), "x"]).unwrap();
    }
    let good = workbook.save_to_buffer().unwrap();
    for (whole, broken) in [
        ("<row r=\"30\"", "<row r=\"30"),
        ("<c r=\"A30\"", "<c r=\"A30"),
    ] {
        let bytes = with_part(&good, "xl/worksheets/sheet1.xml", |part| {
            let text = String::from_utf8(part).unwrap();
            assert!(text.contains(whole));
            text.replace(whole, broken).into_bytes()
        });
        let refusal = read_all(&Files::new().bytes(bytes), &Options::default()).unwrap_err();
        assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT);
        assert!(
            refusal.message.contains("a tag begins within another"),
            "{refusal}"
        );
    }
}

fn replaced(bytes: &[u8], what: &[u8], with: &[u8]) -> Vec<u8> {
    let at = memchr::memmem::rfind(bytes, what).unwrap();
    let (before, behind) = (&bytes[..at], &bytes[at + what.len()..]);
    [before, with, behind].concat()
}

/// Rows behind the damage would be missing, of which nobody would hear.
#[test]
fn binary_sheets_that_do_not_end_are_refused() {
    let sheet = |what: &[u8], with: &[u8]| {
        let part = "xl/worksheets/sheet1.bin";
        with_part(&xlsb::workbook(), part, |part| replaced(&part, what, with))
    };
    let end = [0x92, 0x01, 0];
    let short = [&[0x0d, 8, 0, 0, 0, 0, 0, 0, 0, 0][..], &end].concat();
    let xls = include_bytes!("../../fixtures/products.xls");
    for (bytes, words) in [
        (sheet(&end, &[0x99, 0x01, 0]), "break off"),
        (sheet(&end, &short), "short records"),
        (
            sheet(&[0, 17, 4, 0, 0, 0], &[0, 17, 4, 0, 0x20, 0]),
            "beyond the last",
        ),
        (
            replaced(xls, &[0x0a, 0, 0, 0], &[0x0b, 0, 0, 0]),
            "break off",
        ),
    ] {
        let refusal = read_all(&Files::new().bytes(bytes), &Options::default()).unwrap_err();
        assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT);
        assert!(refusal.message.contains(words), "{refusal}");
    }
}

/// Some programs name the code page of their own system, and write UTF-16 all the same.
#[test]
fn a_code_page_beside_utf_16_is_not_believed() {
    let xls = include_bytes!("../../fixtures/products.xls");
    let other = replaced(
        xls,
        &[0x42, 0, 2, 0, 0xb0, 0x04],
        &[0x42, 0, 2, 0, 0xe4, 0x04],
    );
    let files = Files::new();
    let expected = read_ok(&files.bytes(xls));
    assert!(!expected.rows.is_empty());
    assert_eq!(read_ok(&files.bytes(other)), expected);
}

pub(super) type Changes = Vec<(prop::sample::Index, u8)>;

pub(super) fn changes() -> impl Strategy<Value = Changes> {
    prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000), magic in 0_usize..5) {
        let magic: &[u8] = [
            &b""[..], b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"code,name\n",
        ][magic];
        survives(&[magic, &bytes].concat());
    }

    #[test]
    fn files_with_bytes_changed(sample in 0_usize..5, changes in changes()) {
        let mut bytes = samples().swap_remove(sample);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes);
    }

    #[test]
    fn parts_with_bytes_changed(sample in prop::sample::select(vec![0_usize, 1, 3]), changes in changes()) {
        survives(&with_parts_changed(&samples().swap_remove(sample), &changes));
    }
}
