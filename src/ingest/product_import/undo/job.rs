//! `product_import.rollback`: undoes an import page by page, with a cursor.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;

use super::{
    UndoError,
    page::{Page, Stage, Subject},
};
use crate::{
    ingest::{
        Context,
        product_import::{
            load::{self, Turn},
            retention,
        },
        wait_for_database,
    },
    notify::search,
    queue::{ByName, DeadJob, Done, Job, JobContext, JobError, Retry},
    runs::{self, Driver, Place, Progress, RunId},
};

/// Undoes the import that its run names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// The run of the undoing.
    pub run_id: RunId,
}

/// What is asked for: `ingestd.runs.params`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Params {
    /// The import.
    pub(super) import_id: RunId,
    /// How its job is enqueued.
    #[serde(default)]
    pub(super) driver: Driver,
}

/// Where it goes on: `ingestd.runs.cursor`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Cursor {
    stage: Stage,
    /// Products up to this id are dealt with in this stage.
    after: i64,
    n_restored: i64,
    n_archived: i64,
}

impl Job for RollBack {
    const KIND: &'static str = "product_import.rollback";
    const QUEUE: &'static str = "import";
    const RETRY: Retry = Retry::STANDARD.attempts(5);
    const TIMEOUT: Duration = Duration::from_hours(6);
    const BY_NAME: ByName = ByName::Nobody("undo the import, or reset the run");
    type Context = Context;

    fn unique_key(&self) -> Option<String> {
        Some(format!("run:{}", self.run_id))
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        wait_for_database(undo(ctx, self.run_id).await, "the undoing")
    }

    async fn on_dead(conn: &mut PgConnection, dead: &DeadJob) -> sqlx::Result<()> {
        let Some(id) = dead.run_id else { return Ok(()) };
        runs::fail(conn, RunId(id), &dead.error).await?;
        Ok(())
    }
}

async fn undo(ctx: &JobContext<Context>, run_id: RunId) -> Result<Done, JobError> {
    let db = &ctx.state().db;
    let mut tx = db.begin().await?;
    ctx.hold(&mut tx).await?;
    let Some(run) = runs::begin(&mut tx, run_id).await? else {
        return Ok(Done::new()); // cancelled or finished meanwhile
    };
    let mut place = Place::of(&run);
    let params: Params = serde_json::from_value(run.params).map_err(JobError::fatal)?;
    let cursor = run.cursor.map(serde_json::from_value).transpose();
    let mut cursor: Cursor = cursor.map_err(JobError::fatal)?.unwrap_or_default();
    if !retention::is_kept(&mut tx, params.import_id.0).await? {
        let error = UndoError::Forgotten(params.import_id);
        return Err(JobError::fatal(error));
    }
    let subject = subject(&mut tx, params.import_id, run.tenant).await?;
    tx.commit().await?;
    loop {
        if ctx.cancelled().is_cancelled() {
            return Err(JobError::Cancelled);
        }
        let mut tx = db.begin().await?;
        ctx.fence(&mut tx).await?;
        load::settle_plans(&mut tx).await?;
        load::take_turn(&mut tx, &subject.tenant, Turn::Alone).await?;
        let stage = cursor.stage;
        let page = Page::read(&mut tx, &subject, stage, cursor.after).await?;
        page.write(&mut tx, &subject, stage, run_id.0).await?;
        if ctx.state().config.search.is_on() {
            search::note(&mut tx, &page.undoable).await?;
        }
        let is_over = cursor.advance(&page);
        let progress = cursor.progress(stage, &page)?;
        let moved = runs::advance(&mut tx, run_id, &place, &progress).await?;
        if is_over {
            runs::complete(&mut tx, run_id).await?;
            search::after_import(&mut tx, &ctx.state().config, run_id.0).await?;
            let done = ctx.complete_in(&mut tx).await?;
            tx.commit().await?;
            return Ok(done);
        }
        tx.commit().await?;
        place = moved;
    }
}

async fn subject(conn: &mut PgConnection, id: RunId, tenant: String) -> sqlx::Result<Subject> {
    let created: (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT first_created_id, last_created_id FROM catalog.imports WHERE id = $1",
    )
    .bind(id)
    .fetch_one(conn)
    .await?;
    Ok(Subject {
        import_id: id.0,
        tenant,
        created: created.0.zip(created.1),
    })
}

impl Cursor {
    /// Goes behind a page; returns whether that was the last one.
    fn advance(&mut self, page: &Page) -> bool {
        let n_undone = n(page.undoable.len());
        match self.stage {
            Stage::Changed => self.n_restored += n_undone,
            Stage::Created | Stage::Named => self.n_archived += n_undone,
        }
        match (page.last, self.stage.next()) {
            (Some(last), _) => self.after = last,
            (None, Some(next)) => (self.stage, self.after) = (next, 0),
            (None, None) => return true,
        }
        false
    }

    fn progress(&self, stage: Stage, page: &Page) -> serde_json::Result<Progress> {
        Ok(Progress {
            ok: n(page.undoable.len()),
            skipped: n(page.kept.len()),
            cursor: Some(serde_json::to_value(self)?),
            stage: Some(stage.word().to_owned()),
            details: Some(json!({ "restored": self.n_restored, "archived": self.n_archived })),
            ..Progress::default()
        })
    }
}

fn n(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}
