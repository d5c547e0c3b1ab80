use std::time::{Duration, Instant};

use sqlx::{
    Executor as _, PgConnection, PgPool, Row as _,
    postgres::{PgRow, types::PgInterval},
};
use tokio_util::task::TaskTracker;

use super::{
    super::{
        claim::{CLAIM, CLAIM_BATCH},
        complete::FINISH,
        control::{self, Cancelled},
        job::{JobId, LeaseId},
        rescue,
    },
    *,
};
use crate::testing::Database;

const KINDS: &str = "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
                     VALUES ('t.many', 'default', 3, 60)";

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(40);

/// What a claim brought.
#[derive(Debug, Clone, PartialEq)]
struct Claimed {
    id: i64,
    lease_id: i64,
    batch_id: Option<i64>,
}

/// A database with a kind, jobs of it, and a worker that knows of batches.
async fn database(n_jobs: i64) -> (Database, i64) {
    let db = Database::create().await;
    let jobs = format!(
        "{KINDS}; INSERT INTO ingestd.jobs (kind) SELECT 't.many' FROM generate_series(1, {n_jobs})"
    );
    run(db.pool(), &jobs).await;
    let worker = worker(db.pool(), true).await;
    (db, worker)
}

async fn run(pool: &PgPool, statements: &str) {
    let statements = sqlx::AssertSqlSafe(statements.to_owned());
    sqlx::raw_sql(statements).execute(pool).await.unwrap();
}

async fn ask<T>(pool: &PgPool, query: &str) -> T
where
    T: Send + Unpin + sqlx::Type<Postgres> + for<'r> sqlx::Decode<'r, Postgres>,
{
    let query = sqlx::AssertSqlSafe(query.to_owned());
    sqlx::query_scalar(query).fetch_one(pool).await.unwrap()
}

async fn worker(pool: &PgPool, knows_batches: bool) -> i64 {
    sqlx::query_scalar(
        "INSERT INTO ingestd.workers (host, pid, version, queues, knows_batches)
         VALUES ('here', 1, '0', '{}', $1) RETURNING id",
    )
    .bind(knows_batches)
    .fetch_one(pool)
    .await
    .unwrap()
}

/// Claims jobs of a kind that may take a minute, and of one that may take a millisecond.
async fn ask_for(conn: &mut PgConnection, worker: i64, most: i64) -> sqlx::Result<Vec<PgRow>> {
    ask_by(CLAIM_BATCH, conn, worker, most).await
}

async fn ask_by(
    statement: &'static str,
    conn: &mut PgConnection,
    worker: i64,
    most: i64,
) -> sqlx::Result<Vec<PgRow>> {
    let limits = [60_000_000, 1_000].map(|microseconds| PgInterval {
        microseconds,
        ..PgInterval::default()
    });
    sqlx::query(statement)
        .bind("default")
        .bind(most)
        .bind([0_i16, 1, 2, 3])
        .bind([None::<chrono::DateTime<chrono::Utc>>; 4])
        .bind(worker)
        .bind(["t.many", "t.quick"])
        .bind(limits)
        .bind(false)
        .bind(0_i64)
        .fetch_all(conn)
        .await
}

async fn claim(conn: &mut PgConnection, worker: i64, most: i64) -> Vec<Claimed> {
    let rows = ask_for(conn, worker, most).await.unwrap();
    let mut claimed: Vec<Claimed> = rows
        .iter()
        .map(|row| Claimed {
            id: row.get("id"),
            lease_id: row.get("lease_id"),
            batch_id: row.get("batch_id"),
        })
        .collect();
    claimed.sort_unstable_by_key(|c| c.id);
    claimed
}

/// Completes what was claimed; returns the jobs that were not fenced.
async fn finish(pool: &PgPool, worker: i64, claimed: &[Claimed], ended: &[i64]) -> Vec<i64> {
    let of = |column: fn(&Claimed) -> i64| claimed.iter().map(column).collect::<Vec<_>>();
    sqlx::query_scalar(FINISH)
        .bind(of(|c| c.id))
        .bind(of(|c| c.lease_id))
        .bind("completed")
        .bind(None::<Vec<serde_json::Value>>)
        .bind(vec![5_i64; claimed.len()])
        .bind(ended)
        .bind(worker)
        .fetch_all(pool)
        .await
        .unwrap()
}

async fn claimed(db: &Database, worker: i64, most: i64) -> Vec<Claimed> {
    claim(&mut db.pool().acquire().await.unwrap(), worker, most).await
}

