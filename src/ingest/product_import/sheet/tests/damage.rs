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

#[test]
fn workbooks_cut_off_anywhere() {
    let whole = workbook();
    assert!(whole.len() > 4000);
    for end in (0..whole.len()).step_by(37) {
        survives(&whole[..end]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..2000), magic in 0_usize..5) {
        let magic: &[u8] = [&b""[..], b"PK\x03\x04", b"PK\x05\x06", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"code,name\n"][magic];
        survives(&[magic, &bytes].concat());
    }

    #[test]
    fn workbooks_with_bytes_changed(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20)) {
        let mut bytes = workbook();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        survives(&bytes);
    }
}
