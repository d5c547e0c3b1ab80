//! Formats of cells of Excel binary workbooks.

use super::xlsb::{at, head, inline, packed, real, record, row, sheet, styles};
use super::*;

#[test]
fn codes_in_number_cells_keep_the_zeros_that_are_shown() {
    let named = |number: u32, code: Vec<u8>| [row(number), code, inline(1, "x")].concat();
    let rk = |format: u32| record(0x02, &[&at(0, format), &(7_u32 << 2 | 2).to_le_bytes()]);
    let mut records = head(&["code", "name", "note"]);
    records.extend([
        named(1, real(0, 1, 123.0)),
        named(2, real(0, 0, 123.0)),
        named(3, rk(2)),
        // a blank cell, and the result of a formula: a number and then what it is made of
        named(4, record(0x01, &[&at(5, 1)])),
        named(
            5,
            record(
                0x09,
                &[&at(0, 1), &42_f64.to_le_bytes(), &[0, 0, 0, 0, 0, 0]],
            ),
        ),
        real(2, 1, 77.0),
        named(6, real(0, 3, 45_000.0)),
        // bits of flags beside the format, and a format that is not there
        named(7, real(0, 0x0100_0001, 8.0)),
        named(8, real(0, 9, 9.0)),
        record(0x0192, &[]),
        record(0x0182, &[]),
    ]);
    let styles = styles(
        &[(164, "00000"), (165, "[Red]000;-000")],
        &[0, 164, 165, 14],
    );
    let found = read_ok(&Files::new().bytes(packed(&records.concat(), &styles)));
    assert_eq!(
        found.codes(),
        ["00123", "123", "007", "00042", "00008", "9"]
    );
    let note = serde_json::json!(found.rows[3].attributes);
    assert_eq!(note, serde_json::json!({"note": "00077"}));
    assert_eq!(
        found.faults(),
        [(5, "code", "required"), (7, "code", "date_in_code")]
    );
}

#[test]
fn more_cell_formats_than_a_workbook_has_are_refused() {
    let bytes = |n| packed(&sheet(), &styles(&[(164, "00000")], &vec![0; n]));
    let read = |n| read_all(&Files::new().bytes(bytes(n)), &Options::default());
    assert!(read(65_536).is_ok());
    assert_eq!(read(65_537).unwrap_err().code, Refusal::ARCHIVE_LIMITS);
}
