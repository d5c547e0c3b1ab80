//! Two loops written by hand: what the tables allow where nobody handles, watches or limits
//! anything.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{PgConnection, PgPool, Row, postgres::PgRow};
use tokio::sync::{Mutex, mpsc};

/// Claims by UPDATE, with the fence in the job's row. $1 how many, $2 the floor.
const CLAIM: &str = "
    WITH due AS MATERIALIZED (
      SELECT id FROM ingestd.jobs
      WHERE shard = 0 AND queue = 'bench' AND priority = 1 AND state = 'queued'
        AND run_at <= now() AND run_at >= $2
      ORDER BY run_at, id LIMIT $1 FOR UPDATE SKIP LOCKED)
    UPDATE ingestd.jobs SET state = 'running', worker_id = 1, attempt = attempt + 1,
      lease_id = nextval('ingestd.lease_seq'), started_at = clock_timestamp()
    WHERE shard = 0 AND id = ANY (ARRAY(SELECT id FROM due))
    RETURNING id, lease_id, run_at, args";

/// Moves what was claimed so into the history. $1 ids, $2 leases in their order.
const FINISH: &str = "
    WITH gone AS (
      DELETE FROM ingestd.jobs
      WHERE shard = 0 AND id = ANY ($1)
        AND ($2::bigint[])[width_bucket(lease_id, $2::bigint[])] = lease_id RETURNING *)
    INSERT INTO ingestd.job_history
      (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, worker_id,
       created_at, run_at, started_at)
    SELECT shard, id, kind, queue, 'completed', priority, attempt, args, run_id, tenant, worker_id,
       created_at, run_at, started_at FROM gone";

/// Rows of batches under way: the fence, and what a claim leaves alone.
const LEASES: &str = "
    CREATE TABLE IF NOT EXISTS public.bench_leases (
      id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
      worker_id  bigint NOT NULL,
      started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
      ids        bigint[] NOT NULL)";

/// Claims by one row for the whole batch; the jobs' own rows stay as they are. $1 and $2 as above.
const CLAIM_BATCH: &str = "
    WITH due AS MATERIALIZED (
      SELECT id, run_at, args FROM ingestd.jobs
      WHERE shard = 0 AND queue = 'bench' AND priority = 1 AND state = 'queued'
        AND run_at <= now() AND run_at >= $2
        AND id NOT IN (SELECT unnest(ids) FROM public.bench_leases)
      ORDER BY run_at, id LIMIT $1),
    lease AS (
      INSERT INTO public.bench_leases (worker_id, ids)
      SELECT 1, array_agg(id ORDER BY id) FROM due HAVING count(*) > 0
      RETURNING id)
    SELECT due.id, lease.id AS lease_id, run_at, args FROM lease, due";

/// Moves a batch into the history if its lease is still there. $1 ids, $2 the lease.
const FINISH_BATCH: &str = "
    WITH lease AS (
      DELETE FROM public.bench_leases WHERE id = $2 RETURNING worker_id, started_at),
    gone AS (
      DELETE FROM ingestd.jobs
      WHERE shard = 0 AND id = ANY ($1) AND EXISTS (SELECT FROM lease) RETURNING *)
    INSERT INTO ingestd.job_history
      (shard, id, kind, queue, state, priority, attempt, args, run_id, tenant, worker_id,
       created_at, run_at, started_at)
    SELECT shard, gone.id, kind, queue, 'completed', priority, 1, args, run_id, tenant,
       lease.worker_id, created_at, run_at, lease.started_at FROM gone, lease";

/// How far below the newest job of the last full claim the next one begins.
const BELOW: TimeDelta = TimeDelta::seconds(5);
/// How often a claim begins at the very start, for what was committed late.
const FULL_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a claim begins.
struct Floor {
    run_at: DateTime<Utc>,
    looked_below: Instant,
}

impl Floor {
    fn new() -> Self {
        Self {
            run_at: DateTime::UNIX_EPOCH,
            looked_below: Instant::now(),
        }
    }

    fn next(&mut self) -> DateTime<Utc> {
        if self.looked_below.elapsed() > FULL_LOOK_EVERY {
            *self = Self::new();
        }
        self.run_at
    }

    fn raise(&mut self, newest: Option<DateTime<Utc>>) {
        self.run_at = newest.map_or(DateTime::UNIX_EPOCH, |newest| newest - BELOW);
    }
}

/// What a claim got.
struct Batch {
    ids: Vec<i64>,
    leases: Vec<i64>,
}

/// Claims up to `n` jobs; `None` where nothing is due, not even below the floor.
async fn claim(
    conn: &mut PgConnection,
    sql: &'static str,
    n: u32,
    floor: &mut Floor,
) -> sqlx::Result<Option<Batch>> {
    loop {
        let above = floor.next();
        let rows = sqlx::query(sql)
            .bind(i64::from(n))
            .bind(above)
            .fetch_all(&mut *conn)
            .await?;
        floor.raise(rows.iter().map(|row| row.get("run_at")).max());
        if rows.is_empty() && above > DateTime::UNIX_EPOCH {
            continue;
        }
        let column = |name| rows.iter().map(|row: &PgRow| row.get(name)).collect();
        return Ok((!rows.is_empty()).then(|| Batch {
            ids: column("id"),
            leases: column("lease_id"),
        }));
    }
}

/// Drains with the shape of ingestd's tables: two connections, each claiming and completing.
pub(crate) async fn drain_rows(pool: &PgPool, batch: u32) -> anyhow::Result<()> {
    tokio::try_join!(claim_and_finish(pool, batch), claim_and_finish(pool, batch))?;
    Ok(())
}

async fn claim_and_finish(pool: &PgPool, n: u32) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    let mut floor = Floor::new();
    while let Some(batch) = claim(&mut conn, CLAIM, n, &mut floor).await? {
        sqlx::query(FINISH)
            .bind(&batch.ids)
            .bind(&batch.leases)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

/// Makes what [`drain_batches`] needs beside ingestd's tables.
pub(crate) async fn prepare_batches(pool: &PgPool) -> sqlx::Result<()> {
    sqlx::query(LEASES).execute(pool).await?;
    Ok(())
}

/// Drains with one lease a batch: one connection claims, as it must be, and two complete.
pub(crate) async fn drain_batches(pool: &PgPool, batch: u32) -> anyhow::Result<()> {
    let (sender, claimed) = mpsc::channel(2);
    let claimed = Mutex::new(claimed);
    let claims = async {
        let mut conn = pool.acquire().await?;
        let mut floor = Floor::new();
        while let Some(batch) = claim(&mut conn, CLAIM_BATCH, batch, &mut floor).await? {
            if sender.send(batch).await.is_err() {
                break; // a completion failed, and its error is told
            }
        }
        drop(sender);
        Ok(())
    };
    tokio::try_join!(
        claims,
        finish_batches(pool, &claimed),
        finish_batches(pool, &claimed)
    )?;
    Ok(())
}

async fn finish_batches(pool: &PgPool, claimed: &Mutex<mpsc::Receiver<Batch>>) -> sqlx::Result<()> {
    let mut conn = pool.acquire().await?;
    loop {
        let next = claimed.lock().await.recv().await;
        let Some(batch) = next else { return Ok(()) };
        sqlx::query(FINISH_BATCH)
            .bind(&batch.ids)
            .bind(batch.leases.first())
            .execute(&mut *conn)
            .await?;
    }
}
