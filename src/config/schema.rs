//! Which keys there are, read off the defaults, so that a key is named in its struct only.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::near::nearest;
use super::{Config, Origin, error::Mistake};

/// Stands for any name in the path of a key: `queues.*.concurrency`.
const ANY: &str = "*";

/// The names of the keys whose value is a table of the operator's own: the arguments of a schedule,
/// the options of a source's imports.
const WHOLE: [&str; 2] = ["args", "options"];

/// The keys whose values are never shown.
const SECRETS: [&str; 6] = [
    "auth.jwt_public_key",
    "auth.jwt_secret",
    "database.url",
    "http.token",
    "mail.password",
    "search.api_key",
];

/// The names on the way to a key.
pub(super) type Path = Vec<String>;

/// Returns the path as text, `queue.lost_after`; names that TOML would quote are quoted.
pub(super) fn dotted(path: &[impl AsRef<str>]) -> String {
    let bare = |name: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        !name.is_empty() && name.chars().all(plain)
    };
    let names = path.iter().map(AsRef::as_ref).map(|name| {
        if bare(name) {
            return name.to_owned();
        }
        Value::from(name).to_string()
    });
    names.collect::<Vec<_>>().join(".")
}

/// Says whether the value of a key must never be shown.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// Returns a configuration as a tree of tables and values, secrets redacted.
///
/// # Errors
///
/// Where a path is not UTF-8, which only the environment can cause.
pub(super) fn tree(config: &Config) -> Result<Map<String, Value>, Mistake> {
    match serde_json::to_value(config) {
        Ok(Value::Object(tree)) => Ok(tree),
        Ok(_) => Ok(Map::new()),
        Err(error) => Err(Mistake::at(
            Origin::Default.into(),
            format!("a default cannot be written: {error}"),
        )),
    }
}

/// Returns every value of a tree with its path; an empty table has none.
pub(super) fn leaves(tree: &Map<String, Value>) -> Vec<(Path, &Value)> {
    let mut found = Vec::new();
    for (name, value) in tree {
        match value {
            Value::Object(table) if !WHOLE.contains(&name.as_str()) => {
                found.extend(leaves(table).into_iter().map(|(mut path, v)| {
                    path.insert(0, name.clone());
                    (path, v)
                }));
            }
            value => found.push((vec![name.clone()], value)),
        }
    }
    found
}

/// The keys there are, as a tree: a table for each section, a value for each key.
#[derive(Debug)]
pub(super) struct Schema {
    root: Map<String, Value>,
}

impl Schema {
    pub(super) fn new() -> Result<Self, Mistake> {
        let mut root = tree(&Config::default())?;
        let any = |of: Value| Value::from(Map::from_iter([(ANY.to_owned(), of)]));
        let queue = serde_json::to_value(super::QueueOverride::default()).unwrap_or_default();
        let kind = serde_json::to_value(super::KindOverride::default()).unwrap_or_default();
        let gate = serde_json::to_value(super::Gate::default()).unwrap_or_default();
        root.insert("queues".to_owned(), any(queue));
        root.insert("gates".to_owned(), any(gate));
        root.insert("kinds".to_owned(), any(any(kind)));
        let schedule = serde_json::to_value(super::ScheduleEntry::default()).unwrap_or_default();
        root.insert("schedules".to_owned(), any(schedule));
        let source = serde_json::to_value(super::SourceEntry::default()).unwrap_or_default();
        if let Some(Value::Object(sources)) = root.get_mut("sources") {
            sources.insert(ANY.to_owned(), source);
        }
        if let Some(Value::Object(import)) = root.get_mut("product_import") {
            let fields = super::product_import::FIELDS;
            let none = || Value::Array(Vec::new());
            let fields = fields.map(|field| (field.to_owned(), none()));
            import.insert("aliases".to_owned(), Value::from(Map::from_iter(fields)));
        }
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Map<String, Value> {
        &self.root
    }

    /// Returns what is at a path: a table, a value, or nothing.
    pub(super) fn at(&self, path: &[String]) -> Option<&Value> {
        let (last, tables) = path.split_last()?;
        let start = Some(&self.root);
        let table = tables
            .iter()
            .try_fold(start, |table, name| Some(child(table?, name)?.as_object()))??;
        child(table, last)
    }

    /// Returns the path of every key, [`ANY`] standing for a name of the operator's.
    pub(super) fn keys(&self) -> Vec<Path> {
        leaves(&self.root)
            .into_iter()
            .map(|(path, _)| path)
            .collect()
    }

    /// Returns what may have been meant by a name that is not in `table`.
    pub(super) fn suggest(&self, table: &Map<String, Value>, name: &str) -> Option<String> {
        if let Some(near) = nearest(name, table.keys().map(String::as_str)) {
            return Some(format!("did you mean `{near}`?"));
        }
        let keys = self.keys();
        let elsewhere = keys
            .iter()
            .find(|path| path.last().is_some_and(|last| last == name))?;
        Some(format!("did you mean `{}`?", dotted(elsewhere)))
    }
}

/// Returns what `name` is in a table of the schema.
pub(super) fn child<'a>(table: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    table.get(name).or_else(|| table.get(ANY))
}

/// Puts a value into a tree, making the tables on the way.
pub(super) fn insert(tree: &mut Map<String, Value>, path: &[String], value: Value) {
    let Some((first, rest)) = path.split_first() else {
        return;
    };
    if rest.is_empty() {
        tree.insert(first.clone(), value);
        return;
    }
    let table = tree
        .entry(first)
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(table) = table {
        insert(table, rest, value);
    }
}

/// Returns every key of a configuration with its value, secrets redacted.
///
/// # Errors
///
/// As of [`tree`].
pub(super) fn entries(config: &Config) -> Result<BTreeMap<String, Value>, Mistake> {
    let tree = tree(config)?;
    let entries = leaves(&tree).into_iter();
    Ok(entries
        .map(|(path, value)| (dotted(&path), value.clone()))
        .collect())
}
