//! Housekeeping in the database: partitions made ahead and dropped by age, old rows of workers and ticks.
//!
//! One daemon at a time: each step is a transaction of its own under a try-lock, and whoever finds
//! the lock taken leaves the step to its holder.

use std::time::Duration;

use chrono::NaiveDate;
use sqlx::{PgConnection, PgPool, Postgres, Transaction};

/// Rows that are kept for $1 days. The default partitions hold what came on days without one.
const DELETES: [&str; 8] = [
    // A day longer than the period, for a clock that is set back.
    "DELETE FROM ingestd.unique_periods
     WHERE expires_at < now() - make_interval(days => least($1, 1))",
    "DELETE FROM ingestd.workers WHERE ended_at < now() - make_interval(days => $1)",
    // Backfilled ticks stay: a range may be asked for again years later.
    "DELETE FROM ingestd.schedule_ticks
     WHERE handled_at < now() - make_interval(days => $1) AND result <> 'backfilled'",
    // A full bucket is the same as none.
    "DELETE FROM ingestd.gate_tokens WHERE full_at < now() - make_interval(days => $1)",
    "DELETE FROM ingestd.job_stats WHERE minute < now() - make_interval(days => $1)",
    "DELETE FROM ingestd.job_attempts_default
     WHERE finished_at < now() - make_interval(days => $1)",
    "DELETE FROM ingestd.job_history_default
     WHERE finished_at < now() - make_interval(days => $1)",
    "DELETE FROM ingestd.job_logs_default
     WHERE logged_at < now() - make_interval(days => $1)",
];

/// Days beyond today that have their partitions in advance.
const DAYS_AHEAD: i32 = 3;

/// Longest wait for a lock on a partitioned table, and so the longest that a completion waits
/// behind it: short, and tried again.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '200ms'";
/// How often locks may be denied in one round; the rest is left to the next.
const MOST_DENIALS: u32 = 10;
/// The rest after a denied lock, in which everybody else gets on.
const REST: Duration = Duration::from_millis(250);

/// Whether somebody has been reading a partitioned table for a while: no use to wait then.
/// Whoever may not see other people's sessions finds out by the lock's timeout.
const IS_READ: &str = "
    SELECT EXISTS (
      SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
      WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_backend_pid()
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND l.relation IN (to_regclass(format('ingestd.%I', $1)), to_regclass(format('ingestd.%I', $2)))
        AND a.xact_start < clock_timestamp() - interval '1 s')";

/// What one round of housekeeping did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Maintained {
    pub(super) partitions_made: u32,
    pub(super) partitions_dropped: u32,
    pub(super) rows_deleted: u64,
    /// Partitions that could not be made or dropped yet, because somebody reads their table.
    pub(super) partitions_left: u32,
}

/// Makes partitions for the days ahead and drops what is older than `retention_days`.
///
/// Returns nothing where another daemon is at it.
pub(super) async fn maintain(
    pool: &PgPool,
    retention_days: i32,
) -> sqlx::Result<Option<Maintained>> {
    let Some(mut tx) = alone(pool).await? else {
        return Ok(None);
    };
    let mut done = Maintained::default();
    for delete in DELETES {
        done.rows_deleted += sqlx::query(delete)
            .bind(retention_days)
            .execute(&mut *tx)
            .await?
            .rows_affected();
    }
    tx.commit().await?;

    let mut patience = Patience {
        denials_left: MOST_DENIALS,
    };
    make_partitions(pool, &mut done, &mut patience).await?;
    drop_partitions(pool, retention_days, &mut done, &mut patience).await?;
    Ok(Some(done))
}

/// Begins a step; `None` while another daemon is at one.
async fn alone(pool: &PgPool) -> sqlx::Result<Option<Transaction<'static, Postgres>>> {
    let mut tx = pool.begin().await?;
    let mine: bool = sqlx::query_scalar(
        "SELECT pg_try_advisory_xact_lock(hashtextextended('ingestd.maintain', 0))",
    )
    .fetch_one(&mut *tx)
    .await?;
    Ok(mine.then_some(tx))
}

async fn make_partitions(
    pool: &PgPool,
    done: &mut Maintained,
    patience: &mut Patience,
) -> sqlx::Result<()> {
    let missing: Vec<(String, NaiveDate)> =
        sqlx::query_as("SELECT parent, day FROM ingestd.missing_partitions($1)")
            .bind(DAYS_AHEAD)
            .fetch_all(pool)
            .await?;
    for (parent, day) in missing {
        let made = patience.take(pool, &Step::Make { parent, day }).await?;
        match made {
            Some(true) => done.partitions_made += 1,
            // Another daemon made it, or too many rows of the day are in the default partition.
            Some(false) => {}
            None => done.partitions_left += 1,
        }
    }
    Ok(())
}

