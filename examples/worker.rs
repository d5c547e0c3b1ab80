//! A program with a kind of its own: it enqueues inside its own transaction, and works.
//!
//! ```sh
//! DATABASE_URL=postgres:///app cargo run --example worker
//! ```
#![expect(clippy::print_stdout, reason = "it shows what happens")]

use ingestd::queue::{Done, Engine, Job, JobContext, JobError, Kind, enqueue};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

/// Welcomes a user. The fields are the arguments; rows of `ingestd.jobs` hold them as JSON.
#[derive(Serialize, Deserialize)]
struct Welcome {
    user_id: i64,
}

impl Job for Welcome {
    const KIND: &'static str = "user.welcome";
    type Context = PgPool; // what every job is lent

    fn unique_key(&self) -> Option<String> {
        Some(format!("welcome:{}", self.user_id)) // one unfinished job per user
    }

    async fn run(self, ctx: &JobContext<PgPool>) -> Result<Done, JobError> {
        let mut tx = ctx.state().begin().await?; // an error with `?` is tried again later
        sqlx::query("UPDATE users SET welcomed_at = now() WHERE id = $1")
            .bind(self.user_id)
            .execute(&mut *tx)
            .await?;
        let done = ctx.complete_in(&mut tx).await?; // the work and the job's end: both or neither
        tx.commit().await?;
        println!(
            "welcomed user {}, attempt {}",
            self.user_id,
            ctx.lease().attempt
        );
        Ok(done)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let db = PgPool::connect(&url).await?;
    let worker = Engine::connect(&url, &[Kind::of::<Welcome>()], db.clone()).await?;
    let worker = worker.start().await?;

    let mut tx = db.begin().await?; // the user and the job: both or neither
    let user_id = sqlx::query_scalar("INSERT INTO users (name) VALUES ('Ada') RETURNING id")
        .fetch_one(&mut *tx)
        .await?;
    enqueue(&mut tx, &Welcome { user_id }).await?;
    tx.commit().await?;

    tokio::signal::ctrl_c().await?;
    worker.stop(CancellationToken::new()).await; // lets running jobs finish
    Ok(())
}
