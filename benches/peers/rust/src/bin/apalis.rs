//! apalis-postgres: batches of 10,000 and its LISTEN.

use std::time::Duration;

use apalis::prelude::*;
use apalis_postgres::{Config, PgPool, PostgresStorage, queries::push_tasks};
use peers::{Asked, PAYLOAD, latencies, ran, told};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Noop {
    payload: String,
}

async fn noop(_job: Noop) -> Result<(), BoxDynError> {
    ran();
    Ok(())
}

async fn push(pool: &PgPool, n: u32) -> anyhow::Result<()> {
    let args = serde_json::to_vec(&Noop {
        payload: PAYLOAD.to_owned(),
    })?;
    let tasks = (0..n).map(|_| TaskBuilder::new(args.clone()).build());
    let mut conn = pool.acquire().await?;
    push_tasks(&mut *conn, "noop", tasks.collect()).await?;
    Ok(())
}

async fn work(pool: &PgPool) -> anyhow::Result<()> {
    let config = Config::default().queue("noop").batch_size(10_000);
    let backend = PostgresStorage::new(pool)
        .with_config(config)
        .with_pubsub()
        .poll_with_interval(Duration::from_millis(100));
    let worker = WorkerBuilder::new("peer").backend(backend).build(noop);
    worker
        .run()
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked = Asked::read()?;
    let pool = PgPool::connect(&asked.url).await?;
    PostgresStorage::setup(&pool).await?;
    match asked.what.as_str() {
        "fill" => {
            for start in (0..asked.n).step_by(10_000) {
                push(&pool, (asked.n - start).min(10_000)).await?;
            }
        }
        "work" => tokio::select! {
            ended = work(&pool) => ended?,
            ended = told() => ended?,
        },
        _ => tokio::select! {
            ended = work(&pool) => ended?,
            ended = latencies(asked.n, async || push(&pool, 1).await) => ended?,
        },
    }
    Ok(())
}
