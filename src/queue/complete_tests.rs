use serde_json::value::RawValue;
use sqlx::PgPool;

use super::*;
use crate::{
    queue::job::{JobId, Lease, LeaseId},
    testing::Database,
};

/// A running job under a lease; returns its id.
async fn running(pool: &PgPool, lease: i64) -> i64 {
    sqlx::query_scalar(
        "INSERT INTO ingestd.jobs
           (kind, queue, state, lease_id, worker_id, started_at, attempt, deadline_at)
         VALUES ('t.one', 'default', 'running', $1, 1, now(), 1, now() + interval '1 hour')
         RETURNING id",
    )
    .bind(lease)
    .fetch_one(pool)
    .await
    .unwrap()
}

fn completed(id: i64, lease: i64) -> Conclusion {
    let lease = Lease {
        id: JobId(id),
        lease_id: LeaseId(lease),
        kind: "t.one",
        queue: "default".into(),
        priority: 1,
        args: RawValue::from_string("{}".into()).unwrap(),
        attempt: 1,
        crashes: 0,
        max_attempts: None,
        run_id: None,
        tenant: None,
        gate_key: None,
        origin_id: None,
        waited_ms: 0,
        age_ms: 0,
        worker_id: 1,
        batch_id: None,
    };
    Conclusion {
        lease: Arc::new(lease),
        worker_id: 1,
        outcome: Outcome::Completed { output: None },
        duration: Duration::ZERO,
        written: false,
        fenced: false,
    }
}

#[tokio::test]
async fn each_outcome_is_matched_with_its_lease_in_whatever_order_they_were_drawn() {
    let db = Database::create().await;
    sqlx::raw_sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.one', 'default', 3, 60)",
    )
    .execute(db.pool())
    .await
    .unwrap();
    let mut batch = Vec::new();
    // The lease of the job, and the one that the outcome names.
    let leases = [
        (90, 90),
        (10, 10),
        (70, 71),
        (40, 39),
        (30, 30),
        (5, 4),
        (95, 99),
        (60, 60),
    ];
    for (held, named) in leases {
        batch.push(completed(running(db.pool(), held).await, named));
    }
    let mut conn = db.pool().acquire().await.unwrap();
    finish(&mut conn, "completed", &mut batch, &[], |_| true)
        .await
        .unwrap();
    let fenced: Vec<bool> = batch.iter().map(|c| c.fenced).collect();
    let is_another = leases.map(|(held, named)| held != named);
    assert_eq!(fenced, is_another);
    let left: Vec<i64> = sqlx::query_scalar("SELECT lease_id FROM ingestd.jobs ORDER BY lease_id")
        .fetch_all(&mut *conn)
        .await
        .unwrap();
    assert_eq!(left, [5, 40, 70, 95]);
}
