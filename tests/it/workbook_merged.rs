//! Merged cells of workbooks that the daemon reads in a process of its own.

use std::io::{Cursor, Read as _, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ingestd::ingest::product_import::row::ProductRow;
use ingestd::ingest::product_import::sheet::{self, MergedCells, Options, Refusal, Sheets};
use ingestd::testing::Database;
use rust_xlsxwriter::{Format, Workbook};

use super::{
    import::{accepted_as, finished},
    process::Daemon,
};

#[path = "../../src/ingest/product_import/sheet/tests/xlsb.rs"]
mod xlsb;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/ingest/product_import/fixtures")
        .join(name)
}

/// Reads all sheets of a file, by a child where it is no xlsx of the usual dialect.
fn read(path: &Path, merged_cells: MergedCells) -> Result<Vec<ProductRow>, Refusal> {
    sheet::read_in_children(env!("CARGO_BIN_EXE_ingestd"));
    let options = Options {
        merged_cells,
        sheets: Some(Sheets::All),
        ..Options::default()
    };
    let inspection = sheet::inspect(path, "", &options)?;
    let mut rows = Vec::new();
    sheet::read(path, &inspection, &options, &mut |chunk| {
        rows.extend(chunk.rows);
        ControlFlow::Continue(())
    })?;
    Ok(rows)
}

fn filled(path: &Path) -> Vec<ProductRow> {
    read(path, MergedCells::Fill).unwrap()
}

/// Number, code, name and category of each row.
fn shown(rows: &[ProductRow]) -> Vec<String> {
    let shown = rows.iter().map(|row| {
        let category = row.category.as_deref().unwrap_or("-");
        format!("{} {} {} {category}", row.row_no, row.code, row.name)
    });
    shown.collect()
}

/// The workbook of `fixtures/catalogue.*`, as another program writes it as xlsx.
fn catalogue() -> Vec<u8> {
    let mut book = Workbook::new();
    let plain = Format::new();
    let lamps = book.add_worksheet().set_name("Lampen").unwrap();
    lamps.merge_range(0, 0, 0, 2, "Katalog", &plain).unwrap();
    let head = ["Warengruppe", "Artikel-Nr.", "Bezeichnung"];
    lamps.write_row(1, 0, head).unwrap();
    lamps.merge_range(2, 0, 4, 0, "Leuchten", &plain).unwrap();
    lamps.write_row(2, 1, ["L1", "Lampe"]).unwrap();
    lamps.write_row(3, 1, ["L2", "Birne"]).unwrap();
    lamps.write(4, 1, "L3").unwrap();
    lamps.merge_range(4, 2, 4, 3, "Strahler", &plain).unwrap();
    for (column, text) in [(0, "Zubehör"), (1, "L4"), (2, "Halter")] {
        lamps
            .merge_range(5, column, 6, column, text, &plain)
            .unwrap();
    }
    let cables = book.add_worksheet().set_name("Kabel").unwrap();
    cables.write_row(0, 0, ["code", "name", "Farbe"]).unwrap();
    cables.write_row(1, 0, ["K1", "Kabel"]).unwrap();
    cables.merge_range(1, 2, 2, 2, "rot", &plain).unwrap();
    cables.write_row(2, 0, ["K2", "Litze"]).unwrap();
    cables.write_row(3, 0, ["L1", "doppelt"]).unwrap();
    book.save_to_buffer().unwrap()
}

/// Changes one part of an archive by putting a text before another, which is in it.
fn with_text(archive: &[u8], part: &str, before: &str, text: &str) -> Vec<u8> {
    let mut from = zip::ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut to = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for index in 0..from.len() {
        let mut entry = from.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut content = String::new();
        entry.read_to_string(&mut content).unwrap();
        if name == part {
            content.insert_str(content.find(before).unwrap(), text);
        }
        let options = zip::write::SimpleFileOptions::default();
        to.start_file(name, options).unwrap();
        to.write_all(content.as_bytes()).unwrap();
    }
    to.finish().unwrap().into_inner()
}

/// The catalogue in files that the scanner leaves to a child: as a whole, for its texts, and from
/// one row on, within a merged range and behind it.
fn foreign() -> impl Iterator<Item = Vec<u8>> {
    let places = [
        ("xl/sharedStrings.xml", "<si>"),
        ("xl/worksheets/sheet1.xml", "<row r=\"3\""),
        ("xl/worksheets/sheet1.xml", "<row r=\"4\""),
        ("xl/worksheets/sheet1.xml", "<row r=\"5\""),
        ("xl/worksheets/sheet1.xml", "<row r=\"7\""),
        ("xl/worksheets/sheet2.xml", "<row r=\"3\""),
    ];
    let catalogue = catalogue();
    places
        .into_iter()
        .map(move |(part, before)| with_text(&catalogue, part, before, "<!-- foreign -->"))
}

