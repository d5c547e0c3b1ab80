//! `OpenDocument` spreadsheets, by their XML.

use super::*;

fn document(sheet: &str) -> Vec<u8> {
    let content = format!(
        "<office:document-content><office:body><office:spreadsheet>\
         <table:table table:name=\"S\">{sheet}</table:table>\
         </office:spreadsheet></office:body></office:document-content>"
    );
    with_content(content.as_bytes())
}

fn with_content(content: &[u8]) -> Vec<u8> {
    zipped(&[
        (
            "mimetype",
            b"application/vnd.oasis.opendocument.spreadsheet",
        ),
        ("content.xml", content),
    ])
}

/// Adds the part that says what wrote the document.
fn with_meta(document: &[u8], meta: &[u8]) -> Vec<u8> {
    let mut archive = zip::ZipWriter::new_append(std::io::Cursor::new(document.to_vec())).unwrap();
    let options = zip::write::SimpleFileOptions::default();
    archive.start_file("meta.xml", options).unwrap();
    archive.write_all(meta).unwrap();
    archive.finish().unwrap().into_inner()
}

fn text(value: &str) -> String {
    format!(
        "<table:table-cell office:value-type=\"string\"><text:p>{value}</text:p></table:table-cell>"
    )
}

fn row(cells: &[String]) -> String {
    format!("<table:table-row>{}</table:table-row>", cells.concat())
}

fn read_sheet(rows: &str) -> ReadFile {
    let headers = row(&["code", "name", "price", "note"].map(text));
    read_ok(&Files::new().bytes(document(&format!("{headers}{rows}"))))
}

#[test]
fn texts_with_layout() {
    let name = "a &amp; b<text:s text:c=\"3\"/>c<text:tab/>d</text:p><text:p><text:span>e</text:span><text:line-break/>f&#x20ac;";
    let found = read_sheet(&row(&[text("1"), text(name)]));
    assert_eq!(found.rows[0].name, "a & b   c\td\ne\nf€");
}

#[test]
fn annotations_are_no_text() {
    let name = "<table:table-cell office:value-type=\"string\"><office:annotation><text:p>by me</text:p></office:annotation><text:p>Lamp</text:p></table:table-cell>";
    let found = read_sheet(&row(&[text("1"), name.to_owned()]));
    assert_eq!(found.rows[0].name, "Lamp");
}

/// How a word is read aloud, and what lies over the cell.
#[test]
fn what_stands_beside_a_text_is_no_part_of_it() {
    let name = "<text:ruby><text:ruby-base>東京</text:ruby-base>\
        <text:ruby-text>とうきょう</text:ruby-text></text:ruby>タワー";
    let shape = "<draw:frame><draw:text-box><text:p>New!</text:p></draw:text-box></draw:frame>\
        <draw:frame><draw:image><text:p/></draw:image></draw:frame>";
    let shape = format!(
        "<table:table-cell office:value-type=\"string\">{shape}<text:p>Lamp</text:p></table:table-cell>"
    );
    let found = read_sheet(&(row(&[text("1"), text(name)]) + &row(&[text("2"), shape])));
    assert_eq!(found.rows[0].name, "東京タワー");
    assert_eq!(found.rows[1].name, "Lamp");
}

#[test]
fn a_table_inside_a_cell_ends_neither_the_cell_nor_the_sheet() {
    let inner = format!(
        "<table:table table:name=\"T\" table:is-sub-table=\"true\">{}{}</table:table>",
        row(&["X", "inside"].map(text)),
        row(&["Y", "inside"].map(text)),
    );
    let cell = format!(
        "<table:table-cell table:number-rows-spanned=\"2\">{inner}<text:p>below</text:p></table:table-cell>"
    );
    let rows = [
        row(&["A", "a"].map(text)),
        row(&[text("B"), text("b"), text("1"), cell]),
        row(&["C", "c"].map(text)),
    ];
    let headers = row(&["code", "name", "price", "note"].map(text));
    let files = Files::new();
    let path = files.bytes(document(&(headers + &rows.concat())));
    assert_eq!(list_sheets(&path, &Options::default()).unwrap().len(), 1);
    let filled = Options {
        merged_cells: MergedCells::Fill,
        ..Options::default()
    };
    for options in [Options::default(), filled] {
        let found = read_all(&path, &options).unwrap().1;
        assert_eq!(found.codes(), ["A", "B", "C"]);
        let note = serde_json::json!(found.rows[1].attributes);
        assert_eq!(note, serde_json::json!({"note": "below"}));
    }
}

