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
mod drain;
mod engine;
#[path = "../shared/measure.rs"]
mod measure;
mod rig;
mod spread;

use clap::{Parser, ValueEnum};
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
    /// Fewer jobs and rounds: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// The part to run; repeat it for several. Without it: all.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// A part of the benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Jobs per second, CPU and WAL a job, of the engine and of two loops written by hand.
    Drain,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.jobs = arguments.jobs.min(10_000);
        arguments.rounds = arguments.rounds.min(2);
    }
    let rig = Rig::start().await?;
    if arguments.wants(Part::Drain) {
        drain::measure(&rig, &arguments).await?;
    }
    rig.stop().await
}
