//! Workbooks: real xlsx files, and fixtures of the other formats.

use rust_xlsxwriter::{ExcelDateTime, Format as CellFormat, Formula, Worksheet};

use super::*;

fn headers(sheet: &mut Worksheet, headers: &[&str]) {
    sheet.write_row(0, 0, headers.iter().copied()).unwrap();
}

fn with_sheet(f: impl FnOnce(&mut Worksheet)) -> ReadFile {
    let mut workbook = Workbook::new();
    f(workbook.add_worksheet());
    read_ok(&Files::new().xlsx(&mut workbook))
}

#[test]
fn every_column_of_a_good_row() {
    let found = with_sheet(|sheet| {
        headers(
            sheet,
            &[
                "code",
                "name",
                "description",
                "brand",
                "category",
                "price",
                "currency",
                "stock",
                "ean",
                "url",
                "weight",
                "updated_at",
                "Farbe",
                "Watt",
            ],
        );
        let texts = ["00123", "Lamp", "A lamp\nof two lines", "Lux", "Light"];
        sheet.write_row(1, 0, texts).unwrap();
        sheet.write(1, 5, 1_118.270_000_000_000_1).unwrap();
        sheet.write(1, 6, "EUR").unwrap();
        sheet.write(1, 7, 7).unwrap();
        sheet.write(1, 8, 4_006_381_333_931_i64).unwrap();
        sheet.write(1, 9, "https://example.com/1").unwrap();
        sheet.write(1, 10, 0.25).unwrap();
        let moment = ExcelDateTime::parse_from_str("2026-01-31T14:30:00").unwrap();
        let format = CellFormat::new().set_num_format("dd.mm.yyyy hh:mm");
        sheet.write_with_format(1, 11, &moment, &format).unwrap();
        sheet.write(1, 12, "\u{a0}rot ").unwrap();
        sheet.write(1, 13, 40).unwrap();
    });
    let row = &found.rows[0];
    assert_eq!(
        (row.row_no, row.code.as_str(), row.name.as_str()),
        (2, "00123", "Lamp")
    );
    assert_eq!(row.description.as_deref(), Some("A lamp\nof two lines"));
    assert_eq!(row.price.unwrap().to_string(), "1118.27");
    assert_eq!((row.stock, row.currency.as_deref()), (Some(7), Some("EUR")));
    assert_eq!(row.ean.as_deref(), Some("4006381333931"));
    assert_eq!(row.weight.unwrap().to_string(), "0.25");
    assert_eq!(row.updated_at.unwrap().to_string(), "2026-01-31 14:30:00");
    let attributes = serde_json::json!({"Farbe": "rot", "Watt": 40});
    assert_eq!(serde_json::json!(row.attributes), attributes);
}

#[test]
fn codes_in_number_cells() {
    let found = with_sheet(|sheet| {
        headers(sheet, &["code", "name"]);
        let zeros = CellFormat::new().set_num_format("00000");
        let long = CellFormat::new().set_num_format("0000000000000");
        sheet.write(1, 0, 123).unwrap();
        sheet.write_with_format(2, 0, 123, &zeros).unwrap();
        sheet.write(3, 0, 7.92e12).unwrap();
        sheet
            .write_with_format(4, 0, 6_381_333_931_i64, &long)
            .unwrap();
        sheet.write(5, 0, 1e16).unwrap();
        sheet
            .write_with_format(
                6,
                0,
                45_000,
                &CellFormat::new().set_num_format("yyyy-mm-dd"),
            )
            .unwrap();
        for row in 1..=6 {
            sheet.write(row, 1, "x").unwrap();
        }
    });
    assert_eq!(
        found.codes(),
        ["123", "00123", "7920000000000", "0006381333931"]
    );
    assert_eq!(
        found.faults(),
        [(6, "code", "precision_lost"), (7, "code", "date_in_code")]
    );
}

