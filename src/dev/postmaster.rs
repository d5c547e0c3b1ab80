//! `postmaster.pid`: what a running server says about itself, and whether it is true.
//!
//! The lines are described in the server's `miscadmin.h`: 1 process id, 2 data folder, 3 start
//! time, 4 port, 5 socket folder, 6 address, 7 shared memory, 8 status.

use std::path::{Path, PathBuf};

use nix::{errno::Errno, sys::signal, unistd::Pid};

/// What `postmaster.pid` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Postmaster {
    pub(crate) pid: i32,
    pub(crate) sockets: Option<PathBuf>,
    /// `starting`, `ready`, `standby` or `stopping`; empty in the first moments.
    pub(crate) status: String,
}

impl Postmaster {
    /// Reads the file of `data_dir`; `None` where there is none, or not yet a whole line.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number - 1).copied().unwrap_or_default();
        Some(Self {
            pid: line(1).trim_start_matches('-').parse().ok()?,
            sockets: Some(line(5))
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
            status: line(8).to_owned(),
        })
    }

    /// Says whether the process exists and serves `data_dir`.
    ///
    /// A process id comes round again, in a container that restarts usually at once, so the
    /// process must also stand in the data folder, which the server makes its current one. Where
    /// that cannot be seen, an existing process is believed.
    pub(crate) fn is_live(&self, data_dir: &Path) -> bool {
        if signal::kill(Pid::from_raw(self.pid), None) == Err(Errno::ESRCH) {
            return false;
        }
        match std::fs::read_link(format!("/proc/{}/cwd", self.pid)) {
            Ok(folder) => Some(folder) == data_dir.canonicalize().ok(),
            Err(_) => !Path::new("/proc/self/cwd").exists() || !is_gone(self.pid),
        }
    }
}

/// Says whether the process has ended, be it as a zombie that nobody has waited for.
fn is_gone(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with('Z'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "4711\n/data\n1700000000\n5432\n/tmp/s\n\n  1 2\nready   \n";

    #[test]
    fn the_lines_that_matter_are_read() {
        let expected = Postmaster {
            pid: 4711,
            sockets: Some("/tmp/s".into()),
            status: "ready".into(),
        };
        assert_eq!(Postmaster::parse(FILE), Some(expected));
    }

    #[test]
    fn a_half_written_file_is_no_server() {
        assert_eq!(Postmaster::parse(""), None);
        assert_eq!(Postmaster::parse("47\n/da").unwrap().status, "");
    }

    #[test]
    fn a_reused_process_id_is_not_taken_for_the_server() {
        let temp = tempfile::tempdir().unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let file = Postmaster {
            pid,
            sockets: None,
            status: "ready".into(),
        };
        assert!(!file.is_live(temp.path()));
        assert!(file.is_live(&std::env::current_dir().unwrap()));
    }

    #[test]
    fn an_ended_process_is_no_server() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        let file = Postmaster {
            pid,
            sockets: None,
            status: "ready".into(),
        };
        assert!(!file.is_live(Path::new("/")));
    }
}
