//! What somebody says the headers of one file mean: `Artikelnr=code`. Pure.
//!
//! It counts before every alias and every field's own name, for this file only. A header that is
//! said to be an *attribute* is none of the fields that it would be by its aliases.

use std::collections::BTreeMap;

use super::{
    field::Field,
    header::{Mapping, cut, fold},
};

/// Headers that are said to mean something, at most.
const MOST: usize = 1000;

/// What headers of a file mean.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderMap {
    /// By header as it is compared: the header as it was given, and the field; `None`: none.
    by_key: BTreeMap<String, (String, Option<Field>)>,
    /// Whether it is for many files, of which each has some of the headers.
    is_saved: bool,
}

/// Returns a header as headers are compared; one of signs only, such as `#`, is told apart by itself.
fn key(header: &str) -> String {
    let header = super::header::trim(header);
    match fold(header) {
        empty if empty.is_empty() => header.to_owned(),
        folded => folded,
    }
}

impl HeaderMap {
    /// Reads a JSON object, `{"Artikelnr": "code"}`, or pairs, `Artikelnr=code, Farbe=attribute`.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let pairs: Vec<(String, String)> = if text.starts_with('{') {
            let object: BTreeMap<String, String> = serde_json::from_str(text)
                .map_err(|_| "is no JSON object of headers and the fields they mean".to_owned())?;
            object.into_iter().collect()
        } else {
            let pairs = text.split([',', '\n']).map(str::trim);
            let pairs = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
                let (header, field) = pair
                    .rsplit_once('=')
                    .ok_or_else(|| format!("`{}` is not header=field", cut(pair, 100)))?;
                Ok((header.to_owned(), field.to_owned()))
            });
            pairs.collect::<Result<_, String>>()?
        };
        Self::of(pairs)
    }

    /// Takes a mapping that is saved for many files.
    ///
    /// # Errors
    ///
    /// As [`HeaderMap::parse`].
    pub fn saved(headers: BTreeMap<String, String>) -> Result<Self, String> {
        let map = Self::of(headers.into_iter().collect())?;
        Ok(Self {
            is_saved: true,
            ..map
        })
    }

    fn of(pairs: Vec<(String, String)>) -> Result<Self, String> {
        if pairs.is_empty() || pairs.len() > MOST {
            let n = pairs.len();
            return Err(format!("names {n} headers; 1 to {MOST} can be named"));
        }
        let mut map = Self::default();
        for (header, name) in pairs {
            let key = key(&header);
            if key.is_empty() {
                return Err("has a header that is empty".to_owned());
            }
            let field = meaning(&name)?;
            let before = map.by_key.insert(key, (header, field));
            if let Some((before, other)) = before
                && other != field
            {
                return Err(format!("says two things of \"{}\"", cut(&before, 100)));
            }
        }
        Ok(map)
    }

    /// Returns the headers as they are compared, with what they mean.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Option<Field>)> {
        let entries = self.by_key.iter();
        entries.map(|(key, (_, field))| (key.as_str(), *field))
    }

    /// Returns the headers that none of these columns has, as they were given; none of a mapping
    /// that is saved for many files.
    #[must_use]
    pub fn unused<'m>(&self, mappings: impl Iterator<Item = &'m Mapping>) -> Vec<&str> {
        let mut left: BTreeMap<&str, &str> = BTreeMap::new();
        if self.is_saved {
            return Vec::new();
        }
        for (key, (header, _)) in &self.by_key {
            left.insert(key, header);
        }
        for column in mappings.flat_map(|mapping| &mapping.columns) {
            left.remove(key(&column.header).as_str());
        }
        left.into_values().collect()
    }
}

