//! What the product import costs, each figure with its goal.
//!
//! ```sh
//! cargo bench --bench import                                    # everything, on a quiet machine
//! cargo bench --bench import -- --rows 100000 --only whole
//! cargo bench --bench import -- --quick                         # whether it works
//! cargo bench --bench import -- --prepare                       # makes the workbooks and ends
//! ```
//!
//! Every figure is against a limit of the same machine in the same run: inflating the same parts,
//! or the bulk COPY of the same rows. Whole imports are those of the daemon, in a process of its
//! own; loading alone is measured in this one, over rows made before. Starts a cluster of its own
//! with durable commits and removes it. `benches/import/peers` compares with other programs.
#![expect(clippy::print_stdout, reason = "the figures are the output")]

mod daemon;
mod data;
mod loader;
#[path = "../shared/measure.rs"]
mod measure;
mod memory;
mod parse;
#[path = "../../examples/make_sample/product.rs"]
mod product;
mod raw;
#[path = "../shared/reading.rs"]
mod reading;
mod report;
mod rig;
mod whole;
#[path = "../../examples/make_sample/workbook.rs"]
mod workbook;
mod workbooks;

use clap::{Parser, ValueEnum};
use report::Report;
use rig::Rig;
use workbooks::{Strings, Wanted};

/// The daemon's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures the product import beside the limits of the same machine.
#[derive(Debug, Parser)]
struct Arguments {
    /// Rows of the file.
    #[arg(long, default_value_t = 700_000)]
    rows: u32,
    /// Rows of a chunk, where loading is measured alone.
    #[arg(long, default_value_t = 10_000)]
    chunk_rows: u32,
    /// Rounds of whole imports, and processes of a reading; medians count, and the best reading.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Rows of the files by which memory is measured; repeat it for several.
    #[arg(long = "memory-rows", default_values_t = [10_000, 100_000, 700_000, 1_000_000])]
    memory_rows: Vec<u32>,
    /// Fewer rows and one round: whether it works, not what it costs.
    #[arg(long)]
    quick: bool,
    /// Make the workbooks, and measure nothing.
    #[arg(long)]
    prepare: bool,
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
    /// The reader's CPU.
    Parse,
    /// Whole imports: first, again, a tenth changed, shuffled strings.
    Whole,
    /// Peak memory of the daemon by the size of the file.
    Memory,
    /// A chunk with a row that only the database refuses.
    Refusal,
    /// Loading alone, of codes in their order and in none.
    Load,
}

impl Arguments {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    fn memory_rows(&self) -> Vec<u32> {
        let quick = |n_rows: &u32| n_rows / 50;
        if self.quick {
            self.memory_rows.iter().map(quick).collect()
        } else {
            self.memory_rows.clone()
        }
    }

    /// Makes the workbooks beforehand, so that no server waits for them.
    fn prepare(&self) -> anyhow::Result<()> {
        let ordered = Wanted::ordered(self.rows);
        let with = |strings| Wanted { strings, ..ordered };
        if self.wants(Part::Parse) || self.wants(Part::Whole) {
            ordered.make()?;
            with(Strings::Shuffled).make()?;
        }
        if self.wants(Part::Parse) {
            with(Strings::Inline).make()?;
        }
        if self.wants(Part::Whole) {
            Wanted {
                edition: 1,
                ..ordered
            }
            .make()?;
        }
        if self.wants(Part::Memory) {
            for n_rows in self.memory_rows() {
                Wanted::ordered(n_rows).make()?;
            }
        }
        Ok(())
    }
}

fn main() -> anyhow::Result<()> {
    if reading::serve_if_asked()? {
        return Ok(());
    }
    let mut arguments = Arguments::parse();
    if arguments.quick {
        arguments.rows = arguments.rows.min(20_000);
        arguments.rounds = 1;
    }
    arguments.prepare()?;
    if arguments.prepare {
        return Ok(());
    }
    println!("{} rows, {} rounds", arguments.rows, arguments.rounds);
    let mut report = Report::default();
    if arguments.wants(Part::Parse) {
        parse::measure(&arguments, &mut report)?;
    }
    // Refused only where there is one already, which is as good.
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Runtime::new()?.block_on(with_server(&arguments, &mut report))?;
    report.print();
    Ok(())
}

/// Measures what needs a server.
async fn with_server(arguments: &Arguments, report: &mut Report) -> anyhow::Result<()> {
    if arguments.only == [Part::Parse] {
        return Ok(());
    }
    let rig = Rig::start().await?;
    if arguments.wants(Part::Whole) {
        whole::measure(&rig, arguments, report).await?;
    }
    if arguments.wants(Part::Memory) {
        memory::measure(&rig, arguments, report).await?;
    }
    if arguments.wants(Part::Refusal) {
        loader::refusal(&rig, report).await?;
    }
    if arguments.wants(Part::Load) {
        loader::measure(&rig, arguments).await?;
    }
    rig.stop().await
}
