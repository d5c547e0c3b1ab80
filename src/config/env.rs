//! The layers that are variables and flags.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::error::Mistake;
use super::near::nearest;
use super::origin::{Origin, Place};
use super::schema::{Path, Schema, dotted};
use super::setting::Gathered;

/// What every variable of this program begins with.
const PREFIX: &str = "INGESTD_";

/// Variables that are read elsewhere and are no settings: where `ingestd dev` and the tests find the
/// binaries of Postgres, and what a build notes about itself.
const NOT_SETTINGS: [&str; 3] = ["INGESTD_PG_BIN", "INGESTD_REVISION", "INGESTD_RUSTC"];

/// Variables of the tests are no settings either.
const TEST_PREFIX: &str = "INGESTD_TEST_";

/// The environment, copied, so that tests need not touch that of their process.
pub(super) type Env = BTreeMap<OsString, OsString>;

/// Reads `DATABASE_URL`, which other tools set too; an empty one counts as none.
pub(super) fn gather_alias(env: &Env, layer: usize, into: &mut Gathered) {
    let alias = "DATABASE_URL";
    if let Some(value) = env.get(OsStr::new(alias)).filter(|value| !value.is_empty()) {
        let path = vec!["database".to_owned(), "url".to_owned()];
        variable(alias, value, path, layer, into);
    }
}

/// Reads the variables `INGESTD_SECTION__KEY`.
pub(super) fn gather(env: &Env, layer: usize, schema: &Schema, into: &mut Gathered) {
    for (name, value) in env {
        let name = name.to_string_lossy();
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if NOT_SETTINGS.contains(&name.as_ref()) || name.starts_with(TEST_PREFIX) {
            continue;
        }
        let path: Path = rest.split("__").map(str::to_ascii_lowercase).collect();
        if is_key(schema, &path) {
            variable(&name, value, path, layer, into);
        } else {
            into.mistakes.push(unknown(&name, &path, schema));
        }
    }
}

/// Reads flags, given as keys and values.
pub(super) fn gather_flags(
    flags: &[(String, String)],
    layer: usize,
    schema: &Schema,
    into: &mut Gathered,
) {
    for (key, value) in flags {
        let path: Path = key.split('.').map(str::to_owned).collect();
        let place = Place::from(Origin::Flag);
        if is_key(schema, &path) {
            into.text(path, value, layer, place);
        } else {
            let keys: Vec<_> = schema.keys().iter().map(|path| dotted(path)).collect();
            let near = nearest(key, keys.iter().map(String::as_str));
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let message = format!("unknown key `{key}`");
            into.mistakes.push(Mistake::at(place, message).hint(hint));
        }
    }
}

fn is_key(schema: &Schema, path: &[String]) -> bool {
    let named = path.iter().all(|name| !name.is_empty());
    named && schema.at(path).is_some_and(|value| !value.is_object())
}

fn variable(name: &str, value: &OsStr, path: Path, layer: usize, into: &mut Gathered) {
    let place = Place::from(Origin::Env(name.to_owned()));
    match value.to_str() {
        Some(text) => into.text(path, text, layer, place),
        None => into
            .mistakes
            .push(Mistake::at(place, "the value is not UTF-8")),
    }
}

fn unknown(name: &str, path: &[String], schema: &Schema) -> Mistake {
    let names: Vec<String> = schema
        .keys()
        .iter()
        .map(|key| variable_like(key, path))
        .collect();
    let others = names
        .iter()
        .map(String::as_str)
        .filter(|other| *other != name);
    let hint = nearest(name, others).map(|near| format!("did you mean {near}?"));
    let place = Place::from(Origin::Env(name.to_owned()));
    Mistake::at(place, "unknown variable").hint(hint)
}

/// Returns the variable of a key, with the operator's own names where the key has any.
fn variable_like(key: &[String], path: &[String]) -> String {
    let names = key
        .iter()
        .enumerate()
        .map(|(at, name)| match name.as_str() {
            "*" => path.get(at).map_or(name.as_str(), String::as_str),
            name => name,
        });
    let names: Vec<_> = names.map(str::to_ascii_uppercase).collect();
    format!("{PREFIX}{}", names.join("__"))
}
