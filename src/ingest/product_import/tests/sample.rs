//! The sample is what the generator makes, row by row, in each of its formats.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::super::row::{Chunk, ProductRow, RowError};
use super::super::sheet::{self, Options};
use super::*;
use product::{Cell, Fault, HEADERS, Sample};

#[path = "../../../../examples/make_sample/product.rs"]
mod product;

const SAMPLE: Sample = Sample {
    n_rows: 5000,
    n_bad: 40,
    seed: 1,
    edition: 0,
};

fn read(path: &Path) -> (Vec<ProductRow>, Vec<RowError>, sheet::Summary) {
    let options = Options::default();
    let inspection = sheet::inspect(path, FILE_NAME, &options).unwrap();
    assert_eq!(inspection.mapping.columns.len(), HEADERS.len());
    let (mut rows, mut errors) = (Vec::new(), Vec::new());
    let mut take = |chunk: Chunk| {
        rows.extend(chunk.rows);
        errors.extend(chunk.errors);
        ControlFlow::Continue(())
    };
    let summary = sheet::read(path, &inspection, &options, &mut take).unwrap();
    (rows, errors, summary)
}

fn shipped() -> (Vec<ProductRow>, Vec<RowError>, sheet::Summary) {
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/products.xlsx"))
}

#[test]
fn its_counts_are_known() {
    let (rows, errors, summary) = shipped();
    assert_eq!(
        (summary.n_rows, summary.n_bad),
        (N_ROWS.into(), N_BAD.into())
    );
    assert_eq!(rows.len(), (N_ROWS - N_BAD) as usize);
    assert_eq!(errors.len(), N_ERRORS as usize);
    assert_eq!(SAMPLE.n_errors(), N_ERRORS);
}

#[test]
fn every_row_is_the_generators() {
    let (rows, ..) = shipped();
    let good = (0..SAMPLE.n_rows).filter(|row| SAMPLE.fault(*row).is_none());
    for (row, found) in good.zip(&rows) {
        let cells = SAMPLE.cells(row);
        let text = |column: usize| match &cells[column] {
            Cell::Text(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        let number = |column: usize| match cells[column] {
            Cell::Number(number) => number.to_string(),
            ref other => panic!("{other:?}"),
        };
        assert_eq!(u64::from(found.row_no), row + 2);
        assert_eq!([&found.code, &found.name], [&text(0), &text(1)]);
        assert_eq!(found.description.as_deref(), Some(&*text(2)));
        assert_eq!(found.price.unwrap().to_string(), number(5));
        assert_eq!(found.stock.unwrap().to_string(), number(7));
        assert_eq!(found.ean.as_deref(), Some(&*text(8)));
        assert_eq!(found.weight.unwrap().to_string(), number(10));
        let minutes = found.updated_at.unwrap().and_utc().timestamp() / 60;
        assert_eq!(Cell::Date(minutes), cells[11]);
        let attributes = found.attributes.as_ref().unwrap();
        assert_eq!(attributes.get("Material").unwrap(), &text(12));
    }
}

#[test]
fn every_bad_row_has_the_errors_it_was_given() {
    let (_, errors, _) = shipped();
    let mut sorts = BTreeSet::new();
    for row in 0..SAMPLE.n_rows {
        let Some(fault) = SAMPLE.fault(row) else {
            continue;
        };
        let of_row = errors
            .iter()
            .filter(|error| u64::from(error.row_no) == row + 2);
        let found: Vec<_> = of_row
            .map(|e| (e.column.as_deref().unwrap(), e.code))
            .collect();
        assert_eq!(found, expected(fault), "row {}", row + 2);
        sorts.extend(found.iter().map(|(_, code)| *code));
    }
    assert_eq!(sorts.len(), 9, "{sorts:?}");
}

#[test]
fn the_same_rows_as_csv_are_the_same_products() {
    let text = |cell: &Cell| match cell {
        Cell::Blank => String::new(),
        Cell::Text(text) => text.clone(),
        Cell::Number(number) => number.to_string(),
        Cell::Date(minutes) => {
            let moment = chrono::DateTime::from_timestamp(minutes * 60, 0).unwrap();
            moment.format("%Y-%m-%d %H:%M").to_string()
        }
        Cell::Error => "#N/A".to_owned(),
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut writer = csv::WriterBuilder::new()
        .delimiter(b';')
        .from_path(file.path())
        .unwrap();
    writer.write_record(HEADERS).unwrap();
    for row in 0..SAMPLE.n_rows {
        writer
            .write_record(SAMPLE.cells(row).iter().map(text))
            .unwrap();
    }
    drop(writer);
    let (rows, errors, summary) = read(file.path());
    let of_workbook = shipped();
    assert_eq!((rows, summary), (of_workbook.0, of_workbook.2));
    let codes =
        |errors: &[RowError]| -> Vec<_> { errors.iter().map(|e| (e.row_no, e.code)).collect() };
    assert_eq!(codes(&errors), codes(&of_workbook.1));
}

fn expected(fault: Fault) -> Vec<(&'static str, &'static str)> {
    match fault {
        Fault::NoCode => vec![("code", "required")],
        Fault::NoName => vec![("name", "required")],
        Fault::WrittenPrice => vec![("price", "invalid_number")],
        Fault::NegativePrice => vec![("price", "negative_number")],
        Fault::HalfStock => vec![("stock", "not_whole_number")],
        Fault::NegativeStock => vec![("stock", "negative_number")],
        Fault::LostEan => vec![("ean", "precision_lost")],
        Fault::LostCode => vec![("code", "precision_lost")],
        Fault::ImpossibleDate => vec![("updated_at", "invalid_date")],
        Fault::DuplicateCode => vec![("code", "duplicate_code")],
        Fault::HugePrice => vec![("price", "number_too_large")],
        Fault::WrittenWeight => vec![("weight", "invalid_number")],
        Fault::ErrorPrice => vec![("price", "cell_error")],
        Fault::Three => vec![
            ("name", "required"),
            ("price", "negative_number"),
            ("stock", "not_whole_number"),
        ],
    }
}
