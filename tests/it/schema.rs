//! What the schema promises to people who speak SQL to it.

use ingestd::{db, testing::Database};
use sqlx::{
    PgPool, Row,
    postgres::{PgListener, PgPoolCopyExt},
};

use super::queue_rig::PATIENCE;

/// Creates a database that knows one kind, `demo.sleep`, of queue `naps`.
async fn database() -> Database {
    let db = Database::create().await;
    sqlx::query(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('demo.sleep', 'naps', 20, 60)",
    )
    .execute(db.pool())
    .await
    .unwrap();
    db
}

/// Returns message and hint of the database's refusal.
fn refusal(error: sqlx::Error) -> (String, String) {
    let error = error.into_database_error().unwrap();
    let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    (
        error.message().to_owned(),
        error.hint().unwrap_or_default().to_owned(),
    )
}

async fn count_jobs(pool: &PgPool) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM ingestd.jobs WHERE shard = 0")
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn migrating_twice_changes_nothing() {
    let db = database().await;
    let versions = "SELECT version || ' ' || installed_on FROM ingestd._migrations ORDER BY 1";
    let before: Vec<String> = sqlx::query_scalar(versions)
        .fetch_all(db.pool())
        .await
        .unwrap();
    db::migrate(db.pool()).await.unwrap();
    let after: Vec<String> = sqlx::query_scalar(versions)
        .fetch_all(db.pool())
        .await
        .unwrap();
    assert!(!before.is_empty());
    assert_eq!(before, after);
}

#[tokio::test]
async fn two_daemons_may_migrate_at_once() {
    let db = Database::create().await;
    sqlx::raw_sql("DROP SCHEMA ingestd CASCADE; DROP SCHEMA catalog CASCADE")
        .execute(db.pool())
        .await
        .unwrap();
    let (one, two) = tokio::join!(db::migrate(db.pool()), db::migrate(db.pool()));
    one.unwrap();
    two.unwrap();
    assert_eq!(count_jobs(db.pool()).await, 0);
}

#[tokio::test]
async fn every_object_has_a_comment() {
    let db = Database::create().await;
    let names: Vec<String> = sqlx::query_scalar(include_str!("uncommented.sql"))
        .fetch_all(db.pool())
        .await
        .unwrap();
    assert_eq!(names, Vec::<String>::new());
}

