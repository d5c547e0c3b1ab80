//! Several sheets in one import, through the front door and the command line.

use std::path::Path;

use ingestd::testing::Database;
use rust_xlsxwriter::{Workbook, Worksheet};
use serde_json::{Value, json};
use sqlx::PgPool;

use super::{
    import::{accepted_as, count, finished, upload_as},
    process::{Daemon, until},
};

async fn world(settings: &[(&str, &str)]) -> (Database, tempfile::TempDir, Daemon) {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), settings).await;
    (db, storage, daemon)
}

fn sheet(name: &str, rows: &[&[&str]]) -> Worksheet {
    let mut sheet = Worksheet::new();
    sheet.set_name(name).unwrap();
    for (row, cells) in (0..).zip(rows) {
        sheet.write_row(row, 0, cells.iter().copied()).unwrap();
    }
    sheet
}

fn book(sheets: Vec<Worksheet>) -> Vec<u8> {
    let mut book = Workbook::new();
    for sheet in sheets {
        book.push_worksheet(sheet);
    }
    book.save_to_buffer().unwrap()
}

/// Bad rows of one number in two sheets, a code in both of them, and a sheet that is no table.
fn catalogue() -> Vec<u8> {
    book(vec![
        sheet("Read me", &[&["Prices without VAT"]]),
        sheet(
            "Lamps",
            &[
                &["SKU", "Name", "Price", "Watt"],
                &["L1", "Lamp", "10", "40"],
                &["L2", "Bulb", "x", "=7"],
                &["L3", "Tube", "30", "9"],
            ],
        ),
        sheet(
            "Kabel",
            &[
                &["Bezeichnung", "Farbe", "code", "sku"],
                &["Cable", "red", "C1", "c"],
                &["", "blue", "C2", "d"],
                &["Lamp", "white", "L1", "e"],
            ],
        ),
    ])
}

async fn told(pool: &PgPool, sql: &'static str, id: i64) -> String {
    let told: Option<String> = sqlx::query_scalar(sql)
        .bind(id)
        .fetch_one(pool)
        .await
        .unwrap();
    told.unwrap_or_default()
}

/// Sheet, row and reason of each error.
const ERRORS: &str = "SELECT string_agg(concat_ws(' ', sheet, row_no, column_name, code), '; '
    ORDER BY sheet DESC, row_no) FROM catalog.import_errors WHERE import_id = $1";

