//! What a source says: where, whose, how, when. Pure.

use serde::{Deserialize, Serialize};
use serde_json::Map;

use super::{FetchSource, Options, ftp, options, pattern::Pattern, s3};
use crate::{
    config, fetch,
    queue::{
        Job as _,
        schedule::{self, Missed, Overlap, Wrong},
    },
};

/// What a location is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Kind {
    /// A file below a folder that the configuration allows.
    Path,
    /// A file that is fetched over HTTP or FTP.
    Url,
    /// An object of an S3-compatible store.
    S3,
    /// A folder whose new files are imported once each.
    Folder,
}

/// When a file of a watched folder is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Ready {
    /// It did not change between two looks, `sources.settle` or more apart.
    #[default]
    Stable,
    /// A file `NAME.done` is beside it.
    Marker,
    /// At the first look: whoever writes it renames it into place when it is whole.
    AtOnce,
}

/// Everything about a source that its owner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// An absolute path, an `http`, `https`, `ftp` or `ftps` URL, or `s3://BUCKET/KEY`; at most
    /// 4096 bytes.
    pub location: String,
    /// Owner of what is imported, 1 to 200 characters.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// Makes the path a watched folder: which names are taken, with `*` and `?`.
    #[serde(default)]
    pub pattern: Option<String>,
    /// Of a watched folder: when a file is taken; `None`: [`Ready::Stable`].
    #[serde(default)]
    pub ready: Option<Ready>,
    /// Of S3: scheme, host and port of the store; `None`: AWS.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Of S3: the region that requests are signed for; `None`: `us-east-1`.
    #[serde(default)]
    pub region: Option<String>,
    /// How to log in: the name of a file in `sources.secrets_dir`, as `secret://NAME` or alone.
    #[serde(default)]
    pub secret_ref: Option<String>,
    /// What its imports are asked for.
    #[serde(default)]
    #[sqlx(json)]
    pub options: Options,
    /// When it is looked at, five fields, or six with seconds first; `None`: only by hand.
    #[serde(default)]
    #[sqlx(default)]
    pub cron: Option<String>,
    /// IANA name of the zone the line is read in.
    #[serde(default = "utc")]
    #[sqlx(default)]
    pub timezone: String,
}

pub(crate) fn default_tenant() -> String {
    "default".to_owned()
}

pub(crate) fn utc() -> String {
    "UTC".to_owned()
}

/// What stands before the name of a secret.
const SECRET: &str = "secret://";

impl Definition {
    /// Describes a source of a location with defaults for all else.
    #[must_use]
    pub fn new(location: impl Into<String>) -> Self {
        Self {
            location: location.into(),
            tenant: default_tenant(),
            pattern: None,
            ready: None,
            endpoint: None,
            region: None,
            secret_ref: None,
            options: Options::new(),
            cron: None,
            timezone: utc(),
        }
    }

