//! `[storage]`: where uploads are kept.

use std::path::PathBuf;

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

impl Default for Storage {
    /// The folder for root; loading puts the one in its place that fits the environment.
    fn default() -> Self {
        Self {
            dir: PathBuf::from("/var/lib/ingestd"),
        }
    }
}