#[tokio::test]
async fn a_batch_is_claimed_and_finished_without_a_change_of_a_job() {
    let (db, worker) = database(5).await;
    run(
        db.pool(),
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN RAISE 'a job was changed'; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON ingestd.jobs FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;
    let batch = claimed(&db, worker, 5).await;
    assert_eq!(batch.len(), 5);
    assert!(batch[0].batch_id.is_some() && batch.iter().all(|c| c.batch_id == batch[0].batch_id));
    assert_eq!(claimed(&db, worker, 5).await, [], "they are leased");
    let done = finish(db.pool(), worker, &batch, &[batch[0].batch_id.unwrap()]).await;
    assert_eq!(done.len(), 5);
    let told: bool = ask(
        db.pool(),
        &format!(
            "SELECT bool_and(state = 'completed' AND attempt = 1 AND worker_id = {worker}
                             AND started_at = run_at + interval '5 ms') AND count(*) = 5
                    AND NOT EXISTS (SELECT FROM ingestd.batch_leases)
             FROM ingestd.job_history"
        ),
    )
    .await;
    assert!(told);
}

#[tokio::test]
async fn a_claim_of_few_leaves_alone_what_is_leased_and_writes_rows() {
    let (db, worker) = database(3).await;
    let batch = claimed(&db, worker, 2).await;
    let mut conn = db.pool().acquire().await.unwrap();
    let rows = ask_by(CLAIM, &mut conn, worker, 3).await.unwrap();
    assert_eq!(rows.len(), 1);
    let (oldest, batch_id): (i64, Option<i64>) =
        (rows[0].get("batches_since"), rows[0].get("batch_id"));
    assert_eq!((Some(oldest), batch_id), (batch[0].batch_id, None));
    let running: i64 = ask(
        db.pool(),
        "SELECT id FROM ingestd.jobs WHERE state = 'running'",
    )
    .await;
    assert_eq!(running, rows[0].get::<i64, _>("id"));
}

#[tokio::test]
async fn what_is_counted_by_its_state_is_claimed_in_its_row() {
    let (db, worker) = database(1).await;
    run(
        db.pool(),
        "INSERT INTO ingestd.jobs (kind, crashes) VALUES ('t.many', 1);
         INSERT INTO ingestd.jobs (kind, run_id) VALUES ('t.many', 7);
         INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('t.many', 'key');
         UPDATE ingestd.jobs SET state = 'queued'",
    )
    .await;
    let found = claimed(&db, worker, 10).await;
    let is_batch: Vec<bool> = found.iter().map(|c| c.batch_id.is_some()).collect();
    assert_eq!(is_batch, [true, false, false, false]);
    let running: i64 = ask(
        db.pool(),
        "SELECT count(*) FROM ingestd.jobs WHERE state = 'running'",
    )
    .await;
    assert_eq!(running, 3);
}

#[tokio::test]
async fn beside_a_worker_that_knows_no_batches_there_are_none() {
    let (db, new) = database(2).await;
    let old = worker(db.pool(), false).await;
    let found = claimed(&db, new, 1).await;
    assert_eq!(found[0].batch_id, None);
    run(
        db.pool(),
        &format!(
            "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'stopped' WHERE id = {old}"
        ),
    )
    .await;
    assert!(claimed(&db, new, 1).await[0].batch_id.is_some());
}

