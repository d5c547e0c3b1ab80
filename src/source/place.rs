//! Files below the folders that the configuration allows, and no others.
//!
//! A path is walked folder by folder from the allowed one on, each opened in the one before and
//! none through a symbolic link: nobody who may write somewhere below can lead the daemon to a
//! file elsewhere, however fast names are exchanged while it looks.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::{Component, Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2},
    sys::stat::{FileStat, Mode, SFlag, fstatat, mkdirat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    #[error("{0} is not below one of the folders of sources.allowed_dirs")]
    NotAllowed(String),
    #[error("{0} is a symbolic link, which is not followed, or no folder")]
    Link(String),
    #[error("{0} is no regular file")]
    NoFile(String),
    #[error("cannot open {path}: {error}")]
    Io { path: String, error: io::Error },
}

impl PlaceError {
    /// Says whether there is nothing of the name.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Io { error, .. } if error.kind() == io::ErrorKind::NotFound)
    }

    /// Says whether another look may find it otherwise without anybody's doing: a mount that
    /// hangs, a machine out of files.
    pub(super) fn is_transient(&self) -> bool {
        use io::ErrorKind::{IsADirectory, NotFound, PermissionDenied};
        let Self::Io { error, .. } = self else {
            return false;
        };
        !matches!(error.kind(), NotFound | PermissionDenied | IsADirectory)
    }
}

fn failed(path: &Path, errno: Errno) -> PlaceError {
    let path = path.display().to_string();
    match errno {
        Errno::ELOOP | Errno::ENOTDIR => PlaceError::Link(path),
        errno => PlaceError::Io {
            path,
            error: errno.into(),
        },
    }
}

const FOLDER: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_DIRECTORY)
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Not waiting for a writer where the name is that of a pipe.
const FILE: OFlag = OFlag::O_RDONLY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_NONBLOCK)
    .union(OFlag::O_CLOEXEC);

/// Opens a folder that is one of the allowed ones or below one.
pub(super) fn open_folder(allowed: &[PathBuf], path: &Path) -> Result<OwnedFd, PlaceError> {
    let shown = || path.display().to_string();
    let not_allowed = || PlaceError::NotAllowed(shown());
    let root = allowed.iter().find(|dir| path.starts_with(dir));
    let root = root.ok_or_else(not_allowed)?;
    let below = path.strip_prefix(root).map_err(|_| not_allowed())?;
    // The allowed folder itself is the operator's: links on the way to it are theirs.
    let opened = File::open(root).map_err(|error| PlaceError::Io {
        path: root.display().to_string(),
        error,
    })?;
    let mut folder = OwnedFd::from(opened);
    for part in below.components() {
        let Component::Normal(name) = part else {
            return Err(not_allowed());
        };
        folder = openat(&folder, name, FOLDER, Mode::empty()).map_err(|e| failed(path, e))?;
    }
    Ok(folder)
}

/// Opens a regular file of a folder.
pub(super) fn open_file(folder: &OwnedFd, name: &OsStr) -> Result<File, PlaceError> {
    let path = Path::new(name);
    if path.components().count() != 1 || path.file_name() != Some(name) {
        return Err(PlaceError::NotAllowed(path.display().to_string()));
    }
    let file = openat(folder, name, FILE, Mode::empty()).map_err(|e| failed(path, e))?;
    let file = File::from(file);
    let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
    if is_file {
        Ok(file)
    } else {
        Err(PlaceError::NoFile(path.display().to_string()))
    }
}

/// Opens a regular file by its path.
pub(super) fn open_path(allowed: &[PathBuf], path: &Path) -> Result<File, PlaceError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(PlaceError::NotAllowed(path.display().to_string()));
    };
    open_file(&open_folder(allowed, parent)?, name)
}

/// Tells one version of an open file from another: size, times of the last change of its content
/// and of its inode, and inode. Who sets the time of the content back changes that of the inode.
pub(super) fn stamp(file: &File) -> io::Result<String> {
    let meta = file.metadata()?;
    let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    Ok(format!(
        "{} {} {} {}",
        meta.size(),
        nanos(meta.mtime(), meta.mtime_nsec()),
        nanos(meta.ctime(), meta.ctime_nsec()),
        meta.ino()
    ))
}

