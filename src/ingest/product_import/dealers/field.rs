//! The columns of a dealers' file, and the headers by which they are known. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::ingest::product_import::row::{
    ProductRow,
    field::Field,
    header::{Mapping, Target, fold},
};

/// Further headers of the code and the name.
const CODE: &str = "dealer code | dealer id | dealer no | dealer number | customer code | \
    customer number | Händlernummer | Händler-Nr. | Kundennummer | code revendeur | \
    codice rivenditore | kód prodejce | číslo prodejce | kod dealera";
const NAME: &str = "dealer | dealer name | company | company name | Händler | Firma | Firmenname | \
    revendeur | société | rivenditore | ragione sociale | prodejce | firma | nazwa firmy";

/// The other columns, in the order of the table's, each with its headers.
const COLUMNS: [(&str, &str); 5] = [
    (
        "email",
        "email | e-mail | mail | email address | E-Mail-Adresse | courriel | correo | e-mailová adresa",
    ),
    (
        "phone",
        "phone | telephone | phone number | tel | mobile | Telefon | Telefonnummer | téléphone | \
         telefono | teléfono | telefon",
    ),
    (
        "address",
        "address | street | street address | Adresse | Straße | adresse | indirizzo | dirección | \
         adresa | ulice | adres | ulica",
    ),
    (
        "city",
        "city | town | Stadt | Ort | ville | città | ciudad | město | miasto",
    ),
    (
        "country",
        "country | country code | Land | pays | paese | país | země | stát | kraj",
    ),
];

/// Adds the dealers' headers of code and name to those of the configuration.
pub(super) fn add_aliases(aliases: &mut BTreeMap<String, Vec<String>>) {
    for (field, headers) in [(Field::Code, CODE), (Field::Name, NAME)] {
        let known = aliases.entry(field.name().to_owned()).or_default();
        known.extend(headers.split('|').map(|header| header.trim().to_owned()));
    }
}

/// Takes the products' other fields out of a mapping: a dealer's *Website* is an extra column.
pub(super) fn own_only(mapping: &mut Mapping) {
    for column in &mut mapping.columns {
        if let Target::Field(field) = column.target
            && !Field::REQUIRED.contains(&field)
        {
            column.target = Target::Attribute;
        }
    }
}

/// Returns which of the table's columns from `email` on a header stands for.
fn column(header: &str) -> Option<usize> {
    let folded = fold(header);
    COLUMNS.iter().position(|(_, headers)| {
        let mut headers = headers.split('|');
        headers.any(|known| fold(known) == folded)
    })
}

/// The headers of a file that are dealers' columns, in the order of the table's; the first one wins.
#[derive(Debug, Default)]
pub(super) struct Headers<'m> {
    by_column: [Option<&'m str>; COLUMNS.len()],
    has_others: bool,
}

impl<'m> Headers<'m> {
    pub(super) fn of(mapping: &'m Mapping) -> Self {
        let mut headers = Self::default();
        let columns = mapping.columns.iter();
        for extra in columns.filter(|column| column.target == Target::Attribute) {
            let place = column(&extra.header).and_then(|at| headers.by_column.get_mut(at));
            match place {
                Some(place) if place.is_none() => *place = Some(extra.header.as_str()),
                _ => headers.has_others = true,
            }
        }
        headers
    }

    /// Returns which columns from `email` to `attributes` the file has.
    pub(super) fn present(&self) -> Vec<bool> {
        let known = self.by_column.iter().map(Option::is_some);
        known.chain([self.has_others]).collect()
    }

    /// Returns the values of a row from `email` to `country`, and what is left as JSON.
    pub(super) fn values(&self, row: &ProductRow) -> (Vec<Option<String>>, Option<String>) {
        let mut rest: Map<String, Value> = row.attributes.clone().unwrap_or_default().into();
        let values = self.by_column.iter().map(|header| {
            let value = header.and_then(|header| rest.remove(header));
            value.map(|value| match value {
                Value::String(text) => text,
                other => other.to_string(),
            })
        });
        let values = values.collect();
        let rest = (!rest.is_empty()).then(|| Value::Object(rest).to_string());
        (values, rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_header_stands_for_two_columns() {
        let mut seen: BTreeMap<String, &str> = BTreeMap::new();
        for (name, headers) in COLUMNS {
            for header in headers.split('|') {
                if let Some(other) = seen.insert(fold(header), name) {
                    assert_eq!(other, name, "{header} stands for two columns");
                }
            }
        }
    }

    #[test]
    fn headers_are_known_in_any_spelling() {
        for (header, expected) in [
            ("E-MAIL", 0),
            ("Téléphone", 1),
            ("straße ", 2),
            ("Ort", 3),
            ("Country", 4),
        ] {
            assert_eq!(column(header), Some(expected), "{header}");
        }
        assert_eq!(column("fax"), None);
    }
}
