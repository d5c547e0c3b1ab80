//! Workbooks that are read with what their inspection opened.

use std::fs;

use super::damage::with_part;
use super::packed::gzipped;
use super::*;

/// Some rows of which the texts are in the table of shared strings.
fn workbook() -> Vec<u8> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["code", "name", "price"]).unwrap();
    for row in 1..200 {
        sheet.write(row, 0, format!("C{row}")).unwrap();
        sheet.write(row, 1, format!("Lamp {row}")).unwrap();
        sheet.write(row, 2, row).unwrap();
    }
    workbook.save_to_buffer().unwrap()
}

/// The same with something the scanner declines behind some rows.
fn foreign() -> Vec<u8> {
    with_part(&workbook(), "xl/worksheets/sheet1.xml", |xml| {
        let mut xml = String::from_utf8(xml).unwrap();
        let at = xml.find("<row r=\"100\"").unwrap();
        xml.insert_str(at, "<!-- foreign -->");
        xml.into_bytes()
    })
}

/// Inspects a file, gives it another name, and reads it with what was opened.
fn moved_and_read(path: &Path, options: &Options) -> (bool, ReadFile) {
    let (inspection, opened) = inspect_and_keep(path, "", &Options::default()).unwrap();
    let is_kept = opened.is_some();
    let moved = path.with_extension("moved");
    fs::rename(path, &moved).unwrap();
    let mut found = ReadFile::default();
    found.summary = read_on(opened, &moved, &inspection, options, &mut |chunk| {
        found.rows.extend(chunk.rows);
        found.errors.extend(chunk.errors);
        ControlFlow::Continue(())
    })
    .unwrap();
    (is_kept, found)
}

#[test]
fn a_workbook_goes_on_under_another_name() {
    let files = Files::new();
    for (bytes, keeps) in [
        (workbook(), true),
        (foreign(), true), // calamine opens the file anew
        (gzipped(&workbook()), true),
        (gzipped(&foreign()), true),
        (b"code;name\n00123;Lamp\n".to_vec(), false),
        (
            include_bytes!("../../fixtures/products.ods").to_vec(),
            false,
        ),
    ] {
        let expected = read_ok(&files.bytes(&bytes));
        assert!(!expected.rows.is_empty());
        let (is_kept, found) = moved_and_read(&files.bytes(&bytes), &Options::default());
        assert_eq!(is_kept, keeps);
        assert_eq!(found.rows, expected.rows);
        assert_eq!(found.errors, expected.errors);
        assert_eq!(found.summary, expected.summary);
    }
}

#[test]
fn texts_cut_for_other_limits_are_not_gone_on_with() {
    let files = Files::new();
    let options = Options {
        max_cell_chars: 5,
        ..Options::default()
    };
    let expected = read_all(&files.bytes(workbook()), &options).unwrap().1;
    assert!(expected.summary.n_bad > 0, "texts are too long");
    let (_, found) = moved_and_read(&files.bytes(workbook()), &options);
    assert_eq!(found.errors, expected.errors);
    assert_eq!(found.summary, expected.summary);
}

#[test]
fn a_sheet_damaged_far_behind_its_header_is_refused_all_the_same() {
    let files = Files::new();
    let path = files.bytes(workbook());
    let mut bytes = fs::read(&path).unwrap();
    let offset = {
        let mut archive = archive::open(&path).unwrap();
        let sheet = archive.by_name("xl/worksheets/sheet1.xml").unwrap();
        sheet.data_start().unwrap() + sheet.compressed_size() - 20
    };
    for byte in bytes
        .iter_mut()
        .skip(usize::try_from(offset).unwrap())
        .take(10)
    {
        *byte ^= 0x5a;
    }
    let refusal = refused(&files.bytes(&bytes));
    assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT, "{refusal}");
    assert!(refusal.message.contains("sheet1.xml"), "{refusal}");
}
