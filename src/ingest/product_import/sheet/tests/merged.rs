//! Merged cells of whole files, in every format that tells them.

use rust_xlsxwriter::Format as CellFormat;

use super::super::merged::{MAX_RANGES, Range};
use super::*;

fn fill() -> Options {
    Options {
        merged_cells: MergedCells::Fill,
        ..Options::default()
    }
}

/// A category over three products, one cell of which the program styles, a product of two lines, and
/// a title and a header that are merged, too.
fn catalogue() -> Workbook {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    let plain = CellFormat::new();
    sheet
        .merge_range(0, 0, 0, 3, "Spring catalogue", &plain)
        .unwrap();
    sheet
        .write_row(1, 0, ["category", "code", "name", "price"])
        .unwrap();
    sheet.merge_range(2, 0, 4, 0, "lamps", &plain).unwrap();
    for (row, code) in [(2, "L1"), (3, "L2"), (4, "L3"), (5, "C1"), (7, "C2")] {
        sheet.write(row, 1, code).unwrap();
        sheet.write(row, 2, format!("name of {code}")).unwrap();
        sheet.write(row, 3, 1.5).unwrap();
    }
    sheet.merge_range(5, 0, 6, 0, "cables", &plain).unwrap();
    for column in 1..4 {
        // this product takes two rows of the sheet
        sheet.merge_range(5, column, 6, column, "", &plain).unwrap();
    }
    sheet.write(5, 1, "C1").unwrap();
    sheet.write(5, 2, "name of C1").unwrap();
    sheet.write(5, 3, 1.5).unwrap();
    sheet.merge_range(7, 2, 7, 3, "2", &plain).unwrap();
    book
}

fn categories(found: &ReadFile) -> Vec<(u32, &str, &str, String)> {
    let rows = found.rows.iter().map(|row| {
        let price = row
            .price
            .map_or_else(String::new, |price| price.to_string());
        let category = row.category.as_deref().unwrap_or("-");
        (row.row_no, row.code.as_str(), category, price)
    });
    rows.collect()
}

fn row(
    row_no: u32,
    code: &'static str,
    category: &'static str,
    price: &str,
) -> (u32, &'static str, &'static str, String) {
    (row_no, code, category, price.to_owned())
}

#[test]
fn a_merged_cell_is_its_first_or_each_of_them() {
    let files = Files::new();
    let path = files.xlsx(&mut catalogue());
    let first = read_ok(&path);
    assert_eq!(
        categories(&first),
        [
            row(3, "L1", "lamps", "1.5"),
            row(4, "L2", "-", "1.5"),
            row(5, "L3", "-", "1.5"),
            row(6, "C1", "cables", "1.5"),
            row(8, "C2", "-", ""),
        ]
    );
    let (inspection, filled) = read_all(&path, &fill()).unwrap();
    assert_eq!(inspection.header_row, 2);
    assert_eq!(
        categories(&filled),
        [
            row(3, "L1", "lamps", "1.5"),
            row(4, "L2", "lamps", "1.5"),
            row(5, "L3", "lamps", "1.5"),
            row(6, "C1", "cables", "1.5"),
            row(8, "C2", "-", "2"),
        ]
    );
    assert_eq!((filled.errors.len(), filled.summary.n_rows), (0, 5));
    let (as_is, all) = (Options::default(), fill());
    assert_ne!(inspection.fingerprint(&as_is), inspection.fingerprint(&all));
}

#[test]
fn the_reader_that_takes_over_goes_on_filling() {
    let bytes = catalogue().save_to_buffer().unwrap();
    for at in [
        "<row r=\"3\"",
        "<row r=\"4\"",
        "<row r=\"5\"",
        "</sheetData>",
    ] {
        let changed = damage::with_part(&bytes, "xl/worksheets/sheet1.xml", |xml| {
            let mut xml = String::from_utf8(xml).unwrap();
            let at = xml.find(at).unwrap();
            xml.insert_str(at, "<!-- foreign -->");
            xml.into_bytes()
        });
        let files = Files::new();
        let filled = read_all(&files.bytes(changed), &fill()).unwrap().1;
        let expected = Files::new();
        let expected = read_all(&expected.bytes(&bytes), &fill()).unwrap().1;
        assert_eq!(filled, expected, "{at}");
    }
}

