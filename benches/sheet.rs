//! What reading a product file costs, beside inflating the same parts and nothing else.
//!
//! ```sh
//! cargo run --release --example make_sample -- --rows 700000 --bad 700 /tmp/products.xlsx
//! cargo bench --bench sheet -- /tmp/products.xlsx /tmp/products.csv
//! ```
//!
//! Prints rows, CPU seconds of [`sheet::inspect`], of the cells alone
//! (`sheet::walk`) and of `sheet::read`, which checks and hashes
//! them, CPU seconds of the limit (inflate and checksum, for a workbook), how
//! many times the limit cells and reading take, and the peak memory of a process
//! that only walks and of one that reads. Each figure is the best of three
//! processes. Without files it reads the sample.
//!
//! [`sheet::inspect`]: ingestd::ingest::product_import::sheet::inspect
#![expect(clippy::print_stdout, reason = "the figures are the output")]

#[path = "shared/reading.rs"]
mod reading;

use std::path::PathBuf;

use reading::{Task, best};

/// Processes of each task.
const RUNS: u32 = 3;

fn main() -> anyhow::Result<()> {
    if reading::serve_if_asked()? {
        return Ok(());
    }
    let args = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let mut files: Vec<PathBuf> = args.map(PathBuf::from).collect();
    if files.is_empty() {
        files.push(concat!(env!("CARGO_MANIFEST_DIR"), "/samples/products.xlsx").into());
    }
    println!("     rows  inspect  cells   read  limit  cells/l  read/l  cells MB  read MB  file");
    for file in &files {
        let read = best(Task::Rows, file, RUNS)?;
        let cells = best(Task::Cells, file, RUNS)?;
        let limit = best(Task::Limit, file, RUNS)?;
        println!(
            "{:>9} {:>8.2} {:>6.2} {:>6.2} {:>6.2} {:>8.2} {:>7.2} {:>9.1} {:>8.1}  {}",
            read.n_rows,
            read.inspect_secs,
            cells.cpu_secs,
            read.cpu_secs,
            limit.cpu_secs,
            cells.cpu_secs / limit.cpu_secs,
            read.cpu_secs / limit.cpu_secs,
            cells.peak_mb,
            read.peak_mb,
            file.display(),
        );
    }
    Ok(())
}
