//! Dead letters: what the queue gave up, until someone replays or purges it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sqlx::{FromRow, PgConnection, PgExecutor, QueryBuilder};

use super::{
    filter::{DeadFilter, Fingerprint},
    job::JobId,
};

/// Hashes an error with its numbers left out, so that what failed alike has one fingerprint.
///
/// The first eight bytes of SHA-256 over the text in which every run of
/// digits is one `#` and white space is folded.
#[must_use]
pub fn fingerprint(error: &str) -> i64 {
    let mut normal = String::with_capacity(error.len());
    let mut last = ' ';
    for c in error.chars() {
        let c = match c {
            c if c.is_ascii_digit() => '#',
            c if c.is_whitespace() => ' ',
            c => c,
        };
        if !(c == last && (c == '#' || c == ' ')) {
            normal.push(c);
        }
        last = c;
    }
    let digest = Sha256::digest(normal.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(digest.get(..8).unwrap_or(&[0; 8]));
    i64::from_be_bytes(first)
}

/// $2 other arguments, $3 whether to begin afresh.
const REPLAY: &str = "
    WITH letter AS (
      SELECT * FROM ingestd.dead_jobs
      WHERE shard = 0 AND id = $1 AND replayed_at IS NULL FOR UPDATE),
    job AS (
      INSERT INTO ingestd.jobs (kind, args, queue, priority, max_attempts, unique_key,
        gate_key, run_id, tenant, origin_id, meta)
      SELECT kind, coalesce($2, args), queue, priority, max_attempts, unique_key, gate_key, run_id,
        tenant, CASE WHEN NOT $3 THEN coalesce(origin_id, id) END,
        (coalesce(meta, '{}') - 'args_edited') || jsonb_build_object('replayed_from', id)
          || CASE WHEN $2 IS NULL THEN '{}' ELSE jsonb_build_object('args_edited', true) END
      FROM letter
      ON CONFLICT (shard, unique_key) WHERE unique_key IS NOT NULL DO NOTHING
      RETURNING id),
    moved AS (
      UPDATE ingestd.job_steps s SET job_id = job.id
      FROM job WHERE s.job_id = $1 AND s.shard = 0 AND $2 IS NULL AND NOT $3)
    UPDATE ingestd.dead_jobs d SET replayed_to = job.id, replayed_at = now()
    FROM job WHERE d.shard = 0 AND d.id = $1
    RETURNING d.replayed_to";

/// Where a replay begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Begin {
    /// After the steps that the dead letter has done, which become the new job's. What it does
    /// outside has the same idempotency keys, so that an effect of the step that did not finish is
    /// not had twice.
    #[default]
    AfterItsSteps,
    /// At the beginning, as if nothing had been done: without its steps, under keys of its own.
    Afresh,
}

/// Puts a dead letter back to work as a new job with all its attempts before it.
///
/// It goes on after the steps it has done; see [`replay_with`].
///
/// # Errors
///
/// What Postgres says.
pub async fn replay(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Option<JobId>> {
    replay_with(conn, id, None, Begin::AfterItsSteps).await
}

/// Puts a dead letter back to work, to begin where the caller says, with other arguments where
/// `args`, a JSON object of at most 256 KiB, are given.
///
/// The letter stays as it was, with a mark of where it went; a letter is replayed once. The job's
/// `meta` says where it came from, and whether its arguments were edited. With others it begins at
/// the first step, for what was done with the old ones may not fit them, but under the same
/// idempotency keys unless [`Begin::Afresh`]. Returns `None` where there is no such letter, or it
/// was replayed already, or an unfinished job holds its unique key.
///
/// # Errors
///
/// What Postgres says: no object, or too large.
pub async fn replay_with(
    conn: &mut PgConnection,
    id: JobId,
    args: Option<&Value>,
    begin: Begin,
) -> sqlx::Result<Option<JobId>> {
    sqlx::query_scalar(REPLAY)
        .bind(id)
        .bind(args)
        .bind(begin == Begin::Afresh)
        .fetch_optional(conn)
        .await
}

/// Deletes one dead letter for good; returns whether there was one.
///
/// # Errors
///
/// What Postgres says.
pub async fn purge(conn: &mut PgConnection, id: JobId) -> sqlx::Result<bool> {
    let gone = sqlx::query("DELETE FROM ingestd.dead_jobs WHERE shard = 0 AND id = $1")
        .bind(id)
        .execute(conn)
        .await?;
    Ok(gone.rows_affected() == 1)
}

/// A dead letter as a list shows it.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct DeadLetter {
    /// The job's id.
    pub id: JobId,
    /// Its kind.
    pub kind: String,
    /// Its lane.
    pub queue: String,
    /// Attempts it had.
    pub attempt: i16,
    /// Crashes in a row it had.
    pub crashes: i16,
    /// Why it was given up: `exhausted`, `fatal`, `poison`.
    pub reason: String,
    /// The first 1,000 characters of the last error.
    pub error: String,
    /// The same for what failed alike.
    pub fingerprint: Fingerprint,
    /// The run it was part of.
    pub run_id: Option<i64>,
    /// Owner of the data.
    pub tenant: Option<String>,
    /// When the job was inserted.
    pub created_at: DateTime<Utc>,
    /// When the queue gave it up.
    pub died_at: DateTime<Utc>,
    /// The dead letter that it was a replay of.
    pub replayed_from: Option<JobId>,
    /// The job that a replay made of it.
    pub replayed_to: Option<JobId>,
    /// When it was replayed.
    pub replayed_at: Option<DateTime<Utc>>,
}

