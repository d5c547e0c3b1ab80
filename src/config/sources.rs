//! `[sources]`: where imports may come from, and `[sources.NAME]`: sources that come with the daemon.
//!
//! A user's source of the same name wins over the configuration's; see [`crate::source`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fetch;
use super::check::Check;
use super::unit;
use crate::source::{Definition, Options, Ready, check_name, default_tenant, utc};

/// What sources may do, and those of the configuration by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
pub struct ImportSources {
    /// `sources.allowed_dirs`: absolute paths of the folders below which files are read. Default:
    /// none, and no path is a source.
    pub allowed_dirs: Vec<PathBuf>,
    /// `sources.secrets_dir`: the folder whose files say how to log in, one file a name. Default:
    /// `$CREDENTIALS_DIRECTORY`, else none.
    pub secrets_dir: Option<PathBuf>,
    /// `sources.timeout`: longest time that taking one file may last, at most 50 minutes. Default
    /// 30 min.
    #[serde(with = "unit::duration")]
    pub timeout: Duration,
    /// `sources.min_free_bytes`: bytes that taking a file leaves free on the disk of the storage
    /// folder. Default 1 GiB.
    #[serde(with = "unit::size")]
    pub min_free_bytes: u64,
    /// `sources.settle`: how long a file of a watched folder must stay as it is before it is
    /// taken, at most an hour. Default 5 s.
    #[serde(with = "unit::duration")]
    pub settle: Duration,
    /// The sources, by name. Default: none.
    #[serde(flatten)]
    pub(super) entries: BTreeMap<String, SourceEntry>,
}

/// One source; `location` must be given.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SourceEntry {
    /// `location`: an absolute path, an `http`, `https`, `ftp` or `ftps` URL, or
    /// `s3://BUCKET/KEY`. No default.
    pub location: Option<String>,
    /// `tenant`: owner of what is imported. Default `default`.
    pub tenant: String,
    /// `pattern`: makes the path a watched folder: which names are taken, with `*` and `?`.
    pub pattern: Option<String>,
    /// `ready`: of a watched folder, when a file is taken. Default `stable`.
    pub ready: Option<Ready>,
    /// `endpoint`: of S3, scheme, host and port of the store. Default: AWS.
    pub endpoint: Option<String>,
    /// `region`: of S3, the region that requests are signed for. Default `us-east-1`.
    pub region: Option<String>,
    /// `secret_ref`: how to log in, the name of a file in `sources.secrets_dir`. Default: not at
    /// all.
    pub secret_ref: Option<String>,
    /// `options`: what its imports are asked for, a table of the options of an upload. Default:
    /// none.
    pub options: Option<Options>,
    /// `cron`: when it is looked at, five fields, or six with seconds first. Default: only by
    /// hand.
    pub cron: Option<String>,
    /// `timezone`: IANA name of the zone that the line is read in. Default `UTC`.
    pub timezone: String,
    /// `paused`: whether its ticks pass without a look. Default no.
    pub paused: bool,
}

impl Default for SourceEntry {
    fn default() -> Self {
        Self {
            location: None,
            tenant: default_tenant(),
            pattern: None,
            ready: None,
            endpoint: None,
            region: None,
            secret_ref: None,
            options: None,
            cron: None,
            timezone: utc(),
            paused: false,
        }
    }
}

impl SourceEntry {
    /// Returns what the source says; a location that is missing is empty.
    #[must_use]
    pub fn definition(&self) -> Definition {
        Definition {
            location: self.location.clone().unwrap_or_default(),
            tenant: self.tenant.clone(),
            pattern: self.pattern.clone(),
            ready: self.ready,
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            secret_ref: self.secret_ref.clone(),
            options: self.options.clone().unwrap_or_default(),
            cron: self.cron.clone(),
            timezone: self.timezone.clone(),
        }
    }
}

/// Well within the job's own time limit, so that a slow source is told as what it is.
const LONGEST_TIMEOUT: Duration = Duration::from_mins(50);

const LONGEST_SETTLE: Duration = Duration::from_hours(1);

impl ImportSources {
    /// Returns what is to stand in the database: names, definitions, whether they are paused.
    #[must_use]
    pub fn wanted(&self) -> Vec<(String, Definition, bool)> {
        let entries = self.entries.iter();
        entries
            .map(|(name, entry)| (name.clone(), entry.definition(), entry.paused))
            .collect()
    }

    /// Returns the sources in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &SourceEntry)> {
        self.entries
            .iter()
            .map(|(name, entry)| (name.as_str(), entry))
    }

    pub(super) fn validate(&self, check: &mut Check<'_>) {
        check.positive("timeout", self.timeout);
        if self.timeout > LONGEST_TIMEOUT {
            check.fail(&["timeout"], "must be at most 50m");
        }
        check.positive("settle", self.settle);
        if self.settle > LONGEST_SETTLE {
            check.fail(&["settle"], "must be at most 1h");
        }
        if self.allowed_dirs.iter().any(|dir| !dir.is_absolute()) {
            check.fail(&["allowed_dirs"], "must be absolute paths");
        }
    }

    /// Finds what is wrong with one source of the configuration.
    pub(super) fn validate_entry(
        &self,
        name: &str,
        entry: &SourceEntry,
        fetch: &Fetch,
        check: &mut Check<'_>,
    ) {
        if let Err(wrong) = check_name(name) {
            let why = format!("is of a source whose name {}", wrong.why);
            check.fail(&["location"], &why);
        }
        if entry.location.is_none() {
            check.missing("location");
            return;
        }
        for wrong in entry
            .definition()
            .check(fetch, self)
            .err()
            .unwrap_or_default()
        {
            check.fail(&[wrong.field], &wrong.why);
        }
    }
}

impl Default for ImportSources {
    fn default() -> Self {
        Self {
            allowed_dirs: Vec::new(),
            secrets_dir: None,
            timeout: Duration::from_mins(30),
            min_free_bytes: 1 << 30,
            settle: Duration::from_secs(5),
            entries: BTreeMap::new(),
        }
    }
}
