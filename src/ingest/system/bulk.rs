//! `system.bulk`: one action on many jobs or dead letters, as a run with a cursor.
//!
//! A chunk's actions, the cursor and the counts commit together, so that a crash resumes and
//! nothing is done twice. Between chunks no transaction is open: there it waits for its rate, and
//! there it learns that somebody cancelled or paused its run.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Acquire as _, PgConnection};

use crate::{
    access::INSTALLATION,
    db,
    ingest::{Context, wait_for_database},
    queue::{
        self, ByName, DeadJob, Done, Job, JobContext, JobError, JobId, NewJob, Retry,
        control::{self, Cancelled},
        dead::{self, Begin},
        filter::{DeadFilter, Filter, LiveFilter, Preview},
        read::JobState,
    },
    runs::{self, NewRun, Place, Progress, RunId},
};

/// The system's name in `ingestd.runs`.
const SYSTEM: &str = "system";

/// Most actions of one transaction: their rows stay locked until its end.
const CHUNK: u32 = 50;

/// How long one attempt goes on before it lets others have its slot.
const TURN: Duration = Duration::from_mins(5);

/// The highest rate; without one it goes as fast as the database does.
pub const MAX_RATE: u32 = 10_000;

/// How many of what is found a preview shows.
const N_FIRST: i64 = 5;

/// What is done to each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Unfinished jobs are cancelled, as one by one.
    Cancel,
    /// Jobs that wait for a later time become due now.
    Retry,
    /// Dead letters become new jobs.
    Replay,
    /// The same, and each begins as if nothing had been done. A word of its own: an older daemon that
    /// passed over it would begin after the steps.
    #[serde(rename = "replay_afresh")]
    ReplayAfresh,
    /// Dead letters are deleted for good.
    Purge,
}

impl Action {
    /// Returns its word, as JSON has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Replay => "replay",
            Self::ReplayAfresh => "replay_afresh",
            Self::Purge => "purge",
        }
    }
}

/// What somebody wants done to many.
#[derive(Debug, Clone, Serialize)]
pub struct Order {
    action: Action,
    filter: Filter,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_per_sec: Option<u32>,
}

/// Why an order is none.
#[derive(Debug, thiserror::Error)]
pub enum BadOrder {
    /// The filter cannot be read, or is for another action.
    #[error("filter: {0}")]
    Filter(#[from] serde_json::Error),
    /// The filter names a state in which there is nothing to do.
    #[error("state is queued, held or running")]
    State,
    /// The rate is out of its range.
    #[error("rate_per_sec is from 1 to {MAX_RATE}")]
    Rate,
}

impl Order {
    /// Makes an order of an action and the filter as JSON: a [`LiveFilter`] to cancel or retry, a
    /// [`DeadFilter`] to replay or purge. `rate_per_sec` is 1 to [`MAX_RATE`].
    ///
    /// # Errors
    ///
    /// [`BadOrder`] says what does not fit.
    pub fn new(action: Action, filter: Value, rate_per_sec: Option<u32>) -> Result<Self, BadOrder> {
        let filter = match action {
            Action::Cancel | Action::Retry => {
                let filter: LiveFilter = serde_json::from_value(filter)?;
                Filter::Live(LiveFilter {
                    is_later: filter.is_later || action == Action::Retry,
                    ..filter
                })
            }
            Action::Replay | Action::ReplayAfresh | Action::Purge => {
                Filter::Dead(serde_json::from_value(filter)?)
            }
        };
        if let Filter::Live(LiveFilter {
            state: Some(state), ..
        }) = &filter
            && !matches!(state, JobState::Queued | JobState::Held | JobState::Running)
        {
            return Err(BadOrder::State);
        }
        if !rate_per_sec.is_none_or(|rate| (1..=MAX_RATE).contains(&rate)) {
            return Err(BadOrder::Rate);
        }
        Ok(Self {
            action,
            filter,
            rate_per_sec,
        })
    }

    /// Returns what is done to each.
    #[must_use]
    pub const fn action(&self) -> Action {
        self.action
    }

    /// Says whether its filter lets everything through.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.filter.is_any()
    }

    /// Bounds the filter to what is there now; returns it with the last id.
    async fn bound(&self, conn: &mut PgConnection) -> sqlx::Result<(Filter, JobId)> {
        let mut filter = self.filter.clone();
        if let Filter::Dead(DeadFilter { died_before, .. }) = &mut filter {
            let now: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
                .fetch_one(&mut *conn)
                .await?;
            *died_before = Some(died_before.map_or(now, |before| before.min(now)));
        }
        let last = filter.last_id(conn).await?;
        Ok((filter, last))
    }
}

/// Counts what an order would be about and shows the first few; changes nothing.
///
/// # Errors
///
/// What Postgres says.
pub async fn preview(conn: &mut PgConnection, order: &Order) -> sqlx::Result<Preview> {
    let (filter, last) = order.bound(&mut *conn).await?;
    filter.preview(conn, last, N_FIRST).await
}