#[test]
fn rows_of_blanks_to_the_end_of_the_sheet_are_none() {
    let blanks = format!(
        "<table:table-row table:number-rows-repeated=\"1048000\">{}</table:table-row>",
        ["<text:s/>", "\u{a0}", " "].map(text).concat()
    );
    let found = read_sheet(&(row(&["A", "a"].map(text)) + &blanks));
    assert_eq!((found.codes(), found.summary.last_row), (vec!["A"], 2));
    assert_eq!(found.faults(), []);
}

#[test]
fn values_of_every_kind() {
    let cell = |attributes: &str| {
        format!("<table:table-cell {attributes}><text:p>shown</text:p></table:table-cell>")
    };
    let rows = [
        row(&[
            cell("office:value-type=\"float\" office:value=\"123\""),
            text("float"),
            cell("office:value-type=\"currency\" office:value=\"1.5\""),
        ]),
        row(&[
            text("B"),
            text("percentage"),
            cell("office:value-type=\"percentage\" office:value=\"0.25\""),
        ]),
        row(&[
            text("C"),
            text("boolean"),
            text(""),
            cell("office:value-type=\"boolean\" office:boolean-value=\"true\""),
        ]),
        row(&[
            text("D"),
            text("date"),
            text(""),
            cell("office:value-type=\"date\" office:date-value=\"2026-01-31\""),
        ]),
        row(&[
            text("E"),
            text("time"),
            text(""),
            cell("office:value-type=\"time\" office:time-value=\"PT1H\""),
        ]),
        row(&[
            text("F"),
            cell("office:value-type=\"string\" office:string-value=\"said\""),
        ]),
        row(&[
            text("G"),
            text("error"),
            text(""),
            cell(
                "office:value-type=\"string\" office:string-value=\"\" calcext:value-type=\"error\"",
            ),
        ]),
    ];
    let found = read_sheet(&rows.concat());
    assert_eq!(found.codes(), ["123", "B", "C", "D", "E", "F"]);
    assert_eq!(found.rows[1].price.unwrap().to_string(), "0.25");
    assert_eq!(found.rows[5].name, "said");
    assert_eq!(found.faults(), [(8, "note", "cell_error")]);
}

#[test]
fn repeated_cells_and_rows() {
    let blanks = "<table:table-row table:number-rows-repeated=\"1000000\"><table:table-cell table:number-columns-repeated=\"16384\"/></table:table-row>";
    let repeated = "<table:table-cell table:number-columns-repeated=\"2\" office:value-type=\"string\"><text:p>x</text:p></table:table-cell>";
    let twice =
        format!("<table:table-row table:number-rows-repeated=\"2\">{repeated}</table:table-row>");
    let found = read_sheet(&format!("{blanks}{twice}{blanks}"));
    assert_eq!(
        (found.rows[0].row_no, found.rows[0].name.as_str()),
        (1_000_002, "x")
    );
    assert_eq!(found.faults(), [(1_000_003, "code", "duplicate_code")]);
}

#[test]
fn counts_that_would_fill_the_memory_do_not() {
    let spaces = "a<text:s text:c=\"4000000000\"/>b";
    let wide = format!(
        "<table:table-cell table:number-columns-repeated=\"4000000000\" office:value-type=\"string\"><text:p>{}</text:p></table:table-cell>",
        "x".repeat(30_000)
    );
    let found = read_sheet(&row(&[text("1"), text("n"), text(""), text(spaces), wide]));
    assert_eq!(found.rows[0].name, "n");
    let many = "<table:table-row table:number-rows-repeated=\"4000000000\">".to_owned()
        + &text("1")
        + &text("x")
        + "</table:table-row>";
    let headers = row(&["code", "name"].map(text));
    let options = Options {
        max_rows: 1000,
        ..Options::default()
    };
    let path = Files::new();
    let refusal = read_all(&path.bytes(document(&(headers + &many))), &options).unwrap_err();
    assert_eq!(refusal.code, Refusal::ARCHIVE_LIMITS);
}

