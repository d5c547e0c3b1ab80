//! calamine in a child process: a file that breaks it breaks nothing else.
//!
//! calamine reads xls and ods whole, keeps the shared strings of an xlsx in
//! memory, and trusts numbers in the file; a stack overflow or an allocation
//! that fails ends the process it happens in. So a program that says so by
//! [`read_in_children`] has other formats than delimited text and the xlsx of
//! `scan` read by another process of itself, under limits of memory, time and
//! files, that answers over a socket (`wire.rs`). Whatever becomes of that
//! process is a [`Refusal`].
//!
//! The limits are the child's own first act, before it looks at the file.

mod process;
mod remote;
mod serve;
mod wire;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use super::options::{Format, Options};
use super::refusal::Refusal;
use super::rows::{self, Workbook};

/// First argument of a process that reads a workbook for another.
const COMMAND: &str = "read-workbook";

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Has workbooks read in child processes from now on: of `program`, which is `/proc/self/exe` for a
/// program that itself calls [`serve_if_asked`] first of all. The first call decides.
pub fn read_in_children(program: impl Into<PathBuf>) {
    PROGRAM.get_or_init(|| program.into());
}

/// Opens a workbook in a child process, or here where the program has none.
///
/// # Errors
///
/// As opening here, and [`Refusal::READER_LIMITS`].
pub(super) fn open(
    path: &Path,
    format: Format,
    options: &Options,
) -> Result<Box<dyn Workbook>, Refusal> {
    let Some(program) = PROGRAM.get() else {
        return rows::open_here(path, format);
    };
    let limits = options.child_limits;
    let mut command = Command::new(program);
    command
        .arg0("ingestd")
        .args([COMMAND, format.name()])
        .arg(std::process::id().to_string())
        .arg(limits.memory_bytes.to_string())
        .arg(limits.cpu.as_secs().to_string());
    let remote = remote::Remote::open(command, path, limits, &options.stop)?;
    Ok(Box::new(remote))
}

/// Reads a workbook for the process that began this one, where the arguments say so, and returns
/// the exit code: 0, or 1 when this was no child of that process or the limits could not be set.
///
/// A program that calls [`read_in_children`] calls this before anything else.
#[must_use]
pub fn serve_if_asked(args: impl Iterator<Item = OsString>) -> Option<u8> {
    let mut args = args.skip(1);
    if args.next()? != COMMAND {
        return None;
    }
    let args: Vec<String> = args.filter_map(|arg| arg.into_string().ok()).collect();
    Some(u8::from(serve(&args).is_err()))
}

fn serve(args: &[String]) -> io::Result<()> {
    let unknown = || io::Error::from(io::ErrorKind::InvalidInput);
    let [format, parent, memory_bytes, cpu_secs] = args else {
        return Err(unknown());
    };
    let format = match format.as_str() {
        "xlsx" => Format::Xlsx,
        "xlsb" => Format::Xlsb,
        "xls" => Format::Xls,
        "ods" => Format::Ods,
        _ => return Err(unknown()),
    };
    // It dies with the thread that began it, which lives as long as it listens.
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid().to_string() != *parent {
        return Err(io::ErrorKind::NotFound.into()); // it is gone already
    }
    let number = |text: &String| text.parse().map_err(|_| unknown());
    limit(number(memory_bytes)?, number(cpu_secs)?)?;
    let socket = io::stdout().as_fd().try_clone_to_owned()?;
    let opened = rows::open_here(Path::new("/proc/self/fd/0"), format);
    serve::serve(opened, &mut UnixStream::from(socket))
}

/// Takes from this process what reading a workbook does not need.
fn limit(memory_bytes: u64, cpu_secs: u64) -> nix::Result<()> {
    const MOST_FILES: u64 = 32;
    for (resource, soft, hard) in [
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_FSIZE, 0, 0),
        (Resource::RLIMIT_NOFILE, MOST_FILES, MOST_FILES),
        // the soft limit ends it with a signal of its own, the hard one should that be blocked
        (Resource::RLIMIT_CPU, cpu_secs, cpu_secs + 5),
        (Resource::RLIMIT_AS, memory_bytes, memory_bytes),
    ] {
        setrlimit(resource, soft, hard)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
