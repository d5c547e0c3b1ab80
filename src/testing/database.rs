//! A database per test.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use super::server::{Server, VARIABLE};

/// A migrated, empty database that is dropped with this value.
#[derive(Debug)]
pub struct Database {
    name: String,
    url: String,
    pool: PgPool,
    admin_url: String,
}

impl Database {
    /// Creates a database and connects to it as the daemon does.
    ///
    /// # Panics
    ///
    /// Where there is no Postgres, with the lines that install one, or where it refuses.
    pub async fn create() -> Self {
        let created = Self::try_create().await;
        created.unwrap_or_else(|error| {
            panic!("no database for this test ({VARIABLE} may name a server): {error:#}")
        })
    }

    async fn try_create() -> anyhow::Result<Self> {
        // As `main` does: a test's own HTTP client has no other. Refused only where there is one.
        drop(rustls::crypto::ring::default_provider().install_default());
        let server = Server::get().await?;
        let name = format!(
            "{}{}_{:08x}",
            Server::PREFIX,
            std::process::id(),
            fastrand::u32(..)
        );
        let template = server.template();
        let statement = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log");
        let admin_url = server.url("postgres");
        let mut admin = PgConnection::connect(&admin_url).await?;
        sqlx::query(AssertSqlSafe(statement))
            .execute(&mut admin)
            .await?;
        admin.close().await?;
        let url = server.url(&name);
        let pool = super::connect(&url).await?;
        Ok(Self {
            name,
            url,
            pool,
            admin_url,
        })
    }

    /// Returns the pool.
    #[must_use]
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Returns the URL, for a process or a connection of its own.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    /// Drops the database with whatever is still connected to it. One that stays, because the
    /// process was killed, goes when the cluster starts the next time.
    fn drop(&mut self) {
        // `close` marks the pool as closed at once; nobody waits for its connections to be handed
        // back, for they may be held by tasks that this very thread would have to run.
        drop(self.pool.close());
        let (name, admin_url) = (self.name.clone(), self.admin_url.clone());
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(drop_database(&name, &admin_url))
        });
        drop(dropped.join());
    }
}

/// Drops a database once its sessions have gone, who are told to. `DROP DATABASE` could do that
/// itself, but while one of them is left it sleeps for 100 ms.
async fn drop_database(name: &str, admin_url: &str) -> sqlx::Result<()> {
    let mut admin = PgConnection::connect(admin_url).await?;
    for _ in 0..200 {
        let n_told: i64 = sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1",
        )
        .bind(name)
        .fetch_one(&mut admin)
        .await?;
        if n_told == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut admin)
        .await?;
    admin.close().await
}