#[test]
fn numbers_as_they_are_shown_and_formulas_that_are_not() {
    let number = |value: &str, shown: &str| {
        format!(
            "<table:table-cell office:value-type=\"float\" office:value=\"{value}\">\
             <text:p>{shown}</text:p></table:table-cell>"
        )
    };
    let formula = |rest: &str| format!("<table:table-cell table:formula=\"of:=2+3\"{rest}/>");
    let empty = " office:value-type=\"string\" office:string-value=\"\"";
    let found = read_sheet(
        &[
            row(&[
                number("123", "00123"),
                text("a"),
                text(""),
                number("7", "7"),
            ]),
            row(&[number("12", "012.0"), text("b"), text(""), formula(empty)]),
            row(&[
                text("C"),
                text("c"),
                formula(""),
                formula(" office:value-type=\"float\""),
            ]),
            row(&[text("D"), formula(""), text(""), text("")]),
        ]
        .concat(),
    );
    assert_eq!(found.codes(), ["00123", "12"]);
    let faults = [
        (4, "price", "formula_without_value"),
        (4, "note", "formula_without_value"),
        (5, "name", "formula_without_value"),
    ];
    assert_eq!(found.faults(), faults);
}

/// `LibreOffice` writes a formula that comes to an empty text without any value.
#[test]
fn an_empty_result_is_one_of_a_program_that_calculates() {
    let formula =
        |rest: &str| format!("<table:table-cell table:formula=\"of:=IF(1;&quot;&quot;)\"{rest}/>");
    let rows = [
        row(&["code", "name", "price", "note"].map(text)),
        row(&[text("A"), text("a"), text("1"), formula("")]),
        row(&[
            text("B"),
            text("b"),
            formula(" office:value-type=\"float\""),
            text(""),
        ]),
    ];
    let content = document(&rows.concat());
    let faults = |generator: &str| {
        let meta = format!(
            "<office:document-meta><office:meta><dc:title>LibreOffice</dc:title>\
             <meta:generator>{generator}</meta:generator></office:meta></office:document-meta>"
        );
        let bytes = with_meta(&content, meta.as_bytes());
        read_ok(&Files::new().bytes(bytes)).faults().len()
    };
    assert_eq!(
        faults("LibreOffice/7.4.7.2$Linux_X86_64 LibreOffice_project/40"),
        1
    );
    assert_eq!(
        faults("OpenOffice/4.1.15$Win32 OpenOffice.org_project/4115m2"),
        1
    );
    assert_eq!(faults("ODFPY/1.4.1"), 2);
    assert_eq!(
        read_ok(&Files::new().bytes(content.clone())).faults().len(),
        2
    );
}

#[test]
fn a_tag_within_a_tag_is_no_document() {
    let rows = [row(&["A", "a"].map(text)), row(&["B", "b"].map(text))].concat();
    let headers = row(&["code", "name"].map(text));
    let broken =
        format!("{headers}{rows}").replacen("<table:table-row>", "<table:table-row a=\"", 2);
    let refusal = refused(&Files::new().bytes(document(&broken)));
    assert!(
        refusal.message.contains("a tag begins within another"),
        "{refusal}"
    );
}

#[test]
fn a_table_that_never_ends() {
    for cut in [
        "<table:table table:name=\"S\">",
        "<table:table table:name=\"S\"><table:table-row>",
        "<table:table table:name=\"S\"><table:table-row><table:table-cell>",
        "<table:table table:name=\"S\"><table:table-row><table:table-cell><office:annotation>",
    ] {
        let refusal = refused(&Files::new().bytes(with_content(cut.as_bytes())));
        assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT, "{cut}");
    }
}

#[test]
fn a_text_that_would_be_buffered_whole() {
    let rows = row(&[text(&"x".repeat(17 << 20))]);
    let refusal = refused(&Files::new().bytes(document(&rows)));
    assert_eq!(refusal.code, Refusal::INVALID_FILE_FORMAT);
}
