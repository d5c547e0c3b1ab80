//! The daemon's memory by the size of the file: upload, inspection and import.

use super::{Arguments, daemon::Daemon, report::Report, rig::Rig, workbooks::Wanted};

/// What the daemon may take beyond what it takes idle.
const GOAL_MB: f64 = 64.0;
/// How much more of that a file of ten times the rows may take.
const GROWTH_GOAL_MB: f64 = 24.0;

/// Imports ever larger workbooks, each by a daemon of its own.
pub(crate) async fn measure(
    rig: &Rig,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    println!("\nmemory of the daemon, beyond what it holds idle");
    let mut peaks = Vec::new();
    for n_rows in arguments.memory_rows() {
        let file = Wanted::ordered(n_rows).make()?;
        rig.empty().await?;
        let daemon = Daemon::start(rig).await?;
        let (idle_mb, imported) = (daemon.memory_mb()?, daemon.import(&file).await?);
        daemon.stop()?;
        let peak_mb = megabytes(imported.cost.peak_bytes);
        println!("{n_rows:>9} rows: {peak_mb:>6.1} MB beyond {idle_mb:.1} MB");
        peaks.push((n_rows, peak_mb));
    }
    let [_, (some_rows, some), .., (most_rows, most)] = peaks[..] else {
        anyhow::bail!("give three numbers of rows or more")
    };
    let all: Vec<String> = peaks.iter().map(|(_, mb)| format!("{mb:.1}")).collect();
    let highest = peaks.iter().map(|(_, mb)| *mb).fold(0.0, f64::max);
    report.add(
        format!("daemon memory beyond idle, up to {most_rows} rows"),
        "at most 64 MB",
        format!("{} MB", all.join(", ")),
        Some(highest <= GOAL_MB),
    );
    report.add(
        format!("its growth from {some_rows} to {most_rows} rows"),
        "at most 24 MB",
        format!("{:.1} MB", most - some),
        Some(most - some <= GROWTH_GOAL_MB),
    );
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
