//! `process_*` metrics, as Prometheus's own client libraries name them, from `/proc/self`.
//!
//! Nothing outside `/proc/self` is read, so it works under `ProcSubset=pid`.
//! They are written as text beside the recorder's, because the recorder's
//! counters hold whole numbers and processor time is a fraction of seconds.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use super::metric::{self, Metric};

/// Ticks per second of the times in `/proc/self/stat`: `USER_HZ`, 100 on every
/// Linux that Rust runs on (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// What the process uses; a part that cannot be read is left out.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Usage {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    threads: Option<f64>,
    open_fds: Option<f64>,
    max_fds: Option<f64>,
}

impl Usage {
    /// Reads `/proc/self`; takes some 50 µs.
    pub(super) fn read() -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
        let status = read("status").unwrap_or_default();
        Self {
            cpu_seconds: read("stat").as_deref().and_then(cpu_seconds),
            resident_bytes: field(&status, "VmRSS:").map(|kib| kib * 1024.0),
            threads: field(&status, "Threads:"),
            open_fds: open_fds(),
            max_fds: read("limits").as_deref().and_then(max_fds),
        }
    }

    /// Appends the samples to a page of Prometheus text.
    pub(super) fn render(&self, started_at: f64, text: &mut String) {
        for (metric, value) in [
            (metric::PROCESS_CPU, self.cpu_seconds),
            (metric::PROCESS_RESIDENT_MEMORY, self.resident_bytes),
            (metric::PROCESS_OPEN_FDS, self.open_fds),
            (metric::PROCESS_MAX_FDS, self.max_fds),
            (metric::PROCESS_THREADS, self.threads),
            (metric::PROCESS_START_TIME, Some(started_at)),
        ] {
            if let Some(value) = value {
                sample(&metric, value, text);
            }
        }
    }
}

fn sample(metric: &Metric, value: f64, text: &mut String) {
    let (name, help, shape) = (metric.name, metric.help, metric.shape.name());
    // Writing to a String cannot fail.
    writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} {shape}\n{name} {value}\n"
    )
    .ok();
}

/// Returns the wall clock, in seconds since 1970.
#[expect(
    clippy::disallowed_methods,
    reason = "a start time is shown to people and compared with Prometheus's clock; nothing is decided by it"
)]
pub(super) fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Adds up user and system time: fields 14 and 15 of `stat`, counted after the
/// name, which stands in brackets and may hold anything.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut ticks = rest.split_whitespace().skip(11);
    let user: f64 = ticks.next()?.parse().ok()?;
    let system: f64 = ticks.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

fn field(status: &str, name: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn max_fds(limits: &str) -> Option<f64> {
    let rest = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match rest.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse().ok(),
    }
}

/// Counts the entries of `/proc/self/fd`, less the one that counting opens.
fn open_fds() -> Option<f64> {
    let n_fds = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(n_fds.saturating_sub(1)).ok().map(f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cpu_time_past_a_name_with_brackets() {
        let stat = "42 (a) b) (c) S 1 1 1 0 -1 4194560 10 0 0 0 150 25 0 0 20 0 4 0 99";
        assert_eq!(cpu_seconds(stat), Some(1.75));
        assert_eq!(cpu_seconds("42 (x) S 1"), None);
    }

    #[test]
    fn reads_status_and_limits() {
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(2048.0));
        assert_eq!(field(status, "Threads:"), Some(7.0));
        assert_eq!(field(status, "VmSwap:"), None);
        let limits = "Max open files            1024                 524288               files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::read();
        assert!(usage.resident_bytes > Some(1e6), "{usage:?}");
        assert!(usage.threads >= Some(1.0), "{usage:?}");
        assert!(usage.open_fds >= Some(3.0), "{usage:?}");
        assert!(usage.max_fds > usage.open_fds, "{usage:?}");
        assert!(usage.cpu_seconds.is_some(), "{usage:?}");
    }
}
