//! ingestd's engine with everything on, running a job that does nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use ingestd::queue::{Done, Engine, Job, JobContext, JobError, Kind, Running};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::rig::{IS_LEFT, Rig};

/// Does nothing, and is counted.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Noop {
    /// Whether somebody waits for its start.
    #[serde(default)]
    tell: bool,
}

/// What the jobs share.
#[derive(Debug)]
pub(crate) struct World {
    n_ran: AtomicU32,
    starts: mpsc::UnboundedSender<Instant>,
}

impl Job for Noop {
    const KIND: &'static str = "bench.noop";
    const QUEUE: &'static str = "bench";
    type Context = Arc<World>;

    async fn run(self, ctx: &JobContext<Arc<World>>) -> Result<Done, JobError> {
        if self.tell {
            let told = ctx.state().starts.send(Instant::now());
            told.map_err(|_| anyhow::anyhow!("nobody listens"))?;
        }
        ctx.state().n_ran.fetch_add(1, Ordering::Relaxed);
        Ok(Done::new())
    }
}

pub(crate) const KINDS: &[Kind<Arc<World>>] = &[Kind::of::<Noop>()];

/// An engine that serves the benchmark's queue.
pub(crate) struct Daemon {
    running: Running,
    world: Arc<World>,
    pool: PgPool,
    starts: mpsc::UnboundedReceiver<Instant>,
}

impl Daemon {
    pub(crate) async fn start(rig: &Rig, n_slots: u32) -> anyhow::Result<Self> {
        Self::connect(&rig.url(), n_slots).await
    }

    pub(crate) async fn connect(url: &str, n_slots: u32) -> anyhow::Result<Self> {
        let (sender, starts) = mpsc::unbounded_channel();
        let world = Arc::new(World {
            n_ran: AtomicU32::new(0),
            starts: sender,
        });
        let engine = Engine {
            concurrency: BTreeMap::from([("bench".to_owned(), usize::try_from(n_slots)?)]),
            ..Engine::connect(url, KINDS, Arc::clone(&world)).await?
        };
        Ok(Self {
            pool: engine.pool.clone(),
            running: engine.start().await?,
            world,
            starts,
        })
    }

    /// Waits for the start of a handler that was told to say so.
    pub(crate) async fn next_start(&mut self) -> Option<Instant> {
        self.starts.recv().await
    }

    /// Waits until `n_jobs` ran.
    pub(crate) async fn ran(&self, n_jobs: u32) {
        while self.world.n_ran.load(Ordering::Relaxed) < n_jobs {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until `n_jobs` ran and their outcomes are written.
    pub(crate) async fn finished(&self, n_jobs: u32) -> sqlx::Result<()> {
        self.ran(n_jobs).await;
        while sqlx::query_scalar(IS_LEFT).fetch_one(&self.pool).await? {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    pub(crate) async fn stop(self) {
        self.running.stop(CancellationToken::new()).await;
    }
}
