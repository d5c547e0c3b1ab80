//! What most commands work with: one connection, the configuration, the output.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection, Postgres, Transaction, postgres::PgConnectOptions};

use super::{Exit, Failure, Output, audit};
use crate::{config::Config, db};

/// A worker that was not heard of for this long is not counted on.
const LIVE: &str = "
    SELECT EXISTS (SELECT FROM ingestd.workers
                   WHERE ended_at IS NULL AND heartbeat_at > now() - interval '30 s')";

/// What is said where jobs wait for a daemon that is not there.
pub(super) const NO_WORKER: &str = "no daemon is running on this database, so nothing is worked on: \
                                    start one with `ingestd run`";

/// One command's connection and all it needs besides.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) config: Config,
    pub(super) conn: PgConnection,
    pub(super) output: Output,
    /// Who changes things, for the audit log.
    pub(super) actor: String,
}

impl Session {
    /// Connects to the configured database.
    pub(super) async fn open(config: Config, output: Output) -> Result<Self, Failure> {
        let conn = connect(&config).await?;
        Ok(Self {
            config,
            conn,
            output,
            actor: audit::actor(),
        })
    }

    /// Begins the transaction of a change.
    pub(super) async fn begin(&mut self) -> sqlx::Result<Transaction<'_, Postgres>> {
        self.conn.begin().await
    }

    /// Returns the database's time, the only one that counts.
    pub(super) async fn now(&mut self) -> sqlx::Result<DateTime<Utc>> {
        sqlx::query_scalar("SELECT now()")
            .fetch_one(&mut self.conn)
            .await
    }

    /// Says whether some daemon was heard of within 30 s.
    pub(super) async fn has_live_worker(&mut self) -> sqlx::Result<bool> {
        sqlx::query_scalar(LIVE).fetch_one(&mut self.conn).await
    }

    /// Says so where no daemon is there to do the work.
    pub(super) async fn warn_without_worker(&mut self) -> Result<(), Failure> {
        if !self.has_live_worker().await? {
            self.output.hint(NO_WORKER);
        }
        Ok(())
    }
}

/// Connects once, without a pool, so that the reason of a failure is told at once.
pub(super) async fn connect(config: &Config) -> Result<PgConnection, Failure> {
    let options = options(config)?;
    let place = place(&options);
    let connected = within(config.database.acquire_timeout, &options).await;
    Ok(connected.with_context(|| format!("cannot reach the database at {place}"))?)
}

/// Returns the settings of a connection.
pub(super) fn options(config: &Config) -> Result<PgConnectOptions, Failure> {
    if config.database.url.is_none() {
        let failure = Failure::say(Exit::Config, "no database is configured");
        return Err(failure.hint(
            "set DATABASE_URL or database.url; to try things out without either, `ingestd dev`",
        ));
    }
    db::session(&config.database).map_err(|error| {
        let failure = Failure::new(Exit::Config, error);
        failure.hint("a URL looks like postgres://user:password@host:5432/database")
    })
}

/// Connects, for at most `timeout`.
pub(super) async fn within(
    timeout: Duration,
    options: &PgConnectOptions,
) -> sqlx::Result<PgConnection> {
    let connecting = PgConnection::connect_with(options);
    match tokio::time::timeout(timeout, connecting).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
    }
}

/// Describes where a connection goes, without user and password.
pub(super) fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or("postgres");
    if let Some(pooler) = db::relayed_to(options) {
        return format!("{pooler} (database {database})");
    }
    match options.get_socket() {
        Some(socket) => format!("{} (database {database})", socket.display()),
        None => format!("{}:{}/{database}", options.get_host(), options.get_port()),
    }
}
