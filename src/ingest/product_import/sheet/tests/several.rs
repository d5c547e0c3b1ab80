//! Several sheets in one import.

use rust_xlsxwriter::Worksheet;

use super::*;

/// A sheet of these rows.
fn sheet(name: &str, rows: &[&[&str]]) -> Worksheet {
    let mut sheet = Worksheet::new();
    sheet.set_name(name).unwrap();
    for (row, cells) in (0..).zip(rows) {
        sheet.write_row(row, 0, cells.iter().copied()).unwrap();
    }
    sheet
}

fn book(sheets: Vec<Worksheet>) -> Workbook {
    let mut book = Workbook::new();
    for sheet in sheets {
        book.push_worksheet(sheet);
    }
    book
}

fn with(sheets: &str) -> Options {
    Options {
        sheets: Some(Sheets::parse(sheets).unwrap()),
        ..Options::default()
    }
}

/// Two sheets with other headers in another order, one of notes, an empty one and a hidden one.
fn catalogue() -> Workbook {
    let mut hidden = sheet(
        "Old",
        &[&["code", "name"], &["O1", "old"], &["L1", "older"]],
    );
    hidden.set_hidden(true);
    book(vec![
        sheet(
            "Read me",
            &[&["Prices without VAT"], &["Artikel-Nr.", "see the others"]],
        ),
        sheet(
            "Lamps",
            &[
                &["Spring"],
                &["code", "name", "Watt"],
                &["L1", "Lamp", "40"],
                &["L2", "Bulb", "7"],
            ],
        ),
        sheet("Empty", &[]),
        hidden,
        sheet(
            "Kabel",
            &[
                &["Bezeichnung", "Farbe", "Artikelnr"],
                &["Cable", "red", "C1"],
                &["Lamp", "", "L1"],
            ],
        ),
    ])
}

/// Sheet, row number and code of every good row, and sheet and message of every error.
fn rows_of(path: &Path, inspection: &Inspection, options: &Options) -> (Vec<String>, Vec<String>) {
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    read(path, inspection, options, &mut |chunk| {
        let sheet = inspection.head(chunk.sheet).sheet.unwrap_or("-").to_owned();
        assert!(chunk.rows.len() <= options.chunk_rows as usize);
        let row = |row: &ProductRow| format!("{sheet} {} {}", row.row_no, row.code);
        rows.extend(chunk.rows.iter().map(row));
        let error = |error: &RowError| format!("{sheet} {} {}", error.row_no, error.message);
        errors.extend(chunk.errors.iter().map(error));
        ControlFlow::Continue(())
    })
    .unwrap();
    (rows, errors)
}

#[test]
fn each_sheet_has_its_own_header_row_and_duplicates_are_looked_for_across() {
    let files = Files::new();
    let path = files.xlsx(&mut catalogue());
    let options = with("all");
    let inspection = inspect(&path, "", &options).unwrap();
    let heads: Vec<_> = inspection
        .heads()
        .map(|it| (it.sheet, it.header_row))
        .collect();
    assert_eq!(heads, [(Some("Lamps"), 2), (Some("Kabel"), 1)]);
    assert_eq!(inspection.mapping.columns.len(), 3);
    let skipped = inspection.skipped.iter();
    let skipped: Vec<_> = skipped
        .map(|it| (it.sheet.as_str(), it.code.as_str()))
        .collect();
    assert_eq!(
        skipped,
        [
            ("Read me", Refusal::MISSING_HEADERS),
            ("Empty", Refusal::EMPTY_FILE),
            ("Old", SkippedSheet::HIDDEN)
        ]
    );
    assert!(
        inspection.skipped[0]
            .message
            .contains("missing required column")
    );
    assert!(inspection.rows_at_most >= Some(4));
    let (rows, errors) = rows_of(&path, &inspection, &options);
    assert_eq!(rows, ["Lamps 3 L1", "Lamps 4 L2", "Kabel 2 C1"]);
    assert_eq!(
        errors,
        ["Kabel 3 code \"L1\" is already in row 3 of sheet \"Lamps\"; the first one counts"]
    );
}

#[test]
fn rows_have_the_columns_of_their_sheet() {
    let files = Files::new();
    let path = files.xlsx(&mut catalogue());
    let (inspection, found) = read_all(&path, &with("all")).unwrap();
    assert!(inspection.is_of_several());
    let attributes = |at: usize| serde_json::json!(found.rows[at].attributes);
    assert_eq!(attributes(0), serde_json::json!({"Watt": "40"}));
    assert_eq!(attributes(2), serde_json::json!({"Farbe": "red"}));
    // each sheet by itself gives the same rows, hash and all
    for (name, row) in [("Lamps", 0), ("Kabel", 2)] {
        let alone = Options {
            sheet: Some(name.to_owned()),
            ..Options::default()
        };
        assert_eq!(read_all(&path, &alone).unwrap().1.rows[0], found.rows[row]);
    }
}

