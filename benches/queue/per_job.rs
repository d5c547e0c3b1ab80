//! What one job cost.

use super::measure::Cost;

/// A phase's cost, shared out among its jobs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PerJob {
    pub(crate) jobs_per_s: f64,
    /// CPU of this process, in microseconds.
    pub(crate) client_us: f64,
    /// CPU of the whole server, in microseconds.
    pub(crate) server_us: f64,
    pub(crate) wal_bytes: f64,
    /// Memory of this process beyond what it held before; of all jobs, not of one.
    pub(crate) peak_mb: f64,
}

impl PerJob {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    pub(crate) fn of(cost: &Cost, n_jobs: u32) -> Self {
        let n = f64::from(n_jobs);
        Self {
            jobs_per_s: n / cost.seconds,
            client_us: cost.cpu_seconds * 1e6 / n,
            server_us: cost.server_cpu_seconds * 1e6 / n,
            wal_bytes: cost.wal_bytes as f64 / n,
            peak_mb: cost.peak_bytes as f64 / 1e6,
        }
    }
}