#[test]
fn a_child_fills_them_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("catalogue.xlsx");
    std::fs::write(&path, catalogue()).unwrap();
    let expected = filled(&path);
    assert_eq!(
        shown(&expected),
        [
            "3 L1 Lampe Leuchten",
            "4 L2 Birne Leuchten",
            "5 L3 Strahler Leuchten",
            "6 L4 Halter Zubehör",
            "2 K1 Kabel -",
            "3 K2 Litze -",
        ]
    );
    let colours = expected[4..].iter().map(|row| &row.attributes);
    let colours: Vec<_> = colours.map(|it| serde_json::json!(it)).collect();
    assert_eq!(colours, vec![serde_json::json!({ "Farbe": "rot" }); 2]);
    for name in ["catalogue.xls", "catalogue.ods"] {
        assert_eq!(filled(&fixture(name)), expected, "{name}");
        let first = read(&fixture(name), MergedCells::First).unwrap();
        let with_category = first.iter().filter(|row| row.category.is_some());
        assert_eq!(with_category.count(), 2, "{name}");
    }
    for (place, bytes) in foreign().enumerate() {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(filled(&path), expected, "foreign place {place}");
    }
    let path = folder.path().join("products.xlsb");
    std::fs::write(&path, xlsb::workbook()).unwrap();
    let stocks = |rows: Vec<ProductRow>| rows.iter().map(|row| row.stock).collect::<Vec<_>>();
    let first = read(&path, MergedCells::First).unwrap();
    assert_eq!(stocks(first), [Some(7), None]);
    assert_eq!(stocks(filled(&path)), [Some(7), Some(7)]);
}

/// An ods of three columns and so many rows, of which the category of each spans so many rows.
fn spans(n_rows: usize, n_spanned: usize) -> Vec<u8> {
    let cell = |text: &str, spanned: usize| {
        format!(
            "<table:table-cell office:value-type=\"string\" \
             table:number-rows-spanned=\"{spanned}\"><text:p>{text}</text:p></table:table-cell>"
        )
    };
    let row = |cells: [String; 3]| format!("<table:table-row>{}</table:table-row>", cells.concat());
    let head = row(["code", "name", "category"].map(|text| cell(text, 1)));
    let rows = (0..n_rows).map(|n| {
        let code = cell(&format!("C{n}"), 1);
        row([code, cell("x", 1), cell(&format!("of {n}"), n_spanned)])
    });
    let content = format!(
        "<office:document-content><office:body><office:spreadsheet><table:table table:name=\"S\">\
         {head}{}</table:table></office:spreadsheet></office:body></office:document-content>",
        rows.collect::<String>()
    );
    xlsb::zipped(&[
        (
            "mimetype",
            b"application/vnd.oasis.opendocument.spreadsheet",
        ),
        ("content.xml", content.as_bytes()),
    ])
}

#[test]
fn what_a_child_says_of_ranges_is_said_here() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("spans.ods");
    for (bytes, words) in [
        (spans(3, 2), "the merged range C3:C4 overlaps another"),
        (spans(100_001, 2), "more than 100000 merged ranges"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let refusal = read(&path, MergedCells::Fill).unwrap_err();
        assert_eq!(refusal.code, Refusal::MERGED_CELLS, "{refusal}");
        assert!(refusal.message.contains(words), "{refusal}");
        assert!(refusal.message.contains("merged_cells=first"), "{refusal}");
    }
}

#[tokio::test]
async fn an_import_fills_them_whatever_the_format() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), &[]).await;
    let fixture = |name| std::fs::read(fixture(name)).unwrap();
    // what the first one wrote is what the others would write
    for (name, bytes, counted) in [
        ("a.xlsx", catalogue(), "createdCount"),
        ("b.xlsx", foreign().next().unwrap(), "unchangedCount"),
        ("c.xls", fixture("catalogue.xls"), "unchangedCount"),
        ("d.ods", fixture("catalogue.ods"), "unchangedCount"),
    ] {
        let job = accepted_as(&daemon, name, bytes, "sheets=all&merged_cells=fill").await;
        let done = finished(&daemon, job).await;
        assert_eq!(done["status"], "completed", "{name}: {done}");
        assert_eq!(done["results"][counted], 6, "{name}: {done}");
    }
    let told: String = sqlx::query_scalar(
        "SELECT string_agg(concat_ws(' ', code, name, category, attributes ->> 'Farbe'), '; '
            ORDER BY code) FROM catalog.products",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(
        told,
        "K1 Kabel rot; K2 Litze rot; L1 Lampe Leuchten; L2 Birne Leuchten; \
         L3 Strahler Leuchten; L4 Halter Zubehör"
    );
}
