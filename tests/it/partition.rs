//! Partitions per day: made ahead and for rows that came without one, dropped by age, and nobody
//! who completes a job waits for it.

use chrono::{Days, NaiveDate};
use sqlx::PgPool;

use crate::queue_rig::{Rig, done, run, stop};

async fn today(pool: &PgPool) -> NaiveDate {
    sqlx::query_scalar("SELECT (now() AT TIME ZONE 'UTC')::date")
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Returns the days of which a table has a partition.
async fn days(pool: &PgPool, parent: &str) -> Vec<NaiveDate> {
    sqlx::query_scalar(
        "SELECT to_date(right(c.relname, 8), 'YYYYMMDD') FROM pg_inherits i
         JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = format('ingestd.%I', $1)::regclass AND c.relname ~ '_[0-9]{8}$'
         ORDER BY 1",
    )
    .bind(parent)
    .fetch_all(pool)
    .await
    .unwrap()
}

/// Drops every daily partition: so a database looks after a week without a daemon.
async fn forget_the_days(rig: &Rig) {
    rig.sql(
        "DO $$ DECLARE part regclass; BEGIN
           FOR part IN SELECT i.inhrelid::regclass FROM pg_inherits i
             WHERE i.inhparent IN ('ingestd.job_history'::regclass, 'ingestd.job_attempts'::regclass)
               AND i.inhrelid::regclass::text ~ '_[0-9]{8}$'
           LOOP EXECUTE format('DROP TABLE %s', part); END LOOP;
         END $$",
    )
    .await;
}

fn completed(n: i64, finished_at: &str) -> String {
    format!(
        "INSERT INTO ingestd.job_history
           (shard, id, kind, queue, state, priority, attempt, created_at, run_at, finished_at)
         SELECT 0, n, 't.k', 'q', 'completed', 1, 1, now(), now(), {finished_at}
         FROM generate_series(1, {n}) n;"
    )
}

#[tokio::test]
async fn a_daemon_that_was_away_for_a_week_makes_its_days_and_moves_what_came_meanwhile() {
    let rig = Rig::new().await;
    forget_the_days(&rig).await;
    let rows = [
        completed(3, "now() - interval '3 days'"),
        completed(5, "now()"),
    ];
    rig.sql(&rows.concat()).await;
    let left = "SELECT count(*) FROM ingestd.job_history_default";
    assert_eq!(rig.ask::<i64>(left).await, 8);

    stop(rig.play([done("t.done")]).await).await;

    let today = today(rig.pool()).await;
    let ahead: Vec<NaiveDate> = (0..4).map(|n| today + Days::new(n)).collect();
    assert_eq!(days(rig.pool(), "job_attempts").await, ahead);
    let mut with_past = vec![today - Days::new(3)];
    with_past.extend(&ahead);
    assert_eq!(days(rig.pool(), "job_history").await, with_past);
    assert_eq!(rig.ask::<i64>(left).await, 0);
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_history")
            .await,
        8
    );
    // They are found by the indexes, which attached like the others.
    let indexed: bool = rig
        .ask(
            "SELECT bool_and(n = 2) FROM (
               SELECT count(*) AS n FROM pg_inherits i JOIN pg_index x ON x.indrelid = i.inhrelid
               JOIN pg_inherits xi ON xi.inhrelid = x.indexrelid
               WHERE i.inhparent = 'ingestd.job_history'::regclass GROUP BY i.inhrelid) parts",
        )
        .await;
    assert!(indexed);
}

#[tokio::test]
async fn today_is_left_in_the_default_partition_where_moving_it_would_take_long() {
    let rig = Rig::new().await;
    forget_the_days(&rig).await;
    let rows = [
        completed(20_001, "now()"),
        completed(20_001, "now() - interval '1 day'"),
    ];
    rig.sql(&rows.concat()).await;
    let statement = "SELECT ingestd.make_partitions(1)";
    assert_eq!(
        rig.ask::<i32>(statement).await,
        4,
        "two ahead, yesterday, and today's attempts"
    );
    let today = today(rig.pool()).await;
    let made = days(rig.pool(), "job_history").await;
    assert_eq!(made, [today - Days::new(1), today + Days::new(1)]);
    assert_eq!(
        rig.ask::<i32>(statement).await,
        0,
        "the same again, and no error"
    );
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_history")
            .await,
        40_002
    );
}

