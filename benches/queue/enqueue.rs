//! How fast jobs get in, and the WAL that they take there.

use anyhow::Context;
use sqlx::{PgPool, postgres::PgPoolCopyExt};

use super::{
    Arguments,
    engine::Daemon,
    measure::Phase,
    per_job::PerJob,
    report::Report,
    rig::{ARGS, Rig},
};

/// Jobs of a statement that inserts many.
const BATCH: u32 = 100;

const ONE: &str = "INSERT INTO ingestd.jobs (kind, args) VALUES ('bench.noop', $1::jsonb)";
const MANY: &str = "INSERT INTO ingestd.jobs (kind, args)
    SELECT 'bench.noop', args::jsonb FROM unnest($1::text[]) AS args";
const COPY: &str = "COPY ingestd.jobs (kind, args, queue) FROM STDIN";

/// Inserts in each way, and prints what it cost.
pub(crate) async fn measure(
    rig: &Rig,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    let n_jobs = arguments.jobs / 5;
    println!("\nenqueue: {n_jobs} jobs each, every statement a durable commit");
    println!(
        "{:<40} {:>8} {:>23} {:>7}",
        "", "jobs/s", "CPU µs: client + server", "WAL B"
    );
    let name = "single INSERTs, 1 client";
    let single = print(rig, name, n_jobs, singles(&rig.pool, n_jobs, 1)).await?;
    let name = "single INSERTs, 16 clients";
    print(rig, name, n_jobs, singles(&rig.pool, n_jobs, 16)).await?;
    let daemon = Daemon::start(rig, 100).await?;
    let name = "single INSERTs, 16 clients, a daemon on it";
    print(rig, name, n_jobs, async {
        rig.resume().await?;
        singles(&rig.pool, n_jobs, 16).await
    })
    .await?;
    daemon.stop().await;
    let name = format!("INSERTs of {BATCH}, 1 client");
    print(rig, &name, n_jobs, batches(&rig.pool, n_jobs)).await?;
    let copied = print(rig, "one COPY", n_jobs, copy(&rig.pool, n_jobs)).await?;
    rig.empty().await?;
    report.enqueue_wal_bytes = Some(copied.wal_bytes.max(single.wal_bytes));
    Ok(())
}

async fn print(
    rig: &Rig,
    name: &str,
    n_jobs: u32,
    insert: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<PerJob> {
    rig.empty().await?;
    rig.run("CHECKPOINT").await?;
    let mut conn = rig.pool.acquire().await?.detach();
    let phase = Phase::begin(&mut conn).await?;
    insert.await?;
    let cost = PerJob::of(&phase.end(&mut conn).await?, n_jobs);
    println!(
        "{name:<40} {:>8.0} {:>15.1} + {:>5.1} {:>7.0}",
        cost.jobs_per_s, cost.client_us, cost.server_us, cost.wal_bytes
    );
    Ok(cost)
}

async fn singles(pool: &PgPool, n_jobs: u32, n_clients: u32) -> anyhow::Result<()> {
    let clients = (0..n_clients).map(|_| async {
        let mut conn = pool.acquire().await?;
        for _ in 0..n_jobs / n_clients {
            sqlx::query(ONE).bind(ARGS).execute(&mut *conn).await?;
        }
        anyhow::Ok(())
    });
    futures::future::try_join_all(clients).await?;
    Ok(())
}

async fn batches(pool: &PgPool, n_jobs: u32) -> anyhow::Result<()> {
    let mut conn = pool.acquire().await?;
    let args = vec![ARGS; usize::try_from(BATCH)?];
    for _ in 0..n_jobs / BATCH {
        sqlx::query(MANY).bind(&args).execute(&mut *conn).await?;
    }
    Ok(())
}

async fn copy(pool: &PgPool, n_jobs: u32) -> anyhow::Result<()> {
    let mut copy = pool.copy_in_raw(COPY).await?;
    let line = format!("bench.noop\t{ARGS}\tbench\n");
    let lines = line.repeat(1_000);
    for _ in 0..n_jobs / 1_000 {
        copy.send(lines.as_bytes()).await?;
    }
    copy.finish().await.context("cannot end the COPY")?;
    Ok(())
}
