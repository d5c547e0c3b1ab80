//! 4 of 5: an outcome becomes one fenced state change, in batches.
//!
//! [`Completer`] flushes at once when nothing is in flight and gathers while
//! something is, so a lone job never waits and a busy queue pays one commit
//! for many. Every statement names the lease: an id that does not come back
//! belongs to another worker by now, and nothing of it is applied.

use std::{collections::HashSet, sync::Arc, time::Duration};

use serde_json::value::RawValue;
use sqlx::{Connection, PgConnection, types::Json};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};

use super::{
    batch::{settle, settle_own},
    execute::{Conclusion, Outcome},
    job::{DeadJob, Done, JobContext, JobError},
    kind::Kind,
    lease::Leases,
    rescue::SUSPECT,
    stats::Stats,
    wake::Sleepers,
};
use crate::{
    db::{self, Bounded},
    observe::{ErrorKind, JobMeters},
};

/// How often the database may refuse a batch for reasons that do not pass by themselves.
const MOST_REFUSALS: u32 = 3;

pub(super) const FINISH: &str = include_str!("finish.sql");
pub(super) const POSTPONE: &str = include_str!("postpone.sql");
const BURY: &str = include_str!("bury.sql");

impl<C> JobContext<C> {
    /// Fences the caller's transaction: takes the job's row lock if the lease is still held.
    ///
    /// The first statement of a transaction that writes on the job's behalf: a
    /// doomed one is refused before it does its work, and nobody can take the
    /// lease until it has ended. Of transactions that are prepared side by side
    /// it is the last one before what they move, since they would wait for each
    /// other's. Since what follows is progress, the job's crashes are forgotten.
    ///
    /// # Errors
    ///
    /// [`JobError::LeaseLost`] when the job is another worker's or nobody's; roll back.
    pub async fn fence(&self, conn: &mut PgConnection) -> Result<(), JobError> {
        if self.hold(&mut *conn).await? > 0 {
            sqlx::query("UPDATE ingestd.jobs SET crashes = 0 WHERE shard = 0 AND id = $1")
                .bind(self.lease.id)
                .execute(conn)
                .await?;
        }
        Ok(())
    }

    /// As [`JobContext::fence`], for a transaction that makes no progress yet: the job's crashes
    /// stay, so that one which dies right after it is found out. Returns them.
    ///
    /// # Errors
    ///
    /// As [`JobContext::fence`].
    pub async fn hold(&self, conn: &mut PgConnection) -> Result<i16, JobError> {
        settle_own(&mut *conn, &self.lease).await?;
        let crashes: Option<i16> = sqlx::query_scalar(
            "SELECT crashes FROM ingestd.jobs WHERE shard = 0 AND id = $1 AND lease_id = $2
             FOR NO KEY UPDATE",
        )
        .bind(self.lease.id)
        .bind(self.lease.lease_id)
        .fetch_optional(conn)
        .await?;
        crashes.ok_or(JobError::LeaseLost)
    }

    /// Completes the job inside the caller's transaction: its writes and its
    /// completion commit or roll back together.
    ///
    /// # Errors
    ///
    /// [`JobError::LeaseLost`] when the job is another worker's or nobody's; roll back.
    pub async fn complete_in(&self, conn: &mut PgConnection) -> Result<Done, JobError> {
        self.complete_keeping(conn, None).await
    }

    pub(super) async fn complete_keeping(
        &self,
        conn: &mut PgConnection,
        output: Option<&RawValue>,
    ) -> Result<Done, JobError> {
        let gone: Option<i64> = sqlx::query_scalar(FINISH)
            .bind([self.lease.id.0])
            .bind([self.lease.lease_id.0])
            .bind("completed")
            .bind(output.map(|output| vec![Json(output)]))
            .bind([self.lease.waited_ms])
            .bind([0_i64; 0])
            .bind(self.lease.worker_id)
            .fetch_optional(conn)
            .await?;
        gone.map(|_| Done::in_transaction())
            .ok_or(JobError::LeaseLost)
    }
}

/// From how many conclusions on a batch is written beside another one.
const WORTH_A_SECOND: usize = 64;
/// Most batches that are written at once.
const MOST_AT_ONCE: usize = 2;

