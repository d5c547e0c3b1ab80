//! The folders of a private cluster: data and socket.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;
use sha2::{Digest, Sha256};

use super::{ClusterError, owner::Owner};

/// The longest path of a socket is 107 bytes, the file's own name among them.
const SOCKET_DIR_MAX: usize = 107 - "/.s.PGSQL.5432".len();

/// Returns where `ingestd dev` keeps its data: `/var/lib/ingestd-dev/pg` for root,
/// `$XDG_STATE_HOME/ingestd/pg` or `~/.local/state/ingestd/pg` for others.
///
/// # Errors
///
/// [`ClusterError::NoDataDir`] where neither variable is an absolute path.
pub fn default_data_dir() -> Result<PathBuf, ClusterError> {
    if Uid::effective().is_root() {
        return Ok("/var/lib/ingestd-dev/pg".into());
    }
    let folder = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    folder("XDG_STATE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("ingestd/pg"))
        .ok_or(ClusterError::NoDataDir)
}

/// Returns the socket folder of `data_dir`, made: the same at every start, so that a URL stays
/// good, and short, because a socket's path may have 107 bytes.
pub(crate) fn socket_dir(owner: &Owner, data_dir: &Path) -> Result<PathBuf, ClusterError> {
    let name = format!("ingestd-{:08x}", key(data_dir));
    let mut refused = None;
    for parent in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        let path = parent.join(&name);
        if path.as_os_str().len() > SOCKET_DIR_MAX {
            refused = Some(ClusterError::SocketPathTooLong { path });
        } else if let Err(error) = owner.check_reach(&path) {
            refused = Some(error);
        } else {
            owner.make_private(&path)?;
            return Ok(path);
        }
    }
    Err(refused.unwrap_or(ClusterError::NoDataDir))
}

/// Makes the data folder and what is missing above it.
pub(crate) fn make_data_dir(owner: &Owner, data_dir: &Path) -> Result<(), ClusterError> {
    if let Some(parent) = data_dir.parent() {
        fs::create_dir_all(parent).map_err(ClusterError::io("cannot create", parent))?;
    }
    owner.check_reach(data_dir)?;
    owner.make_private(data_dir)
}

/// Returns a short name for `path`.
pub(crate) fn key(path: &Path) -> u32 {
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    digest
        .iter()
        .take(4)
        .fold(0, |key, byte| key << 8 | u32::from(*byte))
}
