//! Where the data of test clusters lies: in memory where there is enough of it.
//!
//! A database is some 450 files. Making them takes 40 ms in memory and on an idle disk, but 300 ms
//! on a disk that others write to at the same time.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::{sys::statvfs::statvfs, unistd::Uid};

use crate::dev::{folder, owner::Owner};

const MEMORY: &str = "/dev/shm";
/// The shared cluster takes about 0.2 GiB, a private one 0.1 GiB.
const ENOUGH_BYTES: u64 = 2 << 30;

/// Returns the folder of the cluster that the tests of this checkout share, made.
///
/// It stays after the run, so that the next one starts quickly.
pub(super) fn shared(owner: &Owner) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program
        .ancestors()
        .find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let name = format!(
        "ingestd-test-{:08x}",
        folder::key(target.unwrap_or(&program))
    );
    let in_target = target.map(|target| target.join("test-pg"));
    let path = memory()
        .map(|memory| memory.join(&name))
        .or_else(|| in_target.filter(|path| owner.check_reach(path).is_ok()))
        .unwrap_or_else(|| std::env::temp_dir().join(name));
    make(&path)?;
    Ok(path)
}

/// Returns the folder of plenty of memory, if there is one; in a container it may be tiny.
fn memory() -> Option<PathBuf> {
    let found = statvfs(MEMORY).ok()?;
    let n_free = found.blocks_available() * found.fragment_size();
    (n_free >= ENOUGH_BYTES).then(|| PathBuf::from(MEMORY))
}

/// Makes a folder that only this user may change, in one where everybody may make folders.
fn make(path: &Path) -> anyhow::Result<()> {
    if let Err(error) = fs::DirBuilder::new().mode(0o755).create(path)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(error).with_context(|| format!("cannot create {}", path.display()));
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != Uid::effective().as_raw() {
        bail!("{} belongs to another user; remove it", path.display());
    }
    Ok(())
}

/// A folder that the user Postgres runs as can reach, be it that this one is root; removed with
/// this value.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes an empty one.
    ///
    /// # Errors
    ///
    /// The temporary folder cannot be written to, or Postgres's user not be found.
    pub fn make() -> anyhow::Result<Self> {
        let owner = Owner::current()?;
        let name = format!("ingestd-{}-{:08x}", std::process::id(), fastrand::u32(..));
        let parents = [
            memory().unwrap_or_else(std::env::temp_dir),
            PathBuf::from("/tmp"),
        ];
        let paths = parents.map(|parent| parent.join(&name));
        let reachable = paths.iter().find(|path| owner.check_reach(path).is_ok());
        let path = reachable
            .or(paths.first())
            .context("there is no folder to try")?;
        owner.make_private(path)?;
        Ok(Self(path.clone()))
    }

    /// Returns its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the next start of the machine.
        drop(fs::remove_dir_all(&self.0));
    }
}
