//! `config/default.toml` names every key with its default, and cannot drift.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::World;
use crate::config::Config;
use crate::config::schema::{Schema, dotted, entries, leaves};

const TEXT: &str = include_str!("../../../config/default.toml");

/// Returns the file with its settings uncommented: prose has a blank after the `#`, settings none.
fn uncommented() -> String {
    let setting = |line: &str| line.strip_prefix('#').map(str::to_owned);
    let lines = TEXT.lines().map(|line| match setting(line) {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => setting,
        _ => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the keys of the uncommented file with their values, as the configuration writes them.
fn named() -> BTreeMap<String, Value> {
    let config: Config = toml::from_str(&uncommented()).unwrap();
    let values = entries(&config).unwrap();
    let written: serde_json::Map<String, Value> = toml::from_str(&uncommented()).unwrap();
    let keys = leaves(&written).into_iter().map(|(path, _)| dotted(&path));
    keys.map(|key| (key.clone(), values[&key].clone()))
        .collect()
}

#[test]
fn it_changes_nothing_as_it_is() {
    let loaded = World::empty().file("ingestd.toml", TEXT).loaded();
    let defaults = Config::default().entries().unwrap();
    assert_eq!(loaded.config.entries().unwrap(), defaults);
}

#[test]
fn it_gives_every_default() {
    let named = named();
    for (key, value) in Config::default().entries().unwrap() {
        let given = named
            .get(&key)
            .unwrap_or_else(|| panic!("{key} is not named"));
        if !value.is_null() {
            assert_eq!(given, &value, "{key}");
        }
    }
}

#[test]
fn it_names_every_key_and_no_other() {
    let known: BTreeSet<String> = Schema::new()
        .unwrap()
        .keys()
        .iter()
        .map(|key| dotted(key))
        .collect();
    let generic = |key: &str| {
        let key = key.replace("queues.import.", "queues.\"*\".");
        let key = key.replace("queues.system.", "queues.\"*\".");
        let key = key.replace("schedules.nightly.", "schedules.\"*\".");
        let key = key.replace("sources.supplier.", "sources.\"*\".");
        let key = key.replace("sources.inbox.", "sources.\"*\".");
        let key = key.replace("gates.\"host:*\".", "gates.\"*\".");
        key.replace("kinds.product_import.run.", "kinds.\"*\".\"*\".")
    };
    let named: BTreeSet<String> = named().keys().map(|key| generic(key)).collect();
    assert_eq!(named, known);
}

#[test]
fn its_samples_are_valid() {
    // The samples of secrets exclude each other; everything else stands together.
    let text = uncommented();
    let names = [
        "url_file",
        "token",
        "jwt_secret",
        "jwt_public_key",
        "api_key_file",
        "password_file",
    ];
    let other = |line: &&str| !names.iter().any(|name| line.starts_with(name));
    let text = text.lines().filter(other).collect::<Vec<_>>().join("\n");
    let text = text.replace("credential:search-api-key", "sample");
    let text = text.replace("credential:mail-password", "sample");
    // Its folder would have to be among the allowed ones, of which there are none by default.
    let inbox = "[sources.inbox]\n";
    let text = text.replace(inbox, &format!("{inbox}location = \"/srv/inbox\"\n"));
    let text = text.replace("allowed_dirs = []", "allowed_dirs = [\"/srv\"]");
    World::empty().file("ingestd.toml", &text).loaded();
}

#[test]
fn every_setting_is_explained() {
    let mut explained = false;
    for line in TEXT.lines().filter(|line| *line != "[queues.system]") {
        let setting = line.strip_prefix('#').unwrap_or_default();
        let is_setting = setting.starts_with(|c: char| c.is_ascii_lowercase());
        // Settings of a list share the sentence above the list.
        let shared = line.ends_with(']') || line == "#concurrency = 2";
        assert!(!is_setting || explained || shared, "{line}");
        explained = line.starts_with("# ");
    }
}