/// Reads the name of a field, or `attribute`.
fn meaning(name: &str) -> Result<Option<Field>, String> {
    let word = name.trim().to_lowercase().replace([' ', '-'], "_");
    if word == "attribute" {
        return Ok(None);
    }
    let field = Field::from_name(&word).ok_or_else(|| {
        let names: Vec<&str> = Field::ALL.iter().map(|field| field.name()).collect();
        format!(
            "`{}` is no field; there are {}, and attribute",
            cut(name, 100),
            names.join(", ")
        )
    })?;
    Ok(Some(field))
}

#[cfg(test)]
mod tests {
    use super::super::{
        field::Aliases,
        header::{self, Target},
    };
    use super::*;

    fn read(headers: &[&str], map: &str) -> Result<Mapping, header::HeaderFault> {
        let headers: Vec<String> = headers.iter().map(|it| (*it).to_owned()).collect();
        let aliases = Aliases::new(&BTreeMap::new());
        let aliases = aliases.with(&HeaderMap::parse(map).unwrap());
        header::map(&headers, &aliases)
    }

    #[test]
    fn what_is_said_counts_before_names_and_aliases() {
        let mapping = read(
            &["Unser Zeichen", "code", "Text", "Name", "#"],
            "unser-zeichen=code, Text = name\nName=attribute, #=stock",
        )
        .unwrap();
        let targets: Vec<_> = mapping.columns.iter().map(|column| column.target).collect();
        assert_eq!(
            targets,
            [
                Target::Field(Field::Code),
                Target::Attribute,
                Target::Field(Field::Name),
                Target::Attribute,
                Target::Field(Field::Stock)
            ]
        );
        let fault = read(&["code", "name"], "{\"name\": \"attribute\"}").unwrap_err();
        assert!(
            matches!(fault, header::HeaderFault::Missing { .. }),
            "{fault:?}"
        );
        let fault = read(&["a", "b", "name"], "a=code,b=code").unwrap_err();
        assert!(
            matches!(fault, header::HeaderFault::Duplicate(_)),
            "{fault:?}"
        );
    }

    #[test]
    fn a_map_is_json_or_pairs() {
        let json = "{\"A, B\": \"updated_at\", \"x=y\": \"Updated-At\"}";
        let map = HeaderMap::parse(json).unwrap();
        let entries: Vec<_> = map.entries().collect();
        assert_eq!(
            entries,
            [
                ("ab", Some(Field::UpdatedAt)),
                ("xy", Some(Field::UpdatedAt))
            ]
        );
        assert_eq!(
            HeaderMap::parse("x=y=updated at")
                .unwrap()
                .entries()
                .count(),
            1
        );
        for (wrong, word) in [
            ("", "0 headers"),
            ("{}", "0 headers"),
            ("Artikelnr", "header=field"),
            ("Artikelnr=kode", "no field; there are code, name"),
            ("=code", "empty"),
            ("A=code, a =name", "two things"),
            ("{\"A\": 1}", "JSON"),
            ("{\"A\": \"code\"", "JSON"),
        ] {
            let said = HeaderMap::parse(wrong).unwrap_err();
            assert!(said.contains(word), "{wrong}: {said}");
        }
        assert!(HeaderMap::parse(&"a=code,".repeat(MOST + 1)).is_err());
    }

    #[test]
    fn headers_that_no_column_has_are_named() {
        let map = HeaderMap::parse("Artikelnr=code,Prise=price").unwrap();
        let of = |headers: &[&str]| {
            let headers: Vec<String> = headers.iter().map(|it| (*it).to_owned()).collect();
            header::map(&headers, &Aliases::new(&BTreeMap::new())).unwrap()
        };
        let (one, other) = (of(&["ARTIKEL-NR", "name"]), of(&["code", "name", "prise"]));
        assert_eq!(map.unused([&one].into_iter()), ["Prise"]);
        assert!(map.unused([&one, &other].into_iter()).is_empty());
        let saved = BTreeMap::from([("Prise".to_owned(), "price".to_owned())]);
        let saved = HeaderMap::saved(saved).unwrap();
        assert!(saved.unused([&one].into_iter()).is_empty());
    }
}
