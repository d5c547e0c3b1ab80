//! The operating-system user that Postgres runs as, and what that user may reach.

use std::{
    fs,
    os::unix::{
        fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::{Command, Stdio},
};

use nix::unistd::{Uid, User};

use super::ClusterError;

const GROUP_X: u32 = 0o010;
const OWNER_X: u32 = 0o100;
const OTHERS_X: u32 = 0o001;
const GROUP_AND_OTHERS: u32 = 0o077;

/// Who owns the data and runs the server.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    name: String,
    uid: u32,
    gid: u32,
    /// The process is root and hands everything over to this user.
    drops: bool,
}

impl Owner {
    /// Returns the user itself, or for root, which Postgres refuses, `postgres` or else `nobody`.
    pub(crate) fn current() -> Result<Self, ClusterError> {
        let me = Uid::effective();
        if !me.is_root() {
            let gid = nix::unistd::Gid::effective().as_raw();
            let name = User::from_uid(me)
                .ok()
                .flatten()
                .map_or_else(|| me.to_string(), |u| u.name);
            return Ok(Self {
                name,
                uid: me.as_raw(),
                gid,
                drops: false,
            });
        }
        let known = |name| User::from_name(name).ok().flatten();
        let user = known("postgres")
            .or_else(|| known("nobody"))
            .ok_or(ClusterError::NoUser)?;
        Ok(Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            drops: true,
        })
    }

    /// Returns a command that runs as the owner, in a process group and an environment of its own:
    /// `PG*` variables would point the server elsewhere, the terminal's Ctrl-C would stop it before
    /// the daemon has drained, and the current folder may be one the owner cannot enter.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C");
        command.current_dir("/").process_group(0);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if self.drops {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Gives `path` to the owner.
    pub(crate) fn give(&self, path: &Path) -> Result<(), ClusterError> {
        if self.drops {
            chown(path, Some(self.uid), Some(self.gid))
                .map_err(ClusterError::io("cannot change the owner of", path))?;
        }
        Ok(())
    }

    /// Makes `path` a folder of the owner that nobody else may enter; its parents must exist.
    ///
    /// One that exists is taken only where it is exactly that: the temporary folder is open to
    /// all, and somebody else may have been there first.
    pub(crate) fn make_private(&self, path: &Path) -> Result<(), ClusterError> {
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => self.give(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let found =
                    fs::symlink_metadata(path).map_err(ClusterError::io("cannot read", path))?;
                let private = found.is_dir()
                    && found.uid() == self.uid
                    && found.permissions().mode() & GROUP_AND_OTHERS == 0;
                if private {
                    Ok(())
                } else {
                    Err(ClusterError::NotPrivate {
                        path: path.into(),
                        user: self.name.clone(),
                    })
                }
            }
            Err(error) => Err(ClusterError::io("cannot create", path)(error)),
        }
    }

    /// Checks that the owner may pass every folder above `path`, which must be absolute.
    pub(crate) fn check_reach(&self, path: &Path) -> Result<(), ClusterError> {
        if !self.drops {
            return Ok(());
        }
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        for ancestor in above {
            let found =
                fs::metadata(ancestor).map_err(ClusterError::io("cannot read", ancestor))?;
            if !self.may_pass(&found) {
                return Err(ClusterError::Unreachable {
                    path: path.into(),
                    ancestor: ancestor.into(),
                    user: self.name.clone(),
                });
            }
        }
        Ok(())
    }

    fn may_pass(&self, folder: &fs::Metadata) -> bool {
        let wanted = if folder.uid() == self.uid {
            OWNER_X
        } else if folder.gid() == self.gid {
            GROUP_X
        } else {
            OTHERS_X
        };
        folder.permissions().mode() & wanted != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stranger() -> Owner {
        Owner {
            name: "stranger".into(),
            uid: 54_321,
            gid: 54_321,
            drops: true,
        }
    }

    #[test]
    fn the_folder_that_stops_the_owner_is_named() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let error = stranger().check_reach(&temp.path().join("a")).unwrap_err();
        let ClusterError::Unreachable { ancestor, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(ancestor, temp.path());
        assert!(
            error
                .to_string()
                .contains(&format!("chmod o+x {}", temp.path().display()))
        );
    }

    #[test]
    fn an_open_way_is_no_error() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o711)).unwrap();
        stranger().check_reach(&temp.path().join("a")).unwrap();
    }

    #[test]
    fn a_folder_that_others_may_enter_is_not_taken() {
        let temp = tempfile::tempdir().unwrap();
        let owner = Owner {
            drops: false,
            uid: Uid::effective().as_raw(),
            ..stranger()
        };
        let path = temp.path().join("sockets");
        owner.make_private(&path).unwrap();
        owner.make_private(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            owner.make_private(&path),
            Err(ClusterError::NotPrivate { .. })
        ));
    }
}
