//! The columns of a download: those of the file, and of several sheets all of theirs together.
//!
//! A download has one header row, so that it can be mended and imported like any file. Columns that
//! mean the same field are one; where the sheets head it differently it has the field's own name,
//! which no other header can take away. The other columns are one where their headers are.

use std::collections::BTreeMap;

use super::super::{
    row::{
        field::Field,
        header::{Mapping, Target, fold},
    },
    sheet::Inspection,
};

/// Header of the column that says which of several sheets a row is of.
pub const SHEET_COLUMN: &str = "import_sheet";

/// The columns of a download.
#[derive(Debug)]
pub(super) struct Columns {
    headers: Vec<String>,
    /// By sheet and the place of a column among its kept ones: the place here.
    places: Vec<Vec<usize>>,
    /// The sheets' names, where there are several.
    sheets: Vec<String>,
}

/// What makes two columns one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Field(Field),
    Header(String),
}

impl Columns {
    /// Returns the columns of the sheets that are read.
    pub(super) fn of(inspection: &Inspection) -> Self {
        if inspection.more.is_empty() {
            return Self::of_one(&inspection.mapping);
        }
        let mut columns = Self {
            headers: Vec::new(),
            places: Vec::new(),
            sheets: Vec::new(),
        };
        let mut by_key: BTreeMap<Key, usize> = BTreeMap::new();
        for head in inspection.heads() {
            let kept = head.mapping.kept();
            let places = kept.map(|column| {
                let key = match column.target {
                    Target::Field(field) => Key::Field(field),
                    _ => Key::Header(folded(&column.header)),
                };
                let n_columns = columns.headers.len();
                let place = *by_key.entry(key.clone()).or_insert(n_columns);
                match (columns.headers.get_mut(place), key) {
                    (None, _) => columns.headers.push(column.header.clone()),
                    (Some(header), Key::Field(field)) if *header != column.header => {
                        field.name().clone_into(header);
                    }
                    _ => {}
                }
                place
            });
            let places = places.collect();
            columns.places.push(places);
            let sheet = head.sheet.unwrap_or_default();
            columns.sheets.push(sheet.to_owned());
        }
        columns
    }

    fn of_one(mapping: &Mapping) -> Self {
        let headers = mapping.kept().map(|column| column.header.clone());
        let headers: Vec<String> = headers.collect();
        Self {
            places: vec![(0..headers.len()).collect()],
            headers,
            sheets: Vec::new(),
        }
    }

    /// Returns the headers, of several sheets with one for the sheet.
    pub(super) fn headers(&self) -> Vec<String> {
        let sheet = (!self.sheets.is_empty()).then(|| SHEET_COLUMN.to_owned());
        self.headers.iter().cloned().chain(sheet).collect()
    }

    /// Returns the cells of a row as they stand here.
    pub(super) fn row<'r>(
        &'r self,
        sheet: usize,
        cells: &'r [Option<String>],
    ) -> Vec<Option<&'r str>> {
        let mut row = vec![None; self.headers.len()];
        let places = self.places.get(sheet).into_iter().flatten();
        for (place, cell) in places.zip(cells) {
            if let Some(here) = row.get_mut(*place) {
                *here = cell.as_deref();
            }
        }
        row.extend(self.sheets.get(sheet).map(|sheet| Some(sheet.as_str())));
        row
    }
}

/// Returns a header as columns are compared: one of signs only is told apart by itself.
fn folded(header: &str) -> String {
    match fold(header) {
        empty if empty.is_empty() => header.to_owned(),
        folded => folded,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ingest::product_import::{
        row::{field::Aliases, header::map},
        sheet::{Format, FurtherSheet},
    };

    fn mapping(headers: &[&str]) -> Mapping {
        let headers: Vec<String> = headers.iter().map(|it| (*it).to_owned()).collect();
        map(&headers, &Aliases::new(&BTreeMap::new())).unwrap()
    }

    fn of(sheets: &[&[&str]]) -> Columns {
        let further = |(n, headers): (usize, &&[&str])| FurtherSheet {
            sheet: format!("S{n}"),
            header_row: 1,
            mapping: mapping(headers),
        };
        Columns::of(&Inspection {
            format: Format::Xlsx,
            sheet: Some("S0".to_owned()),
            header_row: 1,
            mapping: mapping(sheets[0]),
            rows_at_most: None,
            more: sheets.iter().enumerate().skip(1).map(further).collect(),
            skipped: Vec::new(),
            left_out: Vec::new(),
        })
    }

    fn texts(cells: &[&str]) -> Vec<Option<String>> {
        cells.iter().map(|cell| Some((*cell).to_owned())).collect()
    }

    #[test]
    fn one_sheet_is_as_it_is() {
        let columns = of(&[&["name", "SKU", "Farbe"]]);
        assert_eq!(columns.headers(), ["name", "SKU", "Farbe"]);
        let cells = texts(&["a", "A"]);
        assert_eq!(columns.row(0, &cells), [Some("a"), Some("A"), None]);
    }

    #[test]
    fn columns_of_several_sheets_stand_beside_each_other() {
        let columns = of(&[
            &["SKU", "Name", "Preis", "Farbe"],
            &["Bezeichnung", "SKU", "FARBE ", "Watt"],
            &["code", "Name", "sku"],
        ]);
        // a field that is headed in two ways has its own name; `sku` is an attribute in the third
        assert_eq!(
            columns.headers(),
            [
                "code",
                "name",
                "Preis",
                "Farbe",
                "Watt",
                "sku",
                SHEET_COLUMN
            ]
        );
        let cells = texts(&["Lamp", "L1", "red", "40"]);
        let row = columns.row(1, &cells);
        let expected = ["L1", "Lamp", "", "red", "40", "", "S1"];
        let shown: Vec<&str> = row.iter().map(|cell| cell.unwrap_or_default()).collect();
        assert_eq!(shown, expected);
        // and it is read as one file again
        let headers: Vec<&str> = columns.headers.iter().map(String::as_str).collect();
        let again = mapping(&headers);
        assert_eq!(again.header_of(Field::Code), Some("code"));
        assert_eq!(again.header_of(Field::Price), Some("Preis"));
    }
}
