//! A conversation with the child's side, on a thread of this process.

use std::io::Write as _;
use std::thread;

use super::super::super::row::cell::RowBuf;
use super::super::rows::Rows;
use super::wire::{Answer, Frame, Packed, Question};
use super::*;

const XLS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/ingest/product_import/fixtures/products.xls"
);

fn served(path: &'static str, format: Format) -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    thread::spawn(move || serve::serve(rows::open_here(Path::new(path), format), &mut theirs));
    ours
}

fn ask(stream: &mut UnixStream, question: &Question) {
    wire::send(stream, question).unwrap();
}

fn answer(stream: &mut UnixStream) -> Answer {
    wire::receive_message(stream).unwrap()
}

fn shown(row: &RowBuf) -> String {
    let cells = (0..row.width()).map(|column| format!("{:?}", row.cell(column)));
    format!("{} {:?}", row.row_no(), cells.collect::<Vec<_>>())
}

fn rows_here(sheet: &str) -> Vec<String> {
    let mut workbook = rows::open_here(Path::new(XLS), Format::Xls).unwrap();
    let mut found = Vec::new();
    let mut row = RowBuf::new(100, 1000);
    let mut take = |rows: &mut dyn Rows| {
        while rows.next_row(&mut row)? {
            found.push(shown(&row));
        }
        Ok(())
    };
    workbook.with_rows(sheet, &mut take).unwrap();
    found
}

#[test]
fn rows_come_as_they_are_read_here_and_as_often_as_asked() {
    let mut stream = served(XLS, Format::Xls);
    let Answer::Opened { sheets, .. } = answer(&mut stream) else {
        panic!("not opened");
    };
    let (sheet, is_visible) = sheets.first().unwrap().clone();
    assert!(is_visible);
    ask(
        &mut stream,
        &Question::Verify {
            sheet: sheet.clone(),
        },
    );
    assert_eq!(answer(&mut stream), Answer::Verified { rows_at_most: None });
    for _ in 0..2 {
        ask(
            &mut stream,
            &Question::Rows {
                sheet: sheet.clone(),
                max_columns: 100,
                max_cell_bytes: 1000,
            },
        );
        let mut found = Vec::new();
        let mut row = RowBuf::new(100, 1000);
        while let Frame::Rows(bytes) = wire::receive(&mut stream).unwrap() {
            let mut packed = Packed::new(bytes);
            while packed.next(&mut row).unwrap() {
                found.push(shown(&row));
            }
            ask(&mut stream, &Question::More);
        }
        assert_eq!(found, rows_here(&sheet));
        assert!(!found.is_empty());
    }
}

#[test]
fn a_refusal_is_an_answer() {
    let mut stream = served(
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
        Format::Ods,
    );
    let Answer::Refused { code, .. } = answer(&mut stream) else {
        panic!("opened");
    };
    assert_eq!(code, Refusal::INVALID_FILE_FORMAT);
}

#[test]
fn nonsense_ends_the_conversation() {
    let mut stream = served(XLS, Format::Xls);
    answer(&mut stream);
    stream.write_all(b"\x02\0\0\0m??").unwrap();
    assert!(wire::receive(&mut stream).is_err());
}

#[test]
fn only_a_child_serves() {
    let args = |args: &[&str]| serve_if_asked(args.iter().map(OsString::from));
    assert_eq!(args(&["ingestd"]), None);
    assert_eq!(args(&["ingestd", "run"]), None);
    assert_eq!(args(&["ingestd", COMMAND]), Some(1));
    assert_eq!(args(&["ingestd", COMMAND, "csv", "1", "1", "1"]), Some(1));
}
