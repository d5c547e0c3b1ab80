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
