//! `[storage]`: where uploads are kept.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The place of uploaded files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// `storage.dir`: a folder this process may write. Default: the first of `$STATE_DIRECTORY`,
    /// else `/var/lib/ingestd` for root, else `$XDG_STATE_HOME/ingestd`, else
    /// `~/.local/state/ingestd`.
    pub dir: PathBuf,
}

impl Storage {
    /// Returns the default that fits an environment, given as a way to look up a variable.
    pub(super) fn of_environment<'a>(
        variable: impl Fn(&str) -> Option<&'a OsStr>,
        is_root: bool,
    ) -> Self {
        // systemd lists several folders with colons between them; the first is the unit's main one.
        let given = variable("STATE_DIRECTORY").and_then(|list| std::env::split_paths(list).next());
        let of_user = || {
            let state = variable("XDG_STATE_HOME").map(Path::new);
            // The XDG specification has relative paths ignored.
            let state = state.filter(|path| path.is_absolute()).map(Path::to_owned);
            let home = || Some(Path::new(variable("HOME")?).join(".local/state"));
            Some(state.or_else(home)?.join("ingestd"))
        };
        let dir = match (given, is_root) {
            (Some(dir), _) => Some(dir),
            (None, true) => None,
            (None, false) => of_user(),
        };
        dir.map_or_else(Self::default, |dir| Self { dir })
    }
}

impl Default for Storage {
    /// The folder for root; loading puts the one in its place that fits the environment.
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/ingestd"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Env = &'static [(&'static str, &'static str)];

    #[test]
    fn the_default_folder_fits_the_environment() {
        let cases: [(Env, bool, &str); 6] = [
            (&[("STATE_DIRECTORY", "/s/a:/s/b")], true, "/s/a"),
            (&[("HOME", "/root")], true, "/var/lib/ingestd"),
            (
                &[("XDG_STATE_HOME", "/x"), ("HOME", "/h")],
                false,
                "/x/ingestd",
            ),
            (
                &[("XDG_STATE_HOME", "x"), ("HOME", "/h")],
                false,
                "/h/.local/state/ingestd",
            ),
            (&[("HOME", "/h")], false, "/h/.local/state/ingestd"),
            (&[], false, "/var/lib/ingestd"),
        ];
        for (env, is_root, dir) in cases {
            let find = |name: &str| env.iter().find(|(key, _)| *key == name);
            let variable = |name: &str| find(name).map(|(_, value)| OsStr::new(*value));
            assert_eq!(
                Storage::of_environment(variable, is_root).dir,
                Path::new(dir),
                "{env:?}"
            );
        }
    }
}
