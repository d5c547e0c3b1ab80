//! Blobs in a folder. A blob is written under a temporary name, synced, and then
//! given its own: a name that exists has its whole content.

use std::{
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::{fs, io::AsyncWriteExt, task::JoinHandle};

/// The folder that holds the blobs.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// A stored blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Its name in the store, made by the store.
    pub name: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of its content.
    pub sha256: [u8; 32],
}

impl Store {
    /// Opens the store in `dir/blobs`, making it readable for its owner alone.
    ///
    /// Run by root in a folder of somebody else's, it gives what it makes to the folder's owner.
    ///
    /// # Errors
    ///
    /// The folder cannot be made.
    pub async fn open(dir: &Path) -> io::Result<Self> {
        let dir = dir.join("blobs");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .await
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("cannot make {}: {error}", dir.display()),
                )
            })?;
        if let Some(owner) = dir.parent().map(foreign_owner).transpose()?.flatten() {
            // Of a link, which the folder's owner may have put there, only the link changes hands.
            std::os::unix::fs::lchown(&dir, Some(owner.0), Some(owner.1))?;
        }
        Ok(Self { dir })
    }

    /// Begins a new blob; nothing is there under its name until [`Writer::finish`].
    ///
    /// # Errors
    ///
    /// The file cannot be made: disk full, no permission.
    pub async fn create(&self) -> io::Result<Writer> {
        let name: String = std::iter::repeat_with(fastrand::alphanumeric)
            .map(|c| c.to_ascii_lowercase())
            .take(24)
            .collect();
        let path = self.dir.join(format!("{name}.part"));
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .await?;
        if let Some(owner) = foreign_owner(&self.dir)? {
            std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
        }
        Ok(Writer {
            store: self.clone(),
            name,
            path,
            file,
            hash: Sha256::new(),
            size_bytes: 0,
            sync: None,
        })
    }

    /// Returns where a blob lies, or `None` for a name that this store did not make.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let stem = name.strip_suffix(".part").unwrap_or(name);
        let ours = stem.len() == 24 && stem.bytes().all(|b| b.is_ascii_alphanumeric());
        ours.then(|| self.dir.join(name))
    }

    /// Returns the names of files written at least `age` ago; a blob that was never finished
    /// ends in `.part`.
    ///
    /// # Errors
    ///
    /// The folder cannot be read.
    pub async fn older_than(&self, age: Duration) -> io::Result<Vec<String>> {
        let mut entries = fs::read_dir(&self.dir).await?;
        let mut names = Vec::new();
        while let Some(entry) = entries.next_entry().await? {
            let written = entry.metadata().await.and_then(|file| file.modified());
            let is_old = written.is_ok_and(|at| at.elapsed().is_ok_and(|since| since >= age));
            if let Some(name) = entry.file_name().to_str().filter(|_| is_old) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Deletes a blob; one that is gone already is no error.
    ///
    /// # Errors
    ///
    /// The file cannot be deleted.
    pub async fn delete(&self, name: &str) -> io::Result<()> {
        let Some(path) = self.path(name) else {
            return Ok(());
        };
        match fs::remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Returns user and group of a folder that root works in without being its owner.
///
/// What root puts there, by `ingestd import` say, is given to them: the daemon that reads it runs
/// as that user.
fn foreign_owner(dir: &Path) -> io::Result<Option<(u32, u32)>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let meta = std::fs::metadata(dir)?;
    Ok((meta.uid() != 0).then(|| (meta.uid(), meta.gid())))
}

/// A blob being written. Dropped before [`Writer::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct Writer {
    store: Store,
    name: String,
    path: PathBuf,
    file: fs::File,
    hash: Sha256,
    size_bytes: u64,
    sync: Option<Syncing>,
}

/// A sync under way, of so many first bytes.
#[derive(Debug)]
struct Syncing {
    size_bytes: u64,
    ends: JoinHandle<io::Result<()>>,
}

impl Writer {
    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// The disk is full or fails.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.size_bytes += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// Returns the bytes written so far.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Returns the SHA-256 of the bytes written so far.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        self.hash.clone().finalize().into()
    }

    /// Returns where the bytes lie while they are being written.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes every byte written so far visible to other readers of [`Writer::path`].
    ///
    /// # Errors
    ///
    /// The disk is full or fails.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.file.flush().await
    }

    /// Begins to sync what was written so far, as [`Writer::flush`] makes it visible: whoever looks
    /// at it meanwhile does not wait for the disk, [`Writer::finish`] does for what is left.
    ///
    /// # Errors
    ///
    /// The disk is full or fails; what the sync itself meets is told by [`Writer::finish`].
    pub async fn begin_sync(&mut self) -> io::Result<()> {
        self.file.flush().await?;
        self.end_sync().await?;
        let file = self.file.try_clone().await?.into_std().await;
        self.sync = Some(Syncing {
            size_bytes: self.size_bytes,
            ends: tokio::task::spawn_blocking(move || file.sync_all()),
        });
        Ok(())
    }

    /// Waits for the sync under way, and returns whether it was of every byte written.
    async fn end_sync(&mut self) -> io::Result<bool> {
        let Some(sync) = self.sync.take() else {
            return Ok(false);
        };
        sync.ends.await.map_err(io::Error::other)??;
        Ok(sync.size_bytes == self.size_bytes)
    }

    /// Syncs the blob to disk and gives it its name.
    ///
    /// # Errors
    ///
    /// The disk is full or fails; nothing is left behind.
    pub async fn finish(mut self) -> io::Result<Blob> {
        self.file.flush().await?;
        if !self.end_sync().await? {
            self.file.sync_all().await?;
        }
        fs::rename(&self.path, self.store.dir.join(&self.name)).await?;
        // The rename is durable once the folder is.
        fs::File::open(&self.store.dir).await?.sync_all().await?;
        let sha256 = std::mem::take(&mut self.hash).finalize().into();
        Ok(Blob {
            name: std::mem::take(&mut self.name),
            size_bytes: self.size_bytes,
            sha256,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` the temporary name is gone and this does nothing.
        drop(std::fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_finished_blob_is_whole_and_an_unfinished_one_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let mut writer = store.create().await.unwrap();
        writer.write(b"abc").await.unwrap();
        let blob = writer.finish().await.unwrap();
        assert_eq!(
            std::fs::read(store.path(&blob.name).unwrap()).unwrap(),
            b"abc"
        );
        assert_eq!(blob.size_bytes, 3);
        assert_eq!(blob.sha256[..4], [0xba, 0x78, 0x16, 0xbf]);

        let unfinished = store.create().await.unwrap();
        let path = unfinished.path().to_owned();
        drop(unfinished);
        assert!(!path.exists());
        store.delete(&blob.name).await.unwrap();
        store.delete(&blob.name).await.unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path().join("blobs")).unwrap().count(),
            0
        );
    }

    #[tokio::test]
    async fn what_is_written_behind_a_sync_is_synced_too() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let mut writer = store.create().await.unwrap();
        writer.write(b"abc").await.unwrap();
        writer.begin_sync().await.unwrap();
        let seen = std::fs::read(writer.path()).unwrap();
        assert_eq!(seen, b"abc", "what is being synced is visible");
        writer.write(b"def").await.unwrap();
        let mut later = store.create().await.unwrap();
        later.write(b"abc").await.unwrap();
        later.begin_sync().await.unwrap();
        assert!(!writer.end_sync().await.unwrap(), "of half of it");
        assert!(later.end_sync().await.unwrap(), "of all of it");
        assert!(!later.end_sync().await.unwrap(), "told once");
        let blob = writer.finish().await.unwrap();
        let kept = std::fs::read(store.path(&blob.name).unwrap()).unwrap();
        assert_eq!(kept, b"abcdef");
    }

    #[tokio::test]
    async fn what_root_writes_is_the_folder_owner_s() {
        if !nix::unistd::geteuid().is_root() {
            return; // only root can give files away
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(dir.path(), Some(12345), Some(23456)).unwrap();
        let store = Store::open(dir.path()).await.unwrap();
        let blob = store.create().await.unwrap().finish().await.unwrap();
        for path in [dir.path().join("blobs"), store.path(&blob.name).unwrap()] {
            let meta = std::fs::symlink_metadata(path).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (12345, 23456));
        }
    }

    #[test]
    fn names_of_others_have_no_path() {
        let store = Store { dir: "/x".into() };
        assert_eq!(store.path("../../etc/passwd"), None);
        assert_eq!(store.path("aaaaaaaaaaaaaaaaaaaa/../"), None);
    }
}
