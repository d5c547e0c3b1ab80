//! The migrations, and how they are applied.

use sqlx::{
    Connection as _, PgConnection, PgPool,
    migrate::{MigrateError, Migrator},
};

use super::relay;

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
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut conn = pool.acquire().await?;
    if relay::is_relayed(&pool.connect_options()) {
        return migrate_in_one(&mut conn).await;
    }
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

/// Does what [`migrate`] does, in one transaction: through a pooler in transaction mode nothing holds
/// longer, and so neither does the lock.
///
/// # Errors
///
/// As [`migrate`]; then nothing was applied.
pub async fn migrate_in_one(conn: &mut PgConnection) -> Result<(), MigrateError> {
    let mut tx = conn.begin().await?;
    sqlx::query("SET LOCAL statement_timeout = 0")
        .execute(&mut *tx)
        .await?;
    let database: String = sqlx::query_scalar("SELECT current_database()")
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(lock(&database))
        .execute(&mut *tx)
        .await?;
    let mut migrator = migrator();
    migrator.set_locking(false);
    migrator.run(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// Returns the key that sqlx locks, so that daemons with and without a pooler wait for each other.
fn lock(database: &str) -> i64 {
    0x3d32_ad9e * i64::from(crc32(database.as_bytes()))
}

/// The checksum of Ethernet and ZIP.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
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

    #[tokio::test]
    async fn in_one_transaction_it_waits_for_those_without_a_pooler() {
        use sqlx::migrate::Migrate as _;

        let db = Database::create().await;
        let mut holder = db.pool().acquire().await.unwrap();
        holder.lock().await.unwrap();
        let mut other = db.pool().acquire().await.unwrap();
        let name: String = sqlx::query_scalar("SELECT current_database()")
            .fetch_one(&mut *other)
            .await
            .unwrap();
        let is_free = "SELECT pg_try_advisory_lock($1)";
        let is_free: bool = sqlx::query_scalar(is_free)
            .bind(super::lock(&name))
            .fetch_one(&mut *other)
            .await
            .unwrap();
        assert!(!is_free, "another key than sqlx's");
        holder.unlock().await.unwrap();
        super::migrate_in_one(&mut other).await.unwrap();
    }
}
