//! A child process under limits: begun, listened to, and always ended.
//!
//! It leads a process group of its own, so that what it may have started ends
//! with it, by the one signal that cannot be ignored. It has no environment (but for a word to
//! the allocator) and no files but the workbook and the socket it answers on.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::options::{ChildLimits, StopFlag};
use super::super::refusal::Refusal;

/// How often the wait for an answer looks whether anybody still wants it.
const LOOK: Duration = Duration::from_millis(100);

/// A running child.
pub(super) struct Process {
    child: Child,
    socket: UnixStream,
    limits: ChildLimits,
    stop: StopFlag,
    /// How long its answers have been waited for, all together.
    waited: Duration,
    is_ended: bool,
}

impl Process {
    /// Begins a child that reads `file` on its standard input and answers on its standard output,
    /// which is a socket that it is also asked on.
    ///
    /// # Errors
    ///
    /// When there is no room for one more process or file.
    pub(super) fn begin(
        mut command: Command,
        file: File,
        limits: ChildLimits,
        stop: StopFlag,
    ) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_read_timeout(Some(LOOK))?;
        socket.set_write_timeout(Some(limits.answer))?;
        let child = command
            .env_clear()
            // else the allocator puts a gibibyte of addresses aside before the limit is set
            .env("MIMALLOC_ARENA_RESERVE", "0")
            .current_dir("/")
            .stdin(file)
            .stdout(OwnedFd::from(theirs))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        Ok(Self {
            child,
            socket,
            limits,
            stop,
            waited: Duration::ZERO,
            is_ended: false,
        })
    }

    /// Ends the child and says why, after `error` came of talking to it.
    pub(super) fn explain(&mut self, error: &io::Error) -> Refusal {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, TimedOut, UnexpectedEof};
        let status = self.end();
        match error.kind() {
            UnexpectedEof | BrokenPipe | ConnectionReset => self.explain_end(status),
            TimedOut => beyond("did not answer in time"),
            NotConnected => Refusal::new(Refusal::READ_FAILED, "the reading was stopped"),
            _ => broke_off(error),
        }
    }

    /// Says what a child that is gone died of.
    fn explain_end(&self, status: Option<ExitStatus>) -> Refusal {
        let signal = status.and_then(|status| status.signal());
        match signal.and_then(|signal| Signal::try_from(signal).ok()) {
            Some(Signal::SIGXCPU) => beyond(&format!(
                "took more than {} s of computing",
                self.limits.cpu.as_secs()
            )),
            Some(Signal::SIGABRT | Signal::SIGSEGV | Signal::SIGBUS) => beyond(&format!(
                "needed more than {} MiB of memory, or broke the reader by how it is built",
                self.limits.memory_bytes >> 20
            )),
            // from outside: the kernel when memory is short, or a person
            Some(signal) => Refusal::new(
                Refusal::READ_FAILED,
                format!("the reader of the workbook was ended by {signal}"),
            ),
            None => match status {
                Some(status) => broke_off(&status),
                None => broke_off(&"it cannot be waited for"),
            },
        }
    }

    /// Kills the child with all that it has started, and returns how the child ended. One that was
    /// ending already keeps its own reason.
    fn end(&mut self) -> Option<ExitStatus> {
        if !self.is_ended {
            // not waited for yet, so its id is nobody else's
            if let Ok(pid) = i32::try_from(self.child.id()) {
                // it is gone where this fails
                killpg(Pid::from_raw(pid), Signal::SIGKILL).ok();
            }
            self.is_ended = true;
        }
        self.child.wait().ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Reading waits for the child, but not for ever and only while it is wanted.
impl Read for Process {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.waited > self.limits.all_answers {
            return Err(io::ErrorKind::TimedOut.into()); // each answer came soon, but there is no end
        }
        let began = Instant::now();
        loop {
            let found = self.socket.read(out);
            let in_vain = |error: &io::Error| {
                matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                )
            };
            let waited = began.elapsed();
            if !found.as_ref().is_err_and(in_vain) {
                self.waited += waited;
                return found;
            }
            if self.stop.is_raised() {
                return Err(io::ErrorKind::NotConnected.into());
            }
            if waited > self.limits.answer || self.waited + waited > self.limits.all_answers {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Write for Process {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket
            .write(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                _ => error,
            })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn beyond(what: &str) -> Refusal {
    Refusal::new(
        Refusal::READER_LIMITS,
        format!("reading the workbook {what}; save it as xlsx or CSV"),
    )
}

fn broke_off(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::format(format!(
        "the reader of the workbook broke off ({why}); save it as xlsx or CSV"
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::wire::{self, Frame};
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(40);

    fn shell(script: &str, answer: Duration) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let limits = ChildLimits {
            answer,
            ..ChildLimits::default()
        };
        let nothing = File::open("/dev/null").unwrap();
        Process::begin(command, nothing, limits, StopFlag::default()).unwrap()
    }

    fn refusal(script: &str) -> Refusal {
        let mut process = shell(script, PATIENCE);
        let error = wire::receive(&mut process).unwrap_err();
        process.explain(&error)
    }

    /// Whether a process is there and runs; one that is dead but not waited for does not.
    fn runs(pid: &str) -> bool {
        let stat = std::fs::read_to_string(Path::new("/proc").join(pid).join("stat"));
        stat.is_ok_and(|stat| !stat.contains(") Z") && !stat.contains(") X"))
    }

    fn wait_until_gone(pid: &str) {
        let began = Instant::now();
        while runs(pid) {
            assert!(began.elapsed() < PATIENCE, "process {pid} still runs");
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_way_to_die_is_told() {
        for (script, code, words) in [
            (
                "kill -XCPU $$",
                Refusal::READER_LIMITS,
                "300 s of computing",
            ),
            ("kill -ABRT $$", Refusal::READER_LIMITS, "MiB of memory"),
            ("kill -SEGV $$", Refusal::READER_LIMITS, "MiB of memory"),
            ("kill -KILL $$", Refusal::READ_FAILED, "SIGKILL"),
            ("kill -TERM $$", Refusal::READ_FAILED, "SIGTERM"),
            ("exit 101", Refusal::INVALID_FILE_FORMAT, "101"),
            ("exit 0", Refusal::INVALID_FILE_FORMAT, "exit status: 0"),
            (
                r"printf '\001\000\000\000?x'",
                Refusal::INVALID_FILE_FORMAT,
                "unknown kind",
            ),
            (
                "cat /dev/zero",
                Refusal::INVALID_FILE_FORMAT,
                "unknown kind",
            ),
            (
                r"printf '\377\377\377\377r'; sleep 1000",
                Refusal::INVALID_FILE_FORMAT,
                "too long",
            ),
            (
                r"printf '\377\000\000\000rabc'",
                Refusal::INVALID_FILE_FORMAT,
                "exit status: 0",
            ),
        ] {
            let refusal = refusal(script);
            assert_eq!(refusal.code, code, "{script}: {refusal}");
            assert!(refusal.message.contains(words), "{script}: {refusal}");
        }
    }

    #[test]
    fn a_child_that_hangs_ignores_sigterm_and_forks_leaves_nothing() {
        // the number of the fork's process, as a message of 7 bytes
        let script = r"trap '' TERM HUP INT; (trap '' TERM; sleep 1000) &
                       printf '\007\000\000\000m%07d' $!; sleep 1000";
        let mut process = shell(script, Duration::from_millis(300));
        let leader = process.child.id().to_string();
        let Frame::Message(fork) = wire::receive(&mut process).unwrap() else {
            panic!("rows");
        };
        let fork = String::from_utf8(fork).unwrap();
        let fork = fork.trim_start_matches('0');
        assert!(runs(fork) && runs(&leader));
        let error = wire::receive(&mut process).unwrap_err();
        let refusal = process.explain(&error);
        assert_eq!(refusal.code, Refusal::READER_LIMITS);
        assert!(refusal.message.contains("in time"), "{refusal}");
        wait_until_gone(fork);
        wait_until_gone(&leader);
    }

    #[test]
    fn answers_that_all_come_in_time_are_not_waited_for_without_end() {
        for pause in ["0.02", "0.3"] {
            let script = format!(
                r"n=0; while [ $n -lt 100 ]; do n=$((n+1)); printf '\001\000\000\000mx'; sleep {pause}; done"
            );
            let mut process = shell(&script, PATIENCE);
            process.limits.all_answers = Duration::from_millis(400);
            let error = loop {
                if let Err(error) = wire::receive(&mut process) {
                    break error;
                }
            };
            let refusal = process.explain(&error);
            assert_eq!(refusal.code, Refusal::READER_LIMITS, "{pause}: {refusal}");
            assert!(refusal.message.contains("in time"), "{pause}: {refusal}");
        }
        // nor is the last one, which might come in time by itself
        let mut process = shell("sleep 1000", PATIENCE * 100);
        process.limits.all_answers = Duration::from_millis(300);
        let error = wire::receive(&mut process).unwrap_err();
        let refusal = process.explain(&error);
        assert_eq!(refusal.code, Refusal::READER_LIMITS, "{refusal}");
    }

    #[test]
    fn a_child_that_fills_the_socket_waits_and_is_ended_with_its_owner() {
        let process = shell("trap '' TERM; yes & yes", PATIENCE);
        let leader = process.child.id().to_string();
        assert!(runs(&leader));
        drop(process);
        wait_until_gone(&leader);
    }

    #[test]
    fn nobody_waits_for_a_reading_that_was_stopped() {
        let mut process = shell("sleep 1000", PATIENCE * 100);
        process.stop.raise();
        let error = wire::receive(&mut process).unwrap_err();
        assert!(process.explain(&error).is_transient());
    }
}