/// Reads the newest dead letters with ids below `before`, newest first, at most `limit`.
///
/// # Errors
///
/// What Postgres says.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &DeadFilter,
    before: Option<JobId>,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    list_of(db, filter, None, before, limit).await
}

/// As [`list`], of these owners only; `None` is all, and what names none is `default`'s.
///
/// # Errors
///
/// What Postgres says.
pub async fn list_of(
    db: impl PgExecutor<'_>,
    filter: &DeadFilter,
    tenants: Option<&[String]>,
    before: Option<JobId>,
    limit: i64,
) -> sqlx::Result<Vec<DeadLetter>> {
    let mut query = QueryBuilder::new(
        "SELECT id, kind, queue, attempt, crashes, reason, left(error, 1000) AS error,
                fingerprint, run_id, tenant, created_at, died_at, replayed_from, replayed_to,
                replayed_at
         FROM ingestd.dead_jobs WHERE shard = 0 AND id < ",
    );
    query.push_bind(before.unwrap_or(JobId(i64::MAX)));
    filter.push_conditions(&mut query);
    if let Some(tenants) = tenants {
        query.push(" AND coalesce(tenant, 'default') = ANY (");
        query.push_bind(tenants.to_vec()).push(")");
    }
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    query.build_query_as().fetch_all(db).await
}

/// Letters of one kind that failed alike and that nobody replayed.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct DeadGroup {
    /// Their kind.
    pub kind: String,
    /// Their fingerprint.
    pub fingerprint: Fingerprint,
    /// How many there are; 10,001 where there are more than 10,000.
    pub n_letters: i64,
    /// When the first of them was given up.
    pub first_died_at: DateTime<Utc>,
    /// When the last of them was given up.
    pub last_died_at: DateTime<Utc>,
    /// The newest of them.
    pub example_id: JobId,
    /// The first 1,000 characters of its error.
    pub example_error: String,
}

/// Most groups that [`groups`] looks for.
const MAX_GROUPS: i64 = 1_000;

/// Reads the groups of alike failures, of one kind or of all, the largest first, at most `limit`.
///
/// Of more than 1,000 groups it knows the first by kind.
///
/// # Errors
///
/// What Postgres says.
pub async fn groups(
    db: impl PgExecutor<'_>,
    kind: Option<&str>,
    limit: i64,
) -> sqlx::Result<Vec<DeadGroup>> {
    groups_after(db, kind, None, limit).await
}

/// Where the groups after one begin. One that grows meanwhile may come once more or not at all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupPlace(i64, DateTime<Utc>, String, Fingerprint);

impl GroupPlace {
    /// Says whether Postgres can read it.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.2.contains('\0')
    }
}

impl DeadGroup {
    /// Returns where the groups after this one begin.
    #[must_use]
    pub fn place(&self) -> GroupPlace {
        let kind = self.kind.clone();
        GroupPlace(self.n_letters, self.last_died_at, kind, self.fingerprint)
    }
}

/// As [`groups`], from a place on.
///
/// # Errors
///
/// What Postgres says.
pub async fn groups_after(
    db: impl PgExecutor<'_>,
    kind: Option<&str>,
    after: Option<&GroupPlace>,
    limit: i64,
) -> sqlx::Result<Vec<DeadGroup>> {
    sqlx::query_as(include_str!("groups.sql"))
        .bind(kind.unwrap_or_default())
        .bind(kind)
        .bind(MAX_GROUPS)
        .bind(limit)
        .bind(after.map(|place| place.0))
        .bind(after.map(|place| place.1))
        .bind(after.map(|place| &place.2))
        .bind(after.map(|place| place.3))
        .fetch_all(db)
        .await
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn alike_errors_share_a_fingerprint() {
        let one = fingerprint("timeout after 30 s on 10.0.0.1");
        assert_eq!(one, fingerprint("timeout  after 31 s on 192.168.7.44"));
        assert_ne!(one, fingerprint("refused after 30 s on 10.0.0.1"));
    }
}
