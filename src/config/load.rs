//! Reading the layers, one after the other, weak to strong.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::{fs, io};

use super::env::{Env, gather_alias, gather_flags};
use super::error::{ConfigError, Mistake};
use super::origin::{Origin, Origins};
use super::schema::Schema;
use super::setting::{Gathered, merge};
use super::{Config, ImportSources, Storage, Webhooks, credential, env, file};

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "/etc/ingestd/ingestd.toml";

/// Where the configuration comes from.
#[derive(Clone)]
pub struct Sources {
    /// The file that `--config` names; it must exist.
    pub file: Option<PathBuf>,
    /// The file that is read where `file` is `None`, if it exists.
    pub default_file: PathBuf,
    /// Keys and values of flags, such as `("database.url", "postgres://...")`.
    pub flags: Vec<(String, String)>,
    /// Whether the process runs as root, which decides the default of `storage.dir`.
    pub is_root: bool,
    /// The kinds that a schedule may name; none: any.
    pub kinds: Vec<&'static str>,
    env: Env,
}

impl Sources {
    /// Takes an environment, no file and no flags.
    pub fn new(env: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self {
            file: None,
            default_file: PathBuf::from(DEFAULT_FILE),
            flags: Vec::new(),
            is_root: false,
            kinds: Vec::new(),
            env: env.into_iter().collect(),
        }
    }

    /// Takes the environment and the user of this process.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String)>) -> Self {
        Self {
            file,
            flags,
            is_root: nix::unistd::geteuid().is_root(),
            ..Self::new(std::env::vars_os())
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        let value = self.env.get(OsStr::new(name))?;
        (!value.is_empty()).then_some(value)
    }
}

impl std::fmt::Debug for Sources {
    /// Leaves out the environment and the flags: they may hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sources")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// A configuration and where it comes from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The origin of every key that something sets.
    pub origins: Origins,
    /// The files that were read, weak to strong.
    pub files: Vec<PathBuf>,
}

pub(super) fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let schema = Schema::new()?;
    let mut gathered = Gathered::default();
    let files = gather(sources, &schema, &mut gathered);
    refuse(gathered.mistakes)?;
    let (mut config, mut origins) = merge(&defaults(sources), gathered.settings)?;
    refuse(credential::resolve(&mut config, &mut origins, sources))?;
    refuse(config.validate(&origins, &sources.kinds))?;
    Ok(Loaded {
        config,
        origins,
        files,
    })
}

fn refuse(mistakes: Vec<Mistake>) -> Result<(), ConfigError> {
    if mistakes.is_empty() {
        return Ok(());
    }
    Err(ConfigError { mistakes })
}

fn defaults(sources: &Sources) -> Config {
    let credentials = sources.variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    Config {
        sources: ImportSources {
            secrets_dir: credentials.clone(),
            ..ImportSources::default()
        },
        storage: Storage::of_environment(|name| sources.variable(name), sources.is_root),
        webhooks: Webhooks {
            secrets_dir: credentials,
            ..Webhooks::default()
        },
        ..Config::default()
    }
}

/// Reads all layers and returns the files among them.
fn gather(sources: &Sources, schema: &Schema, into: &mut Gathered) -> Vec<PathBuf> {
    let mut read = Vec::new();
    let mut layer = 0;
    for path in files(sources, into) {
        layer += 1;
        match fs::read_to_string(&path) {
            Ok(text) => {
                file::gather(&path, &text, layer, schema, into);
                read.push(path);
            }
            Err(error) => into.mistakes.push(unreadable(&path, &error)),
        }
    }
    gather_alias(&sources.env, layer + 1, into);
    env::gather(&sources.env, layer + 2, schema, into);
    gather_flags(&sources.flags, layer + 3, schema, into);
    read
}

/// Returns the files to read, weak to strong.
fn files(sources: &Sources, into: &mut Gathered) -> Vec<PathBuf> {
    let main = sources.file.as_ref().unwrap_or(&sources.default_file);
    let mut files = Vec::new();
    // Only the file that nobody named may be missing.
    if sources.file.is_some() || main.try_exists().unwrap_or(true) {
        files.push(main.clone());
    }
    let folder = main.with_file_name("conf.d");
    match parts(&folder) {
        Ok(parts) => files.extend(parts),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => into.mistakes.push(unreadable(&folder, &error)),
    }
    files
}

/// Returns the `*.toml` files of a folder, in the order of their names.
fn parts(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("toml")) {
            parts.push(path);
        }
    }
    parts.sort();
    Ok(parts)
}

fn unreadable(path: &Path, error: &io::Error) -> Mistake {
    let message = format!("cannot read {}: {error}", path.display());
    Mistake::at(Origin::Default.into(), message)
}