    /// Returns what the location is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        let location = self.location.as_str();
        match location.split_once("://") {
            Some(("s3", _)) => Kind::S3,
            Some(_) => Kind::Url,
            None if self.pattern.is_some() => Kind::Folder,
            None => Kind::Path,
        }
    }

    /// Fills in the defaults that depend on the kind, so that equal sources are equal.
    #[must_use]
    pub fn filled(mut self) -> Self {
        let kind = self.kind();
        if kind == Kind::Folder {
            self.ready.get_or_insert_default();
        }
        if kind == Kind::S3 {
            self.region.get_or_insert_with(|| "us-east-1".to_owned());
        }
        if let Some(name) = &mut self.secret_ref
            && let Some(alone) = name.strip_prefix(SECRET)
        {
            *name = alone.to_owned();
        }
        self
    }

    /// Returns the location as it may be shown: the query of a URL may hold a secret.
    #[must_use]
    pub fn shown_location(&self) -> String {
        match self.location.split_once('?') {
            Some((place, _)) if self.kind() == Kind::Url => format!("{place}?[redacted]"),
            _ => self.location.clone(),
        }
    }

    /// Returns its schedule, where it has one: ticks do not overlap, and missed ones are made up
    /// for by one.
    #[must_use]
    pub fn schedule(&self, name: &str) -> Option<schedule::Definition> {
        let mut args = Map::new();
        args.insert("source".to_owned(), name.into());
        Some(schedule::Definition {
            timezone: self.timezone.clone(),
            args,
            missed: Missed::Once,
            overlap: Overlap::Skip,
            tenant: Some(self.tenant.clone()),
            ..schedule::Definition::new(self.cron.clone()?, FetchSource::KIND)
        })
    }

    /// Checks everything that can be checked without asking anybody.
    ///
    /// # Errors
    ///
    /// All that is wrong, at least one.
    pub fn check(
        &self,
        fetching: &config::Fetch,
        sources: &config::ImportSources,
    ) -> Result<(), Vec<Wrong>> {
        let mut wrong = Vec::new();
        let mut demand = |field: &'static str, result: Result<(), String>| {
            if let Err(why) = result {
                wrong.push(Wrong { field, why });
            }
        };
        let kind = self.kind();
        demand("location", self.check_location(fetching, sources));
        let chars = self.tenant.chars().count();
        demand(
            "tenant",
            must((1..=200).contains(&chars), "must be 1 to 200 characters"),
        );
        if let Some(pattern) = &self.pattern {
            demand("pattern", Pattern::parse(pattern).map(|_| ()));
            let is_path = kind == Kind::Folder;
            demand("pattern", must(is_path, "is for folders on disk only"));
        }
        let is_fine = self.ready.is_none() || kind == Kind::Folder;
        demand("ready", must(is_fine, "is for folders with a pattern only"));
        let is_fine = self.endpoint.is_none() || kind == Kind::S3;
        demand("endpoint", must(is_fine, "is for s3:// only"));
        let plain = |region: &str| {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            kind == Kind::S3 && (1..=50).contains(&region.len()) && region.chars().all(plain)
        };
        let is_fine = self.region.as_deref().is_none_or(plain);
        demand(
            "region",
            must(is_fine, "is for s3:// only, such as \"eu-central-1\""),
        );
        demand("secret_ref", self.check_secret());
        demand("options", options::check(&self.options));
        if let Some(schedule) = self.schedule("x") {
            let of_schedule = schedule.check().err().unwrap_or_default();
            // Its tenant is the source's, of which all is said above.
            wrong.extend(of_schedule.into_iter().filter(|w| w.field != "tenant"));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn check_location(
        &self,
        fetching: &config::Fetch,
        sources: &config::ImportSources,
    ) -> Result<(), String> {
        must(
            (1..=4096).contains(&self.location.len()),
            "must be 1 to 4096 bytes",
        )?;
        let fine = |url: &str| fetch::check(fetching, url).map_err(|error| error.to_string());
        match self.kind() {
            Kind::Url => self.check_url(fetching),
            Kind::S3 => {
                let object = s3::Object::of(self)?;
                fine(&object.url())
            }
            Kind::Path | Kind::Folder => {
                let path = std::path::Path::new(&self.location);
                must(
                    path.is_absolute(),
                    "is no absolute path and no http, https, ftp, ftps or s3 URL",
                )?;
                let is_allowed = sources.allowed_dirs.iter().any(|dir| path.starts_with(dir));
                must(
                    is_allowed,
                    "is not below one of the folders of sources.allowed_dirs",
                )
            }
        }
    }

    fn check_url(&self, fetching: &config::Fetch) -> Result<(), String> {
        let (scheme, rest) = self.location.split_once("://").unwrap_or_default();
        let is_taken = ["http", "https", "ftp", "ftps"]
            .iter()
            .any(|taken| scheme.eq_ignore_ascii_case(taken));
        must(
            is_taken,
            "is no URL that is fetched: http, https, ftp, ftps and s3 are, and absolute paths",
        )?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        must(
            !authority.contains('@'),
            "names a user or a password: write `basic USER:PASSWORD` and where it is for into a \
             file of sources.secrets_dir, and name that as the source's secret",
        )?;
        let checked = if ftp::is_of(&self.location) {
            fetch::check_ftp(fetching, &self.location)
        } else {
            fetch::check(fetching, &self.location)
        };
        checked.map_err(|error| error.to_string())
    }

    fn check_secret(&self) -> Result<(), String> {
        let Some(name) = self.secret_ref.as_deref() else {
            return Ok(());
        };
        let name = name.strip_prefix(SECRET).unwrap_or(name);
        must(
            super::credential::is_name(name),
            "is the name of a secret, not the secret: letters, digits, '.', '_' and '-'",
        )?;
        must(
            matches!(self.kind(), Kind::Url | Kind::S3),
            "is for URLs and s3:// only",
        )
    }
}

fn must(is_so: bool, rule: &str) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(rule.to_owned()) }
}

