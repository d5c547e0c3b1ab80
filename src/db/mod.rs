//! The connection to Postgres: the pool and its sessions, the migrations, which errors pass.

mod bounded;
mod error;
mod pool;

pub mod copy;

use sqlx::{PgPool, migrate::Migrator};

pub use bounded::Bounded;
pub use error::{is_refusal, is_transient};
pub use pool::{connect, connect_queue, one_plan, records, session};

/// Returns the migrations compiled into the binary.
#[must_use]
pub fn migrator() -> Migrator {
    let mut migrator = sqlx::migrate!();
    migrator.create_schema("ingestd");
    migrator.dangerous_set_table_name("ingestd._migrations");
    migrator
}

/// Brings the database to the schema of this binary; does nothing where it is there already.
///
/// Safe to run from several daemons at once: they wait for each other, and no statement timeout
/// applies, for an index on a large table may take longer than any statement of a job.
///
/// # Errors
///
/// A migration that fails is rolled back and named; a database that was
/// migrated by a different build of the same migration is refused.
pub async fn migrate(pool: &PgPool) -> Result<(), sqlx::migrate::MigrateError> {
    let mut conn = pool.acquire().await?;
    sqlx::query("SET statement_timeout = 0")
        .execute(&mut *conn)
        .await?;
    let result = migrator().run(&mut *conn).await;
    // Back to what the session was opened with. After a failed migration the session is not used
    // again: it may be in any state.
    match result {
        Ok(()) => sqlx::query("RESET statement_timeout")
            .execute(&mut *conn)
            .await
            .map(|_| ())?,
        Err(_) => conn.close_on_drop(),
    }
    result
}

#[cfg(test)]
mod tests {
    use crate::testing::Database;

    #[tokio::test]
    async fn a_migration_leaves_the_session_as_it_was() {
        let db = Database::create().await;
        let timeout = "SELECT current_setting('statement_timeout')";
        // With one connection the migration has that one.
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(1);
        let pool = options
            .connect_with((*db.pool().connect_options()).clone())
            .await
            .unwrap();
        super::migrate(&pool).await.unwrap();
        let after: String = sqlx::query_scalar(timeout).fetch_one(&pool).await.unwrap();
        assert_eq!(after, "1min");
    }
}
