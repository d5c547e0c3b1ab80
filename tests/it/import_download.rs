//! Rejected and imported rows to download, and rejected ones that come back mended.

use calamine::Reader as _;
use ingestd::testing::Database;
use serde_json::json;

use super::{
    import::{accepted_as, count, csv, finished},
    process::Daemon,
};

async fn world(settings: &[(&str, &str)]) -> (Database, tempfile::TempDir, Daemon) {
    let (db, storage) = (Database::create().await, tempfile::tempdir().unwrap());
    let daemon = Daemon::start(db.url(), storage.path(), settings).await;
    (db, storage, daemon)
}

async fn download(daemon: &Daemon, path: &str) -> (u16, String, Vec<u8>) {
    let answer = reqwest::get(daemon.url(path)).await.unwrap();
    let status = answer.status().as_u16();
    let name = answer.headers().get("content-disposition").cloned();
    let name = name.map_or_else(String::new, |name| name.to_str().unwrap().to_owned());
    (status, name, answer.bytes().await.unwrap().to_vec())
}

/// Bad rows of several sorts between good ones, in columns of several sorts.
const FILE: &str = "Code;Name;Price;Stock;Colour;Note\n\
    A1;good;1,50;3;red;\n\
    A2;bad price;abc;1;red;=1+1\n\
    -A3;two errors;x;y;;\"a \"\"quoted\"\"\nnote\"\n\
    A4;;-5;1;@green;-7\n\
    A1;seen before;2;1;;\n\
    A5;good;1.234,5;1;blue;\n";

#[tokio::test]
async fn rejected_rows_come_back_mended() {
    let (db, _storage, daemon) = world(&[]).await;
    let job = accepted_as(&daemon, "bad.csv", FILE.into(), "decimal=comma").await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["results"]["errorCount"], 4, "{done}");
    let path = format!("/api/v1/import/{job}/errors.csv");
    let (status, name, bytes) = download(&daemon, &path).await;
    assert_eq!(
        (status, name.as_str()),
        (200, "attachment; filename=\"bad.errors.csv\"")
    );
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.strip_prefix('\u{feff}').unwrap().split("\r\n");
    assert_eq!(
        lines.next().unwrap(),
        "Code,Name,Price,Stock,Colour,Note,import_error_row,import_error_columns,\
         import_error_codes,import_errors"
    );
    let second = lines.next().unwrap();
    assert!(
        second.starts_with("A2,bad price,abc,1,red,'=1+1,3,Price,invalid_number,"),
        "{second}"
    );
    let third = lines.next().unwrap();
    let start = "'-A3,two errors,x,y,,\"a \"\"quoted\"\"\nnote\",4,Price; Stock,invalid_number; invalid_number,";
    assert!(third.starts_with(start), "{third}");
    let fourth = lines.next().unwrap();
    assert!(
        fourth.starts_with("A4,,-5,1,'@green,-7,5,Name; Price,required; negative_number,"),
        "{fourth}"
    );
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("A1,seen before,2,1,,,6,Code,duplicate_code,")
    );

    // As it is it says the same again; mended it is imported, with the values as they were.
    let again = accepted_as(
        &daemon,
        "bad.errors.csv",
        text.clone().into(),
        "decimal=comma",
    )
    .await;
    assert_eq!(finished(&daemon, again).await["results"]["errorCount"], 3);
    let mended = text
        .replace(",abc,", ",7,")
        .replace(",x,y,", ",8,8,")
        .replace("A4,,-5,", "A4,named,5,")
        .replace("A1,seen", "A6,seen");
    let mended = accepted_as(&daemon, "mended.csv", mended.into(), "decimal=comma").await;
    let done = finished(&daemon, mended).await;
    assert_eq!(
        (
            &done["results"]["createdCount"],
            &done["results"]["errorCount"]
        ),
        (&json!(4), &json!(0)),
        "{done}"
    );
    let values: String = sqlx::query_scalar(
        "SELECT string_agg(concat_ws('|', code, attributes ->> 'Colour', attributes ->> 'Note'), ' ; '
           ORDER BY code) FROM catalog.products WHERE import_id = $1",
    )
    .bind(mended)
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(
        values,
        "-A3|a \"quoted\"\nnote ; A2|red|=1+1 ; A4|@green|-7 ; A6"
    );
    let error_columns =
        "SELECT count(*) FROM catalog.products WHERE attributes::text LIKE '%import_error%'";
    assert_eq!(count(db.pool(), error_columns).await, 0);
}