#[test]
fn every_sort_of_row_error() {
    let found = with_sheet(|sheet| {
        headers(
            sheet,
            &[
                "code",
                "name",
                "price",
                "stock",
                "ean",
                "updated_at",
                "weight",
                "note",
            ],
        );
        let rows = [
            ("", "no code"),
            ("A1", ""),
            ("A2", "x"),
            ("A3", "x"),
            ("A4", "x"),
            ("A5", "x"),
            ("A6", "x"),
            ("7.92E+12", "x"),
            ("A8", "x"),
            ("A9", "x"),
            ("A10", "x"),
            ("A11", "x"),
            ("GOOD", "x"),
            ("GOOD", "twice"),
            ("A1", "the first was bad"),
        ];
        for (row, (code, name)) in (1..).zip(rows) {
            sheet.write(row, 0, code).unwrap();
            sheet.write(row, 1, name).unwrap();
        }
        sheet.write(3, 2, "1.234,56 €").unwrap();
        sheet.write(4, 2, -1).unwrap();
        sheet.write(5, 3, 1.5).unwrap();
        sheet.write(6, 3, -1).unwrap();
        sheet.write(7, 4, "7.92E+12").unwrap();
        sheet.write(9, 5, "2026-02-30").unwrap();
        sheet.write(10, 2, 1e15).unwrap();
        sheet.write(11, 6, "heavy").unwrap();
        sheet.write(11, 5, 60).unwrap();
        let error = Formula::new("=NA()").set_result("#N/A");
        sheet.write_formula(12, 7, error).unwrap();
        sheet.write(20, 9, "a note beside the table").unwrap();
    });
    assert_eq!(found.codes(), ["GOOD"]);
    assert_eq!(
        found.faults(),
        [
            (2, "code", "required"),
            (3, "name", "required"),
            (4, "price", "invalid_number"),
            (5, "price", "negative_number"),
            (6, "stock", "not_whole_number"),
            (7, "stock", "negative_number"),
            (8, "ean", "precision_lost"),
            (9, "code", "precision_lost"),
            (10, "updated_at", "invalid_date"),
            (11, "price", "number_too_large"),
            (12, "updated_at", "invalid_date"),
            (12, "weight", "invalid_number"),
            (13, "note", "cell_error"),
            (15, "code", "duplicate_code"),
            (16, "code", "duplicate_code"),
        ]
    );
    assert_eq!((found.summary.n_rows, found.summary.n_bad), (15, 14));
}

#[test]
fn far_cells_and_styled_blank_rows_cost_nothing() {
    let found = with_sheet(|sheet| {
        headers(sheet, &["code", "name"]);
        sheet.write(1, 0, "A").unwrap();
        sheet.write(1, 1, "x").unwrap();
        let bold = CellFormat::new().set_bold();
        for row in 2..2000 {
            sheet.write_blank(row, 0, &bold).unwrap();
        }
        sheet.write(1_048_575, 16_383, "far").unwrap();
    });
    assert_eq!(found.codes(), ["A"]);
    assert_eq!(found.summary.last_row, 2);
}

#[test]
fn formulas_give_their_last_result() {
    let found = with_sheet(|sheet| {
        headers(sheet, &["code", "name", "price"]);
        sheet
            .write_formula(1, 0, Formula::new("=\"A\"&1").set_result("A1"))
            .unwrap();
        sheet.write(1, 1, "x").unwrap();
        sheet
            .write_formula(1, 2, Formula::new("=1+1.5").set_result("2.5"))
            .unwrap();
    });
    assert_eq!(found.codes(), ["A1"]);
    assert_eq!(found.rows[0].price.unwrap().to_string(), "2.5");
}

#[test]
fn rich_texts_are_joined_and_escapes_decoded() {
    let found = with_sheet(|sheet| {
        headers(sheet, &["code", "name", "description"]);
        sheet.write(1, 0, "A").unwrap();
        let (bold, plain) = (CellFormat::new().set_bold(), CellFormat::new());
        sheet
            .write_rich_string(1, 1, &[(&bold, "Lamp"), (&plain, " & shade")])
            .unwrap();
        sheet.write(1, 2, "one_x000D_two").unwrap();
    });
    assert_eq!(found.rows[0].name, "Lamp & shade");
    // the writer escapes the escape, so the text comes back as it was
    assert_eq!(found.rows[0].description.as_deref(), Some("one_x000D_two"));
}

#[test]
fn the_first_visible_sheet_with_headers_is_read() {
    let mut workbook = Workbook::new();
    workbook
        .add_worksheet()
        .set_name("Read me")
        .unwrap()
        .write(0, 0, "Hello")
        .unwrap();
    let mut hidden = Worksheet::new();
    hidden.set_name("Old").unwrap().set_hidden(true);
    headers(&mut hidden, &["code", "name"]);
    workbook.push_worksheet(hidden);
    let sheet = workbook
        .add_worksheet()
        .set_name("Products & more")
        .unwrap();
    sheet.write_row(3, 1, ["name", "code"]).unwrap();
    sheet.write_row(4, 1, ["x", "A"]).unwrap();
    let path = Files::new();
    let path_of = path.xlsx(&mut workbook);
    let (inspection, found) = read_all(&path_of, &Options::default()).unwrap();
    assert_eq!(inspection.sheet.as_deref(), Some("Products & more"));
    assert_eq!((inspection.header_row, found.rows[0].row_no), (4, 5));
    assert_eq!(count_rows(&path_of, &inspection), Some(1));
    assert_eq!(inspection.mapping.columns[0].letters(), "B");

    let old = Options {
        sheet: Some("Old".into()),
        ..Options::default()
    };
    assert_eq!(read_all(&path_of, &old).unwrap().1.summary.n_rows, 0);
    let none = Options {
        sheet: Some("New".into()),
        ..Options::default()
    };
    assert_eq!(
        inspect(&path_of, "", &none).unwrap_err().code,
        Refusal::NO_SUCH_SHEET
    );
}

