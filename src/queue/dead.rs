//! Dead letters: what the queue gave up, until someone replays or purges it.

use sha2::{Digest, Sha256};
use sqlx::PgConnection;

use super::job::JobId;

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

/// Where a replay begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Begin {
    /// After the steps that the dead letter has done; they become the new job's.
    #[default]
    AfterItsSteps,
    /// At the beginning, as if nothing had been done.
    Afresh,
}

/// Puts a dead letter back to work as a new job with all its attempts before it.
///
/// It goes on after the steps it has done; see [`replay_from`].
///
/// # Errors
///
/// What Postgres says.
pub async fn replay(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Option<JobId>> {
    replay_from(conn, id, Begin::AfterItsSteps).await
}

/// Puts a dead letter back to work, to begin where the caller says.
///
/// The letter stays, with a mark of where it went; a letter is replayed once.
/// Returns `None` where there is no such letter, or it was replayed already,
/// or an unfinished job holds its unique key.
///
/// # Errors
///
/// What Postgres says.
pub async fn replay_from(
    conn: &mut PgConnection,
    id: JobId,
    begin: Begin,
) -> sqlx::Result<Option<JobId>> {
    sqlx::query_scalar(
        "WITH letter AS (
           SELECT * FROM ingestd.dead_jobs
           WHERE shard = 0 AND id = $1 AND replayed_at IS NULL FOR UPDATE),
         job AS (
           INSERT INTO ingestd.jobs (kind, args, queue, priority, max_attempts, unique_key,
             gate_key, run_id, tenant, meta)
           SELECT kind, args, queue, priority, max_attempts, unique_key, gate_key, run_id, tenant,
             coalesce(meta, '{}') || jsonb_build_object('replayed_from', id)
           FROM letter
           ON CONFLICT (shard, unique_key) WHERE unique_key IS NOT NULL DO NOTHING
           RETURNING id),
         moved AS (
           UPDATE ingestd.job_steps s SET job_id = job.id
           FROM job WHERE s.job_id = $1 AND s.shard = 0 AND $2)
         UPDATE ingestd.dead_jobs d SET replayed_to = job.id, replayed_at = now()
         FROM job WHERE d.shard = 0 AND d.id = $1
         RETURNING d.replayed_to",
    )
    .bind(id)
    .bind(begin == Begin::AfterItsSteps)
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