/// Drops old partitions. Where somebody has been reading the table for long it is not even tried:
/// whoever waits for the lock is waited for by every completion.
async fn drop_partitions(
    pool: &PgPool,
    retention_days: i32,
    done: &mut Maintained,
    patience: &mut Patience,
) -> sqlx::Result<()> {
    let old: Vec<(String, String)> =
        sqlx::query_as("SELECT parent, part FROM ingestd.old_partitions($1)")
            .bind(retention_days)
            .fetch_all(pool)
            .await?;
    for (parent, part) in old {
        let is_read: bool = sqlx::query_scalar(IS_READ)
            .bind(&parent)
            .bind(&part)
            .fetch_one(pool)
            .await?;
        let dropped = if is_read {
            None
        } else {
            patience.take(pool, &Step::Drop { part }).await?
        };
        match dropped {
            Some(true) => done.partitions_dropped += 1,
            Some(false) => {}
            None => done.partitions_left += 1,
        }
    }
    Ok(())
}

/// What is done in one transaction under the lock of a partitioned table.
enum Step {
    Make { parent: String, day: NaiveDate },
    Drop { part: String },
}

impl Step {
    /// Takes the step; returns whether anything changed.
    async fn take(&self, tx: &mut PgConnection) -> sqlx::Result<bool> {
        match self {
            Self::Make { parent, day } => {
                sqlx::query_scalar("SELECT ingestd.make_partition($1, $2)")
                    .bind(parent)
                    .bind(day)
                    .fetch_one(tx)
                    .await
            }
            Self::Drop { part } => {
                sqlx::query_scalar("SELECT ingestd.drop_partition($1) > 0")
                    .bind(part)
                    .fetch_one(tx)
                    .await
            }
        }
    }
}

/// How often a round may still be denied a lock.
struct Patience {
    denials_left: u32,
}

impl Patience {
    /// Takes a step, again where it is denied a lock; `None` where patience ends or another
    /// daemon is at it.
    async fn take(&mut self, pool: &PgPool, step: &Step) -> sqlx::Result<Option<bool>> {
        while self.denials_left > 0 {
            let Some(mut tx) = alone(pool).await? else {
                return Ok(None);
            };
            sqlx::query(LOCK_TIMEOUT).execute(&mut *tx).await?;
            match step.take(&mut tx).await {
                Ok(changed) => {
                    tx.commit().await?;
                    return Ok(Some(changed));
                }
                Err(error) if is_denied(&error) => {
                    tx.rollback().await?;
                    self.denials_left -= 1;
                    tokio::time::sleep(REST).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }
}

/// Says whether a lock was not to be had in time.
fn is_denied(error: &sqlx::Error) -> bool {
    let database = error.as_database_error();
    let code = database.and_then(sqlx::error::DatabaseError::code);
    code.as_deref() == Some("55P03")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Database;

    #[tokio::test]
    async fn a_partition_that_is_read_is_left_and_a_writer_waits_for_no_longer_than_the_lock() {
        let db = Database::create().await;
        let day = NaiveDate::from_ymd_opt(2020, 2, 28).unwrap();
        let make = Step::Make {
            parent: "job_history".into(),
            day,
        };
        let mut patience = Patience { denials_left: 3 };
        assert_eq!(patience.take(db.pool(), &make).await.unwrap(), Some(true));
        assert_eq!(patience.take(db.pool(), &make).await.unwrap(), Some(false));

        let mut reader = db.pool().begin().await.unwrap();
        sqlx::query("SELECT count(*) FROM ingestd.job_history")
            .execute(&mut *reader)
            .await
            .unwrap();
        let drop = Step::Drop {
            part: "job_history_20200228".into(),
        };
        let write = async {
            for _ in 0..10 {
                sqlx::query(
                    "INSERT INTO ingestd.job_history (shard, id, kind, queue, state, priority,
                       attempt, created_at, run_at)
                     VALUES (0, 1, 't.k', 'q', 'completed', 1, 1, now(), now())",
                )
                .execute(db.pool())
                .await
                .unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (dropped, ()) = tokio::join!(patience.take(db.pool(), &drop), write);
        assert_eq!(dropped.unwrap(), None);
        assert_eq!(patience.denials_left, 0);
        reader.rollback().await.unwrap();
        let mut patience = Patience { denials_left: 10 };
        assert_eq!(patience.take(db.pool(), &drop).await.unwrap(), Some(true));
        assert_eq!(patience.take(db.pool(), &drop).await.unwrap(), Some(false));
    }

    #[tokio::test]
    async fn one_daemon_at_a_time() {
        let db = Database::create().await;
        let other = alone(db.pool()).await.unwrap().unwrap();
        assert_eq!(maintain(db.pool(), 30).await.unwrap(), None);
        drop(other);
        // Dropped, it is rolled back by whoever has the connection next.
        db.pool().acquire().await.unwrap();
        let done = maintain(db.pool(), 30).await.unwrap();
        assert_eq!(done, Some(Maintained::default()));
    }
}
