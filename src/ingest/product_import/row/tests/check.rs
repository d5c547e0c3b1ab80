//! Tests of the checks: one row in, a product or its errors out.

use std::collections::BTreeMap;

use super::super::field::Aliases;
use super::super::header::map;
use super::super::locale::{DateOrder, DecimalSign, Locale};
use super::*;

const RULES: Rules = Rules {
    epoch: Epoch::Y1900,
    max_cell_chars: 50,
    refuse_extra_cells: true,
    locale: Locale {
        decimal: DecimalSign::Plain,
        dates: DateOrder::Iso,
    },
    allow_duplicates: false,
};

fn checker(headers: &[&str]) -> Checker {
    let cells: Vec<String> = headers.iter().map(|h| (*h).to_owned()).collect();
    let mapping = map(&cells, &Aliases::new(&BTreeMap::new())).unwrap();
    Checker::new(mapping, RULES, Spots::default())
}

fn row(row_no: u32, cells: &[Cell<'_>]) -> RowBuf {
    let mut row = RowBuf::new(100, 400);
    row.start(row_no);
    for (column, cell) in cells.iter().enumerate() {
        row.set(column, *cell);
    }
    row
}

fn texts(row_no: u32, cells: &[&str]) -> RowBuf {
    let cells: Vec<Cell<'_>> = cells.iter().map(|text| Cell::Text(text)).collect();
    row(row_no, &cells)
}

fn good(outcome: Outcome) -> ProductRow {
    match outcome {
        Outcome::Good(product) => product,
        other => panic!("not good: {other:?}"),
    }
}

fn codes(outcome: Outcome) -> Vec<(Option<String>, &'static str)> {
    match outcome {
        Outcome::Bad(errors, _) => errors.into_iter().map(|e| (e.column, e.code)).collect(),
        other => panic!("not bad: {other:?}"),
    }
}

#[test]
fn a_good_row_becomes_a_product() {
    let mut checker = checker(&["SKU", "Titel", "Preis", "Bestand", "Farbe", "geändert am"]);
    let cells = [
        Cell::Text(" 007 "),
        Cell::Text("Lamp"),
        Cell::Number {
            value: 19.9,
            digits: 0,
        },
        Cell::Number {
            value: 3.0,
            digits: 0,
        },
        Cell::Text("rot"),
        Cell::Serial(45_943.5),
    ];
    let product = good(checker.check(&row(2, &cells)));
    assert_eq!((product.row_no, product.code.as_str()), (2, "007"));
    assert_eq!(product.price.unwrap().to_string(), "19.9");
    assert_eq!(product.stock, Some(3));
    assert_eq!(
        product.updated_at.unwrap().to_string(),
        "2025-10-13 12:00:00"
    );
    assert_eq!(product.attributes.unwrap().get("Farbe").unwrap(), "rot");
    assert_ne!(product.hash, 0);
}

#[test]
fn every_error_of_a_row_is_listed_in_the_order_of_columns() {
    let mut checker = checker(&[
        "code",
        "name",
        "price",
        "stock",
        "updated_at",
        "note",
        "weight",
        "brand",
    ]);
    let cells = [
        Cell::Text("7.92E+12"),
        Cell::Text(" "),
        Cell::Text("1.234,56 €"),
        Cell::Text("1.5"),
        Cell::Text("2026-02-30"),
        Cell::Error("#N/A"),
        Cell::Uncalculated,
        Cell::Uncalculated,
    ];
    let Outcome::Bad(errors, _) = checker.check(&row(9, &cells)) else {
        panic!("not bad");
    };
    let found: Vec<_> = errors
        .iter()
        .map(|e| (e.column.as_deref().unwrap(), e.code))
        .collect();
    assert_eq!(
        found,
        [
            ("code", "precision_lost"),
            ("name", "required"),
            ("price", "invalid_number"),
            ("stock", "not_whole_number"),
            ("updated_at", "invalid_date"),
            ("note", "cell_error"),
            ("weight", "formula_without_value"),
            ("brand", "formula_without_value"),
        ]
    );
    assert!(errors.iter().all(|e| e.row_no == 9));
    assert_eq!(errors[1].value, None);
    assert_eq!(errors[2].value.as_deref(), Some("1.234,56 €"));
    assert_eq!(errors[5].value.as_deref(), Some("#N/A"));
    assert_eq!(errors[6].value.as_deref(), Some("#N/A"));
    assert_eq!(
        errors[2].message,
        "price \"1.234,56 €\" is not a plain number such as 1234.56; with decimal=comma it is 1234.56"
    );
}

#[test]
fn the_first_row_with_a_code_has_it_even_when_it_is_bad() {
    let mut checker = checker(&["code", "name"]);
    good(checker.check(&texts(2, &["A", "x"])));
    assert_eq!(
        codes(checker.check(&texts(3, &["A", "y"]))),
        [(Some("code".into()), "duplicate_code")]
    );
    assert_eq!(codes(checker.check(&texts(4, &["B", ""]))).len(), 1);
    let Outcome::Bad(errors, _) = checker.check(&texts(5, &["B", "z"])) else {
        panic!("not bad");
    };
    assert_eq!(
        errors[0].message,
        "code \"B\" is already in row 4; the first one counts"
    );
    good(checker.check(&texts(6, &["b", "case counts"])));
}

#[test]
fn blank_rows_are_no_rows() {
    let mut checker = checker(&["code", "name", "", "note"]);
    for cells in [
        &[][..],
        &["", " ", "", "\u{a0}"],
        &["", "", "a cell without a header"],
    ] {
        assert!(matches!(checker.check(&texts(2, cells)), Outcome::Blank));
    }
    assert_eq!(codes(checker.check(&texts(3, &["", "", "", "x"]))).len(), 2);
}

#[test]
fn values_beyond_the_last_header_are_an_error_where_asked() {
    let mut strict = checker(&["code", "name"]);
    good(strict.check(&texts(2, &["A", "x", "", " "])));
    assert_eq!(
        codes(strict.check(&texts(3, &["B", "x", "", "shifted"]))),
        [(None, "too_many_cells")]
    );
    let mapping = strict.mapping.clone();
    let rules = Rules {
        refuse_extra_cells: false,
        ..RULES
    };
    good(
        Checker::new(mapping, rules, Spots::default()).check(&texts(3, &["B", "x", "", "a note"])),
    );
}

#[test]
fn too_long_and_forbidden_texts_are_errors() {
    let mut checker = checker(&["code", "name", "note"]);
    let long = "x".repeat(51);
    assert_eq!(
        codes(checker.check(&texts(2, &["A", &long, "a\0b"]))),
        [
            (Some("name".into()), "too_long"),
            (Some("note".into()), "invalid_character")
        ]
    );
    let Outcome::Bad(errors, _) = checker.check(&texts(3, &["a\0b", "n"])) else {
        panic!("not bad");
    };
    assert_eq!(errors[0].value.as_deref(), Some("a\u{fffd}b"));
}

#[test]
fn a_code_is_no_longer_than_its_index_takes() {
    let rules = Rules {
        max_cell_chars: 32_767,
        ..RULES
    };
    let mapping = checker(&["code", "name"]).mapping;
    let mut checker = Checker::new(mapping, rules, Spots::default());
    let mut row = RowBuf::new(2, 100_000);
    row.start(2);
    row.set(0, Cell::Text(&"ä".repeat(513)));
    row.set(1, Cell::Text("x"));
    let Outcome::Bad(errors, _) = checker.check(&row) else {
        panic!("not bad");
    };
    assert_eq!(errors[0].message, "code is longer than 1024 bytes");
    assert_eq!(
        errors[0].value.as_ref().map(|v| v.chars().count()),
        Some(200)
    );
}

#[test]
fn an_unclosed_quote_is_an_error_of_its_row() {
    let mut checker = checker(&["code", "name"]);
    let mut row = texts(7, &["A", "begins and never ends"]);
    row.mark_unclosed_quote();
    assert_eq!(codes(checker.check(&row)), [(None, "unclosed_quote")]);
}

#[test]
fn which_columns_a_file_has_is_part_of_the_hash() {
    let without = good(checker(&["code", "name"]).check(&texts(2, &["A", "x"])));
    let empty = good(checker(&["code", "name", "price"]).check(&texts(2, &["A", "x"])));
    let moved = good(checker(&["price", "name", "code"]).check(&texts(9, &["", "x", "A"])));
    assert_ne!(without.hash, empty.hash);
    assert_eq!(empty.hash, moved.hash);
}