#[test]
fn sheets_by_number_and_hidden_ones() {
    let mut workbook = Workbook::new();
    for (name, code) in [("One", "1"), ("Two", "2")] {
        let sheet = workbook.add_worksheet().set_name(name).unwrap();
        headers(sheet, &["code", "name"]);
        sheet.write_row(1, 0, [code, "x"]).unwrap();
    }
    workbook.worksheet_from_index(1).unwrap().set_active(true);
    workbook.worksheet_from_index(0).unwrap().set_hidden(true);
    let files = Files::new();
    let path = files.xlsx(&mut workbook);
    let codes = |options: Options| {
        let (_, found) = read_all(&path, &options)?;
        Ok::<_, Refusal>(found.rows[0].code.clone())
    };
    let numbered = |number| Options {
        sheet_number: Some(number),
        ..Options::default()
    };
    assert_eq!(codes(Options::default()), Ok("2".into()));
    assert_eq!(codes(numbered(1)), Ok("1".into()));
    assert_eq!(codes(numbered(2)), Ok("2".into()));
    for number in [0, 3] {
        let refusal = codes(numbered(number)).unwrap_err();
        assert_eq!(refusal.code, Refusal::NO_SUCH_SHEET);
    }
    let hidden = Options {
        include_hidden_sheets: true,
        ..Options::default()
    };
    assert_eq!(codes(hidden), Ok("1".into()));
    let names = list_sheets(&path, &Options::default()).unwrap();
    assert_eq!(names, [("One".to_owned(), false), ("Two".to_owned(), true)]);
}

#[test]
fn hidden_rows_are_read_or_passed_over_and_counted() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    headers(sheet, &["code", "name"]);
    for row in 1..5 {
        sheet
            .write_row(row, 0, [row.to_string(), "x".to_owned()])
            .unwrap();
    }
    sheet.set_row_hidden(2).unwrap();
    let files = Files::new();
    let path = files.xlsx(&mut workbook);
    let found = read_ok(&path);
    assert_eq!((found.codes().len(), found.summary.n_hidden), (4, 1));
    let skipping = Options {
        skip_hidden_rows: true,
        ..Options::default()
    };
    let found = read_all(&path, &skipping).unwrap().1;
    assert_eq!(found.codes(), ["1", "3", "4"]);
    assert_eq!((found.summary.n_rows, found.summary.n_hidden), (3, 1));
    let xls = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/ingest/product_import/fixtures/products.xls"
    ));
    let refusal = inspect(xls, "", &skipping).unwrap_err();
    assert_eq!(refusal.code, Refusal::HIDDEN_ROWS_UNKNOWN);
}

#[test]
fn dates_of_the_1904_epoch() {
    // the writer knows only the 1900 epoch, so its workbook is told otherwise
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet();
    headers(sheet, &["code", "name", "updated_at"]);
    sheet.write_row(1, 0, ["A", "x"]).unwrap();
    sheet.write(1, 2, 44_481).unwrap();
    let bytes = workbook.save_to_buffer().unwrap();
    let changed = damage::with_part(&bytes, "xl/workbook.xml", |xml| {
        String::from_utf8(xml)
            .unwrap()
            .replace("<workbookPr ", "<workbookPr date1904=\"1\" ")
            .into_bytes()
    });
    let found = read_ok(&Files::new().bytes(changed));
    assert_eq!(
        found.rows[0].updated_at.unwrap().to_string(),
        "2025-10-13 00:00:00"
    );
}

#[test]
fn inline_strings_are_strings() {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet_with_constant_memory().unwrap();
    headers(sheet, &["code", "name"]);
    sheet.write_row(1, 0, ["007", " Bond "]).unwrap();
    let files = Files::new();
    let found = read_ok(&files.xlsx(&mut workbook));
    assert_eq!(
        (found.codes(), found.rows[0].name.as_str()),
        (vec!["007"], "Bond")
    );
}