/// Makes the run and the job that carry an order out, in the connection's transaction.
///
/// Only what is there now is touched. `triggered_by` is `api` or `cli`, `asked_by` the audit log's
/// word for who wants it.
///
/// # Errors
///
/// What Postgres says.
pub async fn submit(
    conn: &mut PgConnection,
    order: &Order,
    triggered_by: &str,
    asked_by: &str,
) -> sqlx::Result<(RunId, Preview)> {
    let (filter, last) = order.bound(&mut *conn).await?;
    let found = filter.preview(&mut *conn, last, N_FIRST).await?;
    let tenant = match &filter {
        Filter::Live(filter) => filter.tenant.clone(),
        Filter::Dead(filter) => filter.tenant.clone(),
    };
    let params = Params {
        action: order.action,
        filter: serde_json::to_value(&filter).map_err(encode)?,
        rate_per_sec: order.rate_per_sec,
        last_id: last.0,
        asked_by: asked_by.to_owned(),
    };
    let run = NewRun {
        system: SYSTEM,
        job_kind: Some(Bulk::KIND),
        tenant: tenant.unwrap_or_else(|| INSTALLATION.to_owned()),
        triggered_by: triggered_by.to_owned(),
        params: serde_json::to_value(&params).map_err(encode)?,
        items_total: found.is_all.then_some(found.n_found),
    };
    let run_id = runs::create(&mut *conn, &run).await?;
    let job = NewJob {
        run_id: Some(run_id.0),
        tenant: Some(run.tenant),
        ..NewJob::of(&Bulk { run_id }).map_err(encode)?
    };
    queue::enqueue_new(conn, &job).await?;
    Ok((run_id, found))
}

fn encode(error: serde_json::Error) -> sqlx::Error {
    sqlx::Error::Encode(error.into())
}

/// What is asked for: `ingestd.runs.params`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Params {
    action: Action,
    filter: Value,
    rate_per_sec: Option<u32>,
    /// The last id that there was when it was asked for.
    last_id: i64,
    /// Who wants it.
    asked_by: String,
}

/// Where it goes on: `ingestd.runs.cursor`.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Cursor {
    /// Everything up to this id is dealt with.
    after: i64,
}

/// Carries a bulk operation out.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bulk {
    /// The run that says what is to be done.
    pub run_id: RunId,
}

impl Job for Bulk {
    const KIND: &'static str = "system.bulk";
    const QUEUE: &'static str = "system";
    const RETRY: Retry = Retry::STANDARD.attempts(5);
    const TIMEOUT: Duration = Duration::from_mins(15);
    const BY_NAME: ByName = ByName::Nobody("POST /api/v1/bulk");
    type Context = Context;

    fn unique_key(&self) -> Option<String> {
        Some(format!("run:{}", self.run_id))
    }

    async fn run(self, ctx: &JobContext<Context>) -> Result<Done, JobError> {
        wait_for_database(carry_out(ctx, self.run_id).await, "the operation")
    }

    async fn on_dead(conn: &mut PgConnection, dead: &DeadJob) -> sqlx::Result<()> {
        let Some(id) = dead.run_id else { return Ok(()) };
        runs::fail(conn, RunId(id), &dead.error).await?;
        Ok(())
    }
}

async fn carry_out(ctx: &JobContext<Context>, run_id: RunId) -> Result<Done, JobError> {
    let begun = Instant::now();
    let Some(mut walk) = Walk::begin(ctx, run_id).await? else {
        return Ok(Done::new()); // cancelled, paused or finished meanwhile
    };
    loop {
        let before = Instant::now();
        match walk.chunk().await? {
            Chunk::Last(done) => return Ok(done),
            Chunk::Done(n_actions) => walk.rest(before, n_actions).await?,
        }
        if begun.elapsed() > TURN {
            return Err(JobError::Snooze(Duration::ZERO));
        }
    }
}

/// One attempt at a bulk operation.
struct Walk<'a> {
    ctx: &'a JobContext<Context>,
    run_id: RunId,
    order: Order,
    last: JobId,
    after: JobId,
    place: Place,
}

/// What became of a chunk.
enum Chunk {
    /// So many actions, and more may follow.
    Done(u32),
    /// It was the last, and run and job are completed with it.
    Last(Done),
}

/// What became of one action.
enum Acted {
    Done,
    /// There was nothing to do any more.
    Needless,
    /// It cannot be done, and this is why.
    Refused(String),
}

impl<'a> Walk<'a> {
    async fn begin(ctx: &'a JobContext<Context>, run_id: RunId) -> Result<Option<Self>, JobError> {
        let mut tx = ctx.state().db.begin().await?;
        ctx.hold(&mut tx).await?;
        let Some(run) = runs::begin(&mut tx, run_id).await? else {
            return Ok(None);
        };
        tx.commit().await?;
        let place = Place::of(&run);
        let params: Params = serde_json::from_value(run.params)
            .with_context(|| format!("params of run {run_id}"))
            .map_err(JobError::Fatal)?;
        let order = Order::new(params.action, params.filter, params.rate_per_sec)
            .map_err(JobError::fatal)?;
        let cursor: Cursor = match run.cursor {
            Some(cursor) => serde_json::from_value(cursor).map_err(JobError::fatal)?,
            None => Cursor::default(),
        };
        Ok(Some(Self {
            ctx,
            run_id,
            order,
            last: JobId(params.last_id),
            after: JobId(cursor.after),
            place,
        }))
    }

