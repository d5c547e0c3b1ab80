//! The layers that are TOML files.

use std::ops::Range;
use std::path::Path as FilePath;

use serde_json::{Map, Number, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Mistake;
use super::excerpt::Excerpt;
use super::origin::Place;
use super::schema::{Path, Schema, child, dotted, is_secret};
use super::setting::{Gathered, Setting};

/// Reads the settings of one file.
pub(super) fn gather(
    path: &FilePath,
    text: &str,
    layer: usize,
    schema: &Schema,
    into: &mut Gathered,
) {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let place = Excerpt::unparsed(path, text).place(&error.span().unwrap_or_default());
            into.mistakes.push(Mistake::at(place, error.message()));
            return;
        }
    };
    let mut walk = Walk {
        schema,
        met: Vec::new(),
        hidden: Vec::new(),
    };
    walk.table(document.get_ref(), schema.root(), &Path::new());
    // Places are worked out last, when it is known which values must not be shown.
    let excerpt = Excerpt::new(path, text, walk.hidden);
    for (span, met) in walk.met {
        let place = excerpt.place(&span);
        met.give(place, layer, into);
    }
}

/// Something met in a file.
enum Met {
    Setting(Path, Value),
    Mistake(String, Option<String>),
}

impl Met {
    fn give(self, place: Place, layer: usize, into: &mut Gathered) {
        match self {
            Self::Setting(path, value) => into.value(Setting {
                path,
                value,
                layer,
                place,
            }),
            Self::Mistake(message, hint) => {
                into.mistakes.push(Mistake::at(place, message).hint(hint));
            }
        }
    }
}

/// A walk over a file's tables beside those of the schema.
struct Walk<'a> {
    schema: &'a Schema,
    met: Vec<(Range<usize>, Met)>,
    /// Where the values are that must not be shown: secrets, and whatever a wrong key holds, as it
    /// may be a secret under a mistyped name.
    hidden: Vec<Range<usize>>,
}

impl Walk<'_> {
    fn table(&mut self, table: &DeTable<'_>, known: &Map<String, Value>, path: &[String]) {
        let mut entries: Vec<_> = table.iter().collect();
        // The map is sorted by name; mistakes read better in the order of the file.
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let mut path = path.to_vec();
            let mut at = Some(known);
            let mut node = None;
            for name in names(&path, key.get_ref()) {
                node = at.and_then(|at| child(at, name));
                at = node.and_then(Value::as_object);
                path.push(name.to_owned());
            }
            match (node, value.get_ref()) {
                (None, _) => {
                    self.hide(value);
                    self.unknown(key.span(), known, &path);
                }
                (Some(Value::Object(known)), DeValue::Table(table)) => {
                    self.table(table, known, &path);
                }
                (Some(Value::Object(_)), _) => {
                    self.hide(value);
                    self.not_a_table(key.span(), &path);
                }
                (Some(_), found) => {
                    if is_secret(&dotted(&path)) {
                        self.hidden.push(value.span());
                    }
                    self.met
                        .push((value.span(), Met::Setting(path, json(found))));
                }
            }
        }
    }

    /// Hides what a wrong key holds; numbers may be shown.
    fn hide(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => table.values().for_each(|value| self.hide(value)),
            DeValue::String(_) | DeValue::Array(_) => self.hidden.push(value.span()),
            _ => {}
        }
    }

    fn unknown(&mut self, span: Range<usize>, known: &Map<String, Value>, path: &[String]) {
        let Some((name, parents)) = path.split_last() else {
            return;
        };
        let message = match parents {
            [] => format!("unknown key `{name}`"),
            parents => format!("unknown key `{name}` in [{}]", dotted(parents)),
        };
        let hint = self.schema.suggest(known, name);
        self.met.push((span, Met::Mistake(message, hint)));
    }

    fn not_a_table(&mut self, span: Range<usize>, path: &[String]) {
        let (message, hint) = match path {
            [section, name, ..] if section == "kinds" => (
                format!("`{name}` is not a kind"),
                "a kind is named by system and verb: [kinds.product_import.run]".to_owned(),
            ),
            path => (
                format!("{} is a section, not a key", dotted(path)),
                format!("write [{}] above its keys", dotted(path)),
            ),
        };
        self.met.push((span, Met::Mistake(message, Some(hint))));
    }
}

/// Returns the names a key stands for: a kind may be written as one, `[kinds."system.verb"]`.
fn names<'a>(path: &[String], key: &'a str) -> Vec<&'a str> {
    match path {
        [section] if section == "kinds" => key.split('.').collect(),
        _ => vec![key],
    }
}

fn json(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            parsed.map_or_else(|_| Value::from(number.as_str()), Value::from)
        }
        DeValue::Float(number) => {
            let parsed = number.as_str().parse().ok().and_then(Number::from_f64);
            // JSON has no infinity: it stays text, which no key takes for a number.
            parsed.map_or_else(|| Value::from(number.as_str()), Value::Number)
        }
        DeValue::Boolean(value) => Value::from(*value),
        DeValue::Datetime(time) => Value::from(time.to_string()),
        DeValue::Array(array) => array.iter().map(|value| json(value.get_ref())).collect(),
        DeValue::Table(table) => {
            let entries = table.iter();
            let entries =
                entries.map(|(key, value)| (key.get_ref().to_string(), json(value.get_ref())));
            Value::Object(entries.collect())
        }
    }
}
