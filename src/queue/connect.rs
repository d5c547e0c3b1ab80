//! An engine for programs with kinds of their own: connected, migrated, with the defaults.

use std::collections::BTreeMap;

use super::{engine::Engine, kind::Kind};
use crate::{config, db};

impl<C: Send + Sync + 'static> Engine<C> {
    /// Connects to the Postgres at `url`, brings its schema up to this version and returns an
    /// engine of `kinds` with the settings of [`config::Queue::default`].
    ///
    /// Every job is lent `state`. [`Engine::start`] sets it to work; what should differ is set
    /// before:
    ///
    /// ```no_run
    /// # use std::collections::BTreeMap;
    /// # use ingestd::queue::{Engine, Kind};
    /// # async fn example(kinds: &[Kind<()>]) -> anyhow::Result<()> {
    /// let engine = Engine {
    ///     concurrency: BTreeMap::from([("mail".to_owned(), 50)]),
    ///     ..Engine::connect("postgres:///app", kinds, ()).await?
    /// };
    /// let running = engine.start().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// A URL that does not parse, a database that does not answer within 10 s or cannot be
    /// migrated.
    pub async fn connect(url: &str, kinds: &[Kind<C>], state: C) -> anyhow::Result<Self> {
        let database = config::Database {
            url: Some(url.into()),
            ..config::Database::default()
        };
        let pool = db::connect_queue(&database).await?;
        db::migrate_or_follow(&pool).await?;
        Ok(Self {
            pool,
            options: db::session(&database)?,
            kinds: kinds.to_vec(),
            state,
            settings: config::Queue::default(),
            concurrency: BTreeMap::new(),
        })
    }
}
