//! Loading product rows, beside the bulk COPY of the same rows into the same tables.
//!
//! ```sh
//! cargo bench --bench import -- --rows 700000
//! ```
//!
//! Prints seconds, rows per second, CPU seconds (this process + the server), WAL and peak memory
//! of each phase, for a file in the order of its codes and for one in no order: then every key
//! falls on another page of its index. Rows are made before the clocks run and peaks are memory
//! beyond them. Starts a cluster of its own with durable commits and removes it.
#![expect(clippy::print_stdout, reason = "the figures are the output")]

mod bench;
mod data;
#[path = "../shared/measure.rs"]
mod measure;
mod raw;

use bench::Bench;
use clap::Parser;
use data::Order;
use ingestd::{
    config, db,
    dev::{Cluster, Options},
    ingest::product_import::row::Chunk,
};
use measure::{Cost, Phase};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Measures the loading half of the product import.
#[derive(Parser)]
struct Arguments {
    /// Rows of the file.
    #[arg(long, default_value_t = 700_000)]
    rows: u32,
    /// Rows of a chunk.
    #[arg(long, default_value_t = 10_000)]
    chunk_rows: u32,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let home = std::env::temp_dir().join(format!("ingestd-bench-{}", std::process::id()));
    let cluster = Cluster::start(Options::new(home.join("data"))).await?;
    // Of the size that a server for such files has: no phase is to pay for a checkpoint of the
    // one before it, nor for making files that the next finds made.
    settle(&cluster.url("postgres")).await?;
    cluster.ensure_database("bench").await?;
    let url = cluster.url("bench");
    let pool = db::connect(&config::Database {
        url: Some(url.into()),
        ..Default::default()
    })
    .await?;
    db::migrate(&pool).await?;
    println!(
        "{} rows in chunks of {}",
        arguments.rows, arguments.chunk_rows
    );
    println!(
        "{:<26} {:>9} {:>9} {:>14} {:>9} {:>8}",
        "", "seconds", "rows/s", "CPU s", "WAL MB", "peak MB"
    );
    for order in [Order::Sorted, Order::Scattered] {
        let chunks = data::chunks(arguments.rows, arguments.chunk_rows, order);
        measure(
            &Bench {
                pool: pool.clone(),
                n_rows: arguments.rows,
            },
            chunks,
            order,
        )
        .await?;
    }
    pool.close().await;
    cluster.stop().await?;
    std::fs::remove_dir_all(home)?;
    Ok(())
}

/// Sizes the server's WAL for the benchmark.
async fn settle(url: &str) -> anyhow::Result<()> {
    let mut conn = PgConnection::connect(url).await?;
    for (name, value) in [("max_wal_size", "4GB"), ("min_wal_size", "4GB")] {
        let set = AssertSqlSafe(format!("ALTER SYSTEM SET {name} = '{value}'"));
        sqlx::query(set).execute(&mut conn).await?;
    }
    sqlx::query("SELECT pg_reload_conf()")
        .execute(&mut conn)
        .await?;
    Ok(())
}

/// Measures every phase over one file.
async fn measure(bench: &Bench, mut chunks: Vec<Chunk>, order: Order) -> anyhow::Result<()> {
    println!("\n{order:?} codes");
    bench.empty().await?;
    bench.raw(&chunks).await?; // makes the WAL's files
    let limit = bench.print("bulk COPY + indexes", bench.raw(&chunks).await?, None);
    let first = bench.import(&chunks).await?;
    bench.print("first import", first, Some(("bulk", limit)));
    let same = bench.import(&chunks).await?;
    bench.print("same file again", same, Some(("first", first)));
    data::change_a_tenth(&mut chunks);
    let changed = bench.import(&chunks).await?;
    bench.print("10 % changed", changed, Some(("first", first)));
    // Whoever comes first to a page with dead rows cleans it up: this import, or a vacuum before.
    let unclean = bench.import(&chunks).await?;
    bench.print("again, before a vacuum", unclean, Some(("first", first)));
    bench.vacuum().await?;
    let clean = bench.import(&chunks).await?;
    bench.print("again, after a vacuum", clean, Some(("first", first)));
    let (good, refused) = bench.refusal().await?;
    println!(
        "a chunk with one refused row: {:.1} x the time of a good one",
        refused / good
    );
    Ok(())
}
