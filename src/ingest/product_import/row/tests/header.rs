//! Tests of the header mapping.

use super::*;

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn mapped(cells: &[&str]) -> Result<Mapping, HeaderFault> {
    map(&row(cells), &Aliases::new(&BTreeMap::new()))
}

fn targets(cells: &[&str]) -> Vec<Target> {
    let mapping = mapped(cells).unwrap();
    mapping.columns.iter().map(|c| c.target).collect()
}

#[test]
fn case_accents_spaces_and_punctuation_do_not_matter() {
    for text in [
        "Artikel-Nr.",
        "ARTIKELNR",
        " artikel\u{a0}nr ",
        "Artikel_Nr",
    ] {
        assert_eq!(fold(text), "artikelnr");
    }
    assert_eq!(fold("Größe"), "grosse");
    assert_eq!(fold("Désignation"), "designation");
    assert_eq!(fold("Ilość"), "ilosc");
    assert_eq!(fold("ＣＯＤＥ"), "code");
    assert_eq!(fold("Артикул"), "артикул");
}

#[test]
fn any_order_and_language() {
    use Field::{Code, Name, Price};
    assert_eq!(
        targets(&["Preis", "Bezeichnung", "Artikelnummer"]),
        [Price, Name, Code].map(Target::Field)
    );
    assert_eq!(
        targets(&["référence produit", "DÉSIGNATION", "prix"]),
        [Code, Name, Price].map(Target::Field)
    );
    assert_eq!(
        targets(&["артикул", "название", "цена"]),
        [Code, Name, Price].map(Target::Field)
    );
}

#[test]
fn other_columns_are_attributes_under_their_own_header() {
    let mapping = mapped(&["code", "", "name", " Farbe ", "#"]).unwrap();
    let found: Vec<_> = mapping
        .columns
        .iter()
        .map(|c| (c.index, c.header.as_str(), c.target))
        .collect();
    assert_eq!(
        found,
        [
            (0, "code", Target::Field(Field::Code)),
            (2, "name", Target::Field(Field::Name)),
            (3, "Farbe", Target::Attribute),
            (4, "#", Target::Attribute),
        ]
    );
    assert!(mapping.has_attributes());
    assert!(mapping.fields().contains(Field::Name) && !mapping.fields().contains(Field::Price));
}

#[test]
fn the_fields_own_name_wins_over_an_alias() {
    assert_eq!(
        targets(&["SKU", "code", "name"]),
        [
            Target::Attribute,
            Target::Field(Field::Code),
            Target::Field(Field::Name)
        ]
    );
}

#[test]
fn two_columns_of_one_meaning_are_named() {
    let Err(HeaderFault::Duplicate(message)) = mapped(&["SKU", "name", "Artikelnummer"]) else {
        panic!("not refused");
    };
    assert!(message.contains("columns A (\"SKU\") and C (\"Artikelnummer\") both mean code"));
    let Err(HeaderFault::Duplicate(message)) = mapped(&["code", "name", "Note", "note "]) else {
        panic!("not refused");
    };
    assert!(
        message.contains("columns C and D have the same header \"note\""),
        "{message}"
    );
}

#[test]
fn a_missing_column_is_named_with_its_near_misses() {
    let cells = row(&["Cde", "price", "Product names"]);
    let aliases = Aliases::new(&BTreeMap::new());
    let Err(HeaderFault::Missing { fields, n_known }) = map(&cells, &aliases) else {
        panic!("not refused");
    };
    assert_eq!(
        (fields.as_slice(), n_known),
        ([Field::Code, Field::Name].as_slice(), 1)
    );
    let message = explain_missing(&fields, &cells, &aliases);
    assert!(
        message.starts_with("missing required columns: code, name"),
        "{message}"
    );
    assert!(message.contains("\"Cde\" may be code"), "{message}");
    assert!(
        message.contains("\"Product names\" may be name"),
        "{message}"
    );
    assert!(
        message.ends_with(
            "found: Cde, price, Product names; mapping says what a header means, as in: Cde=code"
        ),
        "{message}"
    );
}

#[test]
fn columns_have_their_letters() {
    let letters: Vec<String> = [0, 25, 26, 701, 702, 16_383].map(letters).to_vec();
    assert_eq!(letters, ["A", "Z", "AA", "ZZ", "AAA", "XFD"]);
}

#[test]
fn cutting_and_trimming_count_characters() {
    assert_eq!(cut("äöü", 2), "äö");
    assert_eq!(cut("äöü", 3), "äöü");
    assert_eq!(trim("\u{feff}\u{a0} x\t\u{200b}"), "x");
}
