//! The server of this test process: the shared cluster, or one named in the environment.

use std::{fs::File, path::PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::OnceCell;

use super::shared;
use crate::{db, dev::url::url};

/// Names an existing server, on which the user may create databases, in place of the cluster.
pub(super) const VARIABLE: &str = "INGESTD_TEST_DATABASE_URL";
/// The advisory lock under which the template is made, in database `postgres`.
const TEMPLATE_LOCK: i64 = 0x0069_6e67_6573_7464;

/// Where test databases are made.
#[derive(Debug)]
pub(super) struct Server {
    place: Place,
    template: String,
}

#[derive(Debug)]
enum Place {
    Named(Box<PgConnectOptions>),
    Shared {
        sockets: PathBuf,
        /// Held open, never written again: it keeps the cluster running.
        _lifeline: File,
    },
}

impl Server {
    /// What the names of test databases begin with.
    pub(super) const PREFIX: &str = "ingestd_test_";
    const TEMPLATE_PREFIX: &str = "ingestd_template_";

    /// Returns the server, which the first call of the process finds or starts.
    pub(super) async fn get() -> anyhow::Result<&'static Self> {
        static SERVER: OnceCell<Server> = OnceCell::const_new();
        SERVER.get_or_try_init(Self::find).await
    }

    async fn find() -> anyhow::Result<Self> {
        let (place, is_fresh) = if let Ok(url) = std::env::var(VARIABLE) {
            (
                Place::Named(Box::new(url.parse().context(VARIABLE)?)),
                false,
            )
        } else {
            let joined = shared::join().await?;
            let place = Place::Shared {
                sockets: joined.sockets,
                _lifeline: joined.lifeline,
            };
            (place, joined.is_fresh)
        };
        let mut server = Self {
            place,
            template: String::new(),
        };
        let mut admin = PgConnection::connect(&server.url("postgres")).await?;
        if is_fresh {
            sweep(&mut admin).await?;
        }
        server.template = server.make_template(&mut admin).await?;
        admin.close().await?;
        Ok(server)
    }

    /// Returns the URL of one of the server's databases.
    pub(super) fn url(&self, database: &str) -> String {
        match &self.place {
            Place::Shared { sockets, .. } => url(sockets, database),
            Place::Named(options) => {
                let options = PgConnectOptions::clone(options).database(database);
                options.to_url_lossy().to_string()
            }
        }
    }

    /// Returns the name of the migrated database that tests copy.
    pub(super) fn template(&self) -> &str {
        &self.template
    }

    /// Makes the template unless it exists. Its name tells the migrations, and the day, because
    /// the partitions that a migration makes are those of its day.
    async fn make_template(&self, admin: &mut PgConnection) -> anyhow::Result<String> {
        let day: String =
            sqlx::query_scalar("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
                .fetch_one(&mut *admin)
                .await?;
        let name = format!("{}{day}_{:016x}", Self::TEMPLATE_PREFIX, fingerprint());
        lock_templates(admin).await?;
        let is_ready: Option<bool> =
            sqlx::query_scalar("SELECT datistemplate FROM pg_database WHERE datname = $1")
                .bind(&name)
                .fetch_optional(&mut *admin)
                .await?;
        if is_ready != Some(true) {
            run(
                admin,
                format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
            )
            .await?;
            run(admin, format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
            let pool = super::connect(self.url(&name)).await?;
            db::migrate(&pool).await?;
            pool.close().await;
            run(
                admin,
                format!("ALTER DATABASE {name} IS_TEMPLATE true ALLOW_CONNECTIONS false"),
            )
            .await?;
        }
        Ok(name)
    }
}

/// Takes the lock under which templates are made; it goes with the connection.
async fn lock_templates(admin: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("SELECT pg_advisory_lock($1)")
        .bind(TEMPLATE_LOCK)
        .execute(admin)
        .await?;
    Ok(())
}

/// Drops what killed tests and older migrations left, while nobody else uses the cluster.
async fn sweep(admin: &mut PgConnection) -> sqlx::Result<()> {
    let leftovers: Vec<(String, bool)> = sqlx::query_as(
        "SELECT datname::text, datistemplate FROM pg_database
         WHERE starts_with(datname, 'ingestd_test_')
            OR (starts_with(datname, 'ingestd_template_')
                AND substr(datname, 18, 8) <> to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))",
    )
    .fetch_all(&mut *admin)
    .await?;
    for (name, is_template) in leftovers {
        if is_template {
            run(admin, format!("ALTER DATABASE {name} IS_TEMPLATE false")).await?;
        }
        run(
            admin,
            format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"),
        )
        .await?;
    }
    Ok(())
}

async fn run(admin: &mut PgConnection, statement: String) -> sqlx::Result<()> {
    sqlx::query(AssertSqlSafe(statement)).execute(admin).await?;
    Ok(())
}

/// Returns a number that changes with any migration.
fn fingerprint() -> u64 {
    let mut hasher = Sha256::new();
    for migration in db::migrator().iter() {
        hasher.update(migration.version.to_be_bytes());
        hasher.update(&migration.checksum);
    }
    hasher
        .finalize()
        .iter()
        .take(8)
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}
