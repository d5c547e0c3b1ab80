//! What reading a product file costs, beside inflating the same parts and nothing else.
//!
//! ```sh
//! cargo run --release --example make_sample -- --rows 700000 --bad 700 /tmp/products.xlsx
//! cargo bench --bench sheet -- /tmp/products.xlsx /tmp/products.csv
//! ```
//!
//! Prints rows, CPU seconds of [`inspect`](sheet::inspect), of the cells alone
//! ([`walk`](sheet::walk)) and of [`read`](sheet::read), which checks and hashes
//! them, CPU seconds of the limit (inflate and checksum, for a workbook), how
//! many times the limit cells and reading take, and the peak memory of a process
//! that only walks and of one that reads. Each figure is the best of three
//! processes. Without files it reads the sample.
#![expect(clippy::print_stdout, reason = "the figures are the output")]
#![expect(clippy::unwrap_used, reason = "a benchmark ends at the first surprise")]

use std::{
    fs::File,
    io::{self, BufReader},
    ops::ControlFlow,
    path::Path,
    process::Command,
};

use ingestd::ingest::product_import::{
    cell::RowBuf,
    sheet::{self, Inspection, Options},
};
use zip::ZipArchive;

/// What one process measured.
#[derive(Debug, Clone, Copy)]
struct Figures {
    n_rows: f64,
    cpu_secs: f64,
    inspect_secs: f64,
    peak_mb: f64,
}

fn main() {
    let args: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| arg != "--bench")
        .collect();
    if let [task, file] = args.as_slice()
        && let Some(task) = task.strip_prefix("--task=")
    {
        let figures = run(task, Path::new(file));
        println!(
            "{} {} {} {}",
            figures.n_rows, figures.cpu_secs, figures.inspect_secs, figures.peak_mb
        );
        return;
    }
    let files = if args.is_empty() {
        vec![concat!(env!("CARGO_MANIFEST_DIR"), "/samples/products.xlsx").to_owned()]
    } else {
        args
    };
    println!("     rows  inspect  cells   read  limit  cells/l  read/l  cells MB  read MB  file");
    for file in &files {
        let (read, cells, limit) = (best("read", file), best("cells", file), best("limit", file));
        println!(
            "{:>9} {:>8.2} {:>6.2} {:>6.2} {:>6.2} {:>8.2} {:>7.2} {:>9.1} {:>8.1}  {file}",
            read.n_rows,
            read.inspect_secs,
            cells.cpu_secs,
            read.cpu_secs,
            limit.cpu_secs,
            cells.cpu_secs / limit.cpu_secs,
            read.cpu_secs / limit.cpu_secs,
            cells.peak_mb,
            read.peak_mb,
        );
    }
}

/// Runs a task in three processes of its own and returns the fastest one's figures.
fn best(task: &str, file: &str) -> Figures {
    let runs = (0..3).map(|_| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command
            .arg(format!("--task={task}"))
            .arg(file)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut numbers = text
            .split_whitespace()
            .map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Figures {
            n_rows: next(),
            cpu_secs: next(),
            inspect_secs: next(),
            peak_mb: next(),
        }
    });
    runs.min_by(|a, b| a.cpu_secs.total_cmp(&b.cpu_secs))
        .unwrap()
}

fn run(task: &str, file: &Path) -> Figures {
    let before = cpu_secs();
    if task == "limit" {
        limit(file);
        return Figures {
            n_rows: 0.0,
            cpu_secs: cpu_secs() - before,
            inspect_secs: 0.0,
            peak_mb: peak_mb(),
        };
    }
    let options = Options::default();
    let inspection = sheet::inspect(file, "", &options).unwrap();
    let inspected = cpu_secs();
    let n_rows = if task == "cells" {
        cells(file, &inspection, &options)
    } else {
        let mut take = |chunk| {
            drop(chunk);
            ControlFlow::Continue(())
        };
        let summary = sheet::read(file, &inspection, &options, &mut take).unwrap();
        summary.n_rows
    };
    Figures {
        n_rows: u32::try_from(n_rows).unwrap().into(),
        cpu_secs: cpu_secs() - inspected,
        inspect_secs: inspected - before,
        peak_mb: peak_mb(),
    }
}

/// Walks over the cells and returns the number of rows.
fn cells(file: &Path, inspection: &Inspection, options: &Options) -> u64 {
    let mut n_rows = 0;
    let mut take = |row: &RowBuf| {
        std::hint::black_box(row.cell(0));
        n_rows += 1;
        ControlFlow::Continue(())
    };
    sheet::walk(file, inspection, options, &mut take).unwrap();
    n_rows
}

/// Inflates the last sheet and the shared strings of a workbook; reads any other file.
fn limit(file: &Path) {
    let Ok(mut archive) = ZipArchive::new(BufReader::new(File::open(file).unwrap())) else {
        io::copy(&mut File::open(file).unwrap(), &mut io::sink()).unwrap();
        return;
    };
    let names: Vec<String> = archive
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    let sheet = names
        .iter()
        .filter(|name| name.starts_with("xl/worksheets/sheet"))
        .max();
    let strings = names.iter().find(|name| *name == "xl/sharedStrings.xml");
    for part in sheet.into_iter().chain(strings) {
        io::copy(&mut archive.by_name(part).unwrap(), &mut io::sink()).unwrap();
    }
}

/// Returns the CPU seconds of the main thread, which is the only one.
fn cpu_secs() -> f64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap();
    let nanos: f64 = text.split_whitespace().next().unwrap().parse().unwrap();
    nanos / 1e9
}

/// Returns the most memory the process has held, in megabytes.
fn peak_mb() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    let kilobytes: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes / 1024.0
}