#[tokio::test]
async fn rejected_rows_are_a_workbook_that_can_be_imported() {
    let (db, _storage, daemon) = world(&[]).await;
    let job = accepted_as(&daemon, "bad.csv", FILE.into(), "decimal=comma").await;
    finished(&daemon, job).await;
    let (status, name, bytes) =
        download(&daemon, &format!("/api/v1/import/{job}/errors.xlsx")).await;
    assert_eq!(
        (status, name.as_str()),
        (200, "attachment; filename=\"bad.errors.xlsx\"")
    );
    let mut book = calamine::Xlsx::new(std::io::Cursor::new(bytes.clone())).unwrap();
    let range = book.worksheet_range("Rows 1").unwrap();
    let text = |row, column| range.get((row, column)).map(ToString::to_string);
    assert_eq!(text(0, 9).as_deref(), Some("import_errors"));
    assert_eq!(text(1, 5).as_deref(), Some("'=1+1"));
    assert_eq!(text(2, 5).as_deref(), Some("a \"quoted\"\nnote"));
    let again = accepted_as(&daemon, "bad.errors.xlsx", bytes, "decimal=comma").await;
    let done = finished(&daemon, again).await;
    assert_eq!(done["results"]["errorCount"], 3, "{done}");
    let codes = |import: i64| {
        sqlx::query_scalar::<_, String>(
            "SELECT string_agg(code || ' ' || coalesce(value, '-'), ', ' ORDER BY row_no, id)
             FROM catalog.import_errors WHERE import_id = $1 AND code <> 'duplicate_code'",
        )
        .bind(import)
        .fetch_one(db.pool())
    };
    assert_eq!(codes(job).await.unwrap(), codes(again).await.unwrap());
}

#[tokio::test]
async fn more_errors_than_are_shown_are_told_with_where_all_are() {
    let (_db, _storage, daemon) = world(&[("INGESTD_LOG__FILTER", "info")]).await;
    for (n_bad, is_cut) in [(100, false), (101, true)] {
        let rows: Vec<String> = (0..n_bad).map(|n| format!("B{n},bad,x\n")).collect();
        let file = format!("code,name,price\nA,good,1\n{}", rows.concat());
        let job = accepted_as(&daemon, "bad.csv", file.into(), "").await;
        let done = finished(&daemon, job).await;
        let results = &done["results"];
        assert_eq!(results["errorCount"], n_bad);
        assert_eq!(results["errors"].as_array().unwrap().len(), 100);
        assert_eq!(
            results.get("errorsTruncated"),
            is_cut.then_some(&json!(true))
        );
        let path = results["errorsUrl"].as_str().unwrap();
        let (status, _, bytes) = download(&daemon, path).await;
        let n_lines = String::from_utf8(bytes).unwrap().lines().count();
        assert_eq!((status, n_lines), (200, n_bad + 1));
    }
    assert!(daemon.log().contains("rows are done"), "progress is logged");
}

#[tokio::test]
async fn what_was_rejected_is_no_other_value_on_its_way_back() {
    let (_db, _storage, daemon) = world(&[]).await;
    let long = "x".repeat(40_000);
    let file = format!(
        "code,name,description,price\nA1,long,{long},1\nA2,quoted,\'=1+1,x\nA3,sign,_x0041_,x\n"
    );
    let job = accepted_as(&daemon, "odd.csv", file.into(), "").await;
    assert_eq!(finished(&daemon, job).await["results"]["errorCount"], 3);
    let path = format!("/api/v1/import/{job}/errors.xlsx");
    let (_, _, bytes) = download(&daemon, &path).await;
    let again = accepted_as(&daemon, "odd.errors.xlsx", bytes, "").await;
    assert_eq!(finished(&daemon, again).await["results"]["errorCount"], 3);
    let path = format!("/api/v1/import/{again}/errors.csv");
    let (_, _, bytes) = download(&daemon, &path).await;
    let text = String::from_utf8(bytes).unwrap();
    let rows: Vec<&str> = text.split("\r\n").skip(1).collect();
    assert!(rows[0].starts_with("A1,long,#VALUE!,1,"), "{}", rows[0]);
    assert!(rows[1].starts_with("A2,quoted,\'\'=1+1,x,"), "{}", rows[1]);
    assert!(rows[2].starts_with("A3,sign,_x0041_,x,"), "{}", rows[2]);
}

#[tokio::test]
async fn rows_that_a_mode_rejects_can_be_imported_by_another() {
    let (db, _storage, daemon) = world(&[]).await;
    let first = "code,name,price,updated_at,size\nA,a,1,2024-01-28,1\nB,b,2,2024-01-28,2\n";
    finished(
        &daemon,
        accepted_as(&daemon, "first.csv", first.into(), "").await,
    )
    .await;
    let second = "code,name,price,updated_at,size\nA,aa,\"1.234,5\",31.1.2024,L\nC,c,3,,\n";
    let query = "mode=insert_only&decimal=comma&dates=dmy";
    let job = accepted_as(&daemon, "second.csv", second.into(), query).await;
    assert_eq!(finished(&daemon, job).await["results"]["errorCount"], 1);
    let (_, _, bytes) = download(&daemon, &format!("/api/v1/import/{job}/errors.csv")).await;
    let query = "mode=update_only&decimal=comma&dates=dmy";
    let job = accepted_as(&daemon, "again.csv", bytes, query).await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["results"]["updatedCount"], 1, "{done}");
    let changed = "SELECT count(*) FROM catalog.products p JOIN catalog.product_prices x
        ON x.product_id = p.id AND x.archived_at IS NULL
        WHERE p.code = 'A' AND p.name = 'aa' AND x.price = 1234.5
          AND p.source_updated_at = '2024-01-31' AND p.attributes = '{\"size\": \"L\"}'";
    assert_eq!(count(db.pool(), changed).await, 1);
}

