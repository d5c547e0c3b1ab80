//! The daemon's memory, in a process of its own, with more and more jobs waiting.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use super::{
    Arguments,
    engine::Daemon,
    report::{Figure, Report},
    rig::Rig,
};

/// Longest a drain may take.
const PATIENCE: Duration = Duration::from_mins(10);
/// How long an idle daemon is watched.
const IDLE: Duration = Duration::from_secs(3);
/// Growth that is noise, in MB.
const NOISE_MB: f64 = 4.0;

/// Drains ever larger backlogs, and prints the peak of the daemon that does.
pub(crate) async fn measure(
    rig: &Rig,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    let backlogs = if arguments.quick {
        [0, 1_000, 10_000]
    } else {
        [0, 100_000, 1_000_000]
    };
    println!("\nmemory: peak of a daemon with 100 slots that drains a backlog");
    let mut peaks = Vec::new();
    for n_jobs in backlogs {
        rig.empty().await?;
        if n_jobs > 0 {
            rig.fill(n_jobs).await?;
        }
        let mut daemon = Process::start(&rig.url())?;
        tokio::time::sleep(IDLE).await;
        let idle = daemon.memory_mb("VmRSS:")?;
        rig.resume().await?;
        rig.drained(PATIENCE).await?;
        let peak = daemon.memory_mb("VmHWM:")?;
        daemon.stop()?;
        println!("{n_jobs:>9} queued: {idle:>5.1} MB before, {peak:>5.1} MB at its peak");
        peaks.push(peak);
    }
    let [_, some, most] = peaks[..] else {
        anyhow::bail!("three backlogs have three peaks")
    };
    report.add(Figure {
        name: "daemon memory by backlog".into(),
        goal: format!(
            "flat: no growth from {} to {} jobs",
            backlogs[1], backlogs[2]
        ),
        measured: format!("{some:.1}, {most:.1} MB"),
        is_met: Some(most - some < NOISE_MB),
    });
    Ok(())
}

/// Runs a daemon until standard input ends: the other end of [`Process`].
pub(crate) async fn serve(url: &str) -> anyhow::Result<()> {
    let daemon = Daemon::connect(url, 100).await?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    daemon.stop().await;
    Ok(())
}

/// A daemon in a process of its own; ends with its standard input, so also when this process dies.
struct Process(Child);

impl Process {
    fn start(url: &str) -> anyhow::Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .args(["--serve", url])
            .stdin(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    fn memory_mb(&self, name: &str) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next());
        let kib: u32 = kib.context("the daemon has ended")?.parse()?;
        Ok(f64::from(kib) * 1024.0 / 1e6)
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        anyhow::ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}
