//! Makes product files of any size, the same ones every time.
//!
//! `cargo run --release --example make_sample -- --rows 5000 --bad 40 samples/products.xlsx`
//! makes the sample that `ingestd dev` imports.

mod delimited;
mod product;
mod workbook;

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::ensure;
use clap::{Parser, ValueEnum};

use product::Sample;

/// Makes a product file: 12 known columns and an extra one, with bad rows of every sort.
#[derive(Debug, Parser)]
struct Args {
    /// Data rows, good and bad.
    #[arg(long, default_value_t = 5000)]
    rows: u64,
    /// Bad rows, spread evenly; fewer than half.
    #[arg(long, default_value_t = 40)]
    bad: u64,
    /// Chooses another sample.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A later edition of the sample: a tenth of its rows has other prices.
    #[arg(long, default_value_t = 0)]
    edition: u32,
    /// The format; by default that of the file's extension.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// xlsx: write texts into the cells instead of a table of shared strings.
    #[arg(long, conflicts_with = "shuffle_strings")]
    inline_strings: bool,
    /// xlsx: put the shared strings in another order than the rows, by way of a hidden sheet.
    #[arg(long)]
    shuffle_strings: bool,
    /// The file to write.
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Xlsx,
    Csv,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    ensure!(
        args.bad * 2 < args.rows.max(1),
        "--bad must be less than half of --rows"
    );
    let sample = Sample {
        n_rows: args.rows,
        n_bad: args.bad,
        seed: args.seed,
        edition: args.edition,
    };
    writeln!(
        std::io::stdout(),
        "{} rows, {} bad, {} errors",
        sample.n_rows,
        sample.n_bad,
        sample.n_errors()
    )?;
    let is_csv = args
        .out
        .extension()
        .is_some_and(|extension| extension == "csv");
    match args.format {
        Some(Format::Csv) => delimited::write(&sample, &args.out),
        None if is_csv => delimited::write(&sample, &args.out),
        _ if args.inline_strings => workbook::write(&sample, workbook::Strings::Inline, &args.out),
        _ if args.shuffle_strings => {
            workbook::write(&sample, workbook::Strings::Shuffled, &args.out)
        }
        _ => workbook::write(&sample, workbook::Strings::Shared, &args.out),
    }
}
