//! Deletes what attempts wrote down about jobs that nobody will go on with.

use sqlx::PgPool;

/// Jobs looked at by one statement.
const BATCH: i64 = 1000;
/// Most statements of one round; the next round does the rest.
const MOST_BATCHES: usize = 10_000;

/// Looks at the next jobs with ids above $1, at most $2, and deletes the rows of those that are
/// neither unfinished nor dead letters that can be replayed. Returns the last id looked at, null
/// when there was none, and how many rows went.
///
/// Both come and go with one statement each, so that a job on its way from the one table to the
/// other is in one of them whenever one looks; and a replay moves its rows to the new job.
macro_rules! sweep {
    ($table:literal) => {
        concat!(
            "WITH batch AS MATERIALIZED (
               SELECT DISTINCT job_id FROM ",
            $table,
            " WHERE job_id > $1 AND shard = 0 ORDER BY job_id LIMIT $2),
             gone AS (
               DELETE FROM ",
            $table,
            " WHERE shard = 0 AND job_id = ANY (ARRAY(
                 SELECT job_id FROM batch b
                 WHERE NOT EXISTS (SELECT FROM ingestd.jobs j
                                   WHERE j.shard = 0 AND j.id = b.job_id)
                   AND NOT EXISTS (SELECT FROM ingestd.dead_jobs d
                                   WHERE d.shard = 0 AND d.id = b.job_id
                                     AND d.replayed_at IS NULL)))
               RETURNING 1)
             SELECT (SELECT max(job_id) FROM batch), (SELECT count(*) FROM gone)"
        )
    };
}

const SWEEPS: [&str; 2] = [sweep!("ingestd.job_steps"), sweep!("ingestd.job_progress")];

/// Deletes steps and progress of jobs that are over; returns how many rows.
///
/// Each batch is a transaction of its own. One daemon at a time: whoever finds another at it leaves
/// the rest to that one.
///
/// # Errors
///
/// What Postgres says.
pub async fn sweep(pool: &PgPool) -> sqlx::Result<u64> {
    let mut n_rows = 0;
    for sweep in SWEEPS {
        let mut after = 0_i64;
        for _ in 0..MOST_BATCHES {
            let mut tx = pool.begin().await?;
            let is_mine: bool = sqlx::query_scalar(
                "SELECT pg_try_advisory_xact_lock(hashtextextended('ingestd.sweep', 0))",
            )
            .fetch_one(&mut *tx)
            .await?;
            if !is_mine {
                return Ok(n_rows);
            }
            let (last, n_gone): (Option<i64>, i64) = sqlx::query_as(sweep)
                .bind(after)
                .bind(BATCH)
                .fetch_one(&mut *tx)
                .await?;
            tx.commit().await?;
            n_rows += u64::try_from(n_gone).unwrap_or(0);
            let Some(last) = last else { break };
            after = last;
        }
    }
    Ok(n_rows)
}