/// Gathers conclusions and has them written; there is one per engine.
pub(super) struct Completer<C: 'static> {
    pub(super) conclusions: mpsc::Receiver<Conclusion>,
    pub(super) writer: Arc<Writer<C>>,
    /// Most conclusions a statement takes.
    pub(super) batch: usize,
}

impl<C: Send + Sync + 'static> Completer<C> {
    /// Flushes until every sender is gone and everything is written.
    ///
    /// A lone conclusion is written at once. While a batch is on its way others gather; many of
    /// them do not wait for its end, so that the database works on the next one while this process
    /// reports the last.
    pub(super) async fn run(mut self) {
        let mut flights = JoinSet::new();
        let mut batch = Vec::with_capacity(self.batch);
        loop {
            let room = self.batch - batch.len();
            let few = batch.len() < WORTH_A_SECOND;
            let busy = !flights.is_empty() && (few || flights.len() >= MOST_AT_ONCE);
            if !batch.is_empty() && !busy {
                let (writer, mut batch) = (Arc::clone(&self.writer), std::mem::take(&mut batch));
                flights.spawn(async move { writer.flush(&mut batch).await });
                continue;
            }
            tokio::select! {
                // Where a flush panicked its jobs are left to rescue; the others go on.
                Some(_) = flights.join_next() => {}
                n = self.conclusions.recv_many(&mut batch, room), if room > 0 => {
                    if n == 0 {
                        break;
                    }
                }
            }
        }
        while flights.join_next().await.is_some() {}
        self.writer.flush(&mut batch).await;
    }
}

/// Writes conclusions to the database.
pub(super) struct Writer<C: 'static> {
    pub(super) db: Bounded,
    pub(super) kinds: Arc<[Kind<C>]>,
    pub(super) leases: Leases,
    pub(super) stats: Stats,
    /// Told of the gates and queues that may have room.
    pub(super) sleepers: Sleepers,
    /// Told when a suspect ended, for the next to go.
    pub(super) suspects: Arc<Notify>,
}

