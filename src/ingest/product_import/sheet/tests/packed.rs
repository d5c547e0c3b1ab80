//! Files packed for the way.

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

pub(super) fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::best());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn workbook() -> Vec<u8> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["code", "name"]).unwrap();
    sheet.write_row(1, 0, ["00123", "Lamp"]).unwrap();
    workbook.save_to_buffer().unwrap()
}

const CSV: &[u8] = b"code;name\n00123;Lamp\n";

#[test]
fn one_packed_file_is_read_as_it_is_unpacked() {
    let files = Files::new();
    let folder = ("__MACOSX/._a.csv", &b"x"[..]);
    for bytes in [
        gzipped(CSV),
        gzipped(&workbook()),
        [gzipped(&CSV[..10]), gzipped(&CSV[10..])].concat(),
        zipped(&[("a.csv", CSV)]),
        zipped(&[folder, ("a/b.xlsx", &workbook())]),
        gzipped(include_bytes!("../../fixtures/products.ods")),
    ] {
        let found = read_ok(&files.bytes(bytes));
        assert!(found.codes().contains(&"00123"), "{found:?}");
    }
    let names = std::fs::read_dir(files.0.path()).unwrap().count();
    assert_eq!(names, 1, "an unpacked file is left");
}

#[test]
fn one_layer_is_taken_off_and_no_more() {
    let files = Files::new();
    let twice = refused(&files.bytes(gzipped(&gzipped(CSV))));
    assert_eq!(twice.code, Refusal::INVALID_FILE_FORMAT);
    assert!(twice.message.contains("another archive"), "{twice}");
    let two = refused(&files.zip(&[("a.csv", CSV), ("b.csv", CSV)]));
    assert!(two.message.contains("several files"), "{two}");
    let none = refused(&files.bytes(gzipped(b"")));
    assert_eq!(none.code, Refusal::EMPTY_FILE);
}

#[test]
fn damaged_packing_and_bombs() {
    let files = Files::new();
    let mut cut = gzipped(&workbook());
    cut.truncate(cut.len() / 2);
    assert_eq!(
        refused(&files.bytes(cut)).code,
        Refusal::INVALID_FILE_FORMAT
    );
    let mut changed = gzipped(CSV);
    let n = changed.len();
    changed[n - 6] ^= 1;
    assert_eq!(
        refused(&files.bytes(changed)).code,
        Refusal::INVALID_FILE_FORMAT
    );
    let mebibyte = gzipped(&vec![b'a'; 1 << 20]);
    let bomb = refused(&files.bytes(mebibyte.repeat(70)));
    assert_eq!(bomb.code, Refusal::ARCHIVE_LIMITS);
}