/// A file of a folder as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size_bytes: i64,
    /// As [`stamp`] without the time of the inode, which a move changes.
    pub(super) stamp: String,
    pub(super) is_file: bool,
}

/// Looks at a name in a folder, not following links; `None` where there is none.
pub(super) fn entry(folder: &OwnedFd, name: &str) -> io::Result<Option<Entry>> {
    match fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(described(name, &stat))),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn described(name: &str, stat: &FileStat) -> Entry {
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let kind = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT;
    Entry {
        name: name.to_owned(),
        size_bytes: stat.st_size,
        stamp: format!("{} {nanos} {}", stat.st_size, stat.st_ino),
        is_file: kind == SFlag::S_IFREG,
    }
}

/// Returns the stamp of an open file as [`Entry::stamp`] has it.
pub(super) fn entry_stamp(file: &File) -> io::Result<String> {
    let stat = nix::sys::stat::fstat(file)?;
    Ok(described("", &stat).stamp)
}

/// Most names of a folder that are looked at.
const MOST_NAMES: usize = 100_000;

/// Lists the names of a folder, in their order; those that are no UTF-8 are counted.
pub(super) fn names(folder: &OwnedFd) -> io::Result<(Vec<String>, usize)> {
    use std::os::fd::AsRawFd as _;

    // By the open folder, wherever its name leads by now.
    let open = format!("/proc/self/fd/{}", folder.as_raw_fd());
    let (mut names, mut n_odd) = (Vec::new(), 0);
    for entry in std::fs::read_dir(open)?.take(MOST_NAMES) {
        match entry?.file_name().into_string() {
            Ok(name) => names.push(name),
            Err(_) => n_odd += 1,
        }
    }
    names.sort_unstable();
    Ok((names, n_odd))
}

