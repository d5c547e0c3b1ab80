//! From the headers of a file to the meaning of its columns. Pure.
//!
//! A header is compared *folded*: without case, accents, spaces and
//! punctuation, so that `Artikel-Nr. `, `ARTIKELNR` and `artikel nr` are one.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

use super::super::export::{ERROR_COLUMNS, SHEET_COLUMN};
use super::field::{Aliases, Field, FieldSet, Rank};

/// Returns a header as it is compared: letters and digits only, lower case, no accents.
#[must_use]
pub fn fold(header: &str) -> String {
    let mut folded = String::with_capacity(header.len());
    for c in header.nfkd().filter(|c| !is_combining_mark(*c)) {
        for c in c.to_lowercase().filter(|c| c.is_alphanumeric()) {
            match c {
                'ß' => folded.push_str("ss"),
                'æ' => folded.push_str("ae"),
                'œ' => folded.push_str("oe"),
                'ø' => folded.push('o'),
                'ł' => folded.push('l'),
                'đ' => folded.push('d'),
                'ı' => folded.push('i'),
                c => folded.push(c),
            }
        }
    }
    folded
}

/// What a column's cells become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// A field of the product.
    Field(Field),
    /// An entry of the product's attributes, under the header as in the file.
    Attribute,
    /// Nothing: a column that a download of rejected rows added.
    Ignored,
}

/// One column of the file that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Position in the sheet, from 0.
    pub index: usize,
    /// The header as in the file, trimmed.
    pub header: String,
    /// What its cells become.
    pub target: Target,
}

impl Column {
    /// Returns the column's letters as a spreadsheet shows them: A, B, …, Z, AA, ….
    #[must_use]
    pub fn letters(&self) -> String {
        letters(self.index)
    }
}

/// Returns the letters of a column, from 0: A, B, …, Z, AA, ….
#[must_use]
pub fn letters(index: usize) -> String {
    let mut n = index + 1;
    let mut reversed = Vec::new();
    while n > 0 {
        let digit = u8::try_from((n - 1) % 26).unwrap_or_default();
        reversed.push(char::from(b'A' + digit));
        n = (n - 1) / 26;
    }
    reversed.iter().rev().collect()
}

/// The columns of a file that are read, by position; columns without a header are not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Mapping {
    /// The columns, in the order of the sheet.
    pub columns: Vec<Column>,
}

impl Mapping {
    /// Returns the fields the file has: what it does not have is not said to be empty.
    #[must_use]
    pub fn fields(&self) -> FieldSet {
        let mut set = FieldSet::default();
        for column in &self.columns {
            if let Target::Field(field) = column.target {
                set.insert(field);
            }
        }
        set
    }

    /// Returns the header of a field's column, as in the file.
    #[must_use]
    pub fn header_of(&self, field: Field) -> Option<&str> {
        let mut columns = self.columns.iter();
        let column = columns.find(|column| column.target == Target::Field(field));
        column.map(|column| column.header.as_str())
    }

    /// Returns the columns that are not ignored, in the order of `RejectedRow::cells`.
    pub fn kept(&self) -> impl Iterator<Item = &Column> {
        let columns = self.columns.iter();
        columns.filter(|column| column.target != Target::Ignored)
    }

    /// Returns the place of a field among the [kept](Self::kept) columns.
    #[must_use]
    pub fn place_of(&self, field: Field) -> Option<usize> {
        let mut kept = self.kept();
        kept.position(|column| column.target == Target::Field(field))
    }

    /// Whether the file is a download of rejected rows that comes back.
    #[must_use]
    pub fn is_download(&self) -> bool {
        let mut columns = self.columns.iter();
        columns.any(|column| column.target == Target::Ignored)
    }

    /// Whether any column becomes an attribute.
    #[must_use]
    pub fn has_attributes(&self) -> bool {
        self.columns
            .iter()
            .any(|column| column.target == Target::Attribute)
    }
}

/// Why a row is not the header row, or one that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderFault {
    /// Required fields have no column; with how many columns are known fields all the same.
    Missing {
        /// The fields without a column.
        fields: Vec<Field>,
        /// How many columns are known fields.
        n_known: usize,
    },
    /// Two columns mean the same; the sentence names them.
    Duplicate(String),
}

impl HeaderFault {
    /// Returns how many columns are known fields all the same.
    #[must_use]
    pub fn n_known(&self) -> usize {
        match self {
            Self::Missing { n_known, .. } => *n_known,
            Self::Duplicate(_) => Field::REQUIRED.len(),
        }
    }
}

/// Maps the cells of a row, taken as headers, to fields and attributes.
///
/// The better header wins a field (its own name over a configured alias over a built-in one) and
/// the worse one stays as an attribute, so a file may have both `code` and `sku`.
///
/// # Errors
///
/// [`HeaderFault::Missing`] when a required field has no column. [`HeaderFault::Duplicate`] when
/// two columns have the same header, or two equally good headers mean one field.
pub fn map(cells: &[String], aliases: &Aliases) -> Result<Mapping, HeaderFault> {
    let headers: Vec<Header<'_>> = cells
        .iter()
        .enumerate()
        .filter_map(|(index, cell)| Header::read(index, cell, aliases))
        .collect();
    let winners = winners(&headers);
    let missing: Vec<Field> = Field::REQUIRED
        .into_iter()
        .filter(|field| !winners.contains_key(field))
        .collect();
    if !missing.is_empty() {
        return Err(HeaderFault::Missing {
            fields: missing,
            n_known: winners.len(),
        });
    }
    refuse_duplicates(&headers, &winners)?;
    let columns = headers.iter().map(|header| header.column(&winners));
    Ok(Mapping {
        columns: columns.collect(),
    })
}

