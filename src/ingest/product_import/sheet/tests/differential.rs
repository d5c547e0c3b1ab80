//! Both readers of xlsx give the same rows, of every workbook at hand.

use std::collections::BTreeMap;

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

#[test]
fn the_sample_and_written_workbooks() {
    let sample = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/samples/products.xlsx"
    ));
    assert_eq!(compare(sample), Ok(Verdict::Same));
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
            let is_xlsx = detect::detect(&path).is_ok_and(|kind| kind == Kind::Xlsx);
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
