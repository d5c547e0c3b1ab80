//! One value of one layer, checked on its own so that a mistake is blamed on its layer.

use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::error::Mistake;
use super::origin::Place;
use super::schema::{Path, dotted, insert, is_secret};
use super::{Config, schema};

/// One value of one layer.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) path: Path,
    pub(super) value: Value,
    /// Number of the layer; a higher one is stronger.
    pub(super) layer: usize,
    pub(super) place: Place,
}

/// What the layers hold, gathered until all of them are read, so that all mistakes are told at once.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) settings: Vec<Setting>,
    pub(super) mistakes: Vec<Mistake>,
}

impl Gathered {
    /// Takes a value as a file has it.
    pub(super) fn value(&mut self, setting: Setting) {
        match fit(&setting.path, &setting.value) {
            Ok(()) => self.settings.push(setting),
            Err(why) => self.unfit(&setting.path, setting.place, &why),
        }
    }

    /// Takes a value as the environment and flags have it: as a string where the key takes one, else
    /// as TOML.
    pub(super) fn text(&mut self, path: Path, text: &str, layer: usize, place: Place) {
        match typed(&path, text) {
            Ok(value) => self.settings.push(Setting {
                path,
                value,
                layer,
                place,
            }),
            Err(why) => self.unfit(&path, place, &why),
        }
    }

    fn unfit(&mut self, path: &[String], place: Place, why: &str) {
        let message = format!("{}: {why}", dotted(path));
        self.mistakes.push(Mistake::at(place, message));
    }
}

fn typed(path: &[String], text: &str) -> Result<Value, String> {
    let string = Value::from(text);
    let Err(why) = fit(path, &string) else {
        return Ok(string);
    };
    let Some(value) = parse(text) else {
        return Err(why);
    };
    fit(path, &value).map(|()| value)
}

/// Reads one TOML value.
fn parse(text: &str) -> Option<Value> {
    let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    let value = table.remove("value")?;
    // A line break could smuggle in a second key.
    let alone = table.is_empty();
    alone.then(|| serde_json::to_value(value).ok()).flatten()
}

/// Tries a value against the type of its key, and says in plain words why it does not fit.
fn fit(path: &[String], value: &Value) -> Result<(), String> {
    let mut tree = Map::new();
    insert(&mut tree, path, value.clone());
    match Config::deserialize(Value::Object(tree)) {
        Ok(_) => Ok(()),
        Err(_) if is_secret(&dotted(path)) => Err("expected a string".to_owned()),
        Err(error) => Err(plainly(&error.to_string())),
    }
}

/// Turns serde's "invalid type: string "ten", expected u16" into plain words.
fn plainly(message: &str) -> String {
    let kind = message.strip_prefix("invalid type: ");
    let rest = kind.or_else(|| message.strip_prefix("invalid value: "));
    let Some((found, expected)) = rest.and_then(|rest| rest.split_once(", expected ")) else {
        return message.to_owned();
    };
    let expected = match expected {
        "u16" | "u32" if kind.is_some() => "a whole number",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "f64" => "a number",
        "path string" => "a path",
        "a sequence" => "a list of strings",
        "a map" => "a table",
        other => other,
    };
    let found = match found {
        "map" => "a table".to_owned(),
        "sequence" => "a list".to_owned(),
        other => other.replace('`', ""),
    };
    format!("expected {expected}, found {found}")
}

/// Merges settings into the defaults; a later one wins over an earlier one.
pub(super) fn merge(
    defaults: &Config,
    settings: Vec<Setting>,
) -> Result<(Config, super::Origins), Mistake> {
    let mut tree = schema::tree(defaults)?;
    let mut origins = super::Origins::default();
    for setting in settings {
        insert(&mut tree, &setting.path, setting.value);
        origins.set(dotted(&setting.path), setting.layer, setting.place);
    }
    // Every value fits its key already; only a defect of this module could fail here.
    let config = Config::deserialize(Value::Object(tree))
        .map_err(|error| Mistake::at(super::Origin::Default.into(), plainly(&error.to_string())))?;
    Ok((config, origins))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(key: &str, text: &str) -> Result<Value, String> {
        let path: Path = key.split('.').map(str::to_owned).collect();
        typed(&path, text)
    }

    #[test]
    fn text_becomes_what_its_key_takes() {
        let cases = [
            ("queue.concurrency", "7", Value::from(7)),
            ("http.token", "12345", Value::from("12345")),
            ("http.max_body_bytes", "2MiB", Value::from("2MiB")),
            ("http.max_body_bytes", "2048", Value::from("2048")),
            ("kinds.a.b.retry_factor", "2", Value::from(2)),
            (
                "product_import.aliases.code",
                "['sku', 'art']",
                Value::from(vec!["sku", "art"]),
            ),
        ];
        for (key, text, expected) in cases {
            assert_eq!(value(key, text), Ok(expected), "{key} = {text}");
        }
    }

    #[test]
    fn text_that_does_not_fit_is_told_in_plain_words() {
        let cases = [
            (
                "queue.concurrency",
                "ten",
                "expected a whole number, found string \"ten\"",
            ),
            (
                "queue.concurrency",
                "-1",
                "expected a whole number from 0 to 65535, found integer -1",
            ),
            (
                "queue.concurrency",
                "1\nother = 2",
                "expected a whole number, found string \"1\\nother = 2\"",
            ),
            (
                "queue.poll_interval",
                "5",
                "expected a duration such as \"30s\" or \"15m\", found integer 5",
            ),
            (
                "queue.poll_interval",
                "5 fortnights",
                "\"5 fortnights\" is not a duration such as \"30s\" or \"15m\": \
                 unknown time unit \"fortnights\", supported units: ns, us/µs, ms, sec, min, \
                 hours, days, weeks, months, years (and few variations)",
            ),
            (
                "http.max_body_bytes",
                "2 miles",
                "expected a number of bytes or a size such as \"512MiB\", found string \"2 miles\"",
            ),
            (
                "http.listen",
                "localhost",
                "expected an address and a port such as \"127.0.0.1:8477\", \
                 found string \"localhost\"",
            ),
            (
                "log.format",
                "xml",
                "unknown variant `xml`, expected one of `auto`, `text`, `json`, `journald`",
            ),
            (
                "product_import.aliases.code",
                "sku",
                "expected a list of strings, found string \"sku\"",
            ),
        ];
        for (key, text, why) in cases {
            assert_eq!(value(key, text), Err(why.to_owned()), "{key} = {text}");
        }
    }
}
