//! Undoing an import as a whole: what it created is archived, what it changed or archived gets back
//! what it was. What something newer touched stays as it is, and is named.
//!
//! [`preview`] says what an undoing would come to, [`submit()`] makes the run, and `job` carries it
//! out page by page, each page's products, counts and cursor in one transaction.

mod job;
mod page;

use serde::Serialize;
use sqlx::PgConnection;

use super::{load, submit, submit::SYSTEM};
use crate::{
    queue::{self, Job as _, NewJob},
    runs::{self, Driver, NewRun, RunId, RunState},
};
use job::Params;
pub use job::RollBack;
pub use page::Kept;
use page::{Page, Stage, Subject};

/// As many of the products that stay are shown.
const N_SHOWN: usize = 100;

/// Why an import is not undone.
#[derive(Debug, thiserror::Error)]
pub enum UndoError {
    /// There is none of that id.
    #[error("there is no import {0}")]
    NotFound(RunId),
    /// It may still write.
    #[error("import {0} has not ended; cancel it first")]
    Unfinished(RunId),
    /// It wrote nothing.
    #[error("import {0} was a dry run and wrote nothing")]
    DryRun(RunId),
    /// What it changed is not known any more.
    #[error(
        "import {0} cannot be undone any more: what it changed is kept for \
         product_import.retention_days after its end, and deleted since"
    )]
    Forgotten(RunId),
    /// Somebody has asked for it already.
    #[error(
        "import {import} is undone by run {run}; if that one failed or was cancelled, reset it"
    )]
    Asked {
        /// The import.
        import: RunId,
        /// The run that undoes it.
        run: RunId,
    },
    /// The database refused or is away.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What an undoing would come to, or came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Outcome {
    /// Products that get back what they were.
    pub n_restored: i64,
    /// Products that are archived because the import had created them.
    pub n_archived: i64,
    /// Products that stay because something newer touched them.
    pub n_kept: i64,
    /// The first 100 of those.
    pub kept: Vec<Kept>,
}

/// Reads an import and locks its run, so that it cannot begin again meanwhile.
async fn subject(conn: &mut PgConnection, id: RunId) -> Result<Subject, UndoError> {
    type Found = (
        String,
        bool,
        Option<RunId>,
        Option<i64>,
        Option<i64>,
        RunState,
        bool,
    );
    const FIND: &str = "SELECT i.tenant, i.dry_run, i.rollback_run_id, i.first_created_id,
            i.last_created_id, r.state, i.traces = 'kept'
        FROM catalog.imports i JOIN ingestd.runs r USING (id)
        WHERE i.id = $1 AND i.type = 'PARTS' FOR UPDATE OF r";
    let found: Option<Found> = sqlx::query_as(FIND).bind(id).fetch_optional(conn).await?;
    let found = found.ok_or(UndoError::NotFound(id))?;
    let (tenant, is_dry, asked, first, last, state, is_kept) = found;
    if let Some(run) = asked {
        return Err(UndoError::Asked { import: id, run });
    }
    if is_dry {
        return Err(UndoError::DryRun(id));
    }
    if !state.is_final() {
        return Err(UndoError::Unfinished(id));
    }
    if !is_kept {
        return Err(UndoError::Forgotten(id));
    }
    Ok(Subject {
        import_id: id.0,
        tenant,
        created: first.zip(last),
    })
}

/// Says what undoing an import would come to now; changes nothing but the planner's settings of the
/// caller's transaction.
///
/// # Errors
///
/// [`UndoError`] where it cannot be undone, or was.
pub async fn preview(conn: &mut PgConnection, id: RunId) -> Result<Outcome, UndoError> {
    let subject = subject(&mut *conn, id).await?;
    load::settle_plans(&mut *conn).await?;
    let mut outcome = Outcome::default();
    let mut at = (Some(Stage::default()), 0);
    while let (Some(stage), after) = at {
        let page = Page::read(&mut *conn, &subject, stage, after).await?;
        outcome.add(stage, &page);
        at = match page.last {
            Some(last) => (Some(stage), last),
            None => (stage.next(), 0),
        };
    }
    Ok(outcome)
}

