//! What a claim reads when the table is deep, and when nobody may clean up behind it.
//!
//! Counted in buffers, which repeat, and never in time. Each test also looks at what the protection
//! saves: without it the bound would be broken many times over, or the test would show nothing.

use std::{fmt::Write as _, time::Instant};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, PgPool, Postgres, Row, Transaction, postgres::PgPoolCopyExt,
    postgres::types::PgInterval,
};

use super::{super::floor::Floor, HOT};
use crate::{config, db, testing::Database};

const ORDER: [i16; 4] = [0, 1, 2, 3];
type Floors = [Option<DateTime<Utc>>; 4];

/// Most buffers that a claim of ten may touch, the writing of its ten rows included.
const BOUND: i64 = 400;

/// A database with a kind, a worker, and the sessions of the queue.
struct Bench {
    db: Database,
    queue: PgPool,
    worker: i64,
}

impl Bench {
    async fn new() -> Self {
        let db = Database::create().await;
        let config = config::Database {
            url: Some(db.url().into()),
            ..config::Database::default()
        };
        let queue = db::connect_queue(&config).await.unwrap();
        sqlx::raw_sql(
            "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
             VALUES ('t.many', 'default', 3, 60)",
        )
        .execute(db.pool())
        .await
        .unwrap();
        let worker = sqlx::query_scalar(
            "INSERT INTO ingestd.workers (host, pid, version, queues, knows_batches)
             VALUES ('bench', 1, '0', '{}', true) RETURNING id",
        )
        .fetch_one(db.pool())
        .await
        .unwrap();
        Self { db, queue, worker }
    }

    /// Copies jobs in whose due times lie a tenth of a second apart: `n_due` up to now, the rest
    /// after it.
    async fn fill(&self, n_due: i64, n_later: i64) {
        let mut copy = self
            .db
            .pool()
            .copy_in_raw("COPY ingestd.jobs (kind, queue, priority, run_at) FROM STDIN")
            .await
            .unwrap();
        let now: DateTime<Utc> = sqlx::query_scalar("SELECT now()")
            .fetch_one(self.db.pool())
            .await
            .unwrap();
        let mut rows = String::new();
        for n in -n_due + 1..=n_later {
            // Those for later are far away, so that none falls due meanwhile.
            let far = if n > 0 { 3_600_000 } else { 0 };
            let at = now + chrono::TimeDelta::milliseconds(n * 100 + far);
            let (priority, at) = (n.rem_euclid(4), at.to_rfc3339());
            writeln!(rows, "t.many\tdefault\t{priority}\t{at}").unwrap();
            if rows.len() > 1 << 20 {
                copy.send(std::mem::take(&mut rows).into_bytes())
                    .await
                    .unwrap();
            }
        }
        copy.send(rows.into_bytes()).await.unwrap();
        copy.finish().await.unwrap();
    }

    /// Claims and finishes up to 500 jobs as the engine does; returns how many.
    async fn pass(&self, floor: &mut Floor, now: Instant) -> usize {
        let minute = PgInterval {
            microseconds: 60_000_000,
            ..PgInterval::default()
        };
        let floors = floor.of(ORDER, false, now);
        let claimed = sqlx::query(super::claim::CLAIM_BATCH)
            .bind("default")
            .bind(500_i64)
            .bind(ORDER)
            .bind(floors)
            .bind(self.worker)
            .bind(["t.many"])
            .bind([minute])
            .bind(false)
            .bind(floor.batches)
            .fetch_all(&self.queue)
            .await
            .unwrap();
        if let Some(row) = claimed.first() {
            floor.batches = row.get("batches_since");
        }
        let of = |name: &str| -> Vec<i64> { claimed.iter().map(|row| row.get(name)).collect() };
        floor.raise(
            claimed
                .iter()
                .map(|row| (row.get("priority"), row.get("run_at"))),
        );
        let mut pairs: Vec<(i64, i64)> = of("id").into_iter().zip(of("lease_id")).collect();
        pairs.sort_unstable();
        let (ids, leases): (Vec<i64>, Vec<i64>) = pairs.into_iter().unzip();
        let ended: Vec<Option<i64>> = claimed
            .iter()
            .take(1)
            .map(|row| row.get("batch_id"))
            .collect();
        sqlx::query(super::complete::FINISH)
            .bind(ids)
            .bind(leases)
            .bind("completed")
            .bind(None::<Vec<Value>>)
            .bind(vec![0_i64; claimed.len()])
            .bind(ended)
            .bind(self.worker)
            .execute(&self.queue)
            .await
            .unwrap();
        claimed.len()
    }

    /// Returns the buffers that a claim of ten jobs touches, and how many it got; undone afterwards.
    async fn buffers(&self, floors: Floors, batches: i64) -> (i64, i64) {
        let hot = HOT.iter().find(|hot| hot.name == "claim_batch").unwrap();
        let floors =
            floors.map(|at| at.map_or("NULL".to_owned(), |at| format!("\"{}\"", at.to_rfc3339())));
        let mut conn = self.queue.acquire().await.unwrap();
        let (types, sql) = (hot.types.join(", "), hot.sql);
        let (floors, worker) = (floors.join(","), self.worker);
        let statements = [
            "BEGIN".to_owned(),
            format!("PREPARE hot ({types}) AS {sql}"),
            format!(
                "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE hot ('default', 10, '{{0,1,2,3}}',
                 '{{{floors}}}', {worker}, '{{t.many}}', '{{1 min}}', false, {batches})"
            ),
            "ROLLBACK".to_owned(),
            "DEALLOCATE hot".to_owned(),
        ];
        let mut plan = Value::Null;
        for statement in statements {
            let rows = sqlx::raw_sql(AssertSqlSafe(statement))
                .fetch_all(&mut *conn)
                .await
                .unwrap();
            if let Some(row) = rows.first() {
                plan = row.get(0);
            }
        }
        let count = |name: &str| plan.pointer("/0/Plan").unwrap()[name].as_f64().unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "small whole numbers")]
        let whole = |n: f64| n as i64;
        (
            whole(count("Shared Hit Blocks") + count("Shared Read Blocks")),
            whole(count("Actual Rows")),
        )
    }
}