impl<C: Send + Sync + 'static> Writer<C> {
    /// Writes a batch, and where the database refuses it, each conclusion by itself.
    ///
    /// One that is refused even then must not hold up the rest: its job is left to its deadline,
    /// where any daemon finds it.
    async fn flush(&self, batch: &mut [Conclusion]) {
        if batch.is_empty() {
            return;
        }
        // Of two leases of one job the later one counts, which is found last.
        batch.sort_unstable_by_key(|c| (c.lease.id, c.lease.lease_id.0));
        if self.write_patiently(batch, 0).await.is_err() {
            for one in batch.chunks_mut(1) {
                if let Err(error) = self.write_patiently(one, MOST_REFUSALS).await {
                    let job = one.first().map(|c| c.lease.id.0);
                    tracing::error!(job, error = %error, "outcome dropped; rescue will find the job");
                }
            }
        }
        // What was dropped stays held: its job is still this worker's.
        let written = || batch.iter().filter(|c| c.written);
        let lease = |c: &Conclusion| c.lease.lease_id;
        let is_left = |c: &&Conclusion| c.outcome.leaves_the_job();
        self.leases.abandon(written().filter(is_left).map(lease));
        self.leases.forget(written().map(lease));
        self.sleepers.ended(written().map(|c| &*c.lease));
        if written().any(|c| c.lease.crashes >= SUSPECT) {
            self.suspects.notify_one();
        }
        let alike = |a: &Conclusion, b: &Conclusion| {
            Arc::ptr_eq(&a.lease.queue, &b.lease.queue) && a.lease.kind == b.lease.kind
        };
        for chunk in batch.chunk_by(alike) {
            let Some(Conclusion { lease, .. }) = chunk.first() else {
                continue;
            };
            let meters = JobMeters::of(&lease.queue, lease.kind);
            let written = chunk.iter().filter(|c| c.written);
            written.for_each(|c| c.report(&self.stats, &meters));
        }
    }

    /// Writes conclusions, trying again for as long as the database is away or out of something,
    /// and `patience` times where it refuses them.
    ///
    /// A repeated statement is harmless: what it did the first time is fenced the second.
    async fn write_patiently(&self, batch: &mut [Conclusion], patience: u32) -> sqlx::Result<()> {
        let mut wait = Duration::from_millis(50);
        let mut n_refused = 0;
        loop {
            let written = self
                .db
                .run(async |conn| self.write(conn, batch).await)
                .await;
            let Err(error) = written else {
                return Ok(());
            };
            tracing::warn!(error = %error, n_jobs = batch.len(), "completions wait for the database");
            n_refused += u32::from(db::is_refusal(&error));
            if n_refused > patience {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    async fn write(&self, conn: &mut PgConnection, batch: &mut [Conclusion]) -> sqlx::Result<()> {
        // They go with the first statement, where there is one.
        let is_plain =
            |c: &Conclusion| !c.written && matches!(c.outcome, Outcome::Completed { output: None });
        let ended = if batch.iter().any(is_plain) {
            self.leases.take_ended()
        } else {
            Vec::new()
        };
        let written = self.write_all(conn, batch, &ended).await;
        if written.is_err() {
            self.leases.ended_still(ended);
        }
        written
    }

    async fn write_all(
        &self,
        conn: &mut PgConnection,
        batch: &mut [Conclusion],
        ended: &[i64],
    ) -> sqlx::Result<()> {
        finish(conn, "completed", batch, ended, |o| {
            matches!(o, Outcome::Completed { output: None })
        })
        .await?;
        // Apart, so that the many without output do not pay for the few.
        finish(conn, "completed", batch, &[], |o| {
            matches!(o, Outcome::Completed { output: Some(_) })
        })
        .await?;
        finish(conn, "cancelled", batch, &[], |o| {
            matches!(o, Outcome::Cancelled)
        })
        .await?;
        // The others are written to rows that name their lease.
        let is_left = |c: &&Conclusion| !c.written && c.lease.batch_id.is_some();
        let left: Vec<i64> = batch.iter().filter(is_left).map(|c| c.lease.id.0).collect();
        if !left.is_empty() {
            settle(conn, &left).await?;
        }
        postpone(conn, batch).await?;
        for conclusion in batch.iter_mut() {
            self.bury(conn, conclusion).await?;
        }
        Ok(())
    }

    /// Gives one job up together with what its kind does about it, in one transaction.
    async fn bury(&self, conn: &mut PgConnection, c: &mut Conclusion) -> sqlx::Result<()> {
        let Outcome::Dead {
            reason,
            error,
            kind,
        } = &c.outcome
        else {
            return Ok(());
        };
        if c.written {
            return Ok(());
        }
        let grave = Grave {
            reason: *reason,
            error,
            error_kind: *kind,
            ended: true,
        };
        let mut tx = conn.begin().await?;
        c.fenced = !bury(
            &mut tx,
            &self.kinds,
            c.lease.id.0,
            c.lease.lease_id.0,
            &grave,
        )
        .await?;
        tx.commit().await?;
        c.written = true;
        Ok(())
    }
}

/// Completes, or cancels, those of the batch that `covered` picks, and removes `ended` batches of
/// leases along with them.
async fn finish(
    conn: &mut PgConnection,
    state: &str,
    batch: &mut [Conclusion],
    ended: &[i64],
    covered: impl Fn(&Outcome) -> bool,
) -> sqlx::Result<()> {
    let covers = |c: &&Conclusion| !c.written && covered(&c.outcome);
    let (ids, (leases, waits)): (Vec<i64>, (Vec<i64>, Vec<i64>)) = batch
        .iter()
        .filter(covers)
        .map(|c| (c.lease.id.0, (c.lease.lease_id.0, c.lease.waited_ms)))
        .unzip();
    let Some(worker) = batch.iter().find(covers).map(|c| c.worker_id) else {
        return Ok(());
    };
    let outputs = batch
        .iter()
        .filter(covers)
        .filter_map(|c| match &c.outcome {
            Outcome::Completed { output } => output.as_deref().map(Json),
            _ => None,
        });
    let outputs: Vec<Json<&RawValue>> = outputs.collect();
    // All of those that are covered have one, or none.
    let outputs = (!outputs.is_empty()).then_some(outputs);
    let done: Vec<i64> = sqlx::query_scalar(FINISH)
        .bind(&ids)
        .bind(&leases)
        .bind(state)
        .bind(outputs)
        .bind(&waits)
        .bind(ended)
        .bind(worker)
        .fetch_all(&mut *conn)
        .await?;
    note(batch, &done, covered);
    Ok(())
}

/// Puts retries and snoozes of the batch back for later, and what was not begun as it was.
async fn postpone(conn: &mut PgConnection, batch: &mut [Conclusion]) -> sqlx::Result<()> {
    let (mut ids, mut leases, mut delays) = (Vec::new(), Vec::new(), Vec::new());
    let (mut errors, mut error_kinds, mut worker) = (Vec::new(), Vec::new(), None);
    for c in batch.iter().filter(|c| !c.written) {
        let (delay, error, kind) = match &c.outcome {
            Outcome::Retry { after, error, kind } => {
                (Some(*after), Some(error.as_str()), Some(*kind))
            }
            Outcome::Snoozed(after) => (Some(*after), None, None),
            Outcome::Returned => (None, None, None),
            _ => continue,
        };
        ids.push(c.lease.id.0);
        leases.push(c.lease.lease_id.0);
        delays.push(delay.map(|d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX / 2000)));
        errors.push(error);
        error_kinds.push(kind.map(ErrorKind::as_str));
        worker = Some(c.worker_id);
    }
    if ids.is_empty() {
        return Ok(());
    }
    let mut done: Vec<i64> = Vec::new();
    // One whose cancellation was committed while the statement waited for its row is seen by
    // neither half of it; a second one sees it, and what the first did is fenced.
    for _ in 0..2 {
        let covered = sqlx::query_scalar::<_, i64>(POSTPONE)
            .bind(&ids)
            .bind(&leases)
            .bind(&delays)
            .bind(&errors)
            .bind(&error_kinds)
            .bind(worker)
            .fetch_all(&mut *conn);
        done.extend(covered.await?);
        if done.len() >= ids.len() {
            break;
        }
    }
    note(batch, &done, |o| {
        matches!(
            o,
            Outcome::Retry { .. } | Outcome::Snoozed(_) | Outcome::Returned
        )
    });
    Ok(())
}

/// Marks what a statement covered: written, and fenced where the id did not come back.
fn note(batch: &mut [Conclusion], done: &[i64], covered: impl Fn(&Outcome) -> bool) {
    let done: HashSet<i64> = done.iter().copied().collect();
    for c in batch
        .iter_mut()
        .filter(|c| !c.written && covered(&c.outcome))
    {
        c.written = true;
        c.fenced = !done.contains(&c.lease.id.0);
    }
}

/// Why a job is given up.
pub(super) struct Grave<'a> {
    pub(super) reason: Reason,
    pub(super) error: &'a str,
    pub(super) error_kind: ErrorKind,
    /// Whether the attempt ended by itself; a crash did not.
    pub(super) ended: bool,
}

