//! The daemon: builds its parts, starts them in order, drains them in reverse.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::{
    blob,
    config::Config,
    db,
    fetch::Fetcher,
    ingest,
    queue::{self, Engine, LastResort, Running, gate},
    source,
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
        db::migrate_or_follow(&db)
            .await
            .context("cannot migrate the database")?;
        gate::define::sync(&mut *db.acquire().await?, &config.gates)
            .await
            .context("cannot write the configured gates")?;
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
            fetch: Fetcher::new(&config.fetch),
        };
        let (pool, kinds) = (
            db::connect_queue(&config.database).await?,
            ingest::kinds(&config),
        );
        // Kinds first: another daemon may find the schedules due at once. The engine registers them
        // again, which brings back what is built in where the configuration has given it up.
        let mut conn = pool.acquire().await?;
        queue::register(&mut conn, &kinds).await?;
        bring_in_schedules(&mut conn, &config)
            .await
            .context("cannot bring in the schedules and sources of the configuration")?;
        drop(conn);
        let engine = Engine {
            pool,
            options: db::session(&config.database)?,
            kinds,
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

    /// Returns a way to ask which queues' claims do not get on; see [`Running::stalled`].
    pub fn stalled(&self) -> impl Fn() -> Vec<Arc<str>> + Send + Sync + 'static + use<> {
        self.engine.stalled()
    }

    /// Returns what is left to do where no thread turns any more.
    #[must_use]
    pub fn last_resort(&self) -> LastResort {
        self.engine.last_resort()
    }

    /// Stops cleanly; see [`Running::stop`].
    pub async fn stop(self, hurry: CancellationToken) {
        self.engine.stop(hurry).await;
        self.db.close().await;
    }
}

/// Makes the schedules and sources in the database equal the configuration's, and says what that
/// changed.
async fn bring_in_schedules(conn: &mut sqlx::PgConnection, config: &Config) -> sqlx::Result<()> {
    let set = config.queue.schedule_set.as_str();
    let (sources, schedules) = (config.sources.wanted(), config.schedules.wanted());
    let synced = source::sync(conn, set, &sources, schedules).await?;
    for (source, owner) in &synced.shadowed {
        tracing::warn!(
            source,
            set,
            owner,
            "the configuration's source is not in force: another has its name, and was here first"
        );
    }
    for source in &synced.removed {
        tracing::warn!(
            source,
            set,
            "source removed: the configuration has it no more"
        );
    }
    let synced = synced.schedules;
    for (what, names) in [("added", &synced.added), ("changed", &synced.changed)] {
        for schedule in names {
            tracing::info!(schedule, set, "schedule {what} by the configuration");
        }
    }
    // A daemon with a wrong or empty file may be the reason.
    for schedule in &synced.removed {
        tracing::warn!(
            schedule,
            set,
            "schedule removed: the configuration has it no more"
        );
    }
    for (schedule, owner) in &synced.shadowed {
        tracing::warn!(
            schedule,
            set,
            owner,
            "the configuration's schedule is not in force: another has its name, and was here first"
        );
    }
    Ok(())
}
