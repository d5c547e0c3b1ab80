//! Where a setting comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

/// Where a setting comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "from", rename_all = "lowercase")]
pub enum Origin {
    /// Nothing sets it.
    #[default]
    Default,
    /// A configuration file, the main one or one of `conf.d`.
    File {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// An environment variable.
    #[serde(serialize_with = "serialize_env")]
    Env(String),
    /// A flag of the command line.
    Flag,
    /// A credential of the service manager that nothing names.
    #[serde(serialize_with = "serialize_credential")]
    Credential(PathBuf),
}

fn serialize_env<S: serde::Serializer>(name: &str, to: S) -> Result<S::Ok, S::Error> {
    BTreeMap::from([("variable", name)]).serialize(to)
}

fn serialize_credential<S: serde::Serializer>(path: &PathBuf, to: S) -> Result<S::Ok, S::Error> {
    BTreeMap::from([("path", path)]).serialize(to)
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag => f.write_str("flag"),
            Self::Credential(path) => write!(f, "credential {}", path.display()),
        }
    }
}

/// An origin with the line of the file it points at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) origin: Origin,
    pub(super) snippet: Option<Box<Snippet>>,
}

impl From<Origin> for Place {
    fn from(origin: Origin) -> Self {
        Self {
            origin,
            snippet: None,
        }
    }
}

/// One line of a file, secrets cut off, and what to underline in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snippet {
    /// Number of the line, from 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// Characters before the carets.
    pub(super) indent: usize,
    /// Number of carets, at least one.
    pub(super) width: usize,
}

impl fmt::Display for Snippet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.line.to_string();
        let margin = " ".repeat(number.len());
        let indent = " ".repeat(self.indent);
        let carets = "^".repeat(self.width);
        writeln!(f, "{margin} |")?;
        writeln!(f, "{number} | {}", self.text)?;
        write!(f, "{margin} | {indent}{carets}")
    }
}

/// The origin of every key that something sets.
#[derive(Debug, Clone, Default)]
pub struct Origins(BTreeMap<String, (usize, Place)>);

impl Origins {
    /// Returns where the value of `key` comes from.
    #[must_use]
    pub fn get(&self, key: &str) -> &Origin {
        self.0
            .get(key)
            .map_or(&Origin::Default, |(_, place)| &place.origin)
    }

    /// Returns the origin of everything that stands below a table, such as a schedule.
    pub(super) fn below(&self, table: &str) -> Option<(usize, Place)> {
        let prefix = format!("{table}.");
        let below = self.0.iter().filter(|(key, _)| key.starts_with(&prefix));
        below
            .map(|(_, set)| set.clone())
            .max_by_key(|(layer, _)| *layer)
    }

    /// Returns the number of the layer that sets `key`; a higher one is stronger.
    pub(super) fn layer(&self, key: &str) -> Option<usize> {
        self.0.get(key).map(|(layer, _)| *layer)
    }

    pub(super) fn place(&self, key: &str) -> Place {
        let set = self.0.get(key).map(|(_, place)| place.clone());
        set.unwrap_or_else(|| Origin::Default.into())
    }

    pub(super) fn set(&mut self, key: String, layer: usize, place: Place) {
        self.0.insert(key, (layer, place));
    }

    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}
