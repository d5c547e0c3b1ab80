//! Housekeeping in the database: partitions made ahead and dropped by age, old rows of workers and ticks.

use sqlx::PgPool;

/// Rows that are kept for $1 days. The default partitions hold what came on days without one.
const DELETES: [&str; 6] = [
    // A day longer than the period, for a clock that is set back.
    "DELETE FROM ingestd.unique_periods
     WHERE expires_at < now() - make_interval(days => least($1, 1))",
    "DELETE FROM ingestd.workers WHERE ended_at < now() - make_interval(days => $1)",
    // Backfilled ticks stay: a range may be asked for again years later.
    "DELETE FROM ingestd.schedule_ticks
     WHERE handled_at < now() - make_interval(days => $1) AND result <> 'backfilled'",
    "DELETE FROM ingestd.job_stats WHERE minute < now() - make_interval(days => $1)",
    "DELETE FROM ingestd.job_attempts_default
     WHERE finished_at < now() - make_interval(days => $1)",
    "DELETE FROM ingestd.job_history_default
     WHERE finished_at < now() - make_interval(days => $1)",
];

/// What one round of housekeeping did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Maintained {
    pub(super) partitions_made: i32,
    pub(super) partitions_dropped: i32,
    pub(super) rows_deleted: u64,
}

/// Makes partitions for the days ahead and drops what is older than `retention_days`.
///
/// One daemon at a time: the others find the lock taken and leave it.
pub(super) async fn maintain(
    pool: &PgPool,
    retention_days: i32,
) -> sqlx::Result<Option<Maintained>> {
    let mut tx = pool.begin().await?;
    let mine: bool = sqlx::query_scalar(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('ingestd.maintain', 0))",
    )
    .fetch_one(&mut *tx)
    .await?;
    if !mine {
        return Ok(None);
    }
    let mut rows_deleted = 0;
    for delete in DELETES {
        rows_deleted += sqlx::query(delete)
            .bind(retention_days)
            .execute(&mut *tx)
            .await?
            .rows_affected();
    }
    tx.commit().await?;

    // Partitions come and go under a lock that every completion waits for; where somebody reads
    // the history for long, it is better to try again at the next round.
    let mut tx = pool.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '2s'")
        .execute(&mut *tx)
        .await?;
    let (partitions_made, partitions_dropped): (i32, i32) =
        sqlx::query_as("SELECT ingestd.make_partitions(), ingestd.drop_partitions($1)")
            .bind(retention_days)
            .fetch_one(&mut *tx)
            .await?;
    tx.commit().await?;
    Ok(Some(Maintained {
        partitions_made,
        partitions_dropped,
        rows_deleted,
    }))
}
