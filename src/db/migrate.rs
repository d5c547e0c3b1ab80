//! The migrations, and how they are applied.

use std::time::{Duration, Instant};

use sqlx::{
    Connection as _, PgConnection, PgPool,
    error::DatabaseError,
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

/// Migrations that were on the main branch with other words and did the same: version and checksum of
/// the other text. A database that has it counts as one that has ours.
const ALIKE: [(i64, &str); 1] = [(
    31,
    "c281baaf796554ebb2b617fa7c904a4a33d7edb2014dae6f7ca0967ac5e546b53ab7b587bec2a21e592428a85e0d0e3a",
)];

/// Returns the migrations compiled into the binary, to be run on a database: one that is there with
/// other words that did the same has the checksum that it has there.
///
/// # Errors
///
/// What Postgres says.
pub async fn migrator_of(conn: &mut PgConnection) -> sqlx::Result<Migrator> {
    const FOUND: &str = "SELECT version, checksum FROM ingestd._migrations
        WHERE (version, encode(checksum, 'hex')) IN (SELECT * FROM unnest($1::int8[], $2::text[]))";
    let mut migrator = migrator();
    let is_fresh: bool = sqlx::query_scalar("SELECT to_regclass('ingestd._migrations') IS NULL")
        .fetch_one(&mut *conn)
        .await?;
    if is_fresh {
        return Ok(migrator);
    }
    let (versions, checksums): (Vec<i64>, Vec<&str>) = ALIKE.into_iter().unzip();
    let found: Vec<(i64, Vec<u8>)> = sqlx::query_as(FOUND)
        .bind(versions)
        .bind(checksums)
        .fetch_all(conn)
        .await?;
    for (version, checksum) in found {
        let ours = migrator.migrations.to_mut().iter_mut();
        for migration in ours.filter(|ours| ours.version == version) {
            migration.checksum = checksum.clone().into();
        }
    }
    Ok(migrator)
}

/// Returns the migrations as they are applied through a pool: without the lock of a session where a
/// pooler stands in between that keeps none.
async fn migrator_for(pool: &PgPool) -> sqlx::Result<Migrator> {
    let mut conn = pool.acquire().await?;
    let mut migrator = migrator_of(&mut conn).await?;
    migrator.set_locking(!relay::is_relayed(&pool.connect_options()));
    Ok(migrator)
}

/// Brings the database to the schema of this binary; does nothing where it is there already.
///
/// Safe to run from several daemons at once: they wait for each other, four minutes at most, and no
/// statement timeout applies, for an index on a large table may take longer than any statement of
/// a job. Safe, too, while older daemons work: a lock that somebody's long transaction is in the
/// way of is waited for 2 s at a time, because whoever comes after that wait waits as well.
///
/// # Errors
///
/// A migration that fails is rolled back and named, one that cannot get its locks within four
/// minutes likewise; a database that was migrated by a different build of the same migration is
/// refused.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    migrate_by(pool, &migrator_for(pool).await?).await
}

/// As [`migrate`], for a daemon: one that starts again while newer ones are being rolled out works
/// on the schema that they brought, as those do that run on. What it lacks itself is brought, too.
///
/// # Errors
///
/// As [`migrate`]; a version below this binary's newest that it does not know is refused.
pub async fn migrate_or_follow(pool: &PgPool) -> Result<(), MigrateError> {
    let mut migrator = migrator_for(pool).await?;
    let newest = migrator.iter().map(|migration| migration.version).max();
    match migrate_by(pool, &migrator).await {
        Err(MigrateError::VersionMissing(version)) if Some(version) > newest => {
            tracing::warn!(
                version,
                "a newer ingestd migrated this database; this one goes on, upgrade it soon"
            );
            migrator.set_ignore_missing(true);
            migrate_by(pool, &migrator).await
        }
        result => result,
    }
}

/// Longest wait for one lock of a migration.
const LOCK_TIMEOUT: &str = "SET statement_timeout = 0; SET lock_timeout = '2s'";
/// How long others have the tables to themselves before the next try.
const LOCK_PAUSE: Duration = Duration::from_millis(500);
/// How long it is tried: less than the unit's time to start.
const LOCK_PATIENCE: Duration = Duration::from_mins(4);

async fn migrate_by(pool: &PgPool, migrator: &Migrator) -> Result<(), MigrateError> {
    let began = Instant::now();
    loop {
        let result = try_to_migrate(pool, migrator).await;
        match &result {
            Err(error) if is_locked_out(error) && began.elapsed() < LOCK_PATIENCE => {
                tracing::warn!(%error, "a migration waits for somebody's transaction");
                tokio::time::sleep(LOCK_PAUSE).await;
            }
            _ => return result,
        }
    }
}

async fn try_to_migrate(pool: &PgPool, migrator: &Migrator) -> Result<(), MigrateError> {
    let mut conn = pool.acquire().await?;
    if relay::is_relayed(&pool.connect_options()) {
        return in_one(&mut conn, migrator).await;
    }
    sqlx::raw_sql(LOCK_TIMEOUT).execute(&mut *conn).await?;
    let result = migrator.run(&mut *conn).await;
    // Back to what the session was opened with. After a failed migration the session is not used
    // again: it may be in any state.
    match result {
        Ok(()) => sqlx::raw_sql("RESET statement_timeout; RESET lock_timeout")
            .execute(&mut *conn)
            .await
            .map(|_| ())?,
        // Closed here and now: it still holds the lock that keeps other migrations out.
        Err(_) => drop(conn.close().await),
    }
    result
}

