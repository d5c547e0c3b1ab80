//! The batch shape: one job, many items, one cursor.

use serde_json::Value;
use sqlx::PgConnection;

use super::run::{Run, RunId, RunState};
use crate::queue::JobError;

/// What one chunk adds to a run.
#[derive(Debug, Clone, Default)]
pub struct Progress {
    /// Items done.
    pub ok: i64,
    /// Items refused.
    pub failed: i64,
    /// Items that needed nothing.
    pub skipped: i64,
    /// Where the run goes on after this chunk; `None` leaves it.
    pub cursor: Option<Value>,
    /// Items in all; `None` leaves it.
    pub items_total: Option<i64>,
    /// What it is doing; `None` leaves it.
    pub stage: Option<String>,
    /// Figures of the system's own, added key by key; `None` leaves them.
    pub details: Option<Value>,
}

/// Begins or goes on with a run; `None` where it is final or paused, and the job has nothing to do.
///
/// # Errors
///
/// What Postgres says.
pub async fn begin(conn: &mut PgConnection, id: RunId) -> sqlx::Result<Option<Run>> {
    sqlx::query_as(
        "UPDATE ingestd.runs SET state = 'running', heartbeat_at = now(),
                started_at = coalesce(started_at, now())
         WHERE id = $1 AND state IN ('pending', 'running') RETURNING *",
    )
    .bind(id)
    .fetch_optional(conn)
    .await
}

/// Where a driver knows its run to be: the cursor that it read when it began, or wrote last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Place(Option<Value>);

impl Place {
    /// Returns where a run is that was read just now, as by [`begin`].
    #[must_use]
    pub fn of(run: &Run) -> Self {
        Self(run.cursor.clone())
    }

    /// Returns the cursor.
    #[must_use]
    pub const fn cursor(&self) -> Option<&Value> {
        self.0.as_ref()
    }
}

/// Why a run did not move: what was found in place of a running run where its driver knew it.
///
/// No [`std::error::Error`]: it becomes a [`JobError`] by the rule below, not as others do.
#[derive(Debug)]
pub enum Unmoved {
    /// It is in another state: somebody cancelled or paused it, or it failed meanwhile.
    Stopped(RunState),
    /// It is running, and another driver has moved it: to this cursor.
    Elsewhere(Option<Value>),
    /// There is no such run.
    Gone,
    /// What Postgres says.
    Db(sqlx::Error),
}

impl From<sqlx::Error> for Unmoved {
    fn from(error: sqlx::Error) -> Self {
        Self::Db(error)
    }
}

impl From<Unmoved> for JobError {
    /// The job ends, and what it did since its last chunk is undone. A second driver leaves the run
    /// to the first: its own death would fail a run that goes on.
    fn from(unmoved: Unmoved) -> Self {
        match unmoved {
            Unmoved::Db(error) => error.into(),
            Unmoved::Stopped(_) | Unmoved::Gone => Self::Cancelled,
            Unmoved::Elsewhere(cursor) => {
                let cursor = cursor.unwrap_or_default();
                tracing::warn!(%cursor, "another job drives this run too, and was first; this one ends");
                Self::Cancelled
            }
        }
    }
}

/// Moves a run on from `place` in a chunk's own transaction; returns where it is then, which holds
/// once that has committed.
///
/// # Errors
///
/// What was found instead, see [`Unmoved`]: roll back and end the job, which a [`JobError`] made of
/// it does.
pub async fn advance(
    conn: &mut PgConnection,
    id: RunId,
    place: &Place,
    progress: &Progress,
) -> Result<Place, Unmoved> {
    let advanced = sqlx::query(
        "UPDATE ingestd.runs SET heartbeat_at = clock_timestamp(),
           items_ok = items_ok + $2, items_failed = items_failed + $3,
           items_skipped = items_skipped + $4, cursor = coalesce($5, cursor),
           items_total = coalesce($6, items_total), stage = coalesce($7, stage),
           details = details || coalesce($8, '{}')
         WHERE id = $1 AND state = 'running' AND cursor IS NOT DISTINCT FROM $9",
    )
    .bind(id)
    .bind(progress.ok)
    .bind(progress.failed)
    .bind(progress.skipped)
    .bind(&progress.cursor)
    .bind(progress.items_total)
    .bind(&progress.stage)
    .bind(&progress.details)
    .bind(&place.0)
    .execute(&mut *conn)
    .await?;
    if advanced.rows_affected() == 1 {
        let cursor = progress.cursor.clone().or_else(|| place.0.clone());
        return Ok(Place(cursor));
    }
    Err(found(conn, id).await?)
}

/// Says what is there instead of what a driver knew.
async fn found(conn: &mut PgConnection, id: RunId) -> sqlx::Result<Unmoved> {
    let found: Option<(RunState, Option<Value>)> =
        sqlx::query_as("SELECT state, cursor FROM ingestd.runs WHERE id = $1")
            .bind(id)
            .fetch_optional(conn)
            .await?;
    Ok(match found {
        None => Unmoved::Gone,
        Some((RunState::Running, cursor)) => Unmoved::Elsewhere(cursor),
        Some((state, _)) => Unmoved::Stopped(state),
    })
}

/// Completes a running run in the transaction that completes its job.
///
/// # Errors
///
/// [`JobError::Cancelled`] where it is not running any more; else what Postgres says.
pub async fn complete(conn: &mut PgConnection, id: RunId) -> Result<(), JobError> {
    let completed = sqlx::query(
        "UPDATE ingestd.runs SET state = 'completed', finished_at = clock_timestamp(),
           heartbeat_at = clock_timestamp(), stage = NULL,
           items_total = coalesce(items_total, items_ok + items_failed + items_skipped)
         WHERE id = $1 AND state = 'running'",
    )
    .bind(id)
    .execute(conn)
    .await?;
    if completed.rows_affected() == 1 {
        Ok(())
    } else {
        Err(JobError::Cancelled)
    }
}

/// Fails an unfinished run; does nothing to one that is final already.
///
/// # Errors
///
/// What Postgres says.
pub async fn fail(conn: &mut PgConnection, id: RunId, error: &str) -> sqlx::Result<bool> {
    let failed = sqlx::query(
        "UPDATE ingestd.runs SET state = 'failed', finished_at = clock_timestamp(), error = $2
         WHERE id = $1 AND state IN ('pending', 'running', 'paused')",
    )
    .bind(id)
    .bind(error)
    .execute(conn)
    .await?;
    Ok(failed.rows_affected() == 1)
}
