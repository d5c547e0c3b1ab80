//! ingestd's engine with everything on, running a job that does nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ingestd::{
    config, db,
    queue::{Done, Engine, Job, JobContext, JobError, Kind, Running},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use super::rig::Rig;

/// Does nothing, and is counted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noop {}

/// What the jobs share.
#[derive(Debug, Default)]
pub(crate) struct World {
    n_ran: AtomicU32,
}

impl Job for Noop {
    const KIND: &'static str = "bench.noop";
    const QUEUE: &'static str = "bench";
    type Context = Arc<World>;

    async fn run(self, ctx: &JobContext<Arc<World>>) -> Result<Done, JobError> {
        ctx.state().n_ran.fetch_add(1, Ordering::Relaxed);
        Ok(Done::new())
    }
}

pub(crate) const KINDS: &[Kind<Arc<World>>] = &[Kind::of::<Noop>()];

const IS_LEFT: &str = "SELECT EXISTS (SELECT FROM ingestd.jobs WHERE shard = 0 AND id > 0)";

/// An engine that serves the benchmark's queue.
pub(crate) struct Daemon {
    running: Running,
    world: Arc<World>,
    pool: PgPool,
}

impl Daemon {
    pub(crate) async fn start(rig: &Rig, n_slots: u32) -> anyhow::Result<Self> {
        let world = Arc::new(World::default());
        let pool = rig.connect().await?;
        let engine = Engine {
            pool: pool.clone(),
            options: db::session(&rig.config)?,
            kinds: KINDS.to_vec(),
            state: Arc::clone(&world),
            settings: config::Queue::default(),
            concurrency: BTreeMap::from([("bench".to_owned(), usize::try_from(n_slots)?)]),
        };
        Ok(Self {
            running: engine.start().await?,
            world,
            pool,
        })
    }

    /// Waits until `n_jobs` ran and their outcomes are written.
    pub(crate) async fn finished(&self, n_jobs: u32) -> sqlx::Result<()> {
        while self.world.n_ran.load(Ordering::Relaxed) < n_jobs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while sqlx::query_scalar(IS_LEFT).fetch_one(&self.pool).await? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub(crate) async fn stop(self) {
        self.running.stop(CancellationToken::new()).await;
    }
}
