//! Archives and compound files beyond the limits: refused before a parser sees them.

use super::damage::with_part;
use super::*;

fn workbook() -> Vec<u8> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    sheet.write_row(0, 0, ["code", "name"]).unwrap();
    sheet.write_row(1, 0, ["A", "x"]).unwrap();
    workbook.save_to_buffer().unwrap()
}

fn refusal_of(bytes: &[u8]) -> (&'static str, String) {
    let refusal = refused(&Files::new().bytes(bytes));
    (refusal.code, refusal.message)
}

fn positions(bytes: &[u8], of: &[u8]) -> Vec<usize> {
    memchr::memmem::find_iter(bytes, of).collect()
}

/// Changes two numbers of the directory entry of a part: its packed and its inflated size.
fn with_sizes(mut bytes: Vec<u8>, part: &str, packed: Option<u32>, size: u32) -> Vec<u8> {
    const NAME: usize = 46;
    let entries = positions(&bytes, b"PK\x01\x02");
    let is_part = |at: &&usize| bytes[**at + NAME..].starts_with(part.as_bytes());
    let at = *entries.iter().find(is_part).unwrap();
    if let Some(packed) = packed {
        bytes[at + 20..at + 24].copy_from_slice(&packed.to_le_bytes());
    }
    bytes[at + 24..at + 28].copy_from_slice(&size.to_le_bytes());
    bytes
}

#[test]
fn too_many_entries() {
    let mut bytes = workbook();
    let end = *positions(&bytes, b"PK\x05\x06").last().unwrap();
    bytes[end + 8..end + 12].copy_from_slice(&[0x11, 0x27, 0x11, 0x27]);
    let (code, message) = refusal_of(&bytes);
    assert_eq!(code, Refusal::ARCHIVE_LIMITS);
    assert!(message.contains("10001 entries"), "{message}");
    bytes[end + 8..end + 12].copy_from_slice(&[5, 0, 5, 0]);
    assert_ne!(refusal_of(&bytes).0, Refusal::EMPTY_FILE);
}

/// Another reader would take the last directory that it finds, or the first.
#[test]
fn an_archive_ends_with_its_directory() {
    let mut bytes = workbook();
    bytes.extend(b"and more");
    let (code, message) = refusal_of(&bytes);
    assert_eq!(code, Refusal::INVALID_FILE_FORMAT);
    assert!(message.contains("cut off"), "{message}");
}