/// Moves a file of a folder into the folder `to` beside it, which is made where it is not there.
/// Returns its path below the folder; where a file of its name is there, the name gets `mark`
/// before its extension. Where it is gone and lies there already, moved by an attempt that
/// nobody heard the end of, that is found by its stamp; gone altogether, `None` comes back.
pub(super) fn move_away(
    folder: &OwnedFd,
    name: &str,
    stamp: &str,
    to: &str,
    mark: i64,
) -> io::Result<Option<String>> {
    match mkdirat(folder, to, Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let beside = openat(folder, to, FOLDER, Mode::empty())?;
    let marked = marked(name, mark);
    let is_here = entry(folder, name)?.is_some_and(|entry| entry.stamp == stamp);
    if !is_here {
        for name in [name, &marked] {
            if entry(&beside, name)?.is_some_and(|entry| entry.stamp == stamp) {
                return Ok(Some(format!("{to}/{name}")));
            }
        }
        return Ok(None);
    }
    let moved = match renameat2(folder, name, &beside, name, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => name,
        // The mark is in no other name: nothing is replaced. Nor does NFS know how not to.
        Err(Errno::EEXIST | Errno::EINVAL | Errno::ENOSYS) => {
            renameat(folder, name, &beside, marked.as_str())?;
            &marked
        }
        Err(errno) => return Err(errno.into()),
    };
    Ok(Some(format!("{to}/{moved}")))
}

/// Removes a name from a folder; one that is gone is no error.
pub(super) fn remove(folder: &OwnedFd, name: &str) -> io::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Returns `a.7.csv` for `a.csv` and 7.
fn marked(name: &str, mark: i64) -> String {
    let path = Path::new(name);
    let (stem, extension) = (path.file_stem().unwrap_or_default(), path.extension());
    let mut marked = OsString::from(stem);
    marked.push(format!(".{mark}"));
    if let Some(extension) = extension {
        marked.push(".");
        marked.push(extension);
    }
    marked.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder `allowed` with a file and a folder `elsewhere` beside it.
    fn world() -> (tempfile::TempDir, Vec<PathBuf>) {
        let world = tempfile::tempdir().unwrap();
        for dir in ["allowed/below", "elsewhere"] {
            std::fs::create_dir_all(world.path().join(dir)).unwrap();
        }
        for file in ["allowed/below/a.csv", "elsewhere/secret.csv"] {
            std::fs::write(world.path().join(file), file).unwrap();
        }
        let allowed = vec![world.path().join("allowed")];
        (world, allowed)
    }

    #[test]
    fn a_file_below_is_opened() {
        let (world, allowed) = world();
        let path = world.path().join("allowed/below/a.csv");
        let file = open_path(&allowed, &path).unwrap();
        let before = stamp(&file).unwrap();
        assert_eq!(before, stamp(&open_path(&allowed, &path).unwrap()).unwrap());
        std::fs::write(&path, "allowed/below/b.csv").unwrap();
        assert_ne!(before, stamp(&open_path(&allowed, &path).unwrap()).unwrap());
    }

    #[test]
    fn nothing_leads_out() {
        let (world, allowed) = world();
        let at = |path: &str| world.path().join(path);
        symlink(at("elsewhere/secret.csv"), at("allowed/link.csv")).unwrap();
        symlink(at("elsewhere"), at("allowed/linked")).unwrap();
        symlink("../elsewhere", at("allowed/below/up")).unwrap();
        nix::unistd::mkfifo(&at("allowed/pipe.csv"), Mode::S_IRWXU).unwrap();
        for path in [
            "elsewhere/secret.csv",
            "allowed/../elsewhere/secret.csv",
            "allowed/link.csv",
            "allowed/linked/secret.csv",
            "allowed/below/up/secret.csv",
            "allowed/pipe.csv",
            "allowed/below",
            "allowed/none.csv",
        ] {
            assert!(open_path(&allowed, &at(path)).is_err(), "{path}");
        }
        assert!(open_path(&[], &at("allowed/below/a.csv")).is_err());
        let folder = open_folder(&allowed, &at("allowed")).unwrap();
        for name in ["../elsewhere/secret.csv", "below/a.csv", "..", ".", ""] {
            assert!(open_file(&folder, OsStr::new(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn a_file_is_moved_and_nothing_is_replaced() {
        let (world, allowed) = world();
        let below = world.path().join("allowed/below");
        let folder = open_folder(&allowed, &below).unwrap();
        let put = |text: &str| {
            std::fs::write(below.join("a.csv"), text).unwrap();
            entry(&folder, "a.csv").unwrap().unwrap().stamp
        };
        let first = put("first");
        let moved = move_away(&folder, "a.csv", &first, "done", 1).unwrap();
        assert_eq!(moved.as_deref(), Some("done/a.csv"));
        // The attempt that moved it died before it could say so.
        let again = move_away(&folder, "a.csv", &first, "done", 1).unwrap();
        assert_eq!(again, moved);
        let second = put("second");
        assert!(
            move_away(&folder, "a.csv", "other", "done", 2)
                .unwrap()
                .is_none()
        );
        let moved = move_away(&folder, "a.csv", &second, "done", 2).unwrap();
        assert_eq!(moved.as_deref(), Some("done/a.2.csv"));
        let read = |name: &str| std::fs::read_to_string(below.join(name)).unwrap();
        assert_eq!(
            (read("done/a.csv"), read("done/a.2.csv")),
            ("first".into(), "second".into())
        );
    }

    #[test]
    fn a_folder_that_is_a_link_takes_no_file() {
        let (world, allowed) = world();
        let below = world.path().join("allowed/below");
        symlink(world.path().join("elsewhere"), below.join("done")).unwrap();
        let folder = open_folder(&allowed, &below).unwrap();
        let stamp = entry(&folder, "a.csv").unwrap().unwrap().stamp;
        assert!(move_away(&folder, "a.csv", &stamp, "done", 1).is_err());
        assert!(below.join("a.csv").exists());
    }
}
