//! Both readers of xlsx give the same rows, of every workbook at hand.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::super::cell::{Cell, RowBuf};
use super::super::rows::{Rows, Workbook as _};
use super::super::{scan, xlsx};
use super::*;

/// The rows of a sheet as text, and how it ended.
type Read = (Vec<(u32, Vec<String>)>, Result<(), Refusal>);

fn rows_of(workbook: &mut dyn rows::Workbook, sheet: &str) -> Read {
    let mut found = Vec::new();
    let mut row = RowBuf::new(2000, 200_000);
    let ended = workbook.with_rows(sheet, &mut |rows: &mut dyn Rows| {
        while rows.next_row(&mut row)? {
            let cells = (0..row.width()).map(|column| shown(row.cell(column)));
            found.push((row.row_no(), cells.collect()));
        }
        Ok(())
    });
    (found, ended)
}

fn shown(cell: Cell<'_>) -> String {
    match cell {
        Cell::Number { value, digits } => format!("number {:x} {digits}", value.to_bits()),
        Cell::Serial(days) => format!("serial {:x}", days.to_bits()),
        cell => format!("{cell:?}"),
    }
}

const DECLINED: &str = "declined";

fn declined(_: &Path, _: &Options) -> Result<Box<dyn rows::Workbook>, Refusal> {
    Err(Refusal::new(DECLINED, ""))
}

/// What comparing one workbook came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Same,
    Declined,
    BothRefuse,
    /// The scanner reads what calamine cannot.
    OnlyScanner,
}

/// Compares both readers; rows given before the scanner declines count, too.
fn compare(path: &Path) -> Result<Verdict, String> {
    let scanned = scan::open(path, &Options::default(), declined);
    let theirs = xlsx::Xlsx::open(path);
    let (mut scanned, mut theirs) = match (scanned, theirs) {
        (Err(refusal), _) if refusal.code == DECLINED => return Ok(Verdict::Declined),
        (Err(_), Err(_)) => return Ok(Verdict::BothRefuse),
        (Ok(_), Err(_)) => return Ok(Verdict::OnlyScanner),
        (Err(refusal), Ok(_)) => return Err(format!("only the scanner refuses: {refusal}")),
        (Ok(scanned), Ok(theirs)) => (scanned, theirs),
    };
    if scanned.sheets() != theirs.sheets() || scanned.epoch() != theirs.epoch() {
        return Err("other sheets or another epoch".to_owned());
    }
    let mut verdict = Verdict::Same;
    for sheet in theirs.sheets() {
        let (ours, our_end) = rows_of(scanned.as_mut(), &sheet.name);
        let (expected, their_end) = rows_of(&mut theirs, &sheet.name);
        let declined = our_end
            .as_ref()
            .is_err_and(|refusal| refusal.code == DECLINED);
        let n_same = ours
            .iter()
            .zip(&expected)
            .take_while(|(a, b)| a == b)
            .count();
        if n_same < ours.len() && n_same < expected.len()
            || (n_same < ours.len() && their_end.is_ok())
        {
            let (ours, theirs) = (ours.get(n_same), expected.get(n_same));
            return Err(format!("{}: {ours:?} is {theirs:?}", sheet.name));
        }
        verdict = verdict.max(match (&our_end, &their_end) {
            _ if declined => Verdict::Declined,
            (Err(_), Err(_)) => Verdict::BothRefuse,
            (Ok(()), Err(_)) => Verdict::OnlyScanner,
            (Ok(()), Ok(())) if n_same == expected.len() => Verdict::Same,
            _ => return Err(format!("{}: {our_end:?} after {n_same} rows", sheet.name)),
        });
    }
    Ok(verdict)
}

/// A workbook of one sheet of these rows, these shared strings and 4 styles: none, a date, five
/// digits and a length of time.
fn book(rows: &str, strings: &str) -> Vec<u8> {
    const MAIN: &str = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
    const RELATIONS: &str = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
    const PACKAGE: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
    let relation = |kind: &str, target: &str| {
        format!(
            "<Relationships xmlns=\"{PACKAGE}\"><Relationship Id=\"rId1\" \
             Type=\"{RELATIONS}/{kind}\" Target=\"{target}\"/></Relationships>"
        )
    };
    let book = format!(
        "<workbook xmlns=\"{MAIN}\" xmlns:r=\"{RELATIONS}\"><sheets>\
         <sheet name=\"A\" sheetId=\"1\" r:id=\"rId1\"/></sheets></workbook>"
    );
    let sheet = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<worksheet xmlns=\"{MAIN}\">\
         <sheetData>{rows}</sheetData></worksheet>"
    );
    let strings = format!("<sst xmlns=\"{MAIN}\">{strings}</sst>");
    let styles = format!(
        "<styleSheet xmlns=\"{MAIN}\"><numFmts><numFmt numFmtId=\"164\" \
         formatCode=\"00000\"/></numFmts><cellXfs><xf numFmtId=\"0\"/><xf numFmtId=\"14\"/>\
         <xf numFmtId=\"164\"/><xf numFmtId=\"46\"/></cellXfs></styleSheet>"
    );
    zipped(&[
        (
            "_rels/.rels",
            relation("officeDocument", "xl/workbook.xml").as_bytes(),
        ),
        ("xl/workbook.xml", book.as_bytes()),
        (
            "xl/_rels/workbook.xml.rels",
            relation("worksheet", "worksheets/sheet1.xml").as_bytes(),
        ),
        ("xl/worksheets/sheet1.xml", sheet.as_bytes()),
        ("xl/sharedStrings.xml", strings.as_bytes()),
        ("xl/styles.xml", styles.as_bytes()),
    ])
}