#[test]
fn a_hidden_first_row_gives_its_value_all_the_same() {
    let mut book = catalogue();
    book.worksheet_from_index(0)
        .unwrap()
        .set_row_hidden(2)
        .unwrap();
    let files = Files::new();
    let options = Options {
        skip_hidden_rows: true,
        ..fill()
    };
    let found = read_all(&files.xlsx(&mut book), &options).unwrap().1;
    assert_eq!(found.rows[0].row_no, 4);
    assert_eq!(found.rows[0].category.as_deref(), Some("lamps"));
}

/// A workbook of which the sheet has these elements behind its rows.
fn with_ranges(ranges: &str) -> Vec<u8> {
    let mut book = Workbook::new();
    let sheet = book.add_worksheet();
    sheet.write_row(0, 0, ["code", "name", "category"]).unwrap();
    for row in 1..30 {
        sheet.write(row, 0, format!("C{row}")).unwrap();
        sheet.write(row, 1, "x").unwrap();
    }
    sheet.write(1, 2, "lamps").unwrap();
    let bytes = book.save_to_buffer().unwrap();
    damage::with_part(&bytes, "xl/worksheets/sheet1.xml", |xml| {
        let xml = String::from_utf8(xml).unwrap();
        let merged = format!("</sheetData><mergeCells>{ranges}</mergeCells>");
        xml.replace("</sheetData>", &merged).into_bytes()
    })
}

#[test]
fn ranges_that_are_too_many_overlap_or_cannot_be_read_are_refused() {
    let read = |ranges: &str| {
        let files = Files::new();
        read_all(&files.bytes(with_ranges(ranges)), &fill()).map(|(_, found)| found)
    };
    let whole = read("<mergeCell ref=\"A1:XFD1048576\"/>").unwrap();
    assert_eq!(whole.rows.len(), 29);
    let down = read("<mergeCell ref=\"C2:C1048576\"/>").unwrap();
    assert!(
        down.rows
            .iter()
            .all(|row| row.category.as_deref() == Some("lamps"))
    );
    assert_eq!(down.rows.len(), 29, "no row is made");
    let many = "<mergeCell ref=\"A2:B2\"/>".repeat(MAX_RANGES + 1);
    for (ranges, word) in [
        (many.as_str(), "more than 100000"),
        (
            "<mergeCell ref=\"C2:C9\"/><mergeCell ref=\"A9:C9\"/>",
            "overlaps",
        ),
        ("<mergeCell ref=\"\"/>", "cannot be read"),
        ("<mergeCell ref=\"C9:C2\"/>", "ends before"),
    ] {
        let refusal = read(ranges).unwrap_err();
        assert_eq!(refusal.code, Refusal::MERGED_CELLS);
        assert!(refusal.message.contains(word), "{refusal}");
        assert!(refusal.message.contains("merged_cells=first"), "{refusal}");
        let files = Files::new();
        let plain = files.bytes(with_ranges(ranges));
        assert_eq!(read_ok(&plain).rows.len(), 29, "nobody asked");
    }
}

/// The ranges of a document's first table.
fn of_document(rows: &str) -> Vec<Range> {
    let content = format!(
        "<office:document-content><office:body><office:spreadsheet>\
         <table:table table:name=\"S\">{rows}</table:table>\
         </office:spreadsheet></office:body></office:document-content>"
    );
    let files = Files::new();
    let path = files.zip(&[
        (
            "mimetype",
            b"application/vnd.oasis.opendocument.spreadsheet",
        ),
        ("content.xml", content.as_bytes()),
    ]);
    rows::open_here(&path, Format::Ods)
        .unwrap()
        .merged("S")
        .unwrap()
}

