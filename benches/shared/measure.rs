//! What a phase cost: wall and CPU time, WAL, and the memory it took beyond what was held before.

use std::{fs, time::Instant};

use anyhow::Context;
use sqlx::PgConnection;

/// The cost of one phase.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) seconds: f64,
    /// CPU of this process, or of the one that is measured.
    pub(crate) cpu_seconds: f64,
    /// CPU of the whole server, checkpoints too.
    pub(crate) server_cpu_seconds: f64,
    pub(crate) wal_bytes: i64,
    pub(crate) peak_bytes: u64,
}

/// A phase under way.
pub(crate) struct Phase {
    pid: String,
    began: Instant,
    cpu_at: f64,
    server_cpu_at: f64,
    wal_at: i64,
    held_bytes: u64,
}

impl Phase {
    /// Starts the clocks, of this process and the server.
    pub(crate) async fn begin(conn: &mut PgConnection) -> anyhow::Result<Self> {
        Self::of("self", conn).await
    }

    /// Starts the clocks, of the process `pid` and the server.
    pub(crate) async fn of(pid: &str, conn: &mut PgConnection) -> anyhow::Result<Self> {
        // 5 resets the high-water mark (proc(5)).
        fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
        Ok(Self {
            pid: pid.to_owned(),
            wal_at: wal(conn).await?,
            held_bytes: memory(pid, "VmRSS:")?,
            cpu_at: cpu(pid, false)?,
            server_cpu_at: server_cpu(conn).await?,
            began: Instant::now(),
        })
    }

    /// Stops the clocks.
    pub(crate) async fn end(self, conn: &mut PgConnection) -> anyhow::Result<Cost> {
        let seconds = self.began.elapsed().as_secs_f64();
        Ok(Cost {
            seconds,
            cpu_seconds: cpu(&self.pid, false)? - self.cpu_at,
            server_cpu_seconds: server_cpu(conn).await? - self.server_cpu_at,
            wal_bytes: wal(conn).await? - self.wal_at,
            peak_bytes: memory(&self.pid, "VmHWM:")?.saturating_sub(self.held_bytes),
        })
    }
}

/// Returns how much WAL was ever written, in bytes.
async fn wal(conn: &mut PgConnection) -> sqlx::Result<i64> {
    const WAL: &str = "SELECT (pg_current_wal_insert_lsn() - '0/0')::int8";
    sqlx::query_scalar(WAL).fetch_one(conn).await
}

/// Returns a figure of a process in bytes.
fn memory(pid: &str, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context(name.to_owned())?;
    Ok(kib.parse::<u64>()? * 1024)
}

/// Returns the CPU seconds of the server's living and dead processes.
async fn server_cpu(conn: &mut PgConnection) -> anyhow::Result<f64> {
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()")
        .fetch_one(conn)
        .await?;
    let postmaster = field(&stat(&pid.to_string())?, 4)?.to_string();
    let children = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children"))?;
    // A child may end between the listing and the look; its time is then its parent's.
    let living: f64 = children
        .split_whitespace()
        .filter_map(|pid| cpu(pid, false).ok())
        .sum();
    Ok(living + cpu(&postmaster, true)?)
}

/// Returns the CPU seconds of a process, with its dead children where asked for (proc(5)).
fn cpu(pid: &str, with_children: bool) -> anyhow::Result<f64> {
    let stat = stat(pid)?;
    let last = if with_children { 17 } else { 15 };
    let ticks = (14..=last)
        .map(|n| field(&stat, n))
        .sum::<anyhow::Result<u64>>()?;
    // Hundredths of a second; no process runs long enough to lose one here.
    Ok(f64::from(u32::try_from(ticks)?) / 100.0)
}

fn stat(pid: &str) -> anyhow::Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/stat"))?)
}

/// Returns field `n` of proc(5)'s stat, counted from 1; fields 1 and 2 are before the last `)`.
fn field(stat: &str, n: usize) -> anyhow::Result<u64> {
    let (_, rest) = stat.rsplit_once(')').context("no )")?;
    Ok(rest
        .split_whitespace()
        .nth(n - 3)
        .context("too few fields")?
        .parse()?)
}