/// Asserts that a claim from a table of so many reads no more than one from a table of a few.
async fn a_claim_is_flat(n_jobs: i64) {
    let bench = Bench::new().await;
    bench.fill(40, 0).await;
    let (few, got) = bench.buffers([None; 4], 0).await;
    assert_eq!(got, 10);
    // A third is due, and those for later are of every priority.
    bench.fill(n_jobs / 3, n_jobs - n_jobs / 3).await;
    let (many, got) = bench.buffers([None; 4], 0).await;
    assert_eq!(got, 10);
    println!("{n_jobs} jobs: {many} buffers, with 40: {few}");
    // An index of a million rows is two levels deeper than one of forty.
    assert!(
        many <= few * 3 && many <= BOUND,
        "{many} buffers, with 40 jobs {few}"
    );
}

#[tokio::test]
async fn a_claim_from_a_deep_backlog_reads_no_more_than_from_a_short_one() {
    a_claim_is_flat(50_000).await;
}

#[tokio::test]
#[ignore = "nightly: a million rows"]
async fn nightly_a_claim_from_a_million_reads_no_more() {
    a_claim_is_flat(1_000_000).await;
}

/// Takes a snapshot that holds every vacuum back until it is dropped.
async fn hold(pool: &PgPool) -> Transaction<'_, Postgres> {
    let mut held = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await
        .unwrap();
    sqlx::raw_sql(
        "SET LOCAL idle_in_transaction_session_timeout = 0; SELECT count(*) FROM ingestd.jobs",
    )
    .execute(&mut *held)
    .await
    .unwrap();
    held
}

#[tokio::test]
async fn a_claim_under_a_held_snapshot_begins_above_the_batches_that_are_gone() {
    const N_GONE: i64 = 20_000;
    let bench = Bench::new().await;
    let _held = hold(bench.db.pool()).await;
    for statement in [
        format!(
            "INSERT INTO ingestd.batch_leases (worker_id, queue, job_ids, lease_ids, time_limit)
             SELECT 1, 'default', '{{}}', '{{}}', '1 min' FROM generate_series(1, {N_GONE})"
        ),
        "DELETE FROM ingestd.batch_leases".to_owned(),
    ] {
        let statement = sqlx::raw_sql(AssertSqlSafe(statement));
        statement.execute(bench.db.pool()).await.unwrap();
    }
    bench.fill(1000, 0).await;
    let (mut floor, now) = (Floor::default(), Instant::now());
    bench.pass(&mut floor, now).await;
    let floors = floor.of(ORDER, false, now);
    let (above, got) = bench.buffers(floors, floor.batches).await;
    assert_eq!(got, 10);
    let (from_the_start, _) = bench.buffers(floors, 0).await;
    println!("{N_GONE} gone: {above} buffers above the floor, {from_the_start} without it");
    assert!(above <= BOUND, "{above} buffers above the floor");
    assert!(
        from_the_start > above * 3,
        "nothing to walk over: {from_the_start} buffers"
    );
}

/// Asserts that so many jobs which passed under somebody's snapshot are not walked over again.
async fn a_claim_is_bounded(n_jobs: i64) {
    let bench = Bench::new().await;
    let mut held = hold(bench.db.pool()).await;
    bench.fill(n_jobs, 0).await;
    // One moment for all: so that no look but the first is full.
    let (mut floor, now) = (Floor::default(), Instant::now());
    let mut n_passed = 0;
    while n_passed < n_jobs {
        let n = bench.pass(&mut floor, now).await;
        assert!(n > 0, "{n_passed} passed");
        n_passed += i64::try_from(n).unwrap();
    }
    // The lowest of the priorities: all that passed lies before them.
    sqlx::raw_sql(
        "INSERT INTO ingestd.jobs (kind, priority) SELECT 't.many', 3 FROM generate_series(1, 40)",
    )
    .execute(bench.db.pool())
    .await
    .unwrap();
    let floors = floor.of(ORDER, false, now);
    let (above, got) = bench.buffers(floors, floor.batches).await;
    assert_eq!(got, 10);
    let (from_the_start, got) = bench.buffers([None; 4], 0).await;
    assert_eq!(got, 10);
    println!("{n_jobs} dead: {above} buffers above the floor, {from_the_start} without it");
    assert!(above <= BOUND, "{above} buffers above the floor");
    assert!(
        from_the_start > above * 3,
        "nothing to walk over: {from_the_start} buffers"
    );
    let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM ingestd.job_history")
        .fetch_one(&mut *held)
        .await
        .unwrap();
    assert_eq!(seen, 0, "the snapshot was held all the while");
}

#[tokio::test]
async fn a_claim_under_a_held_snapshot_begins_above_what_passed() {
    a_claim_is_bounded(20_000).await;
}

#[tokio::test]
#[ignore = "nightly: 100,000 jobs"]
async fn nightly_a_claim_under_a_snapshot_held_for_long_is_bounded() {
    a_claim_is_bounded(100_000).await;
}
