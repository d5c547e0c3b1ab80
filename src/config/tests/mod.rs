//! Tests of loading as a whole: the layers, the mistakes, the secrets, the sample file.

mod auth;
mod default_file;
mod layer;
mod mistake;
mod schedule;
mod secret;
mod variable;

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use super::{Config, ConfigError, Loaded, Origins, Sources};

/// A folder with configuration files, and the rest of the sources.
struct World {
    folder: tempfile::TempDir,
    env: Vec<(OsString, OsString)>,
    flags: Vec<(String, String)>,
    kinds: Vec<&'static str>,
}

impl World {
    fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            env: Vec::new(),
            flags: Vec::new(),
            kinds: Vec::new(),
        }
    }

    /// Writes a file of the folder, making the folders on the way.
    fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        // `DIR` is the folder, whose name no test can know.
        let value = value.replace("DIR", self.folder.path().to_str().unwrap());
        self.env.push((name.into(), value.into()));
        self
    }

    fn flag(mut self, key: &str, value: &str) -> Self {
        self.flags.push((key.to_owned(), value.to_owned()));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        let mut sources = Sources::new(self.env.clone());
        sources.default_file = self.path("ingestd.toml");
        sources.flags.clone_from(&self.flags);
        sources.kinds.clone_from(&self.kinds);
        Config::load(&sources)
    }

    fn loaded(&self) -> Loaded {
        self.load().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Returns the message of the error, the folder left out of it.
    fn error(&self) -> String {
        let folder = format!("{}/", self.folder.path().display());
        self.load().unwrap_err().to_string().replace(&folder, "")
    }
}

#[test]
fn queues_that_are_not_named_have_the_general_concurrency() {
    let config = Config::default();
    assert_eq!(config.concurrency("import"), 2);
    assert_eq!(config.concurrency("default"), 10);
}

#[test]
fn defaults_are_valid() {
    assert_eq!(Config::default().validate(&Origins::default(), &[]), []);
}

#[test]
fn nothing_at_all_is_the_defaults() {
    let loaded = World::empty().loaded();
    assert_eq!(
        loaded.config.entries().unwrap(),
        Config::default().entries().unwrap()
    );
    assert!(loaded.files.is_empty());
}
