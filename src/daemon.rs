//! The daemon: builds its parts, starts them in order, drains them in reverse.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    blob,
    config::Config,
    db, ingest,
    queue::{Engine, Running},
};

/// The daemon's parts once they run.
#[derive(Debug)]
pub struct Daemon {
    /// The jobs' connections, also used by HTTP.
    pub db: PgPool,
    /// Uploaded files.
    pub blobs: blob::Store,
    engine: Running,
}

impl Daemon {
    /// Migrates the database and starts the queue; returns once work can be claimed.
    ///
    /// # Errors
    ///
    /// The database cannot be reached or migrated, the storage folder cannot be made.
    pub async fn start(config: Arc<Config>) -> anyhow::Result<Self> {
        let db = db::connect(&config.database)
            .await
            .context("cannot connect to the database")?;
        db::migrate(&db)
            .await
            .context("cannot migrate the database")?;
        let blobs = blob::Store::open(&config.storage.dir).await?;
        let concurrency: BTreeMap<String, usize> = config
            .queues
            .iter()
            .map(|(name, _)| (name.to_owned(), config.concurrency(name).into()))
            .collect();
        let state = ingest::Context {
            db: db.clone(),
            blobs: blobs.clone(),
            config: Arc::clone(&config),
        };
        let engine = Engine {
            pool: db::connect_queue(&config.database).await?,
            options: db::session(&config.database)?,
            kinds: ingest::kinds(&config),
            state,
            settings: config.queue.clone(),
            concurrency,
        };
        Ok(Self {
            db,
            blobs,
            engine: engine.start().await?,
        })
    }

    /// Returns whether the worker has a heartbeat and may claim.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.engine.is_alive()
    }

    /// Returns a way to ask [`Self::is_alive`] that outlives this value.
    pub fn liveness(&self) -> impl Fn() -> bool + Send + Sync + 'static + use<> {
        self.engine.liveness()
    }

    /// Stops cleanly; see [`Running::stop`].
    pub async fn stop(self, hurry: CancellationToken) {
        self.engine.stop(hurry).await;
        self.db.close().await;
    }
}
