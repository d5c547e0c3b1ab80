//! Both readers of xlsx give the same rows, of every workbook at hand.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::super::row::cell::{Cell, RowBuf};
use super::super::merged::Range;
use super::super::rows::{Rows, Workbook as _};
use super::super::{scan, xlsx};
use super::*;

/// The rows of a sheet as text, and how it ended.
type Read = (Vec<(u32, Vec<String>)>, Result<(), Refusal>);

fn rows_of(workbook: &mut dyn rows::Workbook, sheet: &str) -> Read {
    rows_filled(workbook, sheet, Vec::new())
}

/// As [`rows_of`], with the cells of these merged ranges filled.
fn rows_filled(workbook: &mut dyn rows::Workbook, sheet: &str, ranges: Vec<Range>) -> Read {
    let mut found = Vec::new();
    let mut row = RowBuf::new(2000, 200_000);
    let mut fill = Fill::new(ranges, 0, 2000);
    let ended = workbook.with_rows(sheet, &mut |rows: &mut dyn Rows| {
        let mut rows = Filled {
            fill: &mut fill,
            rows,
        };
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
    let scanned = scan::open(path, &Options::default(), scan::Purpose::Look, declined);
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

fn calamine_alone(path: &Path, _: &Options) -> Result<Box<dyn rows::Workbook>, Refusal> {
    Ok(Box::new(xlsx::Xlsx::open(path)?))
}

/// Compares the merged cells of one sheet, filled: by the scanner with calamine behind it, by
/// calamine alone, and by a look at its rows, each cell for itself.
fn compare_filled(path: &Path, sheet: &str) -> Result<(), String> {
    let mut scanned = scan::open(
        path,
        &Options::default(),
        scan::Purpose::Look,
        calamine_alone,
    )
    .unwrap();
    let mut theirs = xlsx::Xlsx::open(path).unwrap();
    let mut calamine: calamine::Xlsx<_> = calamine::open_workbook(path).unwrap();
    let named = calamine.merge_cells_by_sheet_name(sheet).unwrap();
    let named = named.into_iter().map(|it| Range {
        first_row: it.start.0 + 1,
        first_column: it.start.1,
        last_row: it.end.0 + 1,
        last_column: it.end.1,
    });
    let mut ranges = theirs.merged(sheet).unwrap();
    if scanned.merged(sheet).unwrap() != ranges || !named.eq(ranges.iter().copied()) {
        return Err(format!("other ranges than {ranges:?}"));
    }
    let ours = rows_filled(scanned.as_mut(), sheet, ranges.clone());
    let expected = rows_filled(&mut theirs, sheet, ranges.clone());
    let (plain, _) = rows_of(&mut theirs, sheet);
    ranges.sort_unstable();
    let looked_up = filled_by_look(plain, &ranges);
    let cut = |cells: &[String]| {
        let len = cells.iter().rposition(|cell| cell != "Empty");
        cells[..len.map_or(0, |last| last + 1)].to_vec()
    };
    for (at, (row_no, cells)) in looked_up.iter().enumerate() {
        let (ours, expected) = (&ours.0[at], &expected.0[at]);
        if ours != expected || *row_no != ours.0 || cut(cells) != cut(&ours.1) {
            return Err(format!("{ours:?} and {expected:?} are {cells:?}"));
        }
    }
    let lens = [ours.0.len(), expected.0.len()];
    (lens == [looked_up.len(); 2] && ours.1.is_ok() && expected.1.is_ok())
        .then_some(())
        .ok_or_else(|| format!("{lens:?} rows: {:?}, {:?}", ours.1, expected.1))
}

/// Fills merged cells slowly: a row that has nothing of its own is blank where a range goes on.
fn filled_by_look(plain: Vec<(u32, Vec<String>)>, ranges: &[Range]) -> Vec<(u32, Vec<String>)> {
    let find = |row: u32, column: u32| {
        ranges.iter().find(|range| {
            (range.first_row..=range.last_row).contains(&row)
                && (range.first_column..=range.last_column).contains(&column)
        })
    };
    let firsts: BTreeMap<u32, Vec<String>> = plain.iter().cloned().collect();
    let first_of = |range: &Range| {
        let cells = firsts.get(&range.first_row);
        let cell = cells.and_then(|cells| cells.get(range.first_column as usize));
        cell.cloned().unwrap_or_else(|| "Empty".to_owned())
    };
    let filled = plain.into_iter().map(|(row, cells)| {
        let goes_on = |range: &Range| range.first_row < row;
        let has_own = (0..)
            .zip(&cells)
            .any(|(column, cell)| cell != "Empty" && !find(row, column).is_some_and(goes_on));
        let filled = (0..40).map(|column| match find(row, column) {
            Some(range) if goes_on(range) && !has_own => "Empty".to_owned(),
            Some(range) => first_of(range),
            None => cells
                .get(column as usize)
                .cloned()
                .unwrap_or_else(|| "Empty".to_owned()),
        });
        (row, filled.collect())
    });
    filled.collect()
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
const CELLS: [&str; 27] = [
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
    "<c r=\"J@\"><f>A1</f></c>",
    "<c t=\"str\"><f>A1</f></c>",
    "<c><f>A1</f><v></v></c><c><f/><v>1</v></c>",
    "<c t=\"str\"><f>A1</f><v/></c>",
    "<c t=\"s\"><f t=\"shared\" si=\"0\"/></c>",
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

/// Returns ranges by row, column, and how many more of each, but for those that overlap another.
fn apart(ranges: Vec<(u32, u32, u32, u32)>) -> Vec<Range> {
    let mut apart: Vec<Range> = Vec::new();
    for (first_row, first_column, n_rows, n_columns) in ranges {
        let range = Range {
            first_row,
            first_column,
            last_row: first_row + n_rows,
            last_column: first_column + n_columns,
        };
        let meets = |other: &Range| {
            range.first_row <= other.last_row
                && other.first_row <= range.last_row
                && range.first_column <= other.last_column
                && other.first_column <= range.last_column
        };
        if n_rows + n_columns > 0 && !apart.iter().any(meets) {
            apart.push(range);
        }
    }
    apart
}

/// Puts merged ranges behind the rows of a [`book`].
fn with_merged(book: &[u8], merged: &str) -> Vec<u8> {
    damage::with_part(book, "xl/worksheets/sheet1.xml", |xml| {
        let xml = String::from_utf8(xml).unwrap();
        let merged = format!("</sheetData><mergeCells>{merged}</mergeCells>");
        xml.replace("</sheetData>", &merged).into_bytes()
    })
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
    fn merged_cells_of_rows_in_any_order(
        picks in prop::collection::vec(prop::collection::vec(0_usize..CELLS.len() + 1, 0..8), 0..6),
        ranges in prop::collection::vec((1_u32..18, 0_u32..9, 0_u32..5, 0_u32..4), 0..6),
    ) {
        let rows = (1..).step_by(3).zip(&picks).map(|(number, picks)| {
            let cells: Vec<&str> = picks.iter().map(|at| *CELLS.get(*at).unwrap_or(&FOREIGN[5])).collect();
            row(number, &cells)
        });
        let rows: String = rows.collect();
        let merged = apart(ranges).iter().map(|range| {
            let at = |row: u32, column: u32| format!("{}{row}", char::from(b'A' + u8::try_from(column).unwrap()));
            let (from, to) = (at(range.first_row, range.first_column), at(range.last_row, range.last_column));
            format!("<mergeCell ref=\"{from}:{to}\"/>")
        }).collect::<Vec<_>>().concat();
        let files = Files::new();
        let path = files.bytes(with_merged(&book(&rows, STRINGS), &merged));
        let same = compare_filled(&path, "A");
        prop_assert!(same.is_ok(), "{:?} of {} {}", same, rows, merged);
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
            let is_xlsx = detect::detect(&path, None).is_ok_and(|kind| kind == detect::Kind::Xlsx);
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