/// What makes a job a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// Out of attempts.
    Exhausted,
    /// The handler said so, or the arguments do not fit.
    Fatal,
    /// It killed its worker too often.
    Poison,
}

impl Reason {
    /// Returns the word stored in `dead_jobs.reason`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Fatal => "fatal",
            Self::Poison => "poison",
        }
    }
}

/// Moves a job to the dead letters and runs its kind's `on_dead`, in the caller's transaction.
///
/// Returns whether the lease was still held.
pub(super) async fn bury<C: Send + Sync + 'static>(
    conn: &mut PgConnection,
    kinds: &[Kind<C>],
    id: i64,
    lease_id: i64,
    grave: &Grave<'_>,
) -> sqlx::Result<bool> {
    let row: Option<(super::JobId, String, serde_json::Value, Option<i64>, String)> =
        sqlx::query_as(BURY)
            .bind(id)
            .bind(lease_id)
            .bind(grave.reason.as_str())
            .bind(grave.error)
            .bind(grave.error_kind.as_str())
            .bind(super::dead::fingerprint(grave.error))
            .bind(grave.ended)
            .fetch_optional(&mut *conn)
            .await?;
    let Some((id, kind, args, run_id, error)) = row else {
        return Ok(false);
    };
    let dead = DeadJob {
        id,
        kind,
        args,
        run_id,
        error,
    };
    if let Some(kind) = kinds.iter().find(|k| k.name == dead.kind) {
        (kind.on_dead)(&mut *conn, &dead).await?;
        // Had it failed and said nothing, the commit would quietly be a rollback.
        sqlx::query("SELECT 1").execute(conn).await?;
    }
    Ok(true)
}

#[cfg(test)]
#[path = "complete_tests.rs"]
mod tests;
