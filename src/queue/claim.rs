//! 2 of 5: rows become leases, by one statement.
//!
//! A [`Claim`] is that statement on its way: sent by the [`claimer`](super::claimer), with seats
//! kept for what it brings.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use sqlx::{
    PgConnection, Row,
    postgres::{PgRow, types::PgInterval},
    types::Json,
};

use super::{
    job::{Lease, LeaseId},
    kind::Kind,
    nobody::Nobody,
    rule::{self, Rule},
    session::Session,
    slot::Room,
};
use crate::db::Bounded;

/// For few jobs: there is less to begin with than in the other.
pub(super) const CLAIM: &str = concat!(include_str!("claim.sql"), include_str!("claim_rows.sql"));
/// For many, leased in a batch as far as they may be.
pub(super) const CLAIM_BATCH: &str =
    concat!(include_str!("claim.sql"), include_str!("claim_batch.sql"));
pub(super) const CLAIM_FAIR: &str = include_str!("claim_fair.sql");

/// The kinds this binary knows, as the claim statement wants them.
#[derive(Debug)]
pub(super) struct KnownKinds {
    pub(super) names: Vec<&'static str>,
    /// Time limits in the order of the names.
    timeouts: Vec<PgInterval>,
    /// Queues of jobs that name none, in the order of the names.
    pub(super) queues: Vec<&'static str>,
}

impl KnownKinds {
    pub(super) fn of<C>(kinds: &[Kind<C>]) -> Self {
        let timeout = |kind: &Kind<C>| PgInterval {
            months: 0,
            days: 0,
            microseconds: i64::try_from(kind.timeout.as_micros()).unwrap_or(i64::MAX / 2),
        };
        Self {
            names: kinds.iter().map(|kind| kind.name).collect(),
            timeouts: kinds.iter().map(timeout).collect(),
            queues: kinds.iter().map(|kind| kind.queue).collect(),
        }
    }

    /// Returns the queue of jobs of a kind that name none.
    pub(super) fn queue_of(&self, kind: &str) -> Option<&'static str> {
        let place = self.names.iter().position(|name| *name == kind)?;
        self.queues.get(place).copied()
    }
}

/// One claim on its way.
pub(super) struct Claim {
    pub(super) queue: Arc<str>,
    pub(super) db: Bounded,
    pub(super) kinds: Arc<KnownKinds>,
    pub(super) rule: Rule,
    /// For whom it claims.
    pub(super) session: Arc<Session>,
    /// The seats kept for what it brings.
    pub(super) room: Room,
    /// The priorities, in the order in which they are looked through.
    pub(super) order: [i16; 4],
    /// Where to begin, by the same order.
    pub(super) floors: [Option<DateTime<Utc>>; 4],
    /// The oldest batch of leases that it looks at, and once it is back the one that there was.
    pub(super) batches_since: i64,
    /// The tenant whose turn it last was, where tenants take turns.
    pub(super) last_tenant: String,
    /// There, where jobs without a tenant are looked for.
    pub(super) nobody: Nobody,
    /// Whether it looks for the next of them though it brought enough of others.
    pub(super) looks_for_nobodys: bool,
    /// Whether what it brings is leased in one row as far as it may be, and not in the jobs' rows.
    pub(super) is_batch: bool,
    /// How many jobs it could take, where tenants take turns and once it is back: fewer than it
    /// asked for where the queue is near its limit.
    pub(super) n_open: i64,
}

/// A claim that has come back.
pub(super) struct Landed {
    /// For whom it claimed.
    pub(super) session: Arc<Session>,
    /// The seats for what it brought.
    pub(super) room: Room,
    /// What it brought; where that is unknown it may have been committed.
    pub(super) found: sqlx::Result<Vec<Found>>,
    /// Whether it brought as many as it asked for, so that there may be more.
    pub(super) is_full: bool,
    /// The oldest batch of leases that there was.
    pub(super) batches_since: i64,
    /// Where tenants take turns, the one after whom the next claim begins.
    pub(super) last_tenant: String,
    /// There, where it looks for jobs without a tenant.
    pub(super) nobody: Nobody,
    /// How long the statement took.
    pub(super) duration: Duration,
}

impl Claim {
    /// Sends the statement and waits for what it brings.
    pub(super) async fn run(mut self) -> Landed {
        let (began, asked) = (Instant::now(), self.room.len());
        let rows = self.send(asked).await.and_then(|rows| self.count(rows));
        let duration = began.elapsed();
        let is_full = rows.as_ref().is_ok_and(|rows| rows.len() >= asked);
        let found = match rows {
            Ok(rows) => self.read(&rows).await,
            Err(error) => Err(error),
        };
        Landed {
            session: self.session,
            room: self.room,
            found,
            is_full,
            batches_since: self.batches_since,
            last_tenant: self.last_tenant,
            nobody: self.nobody,
            duration,
        }
    }