#[test]
fn sheets_are_listed_in_any_order_hidden_or_not() {
    let files = Files::new();
    let path = files.xlsx(&mut catalogue());
    let codes = |sheets: &str, hidden: bool| {
        let options = Options {
            include_hidden_sheets: hidden,
            ..with(sheets)
        };
        let inspection = inspect(&path, "", &options)?;
        Ok::<_, Refusal>(rows_of(&path, &inspection, &options).0)
    };
    let listed = codes("Kabel, 4", false).unwrap();
    assert_eq!(listed, ["Kabel 2 C1", "Kabel 3 L1", "Old 2 O1"]);
    let with_hidden = codes("all", true).unwrap();
    assert_eq!(
        with_hidden,
        ["Lamps 3 L1", "Lamps 4 L2", "Old 2 O1", "Kabel 2 C1"]
    );
    let refusal = codes("Lamps,Kables", false).unwrap_err();
    assert_eq!(refusal.code, Refusal::NO_SUCH_SHEET);
    assert!(
        refusal.message.contains("\"Kables\"") && refusal.message.contains("Kabel"),
        "{refusal}"
    );
    // without a header in any of them it is refused, about the one that was rather meant
    let refusal = codes("Empty,Read me", false).unwrap_err();
    assert_eq!(refusal.code, Refusal::MISSING_HEADERS);
}

