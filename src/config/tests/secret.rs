//! Secrets are found where they are said to be, and never shown.

use secrecy::ExposeSecret as _;

use super::World;
use crate::config::{Loaded, Origin};

const URL: &str = "postgres://u:sesame@h/db";

fn url(loaded: &Loaded) -> Option<&str> {
    Some(loaded.config.database.url.as_ref()?.expose_secret())
}

#[test]
fn database_url_is_weaker_than_our_own_variable() {
    let world = World::empty()
        .file("ingestd.toml", "database.url = 'postgres://file/db'")
        .env("DATABASE_URL", "postgres://alias/db");
    assert_eq!(url(&world.loaded()), Some("postgres://alias/db"));
    let world = world.env("INGESTD_DATABASE__URL", "postgres://own/db");
    assert_eq!(url(&world.loaded()), Some("postgres://own/db"));
}

#[test]
fn a_secret_is_read_from_the_file_that_is_named() {
    let world = World::empty()
        .file("secret", &format!("  {URL}\n"))
        .file("ingestd.toml", "database.url = 'postgres://weaker/db'")
        .env("INGESTD_DATABASE__URL_FILE", "DIR/secret");
    let loaded = world.loaded();
    assert_eq!(url(&loaded), Some(URL));
    assert_eq!(*loaded.origins.get("database.url"), Origin::Default);
}

#[test]
fn a_value_beats_the_file_of_a_weaker_layer() {
    let loaded = World::empty()
        .file("ingestd.toml", "database.url_file = '/does/not/exist'")
        .env("DATABASE_URL", URL)
        .loaded();
    assert_eq!(url(&loaded), Some(URL));
    assert_eq!(loaded.config.database.url_file, None);
}

#[test]
fn credentials_are_read_by_name_and_by_custom() {
    let world = World::empty()
        .file("credentials/database-url", URL)
        .file("credentials/admin", "open")
        .file("ingestd.toml", "http.token = 'credential:admin'")
        .env("CREDENTIALS_DIRECTORY", "DIR/credentials");
    let loaded = world.loaded();
    assert_eq!(url(&loaded), Some(URL));
    let path = world.path("credentials/database-url");
    assert_eq!(
        *loaded.origins.get("database.url"),
        Origin::Credential(path)
    );
    let token = loaded.config.http.token.as_ref().unwrap();
    assert_eq!(token.expose_secret(), "open");

    let world = world.env("DATABASE_URL", "postgres://given/db");
    assert_eq!(url(&world.loaded()), Some("postgres://given/db"));
}

#[test]
fn secrets_are_not_in_debug_nor_in_entries() {
    let world = World::empty()
        .env("DATABASE_URL", URL)
        .flag("http.token", "sesame");
    let loaded = world.loaded();
    let shown = format!("{loaded:?} {:#?}", loaded.config.entries().unwrap());
    assert!(!shown.contains("sesame"), "{shown}");
    let entries = loaded.config.entries().unwrap();
    assert_eq!(entries["database.url"], "postgres://u:[redacted]@h/db");
    assert_eq!(entries["http.token"], "[redacted]");

    let mut sources = crate::config::Sources::new(world.env);
    sources.flags = world.flags;
    assert!(!format!("{sources:?}").contains("sesame"));
}

#[test]
fn secrets_are_not_in_errors() {
    let files = [
        // The right key, the wrong type or value.
        "http.token = [\"sesame\"]",
        "http = { token = { is = \"sesame\" } }",
        "database = { url = \"sesame\" }",
        // A mistyped key or section.
        "http.tokn = \"sesame\"",
        "htp.token = \"sesame\"",
        "http.tokens = [\"sesame\"]",
        "http = \"sesame\"",
        "http = { tokn = \"sesame\", listen = \"sesame\" }",
        "http = { listen = 3, token = \"sesame\" }",
        // No TOML at all.
        "http.token = \"sesame",
        "http.token = sesame",
        "http.token \"sesame\"",
        "http.token = \"\"\"\nsesame\n",
        "http.token = \"sesame\" listen = 3",
        "database = { max_connections = 3 url = \"sesame\" }",
        "http.token = \"sesame\"\nhttp.token = \"sesame\"",
    ];
    for text in files {
        let error = World::empty()
            .file("ingestd.toml", text)
            .load()
            .unwrap_err();
        let shown = format!("{error} {error:?}");
        // `listen` is no secret; its own mistake may show it.
        assert!(
            !shown.contains("sesame") || text.contains("listen = \"sesame"),
            "{text}\n{shown}"
        );
    }
    let variables = [("INGESTD_HTTP__TOKN", "sesame"), ("DATABASE_URL", "sesame")];
    for (name, value) in variables {
        let error = World::empty().env(name, value).error();
        assert!(!error.contains("sesame"), "{error}");
    }
    let error = World::empty().flag("http.tokn", "sesame").error();
    assert!(!error.contains("sesame"), "{error}");
}

#[test]
fn no_slip_of_one_character_shows_a_secret() {
    let files = [
        "[http]\ntoken = \"sesame\"\nlisten = 3\n",
        "http.token = 'sesame' # x\n",
        "database = { max_connections = 3, url = \"sesame\" }\n",
        "[database]\nurl = \"\"\"sesame\"\"\"\n",
    ];
    let mut shown = Vec::new();
    for text in files {
        for slip in slips(text) {
            let world = World::empty().file("ingestd.toml", &slip);
            if let Err(error) = world.load() {
                shown.extend(
                    error
                        .to_string()
                        .contains("sesame")
                        .then_some((slip, error)),
                );
            }
        }
    }
    assert!(shown.is_empty(), "{shown:#?}");
}

/// Returns the text with one character left out, and with one more of those that mean something,
/// at every place but within the secret.
fn slips(text: &str) -> Vec<String> {
    let (before, after) = text.split_once("sesame").unwrap();
    let around = |(at, _): &(usize, char)| *at <= before.len() || *at >= text.len() - after.len();
    let places = text.char_indices().filter(around);
    let slipped = places.flat_map(|(at, _)| {
        let (left, right) = text.split_at(at);
        let less = format!("{left}{}", right.get(1..).unwrap());
        let more = "\"'=[]{}#,.x1\n\\"
            .chars()
            .map(move |c| format!("{left}{c}{right}"));
        std::iter::once(less).chain(more)
    });
    slipped.filter(|slip| slip.contains("sesame")).collect()
}