#[tokio::test]
async fn imported_rows_are_all_but_the_rejected_ones() {
    let (_db, _storage, daemon) = world(&[("INGESTD_PRODUCT_IMPORT__CHUNK_ROWS", "100")]).await;
    let mut file = csv(1000);
    file.extend_from_slice(b"X1,,1,1\nP000001,again,1,1\n");
    let job = accepted_as(&daemon, "products.csv", file, "").await;
    let done = finished(&daemon, job).await;
    assert_eq!(done["results"]["successCount"], 1000);
    for extension in ["csv", "xlsx"] {
        let path = format!("/api/v1/import/{job}/results.{extension}");
        let (status, _, bytes) = download(&daemon, &path).await;
        assert_eq!(status, 200);
        let again = accepted_as(&daemon, "results", bytes, "").await;
        let done = finished(&daemon, again).await;
        let figures = ["unchangedCount", "createdCount", "errorCount"];
        let figures = figures.map(|name| done["results"][name].as_i64().unwrap());
        assert_eq!(figures, [1000, 0, 0], "{extension}: {done}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_kept_has_no_results_to_download() {
    let (_db, storage, daemon) = world(&[("INGESTD_PRODUCT_IMPORT__KEEP_FILES", "false")]).await;
    let job = accepted_as(&daemon, "products.csv", csv(10), "").await;
    finished(&daemon, job).await;
    let blobs = storage.path().join("blobs");
    super::process::until("the file is gone", || async {
        std::fs::read_dir(&blobs).unwrap().count() == 0
    })
    .await;
    let (status, _, body) = download(&daemon, &format!("/api/v1/import/{job}/results.csv")).await;
    assert_eq!(status, 404);
    assert!(String::from_utf8(body).unwrap().contains("keep_files"));
    let (status, ..) = download(&daemon, &format!("/api/v1/import/{job}/errors.csv")).await;
    assert_eq!(status, 200);
    assert_eq!(
        download(&daemon, "/api/v1/import/99/errors.csv").await.0,
        404
    );
}

#[tokio::test]
async fn a_download_that_cannot_begin_does_not_look_whole() {
    let (_db, storage, daemon) = world(&[]).await;
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    for (row, cells) in (0..).zip([["code", "name"], ["A", "a"], ["B", "b"]]) {
        sheet.write_row(row, 0, cells).unwrap();
    }
    let file = book.save_to_buffer().unwrap();
    let job = accepted_as(&daemon, "two.xlsx", file, "").await;
    finished(&daemon, job).await;
    let path = format!("/api/v1/import/{job}/results.csv");
    let (status, _, whole) = download(&daemon, &path).await;
    let whole = String::from_utf8(whole).unwrap();
    assert_eq!(
        (status, whole.as_str()),
        (200, "\u{feff}code,name\r\nA,a\r\nB,b\r\n")
    );
    for blob in std::fs::read_dir(storage.path().join("blobs")).unwrap() {
        std::fs::write(blob.unwrap().path(), b"no workbook any more").unwrap();
    }
    let (status, name, body) = download(&daemon, &path).await;
    assert_eq!((status, name.as_str()), (500, ""));
    let body = String::from_utf8(body).unwrap();
    assert!(!body.contains("code,name"), "{body}");
}

#[tokio::test]
async fn a_download_that_breaks_off_in_the_middle_does_not_look_whole() {
    // The page that has the last row cannot be read.
    const ROWS: &str = "INSERT INTO catalog.rejected_rows (import_id, row_no, cells)
        SELECT $1, n, CASE n WHEN 9000 THEN '[9000]'
                      ELSE jsonb_build_array(repeat('x', 1000), 'x') END
        FROM generate_series(1001, 9000) n";
    let (db, _storage, daemon) = world(&[]).await;
    let job = accepted_as(&daemon, "products.csv", csv(10), "").await;
    finished(&daemon, job).await;
    sqlx::query(ROWS)
        .bind(job)
        .execute(db.pool())
        .await
        .unwrap();
    let path = format!("/api/v1/import/{job}/errors.csv");
    let mut answer = reqwest::get(daemon.url(&path)).await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut n_bytes = 0;
    let broke_off = loop {
        match answer.chunk().await {
            Ok(Some(piece)) => n_bytes += piece.len(),
            Ok(None) => break false,
            Err(_) => break true,
        }
    };
    assert!(broke_off, "{n_bytes} bytes looked whole");
    sqlx::query("DELETE FROM catalog.rejected_rows WHERE row_no = 9000")
        .execute(db.pool())
        .await
        .unwrap();
    let (status, _, whole) = download(&daemon, &path).await;
    assert_eq!(status, 200);
    assert!(whole.len() > 7_999_000, "{} bytes", whole.len());
}
