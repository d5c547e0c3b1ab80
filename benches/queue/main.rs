//! What the queue costs, beside hand-written loops over the same tables in the same run.
//!
//! ```sh
//! cargo bench --bench queue                       # everything, on a quiet machine
//! cargo bench --bench queue -- --quick --only drain
//! ```
//!
//! Starts a cluster of its own with durable commits and removes it. Wall time wants a quiet
//! machine; the CPU time a job costs, this process's and the server's apart, hardly does. Ratios
//! are of figures from the same run, whose rounds are interleaved.
#![expect(clippy::print_stdout, reason = "the figures are the output")]

mod by_hand;
mod condition;
mod drain;
mod engine;
mod enqueue;
mod latency;
#[path = "../shared/measure.rs"]
mod measure;
mod memory;
mod peer;
mod per_job;
mod report;
mod rig;
mod spread;

use clap::{Parser, ValueEnum};
use report::Report;
use rig::Rig;

/// The daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the queue beside loops written by hand.
#[derive(Debug, Parser)]
struct Arguments {
    /// Jobs of a drain.
    #[arg(long, default_value_t = 100_000)]
    jobs: u32,
    /// Rounds of each drain; medians are printed, and the least and the most.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Jobs of a claim and a completion; repeat it for several.
    #[arg(long = "batch", default_values_t = [100, 500])]
    batches: Vec<u32>,
    /// Finished jobs that claims are measured on.
    #[arg(long, default_value_t = 10_000_000)]
    history: u32,
    /// Fewer jobs and rounds: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// The part to run; repeat it for several. Without it: all.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Serves the database at a URL until standard input ends: the daemon whose memory is measured.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Takes part in the comparison of `benches/peers`.
    #[arg(long, hide = true, num_args = 3, value_names = ["WHAT", "URL", "N"])]
    peer: Vec<String>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Jobs per second, CPU and WAL a job, of the engine and of two loops written by hand.
    Drain,
    /// Jobs per second of single inserts, batches and COPY.
    Enqueue,
    /// From an INSERT's commit to the start of its handler.
    Latency,
    /// Peak memory of the daemon by the size of the backlog.
    Memory,
    /// Drains and claims on a long history and under a held snapshot.
    Condition,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if let Some(url) = &arguments.serve {
        return memory::serve(url).await;
    }
    if let [what, url, n] = &arguments.peer[..] {
        return peer::take_part(what, url, n.parse()?).await;
    }
    if arguments.quick {
        arguments.jobs = arguments.jobs.min(10_000);
        arguments.rounds = arguments.rounds.min(2);
        arguments.history = arguments.history.min(100_000);
    }
    let (rig, mut report) = (Rig::start().await?, Report::default());
    measure(&rig, &arguments, &mut report).await?;
    report.add_wal();
    report.print();
    rig.stop().await
}

async fn measure(rig: &Rig, arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    // What wants a quiet database comes first, what leaves a long history last.
    if arguments.wants(Part::Latency) {
        latency::measure(rig, arguments, report).await?;
    }
    if arguments.wants(Part::Drain) {
        drain::measure(rig, arguments, report).await?;
    }
    if arguments.wants(Part::Enqueue) {
        enqueue::measure(rig, arguments, report).await?;
    }
    if arguments.wants(Part::Memory) {
        memory::measure(rig, arguments, report).await?;
    }
    if arguments.wants(Part::Condition) {
        condition::measure(rig, arguments, report).await?;
    }
    Ok(())
}