#[test]
fn an_open_document_tells_its_spans() {
    let blank = |n: u32| format!("<table:table-cell table:number-columns-repeated=\"{n}\"/>");
    let spanned = "<table:table-cell table:number-columns-spanned=\"2\" \
        table:number-rows-spanned=\"3\"><text:p>x</text:p></table:table-cell>\
        <table:covered-table-cell/>";
    let rows = format!(
        "<table:table-row table:number-rows-repeated=\"4\">{}</table:table-row>\
         <table:table-row>{}{spanned}{}</table:table-row>\
         <table:table-row><table:covered-table-cell table:number-columns-repeated=\"5\"/>\
         <table:table-cell table:number-rows-spanned=\"1\"/></table:table-row>",
        blank(3),
        blank(2),
        spanned.replace("\"3\"", "\"1\""),
    );
    let range = |text: &str| super::super::merged::xlsx::range(text.as_bytes()).unwrap();
    assert_eq!(of_document(&rows), [range("C5:D7"), range("E5:F5")]);
}

#[test]
fn binary_workbooks_tell_them_and_text_has_none() {
    let files = Files::new();
    let xlsb = files.bytes(xlsb::workbook());
    let mut opened = rows::open_here(&xlsb, Format::Xlsb).unwrap();
    let range = |text: &str| super::super::merged::xlsx::range(text.as_bytes()).unwrap();
    let ranges = ["B3:B4", "D2:D3"].map(range);
    assert_eq!(opened.merged("Products").unwrap(), ranges);
    assert_eq!(
        opened.merged("None").unwrap_err().code,
        Refusal::INVALID_FILE_FORMAT
    );
    let filled = read_all(&xlsb, &fill()).unwrap().1;
    assert_eq!(filled.codes(), ["00123", "456"]);
    let stocks: Vec<_> = filled.rows.iter().map(|row| row.stock).collect();
    assert_eq!(stocks, [Some(7), Some(7)]);
    let text = files.bytes("code,name\nA,a\n");
    assert_eq!(read_all(&text, &fill()).unwrap().1.codes(), ["A"]);
}

#[test]
fn both_readers_of_xlsx_find_the_same_ranges() {
    let files = Files::new();
    let path = files.xlsx(&mut catalogue());
    let mut theirs: calamine::Xlsx<_> = calamine::open_workbook(&path).unwrap();
    let expected = theirs.merge_cells_by_sheet_name("Sheet1").unwrap();
    let expected = expected.into_iter().map(|it| Range {
        first_row: it.start.0 + 1,
        first_column: it.start.1,
        last_row: it.end.0 + 1,
        last_column: it.end.1,
    });
    let mut ours = rows::open(&path, Format::Xlsx, &Options::default()).unwrap();
    let mut ranges = ours.merged("Sheet1").unwrap();
    ranges.sort_unstable();
    let mut expected: Vec<_> = expected.collect();
    expected.sort_unstable();
    assert_eq!(ranges, expected);
    assert_eq!(ranges.len(), 7);
}

#[test]
fn workbooks_of_other_programs_with_several_sheets_and_merged_cells() {
    for name in ["catalogue.xls", "catalogue.ods"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("src/ingest/product_import/fixtures")
            .join(name);
        let options = Options {
            sheets: Some(Sheets::All),
            ..fill()
        };
        let (inspection, found) = read_all(&path, &options).unwrap();
        let heads: Vec<_> = inspection
            .heads()
            .map(|head| (head.sheet.unwrap(), head.header_row))
            .collect();
        assert_eq!(heads, [("Lampen", 2), ("Kabel", 1)], "{name}");
        assert_eq!(inspection.skipped[0].sheet, "Hinweise");
        assert_eq!(
            categories(&found),
            [
                row(3, "L1", "Leuchten", ""),
                row(4, "L2", "Leuchten", ""),
                row(5, "L3", "Leuchten", ""),
                row(6, "L4", "Zubehör", ""),
                row(2, "K1", "-", ""),
                row(3, "K2", "-", ""),
            ],
            "{name}"
        );
        let colours = found.rows[4..]
            .iter()
            .map(|row| serde_json::json!(row.attributes));
        assert!(colours.eq([
            serde_json::json!({"Farbe": "rot"}),
            serde_json::json!({"Farbe": "rot"})
        ]));
        assert_eq!(found.faults(), [(4, "code", "duplicate_code")], "{name}");
        let first = Options {
            sheets: Some(Sheets::All),
            ..Options::default()
        };
        let as_is = read_all(&path, &first).unwrap().1;
        let categories = as_is.rows.iter().filter(|row| row.category.is_some());
        assert_eq!(categories.count(), 2, "{name}");
    }
}
