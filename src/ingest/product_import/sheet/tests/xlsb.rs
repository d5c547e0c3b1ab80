//! A small Excel binary workbook, record by record (\[MS-XLSB\]), for these tests and for those that
//! have it read by a process of its own.

use std::io::Write as _;

/// A record: its kind and length as numbers of seven bits a byte, then its bytes.
pub(super) fn record(kind: u16, data: &[&[u8]]) -> Vec<u8> {
    let data = data.concat();
    let mut bytes = Vec::new();
    let [low, high] = kind.to_le_bytes();
    bytes.push(low);
    if low & 0x80 != 0 {
        bytes.push(high);
    }
    let mut len = data.len();
    loop {
        let seven = u8::try_from(len & 0x7f).unwrap();
        len >>= 7;
        bytes.push(if len > 0 { seven | 0x80 } else { seven });
        if len == 0 {
            break;
        }
    }
    bytes.extend(data);
    bytes
}

/// A text: how many units of UTF-16 and then those.
fn text(text: &str) -> Vec<u8> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let len = u32::try_from(units.len()).unwrap().to_le_bytes();
    len.into_iter()
        .chain(units.into_iter().flat_map(u16::to_le_bytes))
        .collect()
}

/// Where a cell is and which format it has.
pub(super) fn at(column: u32, format: u32) -> Vec<u8> {
    [column.to_le_bytes(), format.to_le_bytes()].concat()
}

pub(super) fn row(number: u32) -> Vec<u8> {
    record(0x00, &[&number.to_le_bytes(), &[0; 13]])
}

fn shared(column: u32, index: u32) -> Vec<u8> {
    record(0x07, &[&at(column, 0), &index.to_le_bytes()])
}

pub(super) fn inline(column: u32, value: &str) -> Vec<u8> {
    record(0x06, &[&at(column, 0), &text(value)])
}

pub(super) fn real(column: u32, format: u32, value: f64) -> Vec<u8> {
    record(0x05, &[&at(column, format), &value.to_le_bytes()])
}

/// A merged range: its first row, its last one, its first column, its last one, from 0.
fn merged(range: [u32; 4]) -> Vec<u8> {
    let range = range.map(u32::to_le_bytes);
    record(0x01b0, &range.each_ref().map(<[u8; 4]>::as_slice))
}

/// What comes before the rows of a sheet, and a row of headers.
pub(super) fn head(headers: &[&str]) -> Vec<Vec<u8>> {
    let mut records = vec![
        record(0x0181, &[]),
        record(
            0x0194,
            &[0, 4, 0, 4]
                .map(u32::to_le_bytes)
                .each_ref()
                .map(<[u8; 4]>::as_slice),
        ),
        record(0x0191, &[]),
        row(0),
    ];
    let headers = (0..).zip(headers);
    records.extend(headers.map(|(column, header)| inline(column, header)));
    records
}

pub(super) fn sheet() -> Vec<u8> {
    let mut records = head(&["code", "name", "price", "stock", "updated_at"]);
    records.extend([
        row(1),
        shared(0, 0),
        shared(1, 1),
        real(2, 0, 19.9),
        // RK: the integer 7, shifted by two bits that say so
        record(0x02, &[&at(3, 0), &(7_u32 << 2 | 2).to_le_bytes()]),
        real(4, 1, 46_053.5),
        row(2),
        real(0, 0, 456.0),
        inline(1, "Lamp"),
        row(3),
        inline(0, "A"),
        inline(1, "x"),
        record(0x03, &[&at(2, 0), &[0x2a]]), // #N/A
        row(4),
        shared(0, 0),
        inline(1, "again"),
        record(0x0192, &[]),
        record(0x01b1, &[&2_u32.to_le_bytes()]),
        // B3:B4, which the second row has a value of its own in, and D2:D3
        merged([2, 3, 1, 1]),
        merged([1, 2, 3, 3]),
        record(0x01b2, &[]),
        record(0x0182, &[]),
    ]);
    records.concat()
}

fn strings() -> Vec<u8> {
    let count = 2_u32.to_le_bytes();
    [
        record(0x019f, &[&count, &count]),
        record(0x13, &[&[0], &text("00123")]),
        record(0x13, &[&[0], &text("Größe & Form")]),
        record(0x01a0, &[]),
    ]
    .concat()
}

/// Number formats of cells, and the codes of those that are not built in.
pub(super) fn styles(codes: &[(u16, &str)], formats: &[u16]) -> Vec<u8> {
    let count = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
    let mut records = vec![record(0x04e7, &[&count(codes.len())])];
    let codes = codes.iter();
    records.extend(codes.map(|(id, code)| record(0x2c, &[&id.to_le_bytes(), &text(code)])));
    records.push(record(0x04e8, &[]));
    records.push(record(0x04e9, &[&count(formats.len())]));
    let formats = formats.iter();
    records.extend(formats.map(|id| record(0x2f, &[&[0, 0], &id.to_le_bytes(), &[0; 12]])));
    records.push(record(0x04ea, &[]));
    records.concat()
}

fn book() -> Vec<u8> {
    let (visible, id) = (0_u32.to_le_bytes(), 1_u32.to_le_bytes());
    [
        record(0x0183, &[]),
        record(0x0199, &[&[0; 12]]),
        record(0x018f, &[]),
        record(0x019c, &[&visible, &id, &text("rId1"), &text("Products")]),
        record(0x0190, &[]),
        record(0x019d, &[&[0; 8]]),
        record(0x0184, &[]),
    ]
    .concat()
}

/// The whole workbook.
pub(crate) fn workbook() -> Vec<u8> {
    packed(&sheet(), &styles(&[(164, "00000")], &[0, 14, 164]))
}

pub(super) fn packed(sheet: &[u8], styles: &[u8]) -> Vec<u8> {
    const ROOT: &[u8] = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.bin"/></Relationships>"#;
    const PARTS: &[u8] = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.bin"/></Relationships>"#;
    zipped(&[
        ("_rels/.rels", ROOT),
        ("xl/_rels/workbook.bin.rels", PARTS),
        ("xl/workbook.bin", &book()),
        ("xl/worksheets/sheet1.bin", sheet),
        ("xl/sharedStrings.bin", &strings()),
        ("xl/styles.bin", styles),
    ])
}

/// Returns an archive of these parts, in this order.
pub(super) fn zipped(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in parts {
        archive
            .start_file(*name, zip::write::SimpleFileOptions::default())
            .unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}