async fn download(daemon: &Daemon, path: &str) -> String {
    let answer = reqwest::get(daemon.url(path)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    text.trim_start_matches('\u{feff}').replace("\r\n", "\n")
}

#[tokio::test]
async fn every_sheet_is_imported_and_told_by_name() {
    let (db, _storage, daemon) = world(&[]).await;
    let (code, body) = upload_as(&daemon, "all.xlsx", catalogue(), "sheets=all").await;
    assert_eq!(code, 202, "{body}");
    assert_eq!(body["data"]["sheets"], json!(["Lamps", "Kabel"]));
    assert_eq!(body["data"]["skippedSheets"][0]["sheet"], "Read me");
    assert_eq!(body["data"]["skippedSheets"][0]["code"], "missing_headers");
    let job = body["data"]["jobId"].as_i64().unwrap();
    let done = finished(&daemon, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    let results = &done["results"];
    let figures = ["totalRows", "successCount", "errorCount"].map(|name| results[name].as_i64());
    assert_eq!(figures, [Some(6), Some(3), Some(3)], "{done}");
    let tally = |sheet: &str, success: i64, errors: i64| {
        json!({ "sheet": sheet, "headerRow": 1, "totalRows": 3, "successCount": success,
                "errorCount": errors })
    };
    assert_eq!(
        done["sheets"],
        json!([tally("Lamps", 2, 1), tally("Kabel", 1, 2)])
    );
    assert_eq!(done["skippedSheets"][0]["sheet"], "Read me");
    let errors = told(db.pool(), ERRORS, job).await;
    assert_eq!(
        errors,
        "Lamps 3 Price invalid_number; Kabel 3 Bezeichnung required; Kabel 4 code duplicate_code"
    );
    let named = results["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["sheet"].clone());
    assert!(named.eq(["Lamps", "Kabel", "Kabel"]), "{done}");
    let page = reqwest::get(daemon.url(&format!("/imports/{job}")))
        .await
        .unwrap();
    let page = page.text().await.unwrap();
    for words in [
        "<th scope=\"row\">Kabel</th>",
        "Sheet Read me was not read: missing",
        "<td>Lamps</td>",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    // a column that a sheet has not changes nothing
    let colours = "SELECT string_agg(concat_ws(' ', code, attributes), '; ' ORDER BY code)
        FROM catalog.products WHERE import_id = $1";
    let colours = told(db.pool(), colours, job).await;
    let expected = r#"C1 {"sku": "c", "Farbe": "red"}; L1 {"Watt": "40"}; L3 {"Watt": "9"}"#;
    assert_eq!(colours, expected);
}

#[tokio::test]
async fn what_is_passed_over_is_told_unless_it_was_asked_for() {
    let (_db, _storage, daemon) = world(&[]).await;
    let mut lamps = sheet("Lamps", &[&["code", "name"], &["L1", "Lamp"], &["L2", "B"]]);
    lamps.set_row_hidden(2).unwrap();
    let mut old = sheet("Old", &[&["code", "name"], &["O1", "old"]]);
    old.set_hidden(true);
    let notes = sheet("Read me", &[&["Prices without VAT"]]);
    let cables = sheet("Kabel", &[&["code", "name"], &["C1", "Cable"]]);
    let file = book(vec![notes, old, lamps, cables]);
    let (code, body) = upload_as(&daemon, "some.xlsx", file.clone(), "").await;
    assert_eq!(code, 202, "{body}");
    assert_eq!(body["data"]["sheets"], json!(["Lamps"]));
    let codes = |of: &Value| {
        let sheets = of["skippedSheets"].as_array().cloned().unwrap_or_default();
        let code = |it: &Value| format!("{} {}", it["sheet"], it["code"]).replace('"', "");
        sheets.iter().map(code).collect::<Vec<_>>()
    };
    let expected = [
        "Read me missing_headers",
        "Kabel further_sheet",
        "Old hidden_sheet",
    ];
    assert_eq!(codes(&body["data"]), expected);
    let job = body["data"]["jobId"].as_i64().unwrap();
    let done = finished(&daemon, job).await;
    assert_eq!(codes(&done), expected);
    assert!(
        done.get("sheets").is_none(),
        "one sheet is no several: {done}"
    );
    assert_eq!(done["results"]["totalRows"], 2);
    assert_eq!(done["results"]["hiddenRows"], 1, "{done}");
    let page = reqwest::get(daemon.url(&format!("/imports/{job}"))).await;
    let page = page.unwrap().text().await.unwrap();
    for words in [
        "Sheet Kabel was not read: only the first",
        "Rows hidden in the file: 1",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let (_, body) = upload_as(&daemon, "one.xlsx", file.clone(), "sheet=Kabel").await;
    let done = finished(&daemon, body["data"]["jobId"].as_i64().unwrap()).await;
    assert!(codes(&done).is_empty() && done["results"].get("hiddenRows").is_none());
    // what was left out by nobody's wish is no reason against archiving what the sheet lacks
    let query = "mode=replace_all&max_drop_percent=100";
    assert_eq!(upload_as(&daemon, "all.xlsx", file, query).await.0, 202);
}

#[tokio::test]
async fn rejected_rows_of_all_sheets_come_back_as_one_table() {
    let (db, _storage, daemon) = world(&[]).await;
    let job = accepted_as(&daemon, "all.xlsx", catalogue(), "sheets=all").await;
    finished(&daemon, job).await;
    let text = download(&daemon, &format!("/api/v1/import/{job}/errors.csv")).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "code,name,Price,Watt,Farbe,sku,import_sheet,import_error_row,import_error_columns,\
         import_error_codes,import_errors"
    );
    assert!(
        lines[1].starts_with("L2,Bulb,x,'=7,,,Lamps,3,Price,invalid_number,"),
        "{text}"
    );
    assert!(
        lines[2].starts_with("C2,,,,blue,d,Kabel,3,Bezeichnung,required,"),
        "{text}"
    );
    assert!(
        lines[3].starts_with("L1,Lamp,,,white,e,Kabel,4,code,duplicate_code,"),
        "{text}"
    );
    assert!(lines[3].contains("of sheet \"\"Lamps\"\""), "{text}");
    assert_eq!(lines.len(), 4);
    let results = download(&daemon, &format!("/api/v1/import/{job}/results.csv")).await;
    assert_eq!(
        results,
        "code,name,Price,Watt,Farbe,sku,import_sheet\nL1,Lamp,10,40,,,Lamps\n\
         L3,Tube,30,9,,,Lamps\nC1,Cable,,,red,c,Kabel\n"
    );

    let mended = text
        .replace(",x,", ",20,")
        .replace("C2,,", "C2,Wire,")
        .replace("L1,", "L9,");
    let again = accepted_as(&daemon, "mended.csv", mended.into(), "").await;
    let done = finished(&daemon, again).await;
    assert_eq!(done["results"]["createdCount"], 3, "{done}");
    let attributes = "SELECT attributes::text FROM catalog.products
        WHERE import_id = $1 AND code = 'L2'";
    assert_eq!(
        told(db.pool(), attributes, again).await,
        r#"{"Watt": "=7"}"#
    );
}

#[tokio::test]
async fn duplicates_across_sheets_are_settled_as_within_one() {
    let (db, _storage, daemon) = world(&[]).await;
    let job = accepted_as(
        &daemon,
        "all.xlsx",
        catalogue(),
        "sheets=all&duplicates=last_wins",
    )
    .await;
    finished(&daemon, job).await;
    let name = "SELECT attributes ->> 'Farbe' FROM catalog.products
        WHERE import_id = $1 AND code = 'L1'";
    assert_eq!(told(db.pool(), name, job).await, "white");
    let message = "SELECT message FROM catalog.import_errors
        WHERE import_id = $1 AND code = 'duplicate_code' AND sheet = 'Lamps' AND row_no = 2";
    let message = told(db.pool(), message, job).await;
    assert!(message.contains("row 4 of sheet \"Kabel\""), "{message}");

    let job = accepted_as(
        &daemon,
        "b.xlsx",
        catalogue(),
        "sheets=all&duplicates=reject",
    )
    .await;
    finished(&daemon, job).await;
    let errors = "SELECT string_agg(concat_ws(' ', sheet, row_no), '; ' ORDER BY sheet)
        FROM catalog.import_errors WHERE import_id = $1 AND code = 'duplicate_code'";
    assert_eq!(told(db.pool(), errors, job).await, "Kabel 4; Lamps 2");
}

#[tokio::test]
async fn replace_all_counts_every_sheet_and_no_sheet_is_left_out_in_silence() {
    let (db, _storage, daemon) = world(&[]).await;
    let head: &[&str] = &["code", "name"];
    let before = "code,name\nL1,a\nC1,b\nOLD,c\n";
    finished(
        &daemon,
        accepted_as(&daemon, "before.csv", before.into(), "").await,
    )
    .await;
    let replace = "sheets=all&mode=replace_all&max_drop_percent=50";
    let (code, body) = upload_as(&daemon, "all.xlsx", catalogue(), replace).await;
    assert_eq!(
        (code, &body["error"]["code"]),
        (400, &json!("unread_sheet")),
        "{body}"
    );
    assert!(
        body["message"].as_str().unwrap().contains("Read me"),
        "{body}"
    );
    // listed without it, or with an empty one, it goes
    let bytes = book(vec![
        sheet("Lamps", &[head, &["L1", "a"]]),
        sheet("Kabel", &[head, &["C1", "b"]]),
        sheet("Empty", &[]),
    ]);
    let job = accepted_as(&daemon, "two.xlsx", bytes, replace).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["results"]["archivedCount"], 1, "{done}");
    assert_eq!(done["results"]["unchangedCount"], 2, "{done}");
    let live = "SELECT string_agg(code, ' ' ORDER BY code) FROM catalog.products
        WHERE archived_at IS NULL AND $1 > 0";
    assert_eq!(told(db.pool(), live, job).await, "C1 L1");
}

#[tokio::test]
async fn a_dry_run_shows_rows_of_each_sheet() {
    let (db, _storage, daemon) = world(&[]).await;
    let before = "code,name\nL1,Lamp\n";
    finished(
        &daemon,
        accepted_as(&daemon, "before.csv", before.into(), "").await,
    )
    .await;
    let head: &[&str] = &["code", "name"];
    let bytes = book(vec![
        sheet("A", &[head, &["L1", "Lamp"], &["N1", "new"]]),
        // the bad row has the number of the unchanged one before it
        sheet("B", &[head, &["X", ""], &["N2", "new"]]),
    ]);
    let job = accepted_as(&daemon, "all.xlsx", bytes, "sheets=all&dry_run=true").await;
    let done = finished(&daemon, job).await;
    let preview = &done["results"]["preview"];
    let of = |sort: &str| -> Vec<String> {
        let rows = preview[sort].as_array().unwrap().iter();
        rows.map(|row| format!("{} {}", row["sheet"].as_str().unwrap(), row["row"]))
            .collect()
    };
    assert_eq!(of("new"), ["A 3", "B 3"], "{preview}");
    assert_eq!(of("unchanged"), ["A 2"], "{preview}");
    assert_eq!(of("rejected"), ["B 2"], "{preview}");
    assert_eq!(done["sheets"][1]["errorCount"], 1, "{done}");
    let written = "SELECT count(*) FROM catalog.products";
    assert_eq!(count(db.pool(), written).await, 1);
}

/// Two sheets of so many good rows each, with a bad one at the end of each, and a code in both.
fn large(n: u32) -> Vec<u8> {
    let mut book = Workbook::new();
    for letter in ["A", "B"] {
        let sheet = book.add_worksheet_with_constant_memory().unwrap();
        sheet.set_name(letter).unwrap();
        sheet.write_row(0, 0, ["code", "name", "price"]).unwrap();
        for row in 1..=n {
            sheet.write(row, 0, format!("{letter}{row:06}")).unwrap();
            sheet.write(row, 1, "x").unwrap();
            sheet.write(row, 2, row % 100).unwrap();
        }
        sheet
            .write_row(n + 1, 0, ["A000001", "again", "-1"])
            .unwrap();
    }
    book.save_to_buffer().unwrap()
}

async fn killed_in_the_second_sheet(storage: &Path, db: &Database, n: u32) -> i64 {
    let settings = [("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "300")];
    let mut first = Daemon::start(db.url(), storage, &settings).await;
    let job = accepted_as(&first, "large.xlsx", large(n), "sheets=all").await;
    until("the second sheet has begun", || async {
        let n = count(
            db.pool(),
            "SELECT count(*) FROM catalog.products WHERE code LIKE 'B%'",
        )
        .await;
        n > 0
    })
    .await;
    first.kill9();
    let state = "SELECT count(*) FROM ingestd.runs WHERE state = 'completed'";
    assert_eq!(count(db.pool(), state).await, 0, "killed too late");
    job
}

#[tokio::test]
async fn an_import_killed_in_its_second_sheet_goes_on_where_it_was() {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let n = 20_000;
    let job = killed_in_the_second_sheet(storage.path(), &db, n).await;
    let second = Daemon::start(
        db.url(),
        storage.path(),
        &[("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "300")],
    )
    .await;
    let done = finished(&second, job).await;
    assert_eq!(done["status"], "completed", "{done}");
    let n = i64::from(n);
    assert_eq!(done["results"]["createdCount"], 2 * n, "{done}");
    assert_eq!(done["results"]["errorCount"], 2, "{done}");
    assert_eq!(done["progress"]["total"], 2 * n + 2);
    for sheet in 0..2 {
        let tally = &done["sheets"][sheet];
        let counts = ["totalRows", "successCount", "errorCount"].map(|name| tally[name].as_i64());
        assert_eq!(counts, [Some(n + 1), Some(n), Some(1)], "{done}");
    }
    let products = "SELECT count(DISTINCT code) FROM catalog.products";
    assert_eq!(count(db.pool(), products).await, 2 * n);
    let errors = told(db.pool(), ERRORS, job).await;
    let row = n + 2;
    let each = |sheet: &str| {
        format!("{sheet} {row} code duplicate_code; {sheet} {row} price negative_number")
    };
    let sorted = |text: &str| {
        let mut parts: Vec<String> = text.split("; ").map(str::to_owned).collect();
        parts.sort();
        parts
    };
    assert_eq!(
        sorted(&errors),
        sorted(&format!("{}; {}", each("A"), each("B")))
    );
    let rejected = "SELECT string_agg(concat_ws(' ', sheet, row_no), '; ' ORDER BY sheet)
        FROM catalog.rejected_rows WHERE import_id = $1";
    assert_eq!(
        told(db.pool(), rejected, job).await,
        format!("A {row}; B {row}")
    );
}

#[tokio::test]
async fn what_several_sheets_brought_is_undone_as_a_whole() {
    let (db, _storage, daemon) = world(&[]).await;
    let job = accepted_as(&daemon, "all.xlsx", catalogue(), "sheets=all").await;
    finished(&daemon, job).await;
    let live = "SELECT count(*) FROM catalog.products WHERE archived_at IS NULL";
    assert_eq!(count(db.pool(), live).await, 3);
    let undo = reqwest::Client::new()
        .post(daemon.url(&format!("/api/v1/imports/{job}/rollback")))
        .send();
    let answer: Value = undo.await.unwrap().json().await.unwrap();
    until("it is undone", || async {
        count(db.pool(), live).await == 0
    })
    .await;
    assert!(answer["run_id"].as_i64().is_some(), "{answer}");
}