const STRINGS: &str = "<si><t>plain</t></si>\n<si><t xml:space=\"preserve\"> kept </t></si><si/>\
    <si><t> trimmed&#10;</t></si><si><r><rPr><b/></rPr><t>rich </t></r><r><t>text</t></r>\
    <rPh sb=\"0\" eb=\"1\"><t>phonetic</t></rPh><phoneticPr fontId=\"1\"/></si>\
    <si><t>&lt;&amp;&gt; 1\r\n2</t></si>";

/// Cells that the scanner knows; `@` is the row.
const CELLS: [&str; 22] = [
    "<c r=\"A@\" t=\"s\"><v>0</v></c>",
    "<c r=\"B@\" s=\"1\" t=\"s\"><v>1</v></c>",
    "<c t=\"s\"><v>2</v></c>",
    "<c r=\"D@\" t=\"s\"><v>3</v></c>",
    "<c t=\"s\"><v>4</v></c><c t=\"s\"><v>5</v></c>",
    "<c r=\"C@\"><v>4006381333931</v></c>",
    "<c r=\"E@\" s=\"2\"><v>123</v></c>",
    "<c r=\"F@\" s=\"1\"><v>45000.25</v></c>",
    "<c r=\"F@\" s=\"3\" t=\"n\"><v>1.5</v></c>",
    "<c s=\"77\"><v>-1.7976931348623157E308</v></c>",
    "<c><v>1118.2700000000001</v></c>",
    "<c r=\"AA@\" t=\"b\"><v>1</v></c>",
    "<c t=\"e\"><v>#N/A</v></c>",
    "<c t=\"str\"><f>A1&amp;B1</f><v> a&amp;b\r\n</v></c>",
    "<c><f t=\"shared\" si=\"0\"/><v>5E-324</v></c>",
    "<c t=\"d\"><v>2026-01-31T10:00:00</v></c>",
    "<c t=\"inlineStr\"><is><t> in line </t></is></c>",
    "<c t=\"inlineStr\"><is><r><t xml:space=\"preserve\">a </t></r><r><t>b</t></r></is></c>",
    "<c r=\"H@\" s=\"1\"/>",
    "<c r=\"I@\"></c>\n",
    "<c t=\"str\"><v></v></c>",
    "<c><v/></c>",
];

/// Cells and rows that it declines.
const FOREIGN: [&str; 12] = [
    "<c><v>12 </v></c>",
    "<c><v>twelve</v></c>",
    "<c t=\"b\"><v>true</v></c>",
    "<c t=\"s\"><v>99</v></c>",
    "<c t=\"str\"><v>a_x000D_b</v></c>",
    "<c t=\"str\"><v>a<!-- b -->c</v></c>",
    "<c t=\"inlineStr\"><is><t><![CDATA[a]]></t></is></c>",
    "<c r='A@'><v>1</v></c>",
    "<c r=\"A9\"><v>1</v></c>",
    "<x:c xmlns:x=\"y\"><v>1</v></x:c>",
    "<c><v>1</v><v>2</v></c>",
    "<c t=\"inlineStr\"><v>1</v><is><t>a</t></is></c>",
];

fn compare_bytes(bytes: &[u8]) -> Result<Verdict, String> {
    compare(&Files::new().bytes(bytes))
}

fn row(number: usize, cells: &[&str]) -> String {
    let cells = cells.concat().replace('@', &number.to_string());
    format!("<row r=\"{number}\" spans=\"1:9\">{cells}</row>")
}

#[test]
fn every_kind_of_cell() {
    for cell in CELLS {
        let rows = row(7, &[cell]);
        assert_eq!(
            compare_bytes(&book(&rows, STRINGS)),
            Ok(Verdict::Same),
            "{cell}"
        );
    }
    for cell in FOREIGN {
        let rows = row(1, &CELLS) + &row(7, &[cell]);
        let verdict = compare_bytes(&book(&rows, STRINGS));
        assert_eq!(verdict, Ok(Verdict::Declined), "{cell}");
    }
}