#[tokio::test]
async fn the_comment_check_finds_what_has_none() {
    let db = Database::create().await;
    sqlx::raw_sql("CREATE TABLE ingestd.bare (a integer); CREATE INDEX bare_a ON ingestd.bare (a)")
        .execute(db.pool())
        .await
        .unwrap();
    let names: Vec<String> = sqlx::query_scalar(include_str!("uncommented.sql"))
        .fetch_all(db.pool())
        .await
        .unwrap();
    let expected = [
        "column ingestd.bare.a",
        "relation ingestd.bare",
        "relation ingestd.bare_a",
    ];
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_plain_insert_needs_only_a_kind() {
    let db = database().await;
    let row = sqlx::query(
        "INSERT INTO ingestd.jobs (kind) VALUES ('demo.sleep')
         RETURNING queue, state, priority, attempt, run_at <= now()",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(row.get::<String, _>(0), "naps");
    assert_eq!(row.get::<String, _>(1), "queued");
    assert_eq!((row.get::<i16, _>(2), row.get::<i16, _>(3)), (1, 0));
    assert!(row.get::<bool, _>(4));
}

#[tokio::test]
async fn a_named_queue_is_kept() {
    let db = database().await;
    let queue: String = sqlx::query_scalar(
        "INSERT INTO ingestd.jobs (kind, queue) VALUES ('demo.sleep', 'other') RETURNING queue",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert_eq!(queue, "other");
}

#[tokio::test]
async fn an_unknown_kind_is_refused_with_the_near_ones() {
    let db = database().await;
    for insert in [
        "INSERT INTO ingestd.jobs (kind) VALUES ('demo.slep')",
        "INSERT INTO ingestd.jobs (kind, queue) VALUES ('demo.slep', 'naps')",
        "SELECT ingestd.enqueue('demo.slep')",
    ] {
        let error = sqlx::query(insert).execute(db.pool()).await.unwrap_err();
        let (message, hint) = refusal(error);
        assert_eq!(message, r#"unknown job kind "demo.slep""#, "{insert}");
        assert!(hint.contains("'demo.sleep'"), "{insert}: {hint}");
    }
    assert_eq!(count_jobs(db.pool()).await, 0);
}

#[tokio::test]
async fn copy_obeys_the_same_rules() {
    let db = database().await;
    for (columns, line) in [
        ("kind", "demo.slep\n"),
        ("kind, queue", "demo.slep\tnaps\n"),
    ] {
        let copy = format!("COPY ingestd.jobs ({columns}) FROM STDIN");
        let mut copy = db.pool().copy_in_raw(&copy).await.unwrap();
        copy.send(line.as_bytes()).await.unwrap();
        let (message, _) = refusal(copy.finish().await.unwrap_err());
        assert_eq!(message, r#"unknown job kind "demo.slep""#);
    }
    let mut copy = db
        .pool()
        .copy_in_raw("COPY ingestd.jobs (kind) FROM STDIN")
        .await
        .unwrap();
    copy.send("demo.sleep\ndemo.sleep\n".as_bytes())
        .await
        .unwrap();
    assert_eq!(copy.finish().await.unwrap(), 2);
    let queues: Vec<String> = sqlx::query_scalar("SELECT queue FROM ingestd.jobs WHERE shard = 0")
        .fetch_all(db.pool())
        .await
        .unwrap();
    assert_eq!(queues, ["naps", "naps"]);
}

#[tokio::test]
async fn enqueue_finds_the_unfinished_job_of_a_key() {
    let db = database().await;
    let enqueue = "SELECT job_id, inserted FROM ingestd.enqueue('demo.sleep', unique_key => $1)";
    let mut seen = Vec::new();
    for key in ["a", "a", "b"] {
        let row = sqlx::query(enqueue)
            .bind(key)
            .fetch_one(db.pool())
            .await
            .unwrap();
        seen.push((row.get::<i64, _>(0), row.get::<bool, _>(1)));
    }
    assert_eq!(seen[0].0, seen[1].0);
    assert_ne!(seen[0].0, seen[2].0);
    assert_eq!(
        seen.iter().map(|job| job.1).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!(count_jobs(db.pool()).await, 2);
}

#[tokio::test]
async fn enqueue_takes_every_column_a_caller_may_set() {
    let db = database().await;
    let id: i64 = sqlx::query_scalar(
        r#"SELECT job_id FROM ingestd.enqueue('demo.sleep', '{"secs": 1}', queue => 'q',
             priority => 3::smallint, run_at => '2100-01-01Z', max_attempts => 2::smallint,
             unique_key => 'u', tenant => 't', meta => '{"by": "me"}', run_id => 7)"#,
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    let same: bool = sqlx::query_scalar(
        r#"SELECT (args, queue, priority, run_at, max_attempts, unique_key, tenant, meta, run_id)
               = ('{"secs": 1}'::jsonb, 'q', 3::smallint, '2100-01-01Z'::timestamptz, 2::smallint,
                  'u', 't', '{"by": "me"}'::jsonb, 7::bigint)
           FROM ingestd.jobs WHERE shard = 0 AND id = $1"#,
    )
    .bind(id)
    .fetch_one(db.pool())
    .await
    .unwrap();
    assert!(same);
}

#[tokio::test]
async fn args_larger_than_256_kib_are_refused() {
    let db = database().await;
    // Random text: what is measured is the stored size, after compression.
    let insert = "INSERT INTO ingestd.jobs (kind, args) SELECT 'demo.sleep', jsonb_build_object(
        'text', string_agg(md5(i::text), '')) FROM generate_series(1, $1 / 32) i";
    sqlx::query(insert)
        .bind(250 * 1024)
        .execute(db.pool())
        .await
        .unwrap();
    let error = sqlx::query(insert)
        .bind(257 * 1024)
        .execute(db.pool())
        .await
        .unwrap_err();
    let error = error.into_database_error().unwrap();
    assert_eq!(error.constraint(), Some("args_at_most_256_kib"));
}

#[tokio::test]
async fn args_must_be_an_object() {
    let db = database().await;
    let error = sqlx::query("INSERT INTO ingestd.jobs (kind, args) VALUES ('demo.sleep', '[1]')")
        .execute(db.pool())
        .await
        .unwrap_err();
    let error = error.into_database_error().unwrap();
    assert_eq!(error.constraint(), Some("args_is_an_object"));
}

/// Returns the queues that listeners were told of, up to a mark that is sent last.
async fn told(listener: &mut PgListener, pool: &PgPool) -> Vec<String> {
    sqlx::query("SELECT pg_notify('ingestd_wake', 'mark')")
        .execute(pool)
        .await
        .unwrap();
    let mut queues = Vec::new();
    loop {
        let notification = tokio::time::timeout(PATIENCE, listener.recv());
        match notification.await.unwrap().unwrap().payload() {
            "mark" => return queues,
            queue => queues.push(queue.to_owned()),
        }
    }
}

#[tokio::test]
async fn listeners_are_told_once_per_statement_and_queue() {
    let db = database().await;
    let mut listener = PgListener::connect_with(db.pool()).await.unwrap();
    listener.listen("ingestd_wake").await.unwrap();
    let insert = "INSERT INTO ingestd.jobs (kind, queue)
                  SELECT 'demo.sleep', q FROM unnest('{a,b}'::text[]) q, generate_series(1, 50)";
    sqlx::query(insert).execute(db.pool()).await.unwrap();
    let mut queues = told(&mut listener, db.pool()).await;
    queues.sort();
    assert_eq!(queues, ["a", "b"]);
    sqlx::query(insert).execute(db.pool()).await.unwrap();
    assert_eq!(told(&mut listener, db.pool()).await.len(), 2);
}

#[tokio::test]
async fn listeners_are_not_told_of_what_is_not_due() {
    let db = database().await;
    let mut listener = PgListener::connect_with(db.pool()).await.unwrap();
    listener.listen("ingestd_wake").await.unwrap();
    sqlx::query(
        "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('demo.sleep', now() + interval '1 h')",
    )
    .execute(db.pool())
    .await
    .unwrap();
    assert_eq!(told(&mut listener, db.pool()).await, Vec::<String>::new());
}
