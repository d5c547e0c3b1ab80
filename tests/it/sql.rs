//! What SQL users call: `ingestd.cancel` and `ingestd.replay`.

use ingestd::testing::Database;
use sqlx::PgPool;

async fn database() -> Database {
    let db = Database::create().await;
    sqlx::raw_sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
           VALUES ('demo.sleep', 'naps', 20, 60);
         INSERT INTO ingestd.jobs (kind) VALUES ('demo.sleep');
         INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, unique_key, attempt, crashes,
             reason, error, fingerprint, created_at)
           VALUES (-1, 'demo.sleep', '{\"naps\": 1}', 'naps', 2, 'nap', 3, 0, 'exhausted', 'no bed', 7, now())",
    )
    .execute(db.pool())
    .await
    .unwrap();
    db
}

async fn cancel(pool: &PgPool) -> String {
    sqlx::query_scalar("SELECT ingestd.cancel((SELECT coalesce(min(id), 0) FROM ingestd.jobs))")
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn replay(pool: &PgPool, args: Option<&str>) -> Option<i64> {
    sqlx::query_scalar("SELECT ingestd.replay(-1, $1::jsonb)")
        .bind(args)
        .fetch_one(pool)
        .await
        .unwrap()
}

async fn audited(pool: &PgPool) -> Vec<(String, String)> {
    sqlx::query_as("SELECT action, object FROM ingestd.audit_log ORDER BY id")
        .fetch_all(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn cancelling_a_waiting_job_puts_it_into_the_history() {
    let db = database().await;
    let job: i64 = sqlx::query_scalar("SELECT id FROM ingestd.jobs")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(cancel(db.pool()).await, "cancelled");
    let state: String = sqlx::query_scalar("SELECT state FROM ingestd.job_history WHERE id = $1")
        .bind(job)
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(state, "cancelled");
    assert_eq!(cancel(db.pool()).await, "not found");
    // What changed nothing is not noted.
    let noted = vec![("job.cancel".to_owned(), format!("job/{job}"))];
    assert_eq!(audited(db.pool()).await, noted);
}

#[tokio::test]
async fn cancelling_a_running_job_tells_its_handler() {
    let db = database().await;
    sqlx::query("UPDATE ingestd.jobs SET state = 'running', lease_id = 42, worker_id = 1")
        .execute(db.pool())
        .await
        .unwrap();
    let mut listener = sqlx::postgres::PgListener::connect_with(db.pool())
        .await
        .unwrap();
    listener.listen("ingestd_cancel").await.unwrap();
    assert_eq!(cancel(db.pool()).await, "requested");
    assert_eq!(listener.recv().await.unwrap().payload(), "42");
    let asked: bool = sqlx::query_scalar("SELECT cancel_requested FROM ingestd.jobs")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert!(asked);
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once_with_other_arguments() {
    let db = database().await;
    let job = replay(db.pool(), Some(r#"{"naps": 2}"#)).await.unwrap();
    let row: (serde_json::Value, i16, String, serde_json::Value) =
        sqlx::query_as("SELECT args, priority, unique_key, meta FROM ingestd.jobs WHERE id = $1")
            .bind(job)
            .fetch_one(db.pool())
            .await
            .unwrap();
    let meta = serde_json::json!({"replayed_from": -1, "args_edited": true});
    assert_eq!(
        row,
        (serde_json::json!({"naps": 2}), 2, "nap".to_owned(), meta)
    );
    let replayed_to: Option<i64> = sqlx::query_scalar("SELECT replayed_to FROM ingestd.dead_jobs")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(replayed_to, Some(job));
    assert_eq!(
        replay(db.pool(), None).await,
        None,
        "it was replayed already"
    );
    assert_eq!(
        audited(db.pool()).await,
        [("dead.retry".to_owned(), "job/-1".to_owned())]
    );
}

#[tokio::test]
async fn a_letter_whose_key_is_taken_stays() {
    let db = database().await;
    sqlx::query("UPDATE ingestd.jobs SET unique_key = 'nap'")
        .execute(db.pool())
        .await
        .unwrap();
    assert_eq!(replay(db.pool(), None).await, None);
    let is_there: bool = sqlx::query_scalar("SELECT replayed_at IS NULL FROM ingestd.dead_jobs")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert!(is_there);
    assert_eq!(audited(db.pool()).await, []);
}