    async fn send(&self, most: usize) -> sqlx::Result<Vec<PgRow>> {
        let (rule, queue) = (self.rule, &*self.queue);
        let statement = if rule.is_fair {
            CLAIM_FAIR
        } else if self.is_batch {
            CLAIM_BATCH
        } else {
            CLAIM
        };
        let (nobody_at, nobody_id) = self.nobody.of(self.order);
        let mut claim = sqlx::query(statement)
            .bind(queue)
            .bind(i64::try_from(most).unwrap_or(1))
            .bind(self.order)
            .bind(if rule.is_fair { nobody_at } else { self.floors })
            .bind(self.session.worker_id)
            .bind(&self.kinds.names)
            .bind(&self.kinds.timeouts)
            .bind(rule.is_any());
        if rule.is_fair {
            claim = claim.bind(&self.last_tenant).bind(nobody_id);
        } else {
            claim = claim.bind(self.batches_since);
        }
        let claim = async |conn: &mut PgConnection| {
            if rule.is_any() {
                rule::locked(conn, queue, async |tx| claim.fetch_all(tx).await).await
            } else {
                claim.fetch_all(conn).await
            }
        };
        self.db.run(claim).await
    }

    /// Leaves the rows of jobs, of a claim in turns that says first how many it could take.
    fn count(&mut self, mut rows: Vec<PgRow>) -> sqlx::Result<Vec<PgRow>> {
        if let (true, Some(row)) = (self.rule.is_fair, rows.first()) {
            self.n_open = row.try_get("n_open")?;
            if row.try_get::<Option<i64>, _>("id")?.is_none() {
                rows.clear();
            }
        }
        Ok(rows)
    }

    /// Reads what was claimed, in the order in which it is to begin.
    async fn read(&mut self, rows: &[PgRow]) -> sqlx::Result<Vec<Found>> {
        let found = rows.iter().map(|row| self.found(row));
        let mut found = found.collect::<sqlx::Result<Vec<_>>>()?;
        if let (false, Some(row)) = (self.rule.is_fair, rows.first()) {
            let oldest: Option<i64> = row.try_get("batches_since")?;
            self.batches_since = oldest.unwrap_or(self.batches_since);
        }
        if self.rule.is_fair {
            let is_short = i64::try_from(rows.len()).is_ok_and(|n| n < self.n_open);
            self.take_turns(rows, is_short).await?;
            let is_time = self.looks_for_nobodys || is_short;
            if is_time && found.iter().all(|f| f.lease.tenant.is_some()) {
                self.look_for_nobodys().await;
            }
        }
        // The UPDATE returns rows as it meets them; start them as they were due.
        let turn = |priority: i16| self.order.iter().position(|p| *p == priority);
        found.sort_by_key(|f| (f.place, turn(f.lease.priority), f.run_at, f.lease.id));
        Ok(found)
    }

    /// Remembers whose turn it was, for the next claim to begin after.
    async fn take_turns(&mut self, rows: &[PgRow], is_short: bool) -> sqlx::Result<()> {
        if let Some(row) = rows.first() {
            self.last_tenant = row.try_get("last_tenant")?;
        }
        // One that the queue's limit cut off is not short: the next one begins after it.
        if is_short {
            let (queue, cursor) = (&*self.queue, &*self.last_tenant);
            let next = self
                .db
                .run(async |conn| rule::pass_over(conn, queue, cursor).await)
                .await;
            self.last_tenant = next.unwrap_or_default();
        }
        Ok(())
    }

    /// Has the next claim look for jobs without a tenant where the next of them is.
    async fn look_for_nobodys(&mut self) {
        let (queue, kinds, nobody) = (&*self.queue, &*self.kinds.names, self.nobody);
        let next = async |conn: &mut PgConnection| nobody.next(conn, queue, kinds).await;
        // Where the database is away the next claim is told so, too.
        self.nobody = self.db.run(next).await.unwrap_or_default();
    }

    fn found(&self, row: &PgRow) -> sqlx::Result<Found> {
        let kind: &str = row.try_get("kind")?;
        let known = self.kinds.names.iter().find(|name| **name == kind);
        let Some(kind) = known.copied() else {
            return Err(sqlx::Error::Decode("claimed an unknown kind".into()));
        };
        let [run_at, created_at, started_at] = ["run_at", "created_at", "started_at"]
            .map(|column| row.try_get::<DateTime<Utc>, _>(column));
        let (run_at, started_at) = (run_at?, started_at?);
        let Json(args) = row.try_get("args")?;
        let lease = Lease {
            id: row.try_get("id")?,
            lease_id: LeaseId(row.try_get("lease_id")?),
            kind,
            queue: Arc::clone(&self.queue),
            priority: row.try_get("priority")?,
            args,
            attempt: row.try_get("attempt")?,
            crashes: row.try_get("crashes")?,
            max_attempts: row.try_get("max_attempts")?,
            run_id: row.try_get("run_id")?,
            tenant: row.try_get("tenant")?,
            gate_key: row.try_get("gate_key")?,
            origin_id: row.try_get("origin_id")?,
            waited_ms: (started_at - run_at).num_milliseconds(),
            age_ms: (started_at - created_at?).num_milliseconds(),
            worker_id: self.session.worker_id,
            batch_id: if self.rule.is_fair {
                None
            } else {
                row.try_get("batch_id")?
            },
        };
        let place = if self.rule.is_fair {
            row.try_get("place")?
        } else {
            0
        };
        Ok(Found {
            lease,
            run_at,
            place,
        })
    }
}

/// A claimed row.
pub(super) struct Found {
    pub(super) lease: Lease,
    pub(super) run_at: DateTime<Utc>,
    /// Where tenants take turns, its place among what was claimed with it; else 0.
    place: i64,
}
