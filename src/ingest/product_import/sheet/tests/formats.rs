//! The formats that are not xlsx: fixtures of xls and ods, and an xlsb made here.

use super::*;

const FIXTURES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/ingest/product_import/fixtures/"
);

fn fixture(name: &str) -> (Inspection, ReadFile) {
    read_all(&Path::new(FIXTURES).join(name), &Options::default()).unwrap()
}

/// The table that `fixtures/make.py` writes, the same in both formats.
fn is_the_table(found: &ReadFile) {
    assert_eq!(found.codes(), ["00123", "456", "7920000000000"]);
    let [first, second, third] = found.rows.as_slice() else {
        panic!("{} rows", found.rows.len());
    };
    assert_eq!((first.row_no, first.name.as_str()), (2, "Größe & Form"));
    assert_eq!(first.price.unwrap().to_string(), "19.9");
    assert_eq!(first.ean.as_deref(), Some("4006381333931"));
    assert_eq!(first.updated_at.unwrap().to_string(), "2026-01-31 14:30:00");
    let attributes = serde_json::json!({"Farbe": "rot", "aktiv": true});
    assert_eq!(serde_json::json!(first.attributes), attributes);
    assert_eq!(second.name, "two\nlines");
    assert_eq!(second.price.unwrap().to_string(), "1118.27");
    assert_eq!(
        (second.stock, second.ean.as_deref()),
        (Some(0), Some("0012345678905"))
    );
    assert_eq!(third.name, "trimmed");
    assert_eq!(
        found.faults(),
        [
            (6, "Bezeichnung", "required"),
            (6, "Preis", "negative_number"),
            (6, "Bestand", "not_whole_number"),
            (6, "EAN", "precision_lost"),
            (6, "geändert am", "invalid_date"),
            (7, "Artikel-Nr.", "duplicate_code"),
        ]
    );
    assert_eq!((found.summary.n_rows, found.summary.last_row), (5, 7));
}

#[test]
fn an_excel_97_workbook() {
    let (inspection, found) = fixture("products.xls");
    assert_eq!(inspection.format, Format::Xls);
    assert_eq!(inspection.sheet.as_deref(), Some("Produkte"));
    is_the_table(&found);
}

#[test]
fn an_open_document_spreadsheet() {
    let (inspection, found) = fixture("products.ods");
    assert_eq!(inspection.format, Format::Ods);
    assert_eq!(inspection.sheet.as_deref(), Some("Produkte"));
    is_the_table(&found);
}

#[test]
fn the_formats_agree_on_every_hash() {
    let hashes = |name| {
        fixture(name)
            .1
            .rows
            .iter()
            .map(|row| row.hash)
            .collect::<Vec<_>>()
    };
    assert_eq!(hashes("products.xls"), hashes("products.ods"));
}

#[test]
fn an_excel_binary_workbook() {
    let files = Files::new();
    let path = files.bytes(xlsb::workbook());
    let (inspection, found) = read_all(&path, &Options::default()).unwrap();
    assert_eq!(inspection.format, Format::Xlsb);
    assert_eq!(inspection.sheet.as_deref(), Some("Products"));
    assert_eq!(found.codes(), ["00123", "456"]);
    assert_eq!(found.rows[0].price.unwrap().to_string(), "19.9");
    assert_eq!(found.rows[0].stock, Some(7));
    assert_eq!(
        found.rows[0].updated_at.unwrap().to_string(),
        "2026-01-31 12:00:00"
    );
    assert_eq!(
        found.faults(),
        [(4, "price", "cell_error"), (5, "code", "duplicate_code")]
    );
}

/// Writes a small Excel binary workbook, record by record (\[MS-XLSB\]).
pub(super) mod xlsb {
    /// A record: its kind and length as numbers of seven bits a byte, then its bytes.
    fn record(kind: u16, data: &[&[u8]]) -> Vec<u8> {
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
    fn at(column: u32, format: u32) -> Vec<u8> {
        [column.to_le_bytes(), format.to_le_bytes()].concat()
    }

    fn row(number: u32) -> Vec<u8> {
        record(0x00, &[&number.to_le_bytes(), &[0; 13]])
    }

    fn shared(column: u32, index: u32) -> Vec<u8> {
        record(0x07, &[&at(column, 0), &index.to_le_bytes()])
    }

    fn inline(column: u32, value: &str) -> Vec<u8> {
        record(0x06, &[&at(column, 0), &text(value)])
    }

    fn real(column: u32, format: u32, value: f64) -> Vec<u8> {
        record(0x05, &[&at(column, format), &value.to_le_bytes()])
    }

    fn sheet() -> Vec<u8> {
        let headers = ["code", "name", "price", "stock", "updated_at"];
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
        records.extend(
            (0..)
                .zip(headers)
                .map(|(column, header)| inline(column, header)),
        );
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
            record(0x01b1, &[&1_u32.to_le_bytes()]),
            // B3:B4, which the second row has a value of its own in
            record(
                0x01b0,
                &[2, 3, 1, 1]
                    .map(u32::to_le_bytes)
                    .each_ref()
                    .map(<[u8; 4]>::as_slice),
            ),
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

    fn styles() -> Vec<u8> {
        let format = |id: u16| record(0x2f, &[&[0, 0], &id.to_le_bytes(), &[0; 12]]);
        [
            record(0x04e9, &[&2_u32.to_le_bytes()]),
            format(0),
            format(14),
        ]
        .concat()
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
    pub(in super::super) fn workbook() -> Vec<u8> {
        const ROOT: &[u8] = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.bin"/></Relationships>"#;
        const PARTS: &[u8] = br#"<?xml version="1.0"?><Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.bin"/></Relationships>"#;
        super::zipped(&[
            ("_rels/.rels", ROOT),
            ("xl/_rels/workbook.bin.rels", PARTS),
            ("xl/workbook.bin", &book()),
            ("xl/worksheets/sheet1.bin", &sheet()),
            ("xl/sharedStrings.bin", &strings()),
            ("xl/styles.bin", &styles()),
        ])
    }
}