/// Checks a source's name: 1 to 100 letters, digits, `.`, `_` and `-`, a letter or digit first.
///
/// # Errors
///
/// What is wrong with it.
pub fn check_name(name: &str) -> Result<(), Wrong> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_fine = (1..=100).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(plain);
    if is_fine {
        return Ok(());
    }
    Err(Wrong {
        field: "name",
        why: "must be 1 to 100 letters, digits, '.', '_' and '-', a letter or digit first"
            .to_owned(),
    })
}

/// Returns the name of a source's schedule.
#[must_use]
pub fn schedule_name(source: &str) -> String {
    format!("source:{source}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(definition: &Definition) -> Vec<&'static str> {
        let mut sources = config::ImportSources::default();
        sources.allowed_dirs.push("/data".into());
        let fetching = config::Fetch::default();
        let wrong = definition.check(&fetching, &sources).err();
        wrong.unwrap_or_default().iter().map(|w| w.field).collect()
    }

    #[test]
    fn a_location_says_what_it_is() {
        let folder = Definition {
            pattern: Some("*.csv".into()),
            ..Definition::new("/data/in")
        };
        for (definition, kind) in [
            (Definition::new("/data/a.csv"), Kind::Path),
            (folder, Kind::Folder),
            (Definition::new("https://example.com/a.csv"), Kind::Url),
            (Definition::new("ftp://example.com/a.csv"), Kind::Url),
            (Definition::new("FTPS://example.com:990/a.csv"), Kind::Url),
            (Definition::new("s3://bucket/a/b.csv"), Kind::S3),
        ] {
            assert_eq!(definition.kind(), kind);
            assert_eq!(wrong(&definition), [""; 0], "{definition:?}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        for location in [
            "",
            "a.csv",
            "/etc/passwd",
            "/database/x",
            "gopher://example.com/a",
            "file:///data/a",
            "ftp://127.0.0.1/a",
            "ftp://example.com/",
            "ftp://example.com/a%0d%0aDELE%20b",
            "ftps://user:sesame@example.com/a",
            "ftps://example.com:443/a",
            "http://127.0.0.1/a",
            "http://user:sesame@example.com/",
            "https://example.com:22/",
            "s3://",
            "s3://bucket",
            "s3://bucket/../a",
        ] {
            assert_eq!(
                wrong(&Definition::new(location)),
                ["location"],
                "{location}"
            );
        }
        let private = Definition {
            endpoint: Some("http://10.0.0.1".into()),
            ..Definition::new("s3://bucket/a.csv")
        };
        assert_eq!(wrong(&private), ["location"]);
    }

    #[test]
    fn what_is_wrong_with_a_url_says_what_to_do() {
        let why = |location: &str| {
            let (fetching, sources) = (config::Fetch::default(), config::ImportSources::default());
            let wrong = Definition::new(location).check(&fetching, &sources);
            wrong.unwrap_err().remove(0).why
        };
        for scheme in ["gopher", "sftp", "file"] {
            let told = why(&format!("{scheme}://example.com/a"));
            assert!(told.contains("http, https, ftp, ftps and s3"), "{told}");
        }
        for scheme in ["ftp", "ftps", "https"] {
            let told = why(&format!("{scheme}://me:sesame@example.com/a"));
            assert!(told.contains("sources.secrets_dir"), "{told}");
            assert!(!told.contains("sesame"), "{told}");
        }
        assert!(why("ftp://example.com:2121/a").contains("fetch.ftp_ports"));
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let definition = Definition {
            tenant: String::new(),
            pattern: Some("a/b".into()),
            ready: Some(Ready::Marker),
            endpoint: Some("https://example.com".into()),
            region: Some("x y".into()),
            secret_ref: Some("../ops".into()),
            options: Options::from([("colour".into(), "red".into())]),
            cron: Some("daily".into()),
            ..Definition::new("https://example.com/a.csv")
        };
        let expected = [
            "tenant",
            "pattern",
            "pattern",
            "ready",
            "endpoint",
            "region",
            "secret_ref",
            "options",
            "cron",
        ];
        assert_eq!(wrong(&definition), expected);
    }

    #[test]
    fn the_query_of_a_url_is_not_shown() {
        let signed = Definition::new("https://example.com/a.csv?token=sesame");
        assert_eq!(
            signed.shown_location(),
            "https://example.com/a.csv?[redacted]"
        );
    }
}