/// Writes the directory's end as archives of more than 65,535 entries have it (APPNOTE 4.3.14).
fn in_large_form(mut bytes: Vec<u8>, n_entries: u64) -> Vec<u8> {
    let end = bytes.split_off(*positions(&bytes, b"PK\x05\x06").last().unwrap());
    let word = |at: usize| u64::from(u32::from_le_bytes(end[at..at + 4].try_into().unwrap()));
    let at = bytes.len() as u64;
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44_u64.to_le_bytes());
    bytes.extend([45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for number in [n_entries, n_entries, word(12), word(16)] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"PK\x06\x07\0\0\0\0");
    bytes.extend(at.to_le_bytes());
    bytes.extend([1, 0, 0, 0]);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([0xff; 12]);
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn archives_of_the_large_form_are_read_and_bounded() {
    let bytes = workbook();
    let n_entries = positions(&bytes, b"PK\x01\x02").len() as u64;
    read_ok(&Files::new().bytes(in_large_form(bytes.clone(), n_entries)));
    let (code, message) = refusal_of(&in_large_form(bytes, 70_000));
    assert_eq!(code, Refusal::ARCHIVE_LIMITS);
    assert!(message.contains("70000 entries"), "{message}");
}

#[test]
fn a_directory_that_would_fill_the_memory() {
    let archive = |n_entries: usize, name_bytes: usize| {
        let names: Vec<_> = (0..n_entries)
            .map(|n| format!("{n:05}{}", "x".repeat(name_bytes - 5)))
            .collect();
        let parts: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        refusal_of(&zipped(&parts))
    };
    let (code, message) = archive(600, 60_000);
    assert_eq!(code, Refusal::ARCHIVE_LIMITS);
    assert!(message.contains("directory"), "{message}");
    let (code, message) = archive(10_000, 100);
    assert_eq!(code, Refusal::INVALID_FILE_FORMAT, "{message}");
}

#[test]
fn more_sheets_and_relationships_than_there_can_be_parts() {
    let sheet = "<sheet name=\"a\" sheetId=\"9\"/>";
    let relation = "<Relationship Id=\"a\" Type=\"b\" Target=\"c\"/>";
    for (part, end, more) in [
        ("xl/workbook.xml", "</sheets>", sheet),
        ("xl/_rels/workbook.xml.rels", "</Relationships>", relation),
    ] {
        let with = |n: usize| {
            with_part(&workbook(), part, |xml| {
                let xml = String::from_utf8(xml).unwrap();
                assert!(xml.contains(end), "{xml}");
                xml.replace(end, &(more.repeat(n) + end)).into_bytes()
            })
        };
        let (code, message) = refusal_of(&with(10_001));
        assert_eq!(code, Refusal::ARCHIVE_LIMITS, "{part}");
        assert!(message.contains("more than 10000"), "{message}");
        read_ok(&Files::new().bytes(with(100)));
    }
}

#[test]
fn sheets_that_lie_in_one_part() {
    let mut workbook = Workbook::new();
    for name in ["one", "two"] {
        let sheet = workbook.add_worksheet().set_name(name).unwrap();
        sheet.write_row(0, 0, ["code", "name"]).unwrap();
    }
    let bytes = workbook.save_to_buffer().unwrap();
    let bytes = with_part(&bytes, "xl/_rels/workbook.xml.rels", |xml| {
        let xml = String::from_utf8(xml).unwrap();
        xml.replace("worksheets/sheet2.xml", "worksheets/SHEET1.xml")
            .into_bytes()
    });
    let (code, message) = refusal_of(&bytes);
    assert_eq!(code, Refusal::ARCHIVE_LIMITS);
    assert!(message.contains("one part"), "{message}");
}

#[test]
fn two_entries_of_one_name() {
    let twice = |name: &str| zipped(&[("xl/workbook.xml", b"x"), (name, b"y")]);
    assert_eq!(
        refusal_of(&twice("xl/Workbook.xml")).0,
        Refusal::ARCHIVE_LIMITS
    );
    assert_eq!(
        refusal_of(&twice("xl\\workbook.xml")).0,
        Refusal::ARCHIVE_LIMITS
    );
    let mut bytes = twice("xl/workbook.xmm");
    for at in positions(&bytes, b"workbook.xmm") {
        bytes[at + 11] = b'l';
    }
    assert_eq!(refusal_of(&bytes).0, Refusal::ARCHIVE_LIMITS);
}

#[test]
fn bombs_by_their_directory() {
    let refused = |bytes: Vec<u8>, size: u32, why: &str| {
        let (code, message) = refusal_of(&bytes);
        assert_eq!(code, Refusal::ARCHIVE_LIMITS, "{why}");
        let told = format!("to {size} bytes");
        assert!(
            message.contains("inflates") && message.contains(&told),
            "{message}"
        );
    };
    let sheet = "xl/worksheets/sheet1.xml";
    let (many, more, less) = (70 << 20, 3 << 30, 3 << 29);
    refused(with_sizes(workbook(), sheet, None, many), many, "ratio");
    let half = Some(more / 2);
    refused(with_sizes(workbook(), sheet, half, more), more, "size");
    // with three at 1.5 GiB, the sum is too much
    let parts = [sheet, "xl/workbook.xml", "xl/styles.xml"];
    let bytes = parts.iter().fold(workbook(), |bytes, part| {
        with_sizes(bytes, part, Some(1 << 28), less)
    });
    refused(bytes, less, "sum");
}

#[test]
fn a_part_that_grows_beyond_its_declared_size() {
    let bytes = with_sizes(workbook(), "xl/worksheets/sheet1.xml", None, 100);
    assert_eq!(refusal_of(&bytes).0, Refusal::INVALID_FILE_FORMAT);
}

#[test]
fn a_part_whose_checksum_is_wrong() {
    let mut bytes = workbook();
    for at in positions(&bytes, b"PK\x01\x02") {
        bytes[at + 16] ^= 1;
    }
    for at in positions(&bytes, b"PK\x03\x04") {
        bytes[at + 14] ^= 1;
    }
    assert_eq!(refusal_of(&bytes).0, Refusal::INVALID_FILE_FORMAT);
}

#[test]
fn parts_that_are_packed_in_a_way_that_is_not_read() {
    let csv = zipped(&[("products.csv", b"code,name\nA,x\n")]);
    for bytes in [workbook(), csv] {
        for (method, name) in [(9_u16, "Deflate64"), (14, "LZMA"), (7, "unknown")] {
            let mut bytes = bytes.clone();
            for (signature, place) in [(b"PK\x03\x04", 8), (b"PK\x01\x02", 10)] {
                for at in positions(&bytes, signature) {
                    bytes[at + place..at + place + 2].copy_from_slice(&method.to_le_bytes());
                }
            }
            let (code, message) = refusal_of(&bytes);
            assert_eq!(code, Refusal::INVALID_FILE_FORMAT, "{message}");
            assert!(
                message.contains(name) && message.contains("deflate"),
                "{message}"
            );
        }
    }
}

#[test]
fn encrypted_archives() {
    let mut bytes = workbook();
    for at in positions(&bytes, b"PK\x01\x02") {
        bytes[at + 8] |= 1;
    }
    assert_eq!(refusal_of(&bytes).0, Refusal::PASSWORD_PROTECTED);
}

#[test]
fn encrypted_open_documents() {
    let manifest = b"<manifest:manifest><manifest:encryption-data/></manifest:manifest>";
    let bytes = zipped(&[
        (
            "mimetype",
            b"application/vnd.oasis.opendocument.spreadsheet",
        ),
        ("content.xml", b"encrypted"),
        ("META-INF/manifest.xml", manifest),
    ]);
    assert_eq!(refusal_of(&bytes).0, Refusal::PASSWORD_PROTECTED);
}

#[test]
fn a_count_of_strings_that_is_a_lie() {
    for count in ["99999999999", "18446744073709551615", " 1000000 "] {
        let bytes = with_part(&workbook(), "xl/sharedStrings.xml", |xml| {
            let xml = String::from_utf8(xml).unwrap();
            xml.replace("uniqueCount=\"4\"", &format!("uniqueCount = '{count}'"))
                .into_bytes()
        });
        let (code, message) = refusal_of(&bytes);
        assert_eq!(code, Refusal::ARCHIVE_LIMITS, "{message}");
    }
}

#[test]
fn styles_that_would_fill_the_memory() {
    let bytes = with_part(&workbook(), "xl/styles.xml", |xml| {
        let xml = String::from_utf8(xml).unwrap();
        let name = "x".repeat(1 << 20);
        let formats = "<xf fontId=\"0\"/>".repeat(2000);
        xml.replace("Calibri", &name)
            .replace("</cellXfs>", &format!("{formats}</cellXfs>"))
            .into_bytes()
    });
    assert_eq!(refusal_of(&bytes).0, Refusal::ARCHIVE_LIMITS);
}

#[test]
fn xml_that_would_be_buffered_whole() {
    let sheet = "xl/worksheets/sheet1.xml";
    let long = with_part(&workbook(), sheet, |xml| {
        let xml = String::from_utf8(xml).unwrap();
        let text = "x".repeat(17 << 20);
        xml.replace(
            "</row>",
            &format!("<c t=\"inlineStr\"><is><t>{text}</t></is></c></row>"),
        )
        .into_bytes()
    });
    let (code, message) = refusal_of(&long);
    assert_eq!(code, Refusal::ARCHIVE_LIMITS);
    assert!(message.starts_with(sheet), "{message}");
    let wide = with_part(&workbook(), sheet, |xml| {
        xml.iter().flat_map(|byte| [*byte, 0]).collect()
    });
    let (code, message) = refusal_of(&wide);
    assert_eq!(code, Refusal::INVALID_FILE_FORMAT);
    assert_eq!(message, format!("{sheet}: the XML is not in UTF-8"));
}

#[test]
fn a_small_part_that_is_not_small() {
    let files = Files::new();
    let path = files.zip(&[("a", &[b'x'; 11])]);
    let mut archive = archive::open(&path).unwrap();
    assert_eq!(archive::read_part(&mut archive, "a", 11).unwrap().len(), 11);
    let refusal = archive::read_part(&mut archive, "a", 10).unwrap_err();
    assert_eq!(refusal.code, Refusal::ARCHIVE_LIMITS);
    assert_eq!(refusal.message, "a is bigger than 10 bytes");
}

fn compound() -> Vec<u8> {
    include_bytes!("../../fixtures/products.xls").to_vec()
}

/// Gives the workbook's stream another name in the directory.
fn renamed(name: &str) -> Vec<u8> {
    let mut bytes = compound();
    let utf16 = |text: &str| {
        text.encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect::<Vec<_>>()
    };
    let at = positions(&bytes, &utf16("Workbook"))[0];
    bytes[at..at + 64].fill(0);
    let name = utf16(name);
    bytes[at..at + name.len()].copy_from_slice(&name);
    bytes
}

#[test]
fn compound_files_of_other_programs() {
    assert_eq!(
        refusal_of(&renamed("EncryptedPackage")).0,
        Refusal::PASSWORD_PROTECTED
    );
    for (name, what) in [
        ("WordDocument", "Word"),
        ("PowerPoint Document", "PowerPoint"),
        ("x", "without"),
    ] {
        let (code, message) = refusal_of(&renamed(name));
        assert_eq!(code, Refusal::INVALID_FILE_FORMAT);
        assert!(message.contains(what), "{message}");
    }
}

#[test]
fn a_chain_of_sectors_in_a_circle() {
    let mut bytes = compound();
    let directory = u32::from_le_bytes(bytes[48..52].try_into().unwrap());
    let fat = u32::from_le_bytes(bytes[76..80].try_into().unwrap());
    let at = (fat as usize + 1) * 512 + directory as usize * 4;
    bytes[at..at + 4].copy_from_slice(&directory.to_le_bytes());
    assert_eq!(refusal_of(&bytes).0, Refusal::INVALID_FILE_FORMAT);
}

#[test]
fn compound_files_are_held_in_memory_and_so_are_no_larger() {
    let files = Files::new();
    let path = files.bytes(compound());
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len((128 << 20) + 1).unwrap();
    assert_eq!(refused(&path).code, Refusal::FILE_TOO_LARGE);
}

/// A table that names itself as its own next part, and one that is named twice: either way a small
/// file takes as much memory as it likes.
#[test]
fn tables_of_sectors_that_repeat_themselves() {
    let mut bytes = compound();
    let fat: [u8; 4] = bytes[76..80].try_into().unwrap();
    assert_eq!(bytes[80..84], [0xff; 4], "there is one");
    bytes[80..84].copy_from_slice(&fat);
    assert_eq!(refusal_of(&bytes).0, Refusal::INVALID_FILE_FORMAT);
    let mut bytes = compound();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    let own = u32::try_from(bytes.len() / 512 - 1).unwrap().to_le_bytes();
    bytes[68..72].copy_from_slice(&own);
    bytes.extend([0xff; 508]);
    bytes.extend(own);
    assert_eq!(refusal_of(&bytes).0, Refusal::INVALID_FILE_FORMAT);
}

#[test]
fn dimensions_that_would_fill_the_memory() {
    let at = positions(&compound(), &[0x00, 0x02, 14, 0])[0] + 4;
    for (rows, columns) in [(0xffff_ffff_u32, 0xff_u16), (0, 0), (65_536, 0xffff)] {
        let mut bytes = compound();
        bytes[at..at + 4].copy_from_slice(&(if rows == 0 { 7_u32 } else { 0 }).to_le_bytes());
        bytes[at + 4..at + 8].copy_from_slice(&rows.max(3).to_le_bytes());
        bytes[at + 10..at + 12].copy_from_slice(&columns.max(3).to_le_bytes());
        assert_eq!(
            refusal_of(&bytes).0,
            Refusal::FILE_TOO_LARGE,
            "{rows} {columns}"
        );
    }
}

#[test]
fn a_far_cell_that_would_fill_the_memory() {
    let mut bytes = compound();
    // the number in row 1, column 4 moves to row 65,535, column 65,535
    let at = positions(&bytes, &4_006_381_333_931_f64.to_le_bytes())[0] - 6;
    assert_eq!(bytes[at..at + 4], [1, 0, 4, 0]);
    bytes[at..at + 4].fill(0xff);
    assert_eq!(refusal_of(&bytes).0, Refusal::FILE_TOO_LARGE);
}

#[test]
fn a_workbook_with_a_password_of_old() {
    let mut bytes = compound();
    // some record of the globals becomes the one that says so
    let at = positions(&bytes, &[0x42, 0x00, 0x02, 0x00])[0];
    bytes[at] = 0x2f;
    assert_eq!(refusal_of(&bytes).0, Refusal::PASSWORD_PROTECTED);
}