impl Outcome {
    fn add(&mut self, stage: Stage, page: &Page) {
        let n = |len: usize| i64::try_from(len).unwrap_or(i64::MAX);
        match stage {
            Stage::Changed => self.n_restored += n(page.undoable.len()),
            Stage::Created | Stage::Named => self.n_archived += n(page.undoable.len()),
        }
        self.n_kept += n(page.kept.len());
        let room = N_SHOWN.saturating_sub(self.kept.len());
        self.kept.extend(page.kept.iter().take(room).cloned());
    }
}

/// Makes the run and the job that undo an import, in the connection's transaction.
///
/// # Errors
///
/// [`UndoError`] where it cannot be undone, or somebody asked for it before.
pub async fn submit(
    conn: &mut PgConnection,
    id: RunId,
    triggered_by: &str,
) -> Result<RunId, UndoError> {
    const NOTE: &str = "UPDATE catalog.imports SET rollback_run_id = $2
        WHERE id = $1 AND rollback_run_id IS NULL
        RETURNING created_count + updated_count + archived_count";
    let subject = subject(&mut *conn, id).await?;
    let gate_key = submit::gate_key(&subject.tenant);
    let params = Params {
        import_id: id,
        driver: Driver {
            gate_key: Some(gate_key.clone()),
            priority: None,
        },
    };
    let run = NewRun {
        system: SYSTEM,
        job_kind: Some(RollBack::KIND),
        tenant: subject.tenant.clone(),
        triggered_by: triggered_by.to_owned(),
        params: serde_json::to_value(&params).map_err(|error| sqlx::Error::Encode(error.into()))?,
        items_total: None,
    };
    let run_id = runs::create(&mut *conn, &run).await?;
    let n_rows: i64 = sqlx::query_scalar(NOTE)
        .bind(id)
        .bind(run_id)
        .fetch_one(&mut *conn)
        .await?;
    sqlx::query("UPDATE ingestd.runs SET items_total = $2 WHERE id = $1 AND state = 'pending'")
        .bind(run_id)
        .bind(n_rows)
        .execute(&mut *conn)
        .await?;
    sqlx::query(
        "UPDATE ingestd.runs SET details = details || jsonb_build_object('undone_by', $2)
         WHERE id = $1 AND finished_at IS NOT NULL",
    )
    .bind(id)
    .bind(run_id)
    .execute(&mut *conn)
    .await?;
    let job = NewJob {
        run_id: Some(run_id.0),
        tenant: Some(subject.tenant),
        gate_key: Some(gate_key),
        ..NewJob::of(&RollBack { run_id }).map_err(|error| sqlx::Error::Encode(error.into()))?
    };
    queue::enqueue_new(conn, &job).await?;
    Ok(run_id)
}

/// Returns what an undoing came to so far, by its run.
///
/// # Errors
///
/// The database cannot be reached.
pub async fn outcome(conn: &mut PgConnection, run_id: RunId) -> sqlx::Result<Outcome> {
    const COUNTS: &str = "SELECT coalesce((details ->> 'restored')::bigint, 0),
            coalesce((details ->> 'archived')::bigint, 0), items_skipped
        FROM ingestd.runs WHERE id = $1";
    const KEPT: &str = "SELECT product_id, code, reason FROM catalog.kept_products
        WHERE run_id = $1 ORDER BY product_id LIMIT $2";
    let (n_restored, n_archived, n_kept) = sqlx::query_as(COUNTS)
        .bind(run_id)
        .fetch_one(&mut *conn)
        .await?;
    let kept = sqlx::query_as(KEPT)
        .bind(run_id)
        .bind(i64::try_from(N_SHOWN).unwrap_or(i64::MAX))
        .fetch_all(conn)
        .await?;
    Ok(Outcome {
        n_restored,
        n_archived,
        n_kept,
        kept,
    })
}