    /// Finds the next few, acts on them and moves the cursor past them, in one transaction.
    async fn chunk(&mut self) -> Result<Chunk, JobError> {
        let max = self
            .order
            .rate_per_sec
            .map_or(CHUNK, |rate| rate.min(CHUNK));
        let mut tx = self.ctx.state().db.begin().await?;
        self.ctx.fence(&mut tx).await?;
        let found = self
            .order
            .filter
            .sift(&mut tx, self.after, self.last, usize::try_from(max)?)
            .await?;
        let mut progress = Progress {
            cursor: Some(json!(Cursor {
                after: found.after.0
            })),
            ..Progress::default()
        };
        for id in &found.ids {
            match self.act(&mut tx, *id).await? {
                Acted::Done => progress.ok += 1,
                Acted::Needless => progress.skipped += 1,
                Acted::Refused(error) => {
                    progress.failed += 1;
                    progress.details = Some(json!({ "refused": { "id": id, "error": error } }));
                }
            }
        }
        let place = runs::advance(&mut tx, self.run_id, &self.place, &progress).await?;
        let done = if found.is_end {
            runs::complete(&mut tx, self.run_id).await?;
            Some(self.ctx.complete_in(&mut tx).await?)
        } else {
            None
        };
        tx.commit().await?;
        (self.after, self.place) = (found.after, place);
        let n_actions = u32::try_from(found.ids.len())?;
        Ok(done.map_or(Chunk::Done(n_actions), Chunk::Last))
    }

    /// Acts on one; what the database refuses is undone alone, and no reason to leave the others.
    async fn act(&self, conn: &mut PgConnection, id: JobId) -> Result<Acted, JobError> {
        let mut savepoint = conn.begin().await?;
        let acted = match self.order.action {
            Action::Cancel => {
                runs::cancel_job(&mut savepoint, id)
                    .await
                    .map(|cancelled| match cancelled {
                        Cancelled::Done | Cancelled::Requested => Acted::Done,
                        Cancelled::NotFound => Acted::Needless,
                    })
            }
            Action::Retry => control::run_now(&mut savepoint, id)
                .await
                .map(done_or_needless),
            Action::Replay => self.replay(&mut savepoint, id, Begin::AfterItsSteps).await,
            Action::ReplayAfresh => self.replay(&mut savepoint, id, Begin::Afresh).await,
            Action::Purge => dead::purge(&mut savepoint, id).await.map(done_or_needless),
        };
        match acted {
            Ok(acted) => {
                savepoint.commit().await?;
                Ok(acted)
            }
            Err(error) if db::is_refusal(&error) && error.as_database_error().is_some() => {
                savepoint.rollback().await?;
                Ok(Acted::Refused(error.to_string()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Replays one dead letter.
    async fn replay(
        &self,
        conn: &mut PgConnection,
        id: JobId,
        begin: Begin,
    ) -> sqlx::Result<Acted> {
        let new = runs::replay_with(conn, id, None, begin).await?;
        Ok(match new {
            Some(_) => Acted::Done,
            None => Acted::Refused("an unfinished job has its unique key".to_owned()),
        })
    }

    /// Waits until the rate allows the next chunk.
    async fn rest(&self, since: Instant, n_actions: u32) -> Result<(), JobError> {
        let rate = self.order.rate_per_sec.unwrap_or(u32::MAX);
        let wait = (Duration::from_secs(1) * n_actions / rate).saturating_sub(since.elapsed());
        tokio::select! {
            biased;
            () = self.ctx.cancelled().cancelled() => Err(JobError::Cancelled),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }
}

fn done_or_needless(is_done: bool) -> Acted {
    if is_done {
        Acted::Done
    } else {
        Acted::Needless
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(action: Action, filter: Value, rate: Option<u32>) -> String {
        Order::new(action, filter, rate).unwrap_err().to_string()
    }

    #[test]
    fn an_order_must_make_sense() {
        assert!(
            error(Action::Cancel, json!({ "fingerprint": "00" }), None).contains("fingerprint")
        );
        assert!(error(Action::Replay, json!({ "state": "queued" }), None).contains("state"));
        assert!(error(Action::Cancel, json!({ "state": "completed" }), None).contains("queued"));
        assert!(error(Action::Purge, json!({}), Some(0)).contains("1 to 10000"));
        assert!(error(Action::Purge, json!({}), Some(MAX_RATE + 1)).contains("1 to 10000"));
        let order = Order::new(Action::Retry, json!({}), Some(MAX_RATE)).unwrap();
        assert!(order.is_any());
    }

    #[test]
    fn what_is_retried_waits_for_later() {
        let order = Order::new(Action::Retry, json!({ "kind": "a.b" }), None).unwrap();
        let Filter::Live(filter) = &order.filter else {
            panic!("{order:?}")
        };
        assert!(filter.is_later && !order.is_any());
    }
}
