//! Finds the Postgres programs of this machine.

use std::{
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use super::ClusterError;

/// A folder that has `initdb` and `postgres` side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Finds the programs: `INGESTD_PG_BIN`, Debian's folders with the highest version first, then
    /// those of the RPM packages, Homebrew's, and `PATH`.
    ///
    /// A set `INGESTD_PG_BIN` is looked into alone, so that a typing error in it is not hidden by
    /// another version that happens to be installed.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoBinaries`], with the lines that install one.
    pub fn find() -> Result<Self, ClusterError> {
        Self::find_in(&candidates(
            std::env::var_os("INGESTD_PG_BIN"),
            &std::env::var_os("PATH").unwrap_or_default(),
        ))
    }

    /// Takes the first of `folders` that has both programs.
    ///
    /// # Errors
    ///
    /// [`ClusterError::NoBinaries`] where none has.
    pub fn find_in(folders: &[PathBuf]) -> Result<Self, ClusterError> {
        let has_both =
            |dir: &&PathBuf| dir.join("initdb").is_file() && dir.join("postgres").is_file();
        match folders.iter().find(has_both) {
            Some(dir) => Ok(Self { dir: dir.clone() }),
            None => Err(ClusterError::NoBinaries {
                searched: folders.to_vec(),
            }),
        }
    }

    /// Returns the path of `initdb`.
    #[must_use]
    pub fn initdb(&self) -> PathBuf {
        self.dir.join("initdb")
    }

    /// Returns the path of the server.
    #[must_use]
    pub fn postgres(&self) -> PathBuf {
        self.dir.join("postgres")
    }
}

/// Lists the folders to look into, best first.
fn candidates(named: Option<OsString>, path: &OsStr) -> Vec<PathBuf> {
    if let Some(dir) = named.filter(|dir| !dir.is_empty()) {
        return vec![PathBuf::from(dir)];
    }
    let mut folders = versions(Path::new("/usr/lib/postgresql"), "");
    folders.extend(versions(Path::new("/usr"), "pgsql-"));
    for prefix in ["/opt/homebrew/opt", "/usr/local/opt"] {
        folders.extend(versions(Path::new(prefix), "postgresql@"));
    }
    folders.extend(std::env::split_paths(path));
    folders
}

/// Lists `<parent>/<prefix><version>/bin`, the highest version first.
fn versions(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = std::fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name.strip_prefix(prefix)?;
            let parts = version
                .split('.')
                .map(str::parse)
                .collect::<Result<_, _>>()
                .ok()?;
            Some((parts, entry.path().join("bin")))
        })
        .collect();
    found.sort_by(|a, b| b.0.cmp(&a.0));
    found.into_iter().map(|(_, dir)| dir).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_programs(dir: &Path, names: &[&str]) {
        std::fs::create_dir_all(dir).unwrap();
        for name in names {
            std::fs::write(dir.join(name), "").unwrap();
        }
    }

    #[test]
    fn both_programs_must_be_there() {
        let temp = tempfile::tempdir().unwrap();
        let (half, whole) = (temp.path().join("half"), temp.path().join("whole"));
        with_programs(&half, &["postgres"]);
        with_programs(&whole, &["postgres", "initdb"]);
        let found = Binaries::find_in(&[half, whole.clone()]).unwrap();
        assert_eq!(found.initdb(), whole.join("initdb"));
    }

    #[test]
    fn the_highest_version_comes_first() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["9.6", "15", "16", "common"] {
            with_programs(&temp.path().join(name).join("bin"), &[]);
        }
        let found = versions(temp.path(), "");
        let expected: Vec<PathBuf> = ["16", "15", "9.6"]
            .iter()
            .map(|name| temp.path().join(name).join("bin"))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_named_folder_is_looked_into_alone() {
        let found = candidates(Some("/opt/pg".into()), "/usr/bin".as_ref());
        assert_eq!(found, [PathBuf::from("/opt/pg")]);
    }

    #[test]
    fn the_path_is_looked_into_last() {
        let found = candidates(None, "/a:/b".as_ref());
        assert!(found.ends_with(&["/a".into(), "/b".into()]));
    }

    #[test]
    fn a_missing_server_is_answered_with_the_lines_that_install_one() {
        let error = Binaries::find_in(&["/nowhere/bin".into()]).unwrap_err();
        let text = error.to_string();
        for line in [
            "/nowhere/bin",
            "apt-get install postgresql",
            "dnf install postgresql-server",
            "brew install postgresql@17",
            "INGESTD_PG_BIN",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