#[test]
fn rows_in_every_order() {
    let cell = "<c r=\"A@\"><v>@</v></c>";
    let known = [
        format!("{}\n {}", row(1, &[cell]), row(9, &[cell])),
        "<row><c><v>1</v></c></row><row/><row><c r=\"B3\"><v>2</v></c></row>".to_owned(),
        format!("<row r=\"1\" hidden=\"1\"/>{}", row(1_048_576, &[cell])),
        String::new(),
    ];
    for rows in known {
        assert_eq!(
            compare_bytes(&book(&rows, STRINGS)),
            Ok(Verdict::Same),
            "{rows}"
        );
    }
    for (first, second) in [(2, 1), (3, 3)] {
        let rows = row(first, &[cell]) + &row(second, &[cell]);
        assert_eq!(
            compare_bytes(&book(&rows, STRINGS)),
            Ok(Verdict::Declined),
            "{rows}"
        );
    }
}

#[test]
fn what_is_around_the_cells() {
    let cell = "<c r=\"A@\"><v>@</v></c>";
    let rows = row(1, &[cell]) + &row(2, &[cell]);
    for (odd, in_place_of, by) in [
        (
            "an element among the rows",
            "<row r=\"2\"",
            "<x/><row r=\"2\"",
        ),
        ("a row's number", "<row r=\"2\"", "<row r=\"2.0\""),
        ("no rows", "sheetData", "sheetView"),
    ] {
        let bytes = damage::with_part(&book(&rows, STRINGS), "xl/worksheets/sheet1.xml", |xml| {
            let xml = String::from_utf8(xml).unwrap();
            assert!(xml.contains(in_place_of), "{xml}");
            xml.replace(in_place_of, by).into_bytes()
        });
        assert_eq!(compare_bytes(&bytes), Ok(Verdict::Declined), "{odd}");
    }
    let strings = format!("<x/>{STRINGS}");
    let verdict = compare_bytes(&book(&rows, &strings));
    assert_eq!(verdict, Ok(Verdict::Declined), "an element among the texts");
}

#[test]
fn the_sample_workbook() {
    let sample = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/samples/products.xlsx"
    ));
    assert_eq!(compare(sample), Ok(Verdict::Same));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn cells_in_any_order(picks in prop::collection::vec(prop::collection::vec(0_usize..CELLS.len() + 2, 0..8), 0..6)) {
        let rows = (1..).step_by(3).zip(&picks).map(|(number, picks)| {
            let cells: Vec<&str> = picks.iter().map(|at| *CELLS.get(*at).unwrap_or(&FOREIGN[*at % 12])).collect();
            row(number, &cells)
        });
        let rows: String = rows.collect();
        let has_foreign = picks.iter().flatten().any(|at| *at >= CELLS.len());
        let verdict = compare_bytes(&book(&rows, STRINGS));
        prop_assert!(verdict.is_ok(), "{:?} of {}", verdict, rows);
        prop_assert!(has_foreign || verdict == Ok(Verdict::Same), "{:?} of {}", verdict, rows);
    }

    #[test]
    fn parts_with_bytes_changed(changes in damage::changes()) {
        let rows = row(1, &CELLS) + &row(7, &CELLS);
        let bytes = damage::with_parts_changed(&book(&rows, STRINGS), &changes);
        let verdict = compare_bytes(&bytes);
        prop_assert!(verdict.is_ok(), "{:?}", verdict);
    }
}

/// Compares all workbooks below the folder that `INGESTD_WORKBOOKS` names.
#[test]
#[ignore = "nightly: needs a folder of workbooks"]
fn nightly_every_workbook_of_a_folder() {
    let folder = std::env::var("INGESTD_WORKBOOKS").expect("INGESTD_WORKBOOKS names a folder");
    let mut folders = vec![PathBuf::from(folder)];
    let mut verdicts: BTreeMap<Verdict, u32> = BTreeMap::new();
    let mut different = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let is_xlsx = detect::detect(&path).is_ok_and(|kind| kind == detect::Kind::Xlsx);
            if !is_xlsx {
                drop(inspect(&path, "", &Options::default()));
                continue;
            }
            match compare(&path) {
                Ok(verdict) => *verdicts.entry(verdict).or_default() += 1,
                Err(why) => different.push(format!("{}: {why:.600}", path.display())),
            }
        }
    }
    println!("{verdicts:?}");
    assert!(different.is_empty(), "{}", different.join("\n"));
    assert!(
        verdicts.contains_key(&Verdict::Same),
        "no workbook was compared"
    );
}