/// Waits until so many sessions of this database wait for a lock.
async fn until_waiting(pool: &PgPool, n: i64) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let began = Instant::now();
    while ask::<i64>(pool, waiting).await < n {
        assert!(began.elapsed() < PATIENCE, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn claims_at_once_get_different_jobs() {
    let (db, worker) = database(6).await;
    let mut first = db.pool().begin().await.unwrap();
    let got = claim(&mut first, worker, 3).await;
    let other = db.pool().clone();
    let second = TaskTracker::new()
        .spawn(async move { claim(&mut other.acquire().await.unwrap(), worker, 6).await });
    until_waiting(db.pool(), 1).await;
    first.commit().await.unwrap();
    let second = second.await.unwrap();
    assert_eq!((got.len(), second.len()), (3, 3));
    assert!(
        got.iter()
            .all(|c| second.iter().all(|other| other.id != c.id))
    );
}

#[tokio::test]
async fn no_claim_is_made_where_another_may_be_overlooked() {
    let (db, worker) = database(3).await;
    for (isolation, n_jobs) in [
        ("SERIALIZABLE", 0),
        ("REPEATABLE READ", 0),
        ("READ COMMITTED", 3),
    ] {
        let default = format!("SET default_transaction_isolation = '{isolation}'");
        let mut conn = db.pool().acquire().await.unwrap();
        conn.execute(sqlx::AssertSqlSafe(default)).await.unwrap();
        let claim = ask_for(&mut conn, worker, 3).await;
        assert_eq!(claim.unwrap_or_default().len(), n_jobs, "{isolation}");
    }
}

#[tokio::test]
async fn who_changes_a_job_finds_it_running_though_its_claim_was_on_its_way() {
    let (db, worker) = database(1).await;
    let mut claiming = db.pool().begin().await.unwrap();
    let job = claim(&mut claiming, worker, 1).await.remove(0);
    let (pool, id) = (db.pool().clone(), JobId(job.id));
    let cancel = TaskTracker::new().spawn(async move {
        let mut conn = pool.acquire().await.unwrap();
        control::cancel(&mut conn, id).await.unwrap()
    });
    until_waiting(db.pool(), 1).await;
    claiming.commit().await.unwrap();
    assert_eq!(cancel.await.unwrap(), Cancelled::Requested);
    let row: String = ask(
        db.pool(),
        "SELECT concat_ws(' ', state, lease_id, worker_id, attempt, cancel_requested) FROM ingestd.jobs",
    )
    .await;
    assert_eq!(row, format!("running {} {worker} 1 t", job.lease_id));
}

#[tokio::test]
async fn a_leased_job_is_not_put_off_and_sql_is_told_so_too() {
    let (db, worker) = database(3).await;
    let batch = claimed(&db, worker, 3).await;
    let mut conn = db.pool().acquire().await.unwrap();
    let [first, second, third] = [0, 1, 2].map(|n: usize| JobId(batch[n].id));
    let put_off = control::snooze(&mut conn, first, Duration::from_hours(1)).await;
    assert_eq!(put_off.unwrap(), None);
    assert!(!control::run_now(&mut conn, second).await.unwrap());
    let told: String = ask(db.pool(), &format!("SELECT ingestd.cancel({})", third.0)).await;
    assert_eq!(told, "requested");
    assert_eq!(finish(db.pool(), worker, &batch, &[]).await.len(), 3);
}

#[tokio::test]
async fn a_lease_that_was_taken_away_ends_nothing() {
    let (db, worker) = database(2).await;
    let lost = claimed(&db, worker, 2).await;
    rescue::hand_back(db.pool(), worker).await.unwrap();
    let left: i64 = ask(db.pool(), "SELECT count(*) FROM ingestd.batch_leases").await;
    assert_eq!(left, 0);
    assert_eq!(
        finish(db.pool(), worker, &lost, &[]).await,
        [0_i64; 0],
        "nobody has it"
    );
    let again = claimed(&db, worker, 2).await;
    assert!(
        again.iter().all(|c| c.batch_id.is_none()),
        "in their rows, for once"
    );
    assert_eq!(
        finish(db.pool(), worker, &lost, &[]).await,
        [0_i64; 0],
        "another lease"
    );
    assert_eq!(finish(db.pool(), worker, &again, &[]).await.len(), 2);
    let attempts: i64 = ask(db.pool(), "SELECT sum(attempt) FROM ingestd.job_history").await;
    assert_eq!(attempts, 2, "handed back it was no attempt");
}

#[tokio::test]
async fn the_dead_leave_their_batches_to_a_rescue() {
    let (db, worker) = database(1).await;
    let job = claimed(&db, worker, 1).await.remove(0);
    let mut conn = db.pool().acquire().await.unwrap();
    settle_lost(&mut conn, Duration::ZERO).await.unwrap();
    let state = "SELECT state FROM ingestd.jobs";
    assert_eq!(
        ask::<String>(db.pool(), state).await,
        "queued",
        "it is alive"
    );
    run(
        db.pool(),
        "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'lost'",
    )
    .await;
    settle_lost(&mut conn, Duration::ZERO).await.unwrap();
    let lease: i64 = ask(
        db.pool(),
        "SELECT lease_id FROM ingestd.jobs WHERE state = 'running'",
    )
    .await;
    assert_eq!(lease, job.lease_id);
}

#[tokio::test]
async fn what_an_attempt_holds_is_settled_when_it_lets_go() {
    let (db, worker) = database(2).await;
    let batch = claimed(&db, worker, 2).await;
    let lease = lease(&batch[0], worker);
    let mut attempt = db.pool().begin().await.unwrap();
    settle_own(&mut attempt, &lease).await.unwrap();
    let mut conn = db.pool().acquire().await.unwrap();
    settle_worker(&mut conn, worker, None).await.unwrap();
    let told = "SELECT concat_ws(' ', (SELECT count(*) FROM ingestd.jobs WHERE state = 'running'),
                                 (SELECT count(*) FROM ingestd.batch_leases))";
    assert_eq!(ask::<String>(db.pool(), told).await, "1 1");
    attempt.rollback().await.unwrap();
    settle_worker(&mut conn, worker, None).await.unwrap();
    assert_eq!(ask::<String>(db.pool(), told).await, "2 0");
}

fn lease(of: &Claimed, worker: i64) -> Lease {
    Lease {
        id: JobId(of.id),
        lease_id: LeaseId(of.lease_id),
        kind: "t.many",
        queue: "default".into(),
        priority: 1,
        args: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
        attempt: 1,
        crashes: 0,
        max_attempts: None,
        run_id: None,
        tenant: None,
        gate_key: None,
        origin_id: None,
        waited_ms: 0,
        age_ms: 0,
        worker_id: worker,
        batch_id: of.batch_id,
    }
}

#[path = "batch_loss_tests.rs"]
mod loss;
