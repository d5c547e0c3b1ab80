//! `[search]`: the search server that is told of products.

use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{secret, unit};
use crate::fetch;

/// The fields of a product that a document can have; `id`, `tenant` and `version` are always there.
pub const SEARCH_FIELDS: [&str; 12] = [
    "code",
    "name",
    "description",
    "brand",
    "category",
    "price",
    "currency",
    "stock",
    "ean",
    "url",
    "weight",
    "updated_at",
];

/// The search server, Typesense, and what it is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// `search.url`: the server, `https://HOST:PORT`. No default: without it nothing is noted and
    /// nothing sent.
    pub url: Option<String>,
    /// `search.api_key`: the key that may write, or `credential:NAME`. Secret; no default.
    #[serde(serialize_with = "secret::serialize")]
    pub api_key: Option<SecretString>,
    /// `search.api_key_file`: a file that holds the key, instead of `api_key`. No default.
    pub api_key_file: Option<PathBuf>,
    /// `search.collection`: the alias under which is searched. Default `products`.
    pub collection: String,
    /// `search.fields`: what documents have, of [`SEARCH_FIELDS`]; `:facet` behind a name makes it
    /// countable. Default: all, with brand, category and currency as facets.
    pub fields: Vec<String>,
    /// `search.allow_private`: whether the server may be at a private address. Default false.
    pub allow_private: bool,
    /// `search.batch_rows`: products read and sent at once, 1 to 10000. Default 1000.
    pub batch_rows: u32,
    /// `search.batch_bytes`: largest request, in bytes, 1 to 4 MiB. Default 2 MiB.
    #[serde(with = "unit::size")]
    pub batch_bytes: u64,
    /// `search.timeout`: longest time of one request, at most `fetch.timeout`. Default 30 s.
    #[serde(with = "unit::duration")]
    pub timeout: Duration,
}

/// Longest name of a collection, so that a date fits behind it.
const LONGEST_NAME: usize = 100;

impl Search {
    /// Says whether there is a server to be told.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.url.is_some()
    }

    /// Returns the server's place, where one is configured.
    #[must_use]
    pub fn origin(&self) -> Option<fetch::Origin> {
        fetch::Origin::parse(self.url.as_deref()?, self.allow_private).ok()
    }

    /// Returns each field's name and whether it is a facet.
    pub fn fields(&self) -> impl Iterator<Item = (&str, bool)> {
        self.fields.iter().map(|field| parsed(field))
    }

    pub(super) fn validate(&self, check: &mut Check<'_>) {
        if let Some(url) = &self.url {
            if let Err(error) = fetch::Origin::parse(url, self.allow_private) {
                check.fail(&["url"], &format!("is refused: {error}"));
            }
            if self.api_key.is_none() {
                check.missing("api_key");
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let name = &self.collection;
        if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
            let rule = "must be 1 to 100 letters, digits, '_' and '-'";
            check.fail(&["collection"], rule);
        }
        let mut seen = Vec::new();
        for (name, _) in self.fields() {
            if !SEARCH_FIELDS.contains(&name) {
                let known = SEARCH_FIELDS.join(", ");
                check.fail(&["fields"], &format!("names {name:?}; there are {known}"));
            } else if seen.contains(&name) {
                check.fail(&["fields"], &format!("names {name} twice"));
            }
            seen.push(name);
        }
        check.range("batch_rows", self.batch_rows, 1..=10_000);
        check.range("batch_bytes", self.batch_bytes, 1 << 20..=4 << 20);
        check.positive("timeout", self.timeout);
    }
}

fn parsed(field: &str) -> (&str, bool) {
    match field.strip_suffix(":facet") {
        Some(name) => (name, true),
        None => (field, false),
    }
}

impl Default for Search {
    fn default() -> Self {
        let facet = |name: &str| matches!(name, "brand" | "category" | "currency");
        let field = |name: &&str| {
            if facet(name) {
                format!("{name}:facet")
            } else {
                (*name).to_owned()
            }
        };
        Self {
            url: None,
            api_key: None,
            api_key_file: None,
            collection: "products".to_owned(),
            fields: SEARCH_FIELDS.iter().map(field).collect(),
            allow_private: false,
            batch_rows: 1000,
            batch_bytes: 2 << 20,
            timeout: Duration::from_secs(30),
        }
    }
}
