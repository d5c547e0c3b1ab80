//! Files without a name, for what is too big for memory. They are gone with the process.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;

/// Makes a file in the folder of `beside`, else in the one for temporary files.
///
/// # Errors
///
/// When there is no room in either.
pub(in super::super::super) fn file(beside: &Path) -> io::Result<File> {
    let folder = beside.parent().filter(|it| !it.as_os_str().is_empty());
    let other = std::env::temp_dir();
    nameless(folder.unwrap_or(Path::new(".")))
        .or_else(|_| nameless(&other))
        .or_else(|_| unlinked(&other))
}

fn nameless(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .mode(0o600)
        .open(folder)
}

/// Makes a file and takes its name away, where the file system makes none without.
fn unlinked(folder: &Path) -> io::Result<File> {
    let name = format!("ingestd-{}-{:016x}", std::process::id(), fastrand::u64(..));
    let path = folder.join(name);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true).mode(0o600);
    let file = options.open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;

    #[test]
    fn no_name_is_left() {
        let folder = tempfile::tempdir().unwrap();
        for make in [|at: &Path| file(&at.join("x")), |at: &Path| unlinked(at)] {
            let mut file = make(folder.path()).unwrap();
            file.write_all(b"text").unwrap();
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }
}
