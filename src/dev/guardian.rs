//! The shell that runs Postgres and stops it when its users are gone, however they went.
//!
//! A signal on the parent's death would need `unsafe` and exists on Linux only. The end of a pipe
//! needs neither and also tells of SIGKILL: the kernel closes what a dead process held.

use std::{
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    time::{Duration, Instant},
};

use super::{ClusterError, Lifeline, owner::Owner};

const SCRIPT: &str = include_str!("guardian.sh");

/// The running shell.
#[derive(Debug)]
pub(crate) struct Guardian {
    child: Child,
    /// The end of the pipe whose closing stops Postgres; `None` with a FIFO.
    pipe: Option<ChildStdin>,
}

impl Guardian {
    /// Starts `server`, a command line, as `owner`; its output goes to the file `log`.
    pub(crate) fn spawn(
        owner: &Owner,
        server: &Command,
        log: &Path,
        sockets: &Path,
        lifeline: &Lifeline,
    ) -> Result<Self, ClusterError> {
        let mut command = owner.command("/bin/sh");
        // By way of the environment, so that a list of processes stays readable.
        command.env("SCRIPT", SCRIPT);
        command
            .args(["-c", "eval \"$SCRIPT\"", "ingestd-guardian"])
            .arg(log)
            .arg(sockets);
        match lifeline {
            Lifeline::Process => command.args(["-", "0"]).stdin(Stdio::piped()),
            Lifeline::Fifo { path, linger } => command.arg(path).arg(linger.as_secs().to_string()),
        };
        command.arg(server.get_program()).args(server.get_args());
        let mut child = command
            .spawn()
            .map_err(ClusterError::io("cannot run", "/bin/sh"))?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }

    /// Says whether Postgres, and with it the shell, has ended.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Lets go of the pipe, which stops Postgres by a fast shutdown.
    pub(crate) fn release(&mut self) {
        self.pipe = None;
    }

    /// Waits until Postgres has ended, at most for `timeout`; says whether it has.
    pub(crate) async fn ended(&mut self, timeout: Duration) -> bool {
        let begun = Instant::now();
        while !self.has_ended() {
            if begun.elapsed() > timeout {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

impl Drop for Guardian {
    /// Stops Postgres and waits, where this process is its only user. The shell itself sees to it
    /// that the wait has an end.
    fn drop(&mut self) {
        if self.pipe.take().is_some() {
            drop(self.child.wait());
        }
    }
}
