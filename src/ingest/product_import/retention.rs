//! `product_import.forget`: how long an import can be undone and its rejected rows be mended. Both
//! take rows of their own, as many as the file has, and these are not kept for ever.
//!
//! An import is marked before the first of them is deleted, under the lock that an undoing takes, so
//! that none is undone by half.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};

use crate::{
    ingest::Context,
    queue::{ByName, Done, Job, JobContext, JobError, Retry},
};

/// Deletes the traces of imports that ended longer ago than `product_import.retention_days`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {}

impl Job for Forget {
    const KIND: &'static str = "product_import.forget";
    const QUEUE: &'static str = "system";
    const RETRY: Retry = Retry::STANDARD.attempts(3);
    const TIMEOUT: Duration = Duration::from_hours(1);
    const SCHEDULE: Option<&'static str> = Some("0 20 4 * * *");
    const BY_NAME: ByName = ByName::AllTenants;
    type Context = Context;

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        let Context { db, config, .. } = ctx.state();
        let (days, stop) = (config.product_import.retention_days, ctx.cancelled());
        let Cut { n_imports, n_rows } = cut(db, days, || !stop.is_cancelled()).await?;
        tracing::info!(n_imports, n_rows, "traces of old imports deleted");
        Ok(Done::new())
    }
}

/// Rows of one statement.
const BATCH: i64 = 5_000;

/// Statements of one round, and so at most ten million rows; the rest is for the next.
const MOST_BATCHES: u32 = 2_000;

/// The next import after $1 whose traces are older than $2 days, or are half deleted.
const NEXT: &str = "
    SELECT i.id, i.rollback_run_id FROM catalog.imports i JOIN ingestd.runs r USING (id)
    WHERE i.id > $1 AND i.traces <> 'gone'
      AND r.finished_at < clock_timestamp() - make_interval(days => $2)
    ORDER BY i.id LIMIT 1 FOR UPDATE OF r SKIP LOCKED";

/// A batch of each: found by primary key, deleted where they lie, so that no plan reads the table.
const DELETES: [&str; 3] = [
    "DELETE FROM catalog.product_changes WHERE ctid = ANY (ARRAY(
       SELECT ctid FROM catalog.product_changes WHERE import_id = $1
       ORDER BY import_id, product_id LIMIT $2))",
    "DELETE FROM catalog.rejected_rows WHERE ctid = ANY (ARRAY(
       SELECT ctid FROM catalog.rejected_rows WHERE import_id = $1
       ORDER BY import_id, sheet, row_no LIMIT $2))",
    "DELETE FROM catalog.import_errors WHERE ctid = ANY (ARRAY(
       SELECT ctid FROM catalog.import_errors WHERE import_id = $1
       ORDER BY import_id, row_no, id LIMIT $2))",
];

/// What a round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cut {
    /// Imports whose traces are gone now.
    pub n_imports: u64,
    /// Rows that were deleted.
    pub n_rows: u64,
}

/// Deletes the traces of imports that ended more than `days` days ago, in batches of 5,000 rows, each
/// in a transaction of its own; at most ten million rows. Broken off, it goes on the next time.
///
/// Leaves an import that is being undone. `go_on` is asked between the batches.
///
/// # Errors
///
/// What Postgres says.
pub async fn cut(db: &PgPool, days: u16, go_on: impl Fn() -> bool) -> sqlx::Result<Cut> {
    let (mut done, mut after, mut n_left) = (Cut::default(), 0, MOST_BATCHES);
    while let Some((id, is_marked)) = mark(db, after, days).await? {
        after = id;
        if !is_marked {
            continue;
        }
        for delete in DELETES {
            loop {
                if n_left == 0 || !go_on() {
                    return Ok(done);
                }
                n_left -= 1;
                let deleted = sqlx::query(delete).bind(id).bind(BATCH).execute(db).await?;
                done.n_rows += deleted.rows_affected();
                if deleted.rows_affected() < BATCH.unsigned_abs() {
                    break;
                }
            }
        }
        sqlx::query(
            "UPDATE catalog.imports SET traces = 'gone' WHERE id = $1 AND traces = 'going'",
        )
        .bind(id)
        .execute(db)
        .await?;
        done.n_imports += 1;
    }
    Ok(done)
}

/// Marks the next import; returns its id and whether its traces may be deleted.
async fn mark(db: &PgPool, after: i64, days: u16) -> sqlx::Result<Option<(i64, bool)>> {
    let mut tx = db.begin().await?;
    let found: Option<(i64, Option<i64>)> = sqlx::query_as(NEXT)
        .bind(after)
        .bind(i32::from(days))
        .fetch_optional(&mut *tx)
        .await?;
    let Some((id, undoing)) = found else {
        return Ok(None);
    };
    let may = is_over(&mut tx, undoing).await?;
    if may {
        sqlx::query(
            "UPDATE catalog.imports SET traces = 'going' WHERE id = $1 AND traces = 'kept'",
        )
        .bind(id)
        .execute(&mut *tx)
        .await?;
    }
    tx.commit().await?;
    Ok(Some((id, may)))
}

/// Says whether nothing is being undone, and keeps it so until the transaction ends.
async fn is_over(conn: &mut PgConnection, undoing: Option<i64>) -> sqlx::Result<bool> {
    const LOCK: &str = "SELECT finished_at IS NOT NULL FROM ingestd.runs WHERE id = $1 FOR UPDATE";
    let over: Option<bool> = sqlx::query_scalar(LOCK)
        .bind(undoing)
        .fetch_optional(conn)
        .await?;
    Ok(over.unwrap_or(true))
}

/// Says whether an import can still be undone and its rejected rows be downloaded; `true` of one
/// that is not there.
///
/// # Errors
///
/// What Postgres says.
pub(super) async fn is_kept(conn: &mut PgConnection, id: i64) -> sqlx::Result<bool> {
    let kept = sqlx::query_scalar("SELECT traces = 'kept' FROM catalog.imports WHERE id = $1")
        .bind(id)
        .fetch_optional(conn)
        .await?;
    Ok(kept.unwrap_or(true))
}