struct Header<'a> {
    index: usize,
    text: &'a str,
    folded: String,
    means: Option<(Field, Rank)>,
}

impl<'a> Header<'a> {
    fn read(index: usize, cell: &'a str, aliases: &Aliases) -> Option<Self> {
        let text = trim(cell);
        let mut folded = fold(text);
        if folded.is_empty() {
            // a header of signs only, such as `#` or `%`, is told apart by itself
            text.clone_into(&mut folded);
        }
        (!text.is_empty()).then(|| Self {
            index,
            text,
            means: aliases.find(&folded),
            folded,
        })
    }

    fn column(&self, winners: &HashMap<Field, Rank>) -> Column {
        let field = self
            .means
            .filter(|(field, rank)| winners.get(field) == Some(rank));
        let target = match field {
            Some((field, _)) => Target::Field(field),
            None if ERROR_COLUMNS.contains(&self.text) || self.text == SHEET_COLUMN => {
                Target::Ignored
            }
            None => Target::Attribute,
        };
        Column {
            index: self.index,
            header: self.text.to_owned(),
            target,
        }
    }
}

fn winners(headers: &[Header<'_>]) -> HashMap<Field, Rank> {
    let mut winners: HashMap<Field, Rank> = HashMap::new();
    for (field, rank) in headers.iter().filter_map(|header| header.means) {
        let best = winners.entry(field).or_insert(rank);
        *best = rank.min(*best);
    }
    winners
}

fn refuse_duplicates(
    headers: &[Header<'_>],
    winners: &HashMap<Field, Rank>,
) -> Result<(), HeaderFault> {
    let mut by_text: BTreeMap<&str, &Header<'_>> = BTreeMap::new();
    let mut by_field: BTreeMap<Field, &Header<'_>> = BTreeMap::new();
    for header in headers {
        if let Some(first) = by_text.insert(&header.folded, header) {
            return Err(HeaderFault::Duplicate(format!(
                "columns {} and {} have the same header \"{}\"",
                letters(first.index),
                letters(header.index),
                header.text
            )));
        }
        let Some((field, _)) = header
            .means
            .filter(|(f, rank)| winners.get(f) == Some(rank))
        else {
            continue;
        };
        if let Some(first) = by_field.insert(field, header) {
            return Err(HeaderFault::Duplicate(format!(
                "columns {} (\"{}\") and {} (\"{}\") both mean {}; rename one, or name it \"{}\"",
                letters(first.index),
                first.text,
                letters(header.index),
                header.text,
                field.name(),
                field.name()
            )));
        }
    }
    Ok(())
}

/// Says which fields are missing, which headers came near, which there are, and what can be done.
#[must_use]
pub fn explain_missing(fields: &[Field], cells: &[String], aliases: &Aliases) -> String {
    let names: Vec<&str> = fields.iter().map(|field| field.name()).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    let missing = names.join(", ");
    let mut parts = vec![format!("missing required column{plural}: {missing}")];
    let near = near_misses(fields, cells, aliases);
    for (field, header) in &near {
        parts.push(format!("\"{header}\" may be {}", field.name()));
    }
    let found: Vec<&str> = cells
        .iter()
        .map(|cell| trim(cell))
        .filter(|cell| !cell.is_empty())
        .take(30)
        .collect();
    parts.push(format!("found: {}", cut(&found.join(", "), 500)));
    let (field, header) = match (near.first(), fields.first()) {
        (Some((field, header)), _) if !header.contains([',', '=']) => (field, *header),
        (_, Some(field)) => (field, "header"),
        (_, None) => return parts.join("; "),
    };
    parts.push(format!(
        "mapping says what a header means, as in: {header}={}",
        field.name()
    ));
    parts.join("; ")
}

/// Returns the headers that are no known field but nearly one of the missing ones, each once.
fn near_misses<'a>(
    fields: &[Field],
    cells: &'a [String],
    aliases: &Aliases,
) -> Vec<(Field, &'a str)> {
    let mut near = Vec::new();
    for cell in cells.iter().take(200) {
        let folded = fold(cell);
        if folded.is_empty() || folded.len() > 60 || aliases.find(&folded).is_some() {
            continue;
        }
        let distance = |field| {
            aliases
                .of(field)
                .filter_map(|alias| distance(alias, &folded))
                .min()
        };
        let nearest = fields
            .iter()
            .filter_map(|field| Some((distance(*field)?, *field)))
            .min();
        if let Some((_, field)) = nearest {
            near.push((field, cut(trim(cell), 60)));
        }
    }
    near
}

/// Returns how far a header is from an alias, 0 for one with words around it; `None` when more than
/// about one letter in four is wrong.
fn distance(alias: &str, header: &str) -> Option<usize> {
    if alias.len() >= 4 && (header.starts_with(alias) || header.ends_with(alias)) {
        return Some(0);
    }
    let allowed = (alias.chars().count() / 4).clamp(1, 3);
    let distance = strsim::osa_distance(alias, header);
    (alias.len() >= 3 && distance <= allowed).then_some(distance)
}

/// Returns a text without white space, no-break spaces and zero-width signs around it.
#[must_use]
pub fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || matches!(c, '\u{200b}' | '\u{200c}' | '\u{200d}' | '\u{feff}')
    })
}

/// Returns at most the first `max_chars` characters of a text.
#[must_use]
pub fn cut(text: &str, max_chars: usize) -> &str {
    match text.char_indices().nth(max_chars) {
        Some((end, _)) => text.get(..end).unwrap_or(text),
        None => text,
    }
}

#[cfg(test)]
#[path = "tests/header.rs"]
mod tests;
