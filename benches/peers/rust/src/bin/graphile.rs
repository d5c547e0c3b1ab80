//! graphile_worker, the rewrite in Rust: local queues, and completions in batches.

use std::time::Duration;

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerOptions,
};
use peers::{Asked, PAYLOAD, latencies, ran, told};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Noop {
    payload: String,
}

impl TaskHandler for Noop {
    const IDENTIFIER: &'static str = "noop";

    async fn run(self, _ctx: WorkerContext) -> impl IntoTaskHandlerResult {
        ran();
        Ok::<(), String>(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let asked = Asked::read()?;
    let worker = WorkerOptions::default()
        .concurrency(24)
        .schema("graphile_worker")
        .database_url(&asked.url)
        .max_pg_conn(25)
        .local_queue(
            LocalQueueConfig::default()
                .with_size(500)
                .with_queue_count(2),
        )
        .complete_job_batch_delay(Duration::ZERO)
        .fail_job_batch_delay(Duration::ZERO)
        .define_job::<Noop>()
        .init()
        .await
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let utils = worker.create_utils();
    let job = Noop {
        payload: PAYLOAD.to_owned(),
    };
    let work = async {
        let ended = worker.run().await;
        ended.map_err(|error| anyhow::anyhow!("{error}"))
    };
    match asked.what.as_str() {
        "fill" => {
            let spec = JobSpec::default();
            for start in (0..asked.n).step_by(10_000) {
                let n = (asked.n - start).min(10_000) as usize;
                utils.add_jobs(&vec![(job.clone(), &spec); n]).await?;
            }
        }
        "work" => tokio::select! {
            ended = work => ended?,
            ended = told() => ended?,
        },
        _ => tokio::select! {
            ended = work => ended?,
            ended = latencies(asked.n, async || {
                utils.add_job(job.clone(), JobSpec::default()).await?;
                Ok(())
            }) => ended?,
        },
    }
    Ok(())
}