/// Says whether a lock was waited for in vain: 55P03 is `lock_not_available`, 40P01
/// `deadlock_detected`.
fn is_locked_out(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else {
        return false;
    };
    let code = error.as_database_error().and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}

/// Does what [`migrate`] does, in one transaction: through a pooler in transaction mode nothing holds
/// longer, and so neither does the lock.
///
/// # Errors
///
/// As [`migrate`]; then nothing was applied.
pub async fn migrate_in_one(conn: &mut PgConnection) -> Result<(), MigrateError> {
    let mut migrator = migrator_of(conn).await?;
    migrator.set_locking(false);
    in_one(conn, &migrator).await
}

/// Does so with a migrator that takes no lock of its own.
async fn in_one(conn: &mut PgConnection, migrator: &Migrator) -> Result<(), MigrateError> {
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
    sqlx::query("SET LOCAL lock_timeout = '2s'")
        .execute(&mut *tx)
        .await?;
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
    use sqlx::{
        SqlStr,
        migrate::{Migration, MigrationType},
    };

    use crate::testing::Database;

    /// One that wants all of the table to itself.
    fn greedy() -> super::Migrator {
        let mut migrator = super::migrator();
        let sql = SqlStr::from_static("ALTER TABLE ingestd.jobs ADD COLUMN greed int");
        let greedy = Migration::new(9_999, "greedy".into(), MigrationType::Simple, sql, false);
        migrator.migrations.to_mut().push(greedy);
        migrator
    }

    #[tokio::test]
    async fn a_daemon_follows_a_newer_schema_and_no_other() {
        let db = Database::create().await;
        let note = "INSERT INTO ingestd._migrations
                      (version, description, success, checksum, execution_time)
                    VALUES ($1, 'not ours', true, '', 0)";
        sqlx::query(note)
            .bind(9_999_i64)
            .execute(db.pool())
            .await
            .unwrap();
        super::migrate_or_follow(db.pool()).await.unwrap();
        super::migrate(db.pool()).await.unwrap_err();
        sqlx::query(note)
            .bind(0_i64)
            .execute(db.pool())
            .await
            .unwrap();
        super::migrate_or_follow(db.pool()).await.unwrap_err();
    }

    /// What is applied somewhere is told by its checksum, so that a word changed in it, even of a
    /// comment, stops every daemon that starts on such a database.
    #[test]
    fn no_migration_changes_any_more() {
        let line = |ours: &Migration| {
            let sum = ours.checksum.iter().map(|byte| format!("{byte:02x}"));
            format!("{:04} {}", ours.version, sum.collect::<Vec<_>>().concat())
        };
        let migrator = super::migrator();
        let told: Vec<String> = migrator.iter().map(line).collect();
        let expected = include_str!("../../migrations/checksums.txt");
        assert_eq!(
            told,
            expected.lines().collect::<Vec<_>>(),
            "mend it by a new migration, and add the new one's line to migrations/checksums.txt"
        );
    }

    #[tokio::test]
    async fn a_migration_with_other_words_that_did_the_same_is_taken_for_ours() {
        let db = Database::create().await;
        let [(version, alike)] = super::ALIKE;
        let note = |checksum: &'static str| {
            let note =
                "UPDATE ingestd._migrations SET checksum = decode($2, 'hex') WHERE version = $1";
            sqlx::query(note).bind(version).bind(checksum)
        };
        note(alike).execute(db.pool()).await.unwrap();
        super::migrate(db.pool()).await.unwrap();
        super::migrate_or_follow(db.pool()).await.unwrap();
        let mut conn = db.pool().acquire().await.unwrap();
        super::migrate_in_one(&mut conn).await.unwrap();
        note("00").execute(db.pool()).await.unwrap();
        super::migrate(db.pool()).await.unwrap_err();
    }

    #[tokio::test]
    async fn a_migration_that_waits_for_a_lock_lets_others_pass() {
        let db = Database::create().await;
        let mut conn = db.pool().acquire().await.unwrap();
        // Older than the migration, and not done when it wants its lock.
        let mut blocker = db.pool().begin().await.unwrap();
        let count = "SELECT count(*) FROM ingestd.jobs";
        sqlx::query(count).execute(&mut *blocker).await.unwrap();
        let others = async {
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted
                         AND relation = 'ingestd.jobs'::regclass AND mode = 'AccessExclusiveLock')";
            while !sqlx::query_scalar::<_, bool>(waits)
                .fetch_one(&mut *conn)
                .await
                .unwrap()
            {
                tokio::task::yield_now().await;
            }
            // In the line behind it.
            sqlx::query(count).execute(&mut *conn).await.unwrap();
            blocker.commit().await.unwrap();
        };
        let greedy = greedy();
        let (migrated, ()) = tokio::join!(super::migrate_by(db.pool(), &greedy), others);
        migrated.unwrap();
        let added = "SELECT greed FROM ingestd.jobs";
        sqlx::query(added).execute(db.pool()).await.unwrap();
    }

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