#[test]
fn chunks_end_with_their_sheet_and_are_the_same_each_time() {
    let rows = |letter: char, n: usize| -> Vec<Vec<String>> {
        let head = vec!["code".to_owned(), "name".to_owned()];
        let rows = (1..=n).map(|i| vec![format!("{letter}{i}"), "x".to_owned()]);
        std::iter::once(head).chain(rows).collect()
    };
    let mut book = Workbook::new();
    for (letter, n) in [('A', 5), ('B', 1), ('C', 0), ('D', 4)] {
        let sheet = book.add_worksheet().set_name(letter.to_string()).unwrap();
        for (row, cells) in (0..).zip(rows(letter, n)) {
            sheet.write_row(row, 0, cells).unwrap();
        }
    }
    let files = Files::new();
    let path = files.xlsx(&mut book);
    let options = Options {
        chunk_rows: 2,
        ..with("all")
    };
    let inspection = inspect(&path, "", &options).unwrap();
    let mut chunks = Vec::new();
    let summary = read(&path, &inspection, &options, &mut |chunk| {
        chunks.push((chunk.seq, chunk.sheet, chunk.n_rows, chunk.last_row));
        ControlFlow::Continue(())
    });
    let expected = [
        (0, 0, 2, 3),
        (1, 0, 2, 5),
        (2, 0, 1, 6),
        (3, 1, 1, 2),
        (4, 3, 2, 3),
        (5, 3, 2, 5),
    ];
    assert_eq!(chunks, expected);
    assert_eq!(summary.unwrap().n_rows, 10);
    assert_eq!(inspection.rows_at_most, Some(10));
    // the fingerprint knows the other sheets, too
    let mut other = inspection.clone();
    other.more.pop();
    assert_ne!(
        inspection.fingerprint(&options),
        other.fingerprint(&options)
    );
    other.more.clear();
    let one = Inspection {
        skipped: Vec::new(),
        ..other.clone()
    };
    assert_eq!(other.fingerprint(&options), one.fingerprint(&options));
    // what ends the reading ends it in any sheet
    let mut n_chunks = 0;
    let stopped = read(&path, &inspection, &options, &mut |_| {
        n_chunks += 1;
        if n_chunks == 4 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(stopped.unwrap().stopped);
    assert_eq!(n_chunks, 4);
}

#[test]
fn an_inspection_that_was_stored_before_there_could_be_several_is_read() {
    let files = Files::new();
    let path = files.xlsx(&mut catalogue());
    let one = inspect(&path, "", &Options::default()).unwrap();
    let stored = serde_json::to_value(&one).unwrap();
    assert!(
        stored.get("more").is_none() && stored.get("skipped").is_none(),
        "{stored}"
    );
    assert_eq!(serde_json::from_value::<Inspection>(stored).unwrap(), one);
    let several = inspect(&path, "", &with("all")).unwrap();
    let stored = serde_json::to_value(&several).unwrap();
    assert_eq!(
        serde_json::from_value::<Inspection>(stored).unwrap(),
        several
    );
}

#[test]
fn the_limit_of_rows_holds_for_all_sheets_together() {
    let files = Files::new();
    let path = files.xlsx(&mut catalogue());
    let options = Options {
        max_rows: 3,
        ..with("all")
    };
    let refusal = read_all(&path, &options).unwrap_err();
    assert_eq!(refusal.code, Refusal::TOO_MANY_ROWS);
    assert!(refusal.message.contains("together"), "{refusal}");
}

#[test]
fn a_foreign_sheet_among_others_goes_to_the_other_reader() {
    // what the scanner declines in the middle of the second sheet
    let files = Files::new();
    let bytes = catalogue().save_to_buffer().unwrap();
    let changed = damage::with_part(&bytes, "xl/worksheets/sheet5.xml", |xml| {
        let mut xml = String::from_utf8(xml).unwrap();
        let at = xml.find("<row r=\"3\"").unwrap();
        xml.insert_str(at, "<!-- foreign -->");
        xml.into_bytes()
    });
    let path = files.bytes(changed);
    let options = with("all");
    let inspection = inspect(&path, "", &options).unwrap();
    let (rows, errors) = rows_of(&path, &inspection, &options);
    assert_eq!(rows, ["Lamps 3 L1", "Lamps 4 L2", "Kabel 2 C1"]);
    assert_eq!(errors.len(), 1);
}

#[test]
fn a_header_row_that_cannot_be_used_is_the_end_of_all() {
    let files = Files::new();
    let mut book = book(vec![
        sheet("Lamps", &[&["code", "name"], &["L1", "Lamp"]]),
        sheet(
            "Kabel",
            &[&["code", "name", "Name "], &["C1", "Cable", "x"]],
        ),
    ]);
    let path = files.xlsx(&mut book);
    let refusal = inspect(&path, "", &with("all")).unwrap_err();
    assert_eq!(refusal.code, Refusal::DUPLICATE_HEADERS);
    assert!(
        refusal.message.starts_with("sheet \"Kabel\": "),
        "{refusal}"
    );
    assert_eq!(read_ok(&path).codes(), ["L1"], "nobody asked for it");
}

#[test]
fn text_is_one_sheet() {
    let files = Files::new();
    let path = files.bytes("code,name\nA,a\n");
    let (inspection, found) = read_all(&path, &with("all")).unwrap();
    assert_eq!(
        (inspection.sheet.as_deref(), found.codes()),
        (None, vec!["A"])
    );
    assert!(!inspection.is_of_several());
    let refusal = inspect(&path, "", &with("A")).unwrap_err();
    assert_eq!(refusal.code, Refusal::NO_SUCH_SHEET);
}

#[test]
fn a_hundred_sheets_are_looked_at_and_no_more() {
    let files = Files::new();
    let of = |n_sheets: usize| {
        let empty = (1..n_sheets).map(|n| sheet(&format!("empty {n}"), &[]));
        let last = sheet("last", &[&["code", "name"], &["A", "x"]]);
        files.xlsx(&mut book(empty.chain([last]).collect()))
    };
    for options in [with("all"), Options::default()] {
        let (_, found) = read_all(&of(100), &options).unwrap();
        assert_eq!(found.codes(), ["A"]);
    }
    let refusal = read_all(&of(101), &with("all")).unwrap_err();
    assert_eq!(refusal.code, Refusal::NO_SUCH_SHEET);
    assert_eq!(refused(&of(101)).code, Refusal::EMPTY_FILE);
}

/// Of several sheets a row is known by sheet and number, which share a word.
#[test]
fn a_far_row_is_read_alone_and_refused_among_several_sheets() {
    let rows: &[&[&str]] = &[&["code", "name"], &["A", "x"]];
    let mut book = book(vec![sheet("near", rows), sheet("far", rows)]);
    let bytes = book.save_to_buffer().unwrap();
    let bytes = damage::with_part(&bytes, "xl/worksheets/sheet2.xml", |xml| {
        let xml = String::from_utf8(xml).unwrap();
        let far = xml.replace("r=\"2\"", "r=\"16777216\"");
        let far = far.replace("\"A2\"", "\"A16777216\"");
        far.replace("\"B2\"", "\"B16777216\"").into_bytes()
    });
    let files = Files::new();
    let path = files.bytes(bytes);
    let refusal = read_all(&path, &with("all")).unwrap_err();
    assert_eq!(refusal.code, Refusal::TOO_MANY_ROWS, "{refusal}");
    assert!(refusal.message.contains("by itself"), "{refusal}");
    let alone = Options {
        sheet: Some("far".to_owned()),
        ..Options::default()
    };
    let (_, found) = read_all(&path, &alone).unwrap();
    assert_eq!(found.rows[0].row_no, 16_777_216);
}