#[tokio::test]
async fn a_day_begins_at_midnight_in_utc_whatever_the_session_s_zone() {
    let rig = Rig::new().await;
    rig.sql(
        "BEGIN; SET LOCAL timezone = 'Pacific/Auckland';
         SELECT ingestd.make_partition('job_history', '2020-02-28');
         SELECT ingestd.make_partition('job_history', '2020-02-29'); COMMIT;",
    )
    .await;
    for (at, part) in [
        ("2020-02-27 23:59:59.999999+00", "job_history_default"),
        ("2020-02-28 00:00:00+00", "job_history_20200228"),
        ("2020-02-28 23:59:59.999999+00", "job_history_20200228"),
        ("2020-02-29 00:00:00+00", "job_history_20200229"),
        ("2020-03-01 00:00:00+00", "job_history_default"),
    ] {
        rig.sql(&completed(1, &format!("'{at}'::timestamptz")))
            .await;
        let found = format!(
            "SELECT c.relname::text FROM ingestd.job_history h
             JOIN pg_class c ON c.oid = h.tableoid WHERE h.finished_at = '{at}'"
        );
        assert_eq!(rig.ask::<String>(&found).await, part, "{at}");
    }
}

#[tokio::test]
async fn completions_go_on_while_a_reader_keeps_an_old_partition() {
    let rig = Rig::new().await;
    let old = "SELECT to_regclass('ingestd.job_history_20200228') IS NOT NULL";
    let one = rig.play([done("t.done")]).await;
    rig.sql("SELECT ingestd.make_partition('job_history', '2020-02-28')")
        .await;
    let reader = rig.observer().await;
    let mut open = reader.begin().await.unwrap();
    sqlx::query("SELECT count(*) FROM ingestd.job_history")
        .execute(&mut *open)
        .await
        .unwrap();
    // The second daemon looks after the partitions when it starts, and cannot have the lock.
    let jobs = async {
        for _ in 0..20 {
            run(
                rig.pool(),
                "INSERT INTO ingestd.jobs (kind) SELECT 't.done' FROM generate_series(1, 20)",
            )
            .await;
            rig.until_idle().await;
        }
    };
    let (two, ()) = tokio::join!(rig.play([done("t.done")]), jobs);
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_history")
            .await,
        400
    );
    assert!(rig.ask::<bool>(old).await, "it is being read");
    open.commit().await.unwrap();
    // And the next round drops it.
    let three = rig.play([done("t.done")]).await;
    assert!(!rig.ask::<bool>(old).await);
    for engine in [one, two, three] {
        stop(engine).await;
    }
}

#[tokio::test]
async fn whatever_is_partitioned_by_day_is_looked_after() {
    let rig = Rig::new().await;
    rig.sql(
        "CREATE TABLE ingestd.notes (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL)
           PARTITION BY RANGE (at);
         CREATE TABLE ingestd.notes_default PARTITION OF ingestd.notes DEFAULT;
         INSERT INTO ingestd.notes (at) VALUES (now());",
    )
    .await;
    assert_eq!(rig.ask::<i32>("SELECT ingestd.make_partitions(0)").await, 1);
    assert_eq!(days(rig.pool(), "notes").await, [today(rig.pool()).await]);
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ONLY ingestd.notes_default")
            .await,
        0
    );
    assert_eq!(
        rig.ask::<i32>("SELECT ingestd.drop_partitions(-1)").await,
        4
    );
    assert_eq!(days(rig.pool(), "notes").await, []);
    let error = sqlx::query("SELECT ingestd.drop_partition('jobs')")
        .execute(rig.pool())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("no daily partition"), "{error}");
}
