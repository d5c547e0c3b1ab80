//! What is watched in the database: the horizon's holders, the live table, the plans.

use ingestd::{
    observe::HorizonHolder,
    queue::watch::{self, Holder},
    testing::private_cluster,
};
use sqlx::{AssertSqlSafe, PgPool};

use crate::{
    queue_rig::{Rig, done, run, stop, until},
    walsender::Walsender,
};

/// Begins so many transactions that take an id.
async fn begin_transactions(pool: &PgPool, n: usize) {
    for _ in 0..n {
        run(pool, "SELECT pg_current_xact_id()").await;
    }
}

/// Returns the holder with this name.
async fn holder(pool: &PgPool, name: &str) -> Option<Holder> {
    let holders = watch::holders(pool).await.unwrap();
    holders.into_iter().find(|holder| holder.name == name)
}

#[tokio::test]
async fn a_session_with_an_old_snapshot_is_named_without_the_values_of_its_statement() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let mut open = observer.begin().await.unwrap();
    sqlx::raw_sql(
        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
         SELECT count(*) FROM ingestd.jobs",
    )
    .execute(&mut *open)
    .await
    .unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid() -- token\n WHERE 'secret' <> 'x'")
        .fetch_one(&mut *open)
        .await
        .unwrap();
    begin_transactions(rig.pool(), 20).await;

    let found = holder(rig.pool(), "observer").await.unwrap();
    assert_eq!(
        (found.holder, found.pid),
        (HorizonHolder::Transaction, Some(pid))
    );
    assert!(found.age_transactions >= 20, "{found:?}");
    assert!(found.age_seconds.is_some() && found.since.is_some());
    assert_eq!(found.state.as_deref(), Some("idle in transaction"));
    let query = found.query.unwrap();
    assert_eq!(query, "SELECT pg_backend_pid() WHERE ? <> ?");

    open.rollback().await.unwrap();
    let others = watch::holders(rig.pool()).await.unwrap();
    assert!(others.iter().all(|holder| holder.pid != Some(pid)));
}

#[tokio::test]
async fn prepared_transactions_slots_and_standbys_are_named_too() {
    let mut cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    run(&pool, "ALTER SYSTEM SET max_prepared_transactions = 5").await;
    pool.close().await;
    cluster.restart().await.unwrap();
    let pool = cluster.connect().await.unwrap();

    run(
        &pool,
        "BEGIN; INSERT INTO ingestd.queues (queue) VALUES ('q'); PREPARE TRANSACTION 'left behind'",
    )
    .await;
    begin_transactions(&pool, 5).await;
    let found = holder(&pool, "left behind").await.unwrap();
    assert_eq!(found.holder, HorizonHolder::Prepared);
    assert!(
        found.age_transactions >= 5 && found.since.is_some(),
        "{found:?}"
    );
    assert!(found.remedy().contains("ROLLBACK PREPARED 'left behind'"));
    run(&pool, "ROLLBACK PREPARED 'left behind'").await;
    assert_eq!(holder(&pool, "left behind").await, None);

    run(
        &pool,
        "SELECT pg_create_physical_replication_slot('lost_standby', true)",
    )
    .await;
    let url = cluster.database_url();
    let with_slot = Walsender::feed_back(&pool, &url, "SLOT lost_standby").await;
    until(&pool, "(SELECT xmin IS NOT NULL FROM pg_replication_slots)").await;
    begin_transactions(&pool, 5).await;
    let found = holder(&pool, "lost_standby").await.unwrap();
    assert_eq!(found.holder, HorizonHolder::ReplicationSlot);
    assert!(found.age_transactions >= 5, "{found:?}");
    assert_eq!(found.age_seconds, None, "Postgres does not know since when");
    drop(with_slot);
    until(&pool, "(SELECT NOT active FROM pg_replication_slots)").await;
    let left = holder(&pool, "lost_standby").await.unwrap();
    assert_eq!(
        left.state.as_deref(),
        Some("inactive"),
        "what it held is held on"
    );
    run(&pool, "SELECT pg_drop_replication_slot('lost_standby')").await;

    let without = Walsender::feed_back(&pool, &url, "").await;
    until(
        &pool,
        "EXISTS (SELECT FROM pg_stat_replication WHERE backend_xmin IS NOT NULL)",
    )
    .await;
    begin_transactions(&pool, 5).await;
    let holders = watch::holders(&pool).await.unwrap();
    let standby = holders.iter().find(|h| h.holder == HorizonHolder::Standby);
    assert!(standby.unwrap().age_transactions >= 5, "{holders:?}");
    drop(without);
}

#[tokio::test]
async fn a_table_that_autovacuum_leaves_alone_is_vacuumed() {
    let rig = Rig::new().await;
    rig.sql(
        "ALTER TABLE ingestd.jobs SET (autovacuum_enabled = false);
         INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
           VALUES ('t.done', 'q', 3, 60);
         INSERT INTO ingestd.jobs (kind, run_at)
           SELECT 't.done', now() + interval '1 day' FROM generate_series(1, 30000);
         DELETE FROM ingestd.jobs",
    )
    .await;
    let dead = "(SELECT n_dead_tup >= 20000 FROM pg_stat_user_tables WHERE relid = 'ingestd.jobs'::regclass)";
    rig.until(dead).await;
    let table = watch::live_table(rig.pool()).await.unwrap();
    assert!(
        table.dead_rows >= 20_000 && !table.has_autovacuum,
        "{table:?}"
    );
    assert_eq!((table.vacuumed_at, table.in_vacuum), (None, false));
    assert!(table.table_bytes > 1_000_000 && table.index_bytes > 500_000);

    // Two daemons look at the same time: one vacuums, the other finds the table locked or clean.
    let (one, two) = tokio::join!(rig.play([done("t.done")]), rig.play([done("t.done")]));
    let vacuumed = "(SELECT last_vacuum IS NOT NULL FROM pg_stat_user_tables WHERE relid = 'ingestd.jobs'::regclass)";
    rig.until(vacuumed).await;
    tokio::join!(stop(one), stop(two));
}

async fn faults(rig: &Rig) -> Vec<(&'static str, String)> {
    let mut conn = rig.pool().acquire().await.unwrap();
    let checks = watch::plans(&mut conn).await.unwrap();
    assert!(checks.len() >= 7);
    let faulty = checks.into_iter().filter(|check| !check.faults.is_empty());
    faulty
        .map(|check| (check.statement, check.faults.join("; ")))
        .collect()
}

#[tokio::test]
async fn every_hot_statement_has_its_plan_whatever_the_statistics_say() {
    let rig = Rig::new().await;
    rig.sql("ANALYZE ingestd.jobs").await;
    assert_eq!(faults(&rig).await, []);
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
           VALUES ('t.k', 'q', 3, 60);
         INSERT INTO ingestd.jobs (kind, queue, run_at)
           SELECT 't.k', 'q' || n % 3, now() + (n % 5) * interval '1 h' - interval '2 h'
           FROM generate_series(1, 20000) n;
         INSERT INTO ingestd.jobs (kind, queue, state, lease_id, worker_id)
           SELECT 't.k', 'q0', 'running', n, n % 4 FROM generate_series(1, 300) n",
    )
    .await;
    assert_eq!(
        faults(&rig).await,
        [],
        "the statistics are of an empty table"
    );
    rig.sql("ANALYZE ingestd.jobs").await;
    assert_eq!(faults(&rig).await, [], "and now they are not");
}

/// The planner takes the table for as empty as it was, and `jobs_ready` is a level deeper than
/// `jobs_pkey`.
#[tokio::test]
async fn a_burst_into_a_table_that_was_vacuumed_empty_has_its_plans() {
    let rig = Rig::new().await;
    let burst = "INSERT INTO ingestd.jobs (kind, queue)
                 SELECT 't.k', 'q' FROM generate_series(1, 50000)";
    rig.sql(&format!(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
           VALUES ('t.k', 'q', 3, 60);
         {burst}; DELETE FROM ingestd.jobs"
    ))
    .await;
    rig.sql("VACUUM ANALYZE ingestd.jobs").await;
    let left: String = rig
        .ask(
            "SELECT concat_ws(' ', reltuples, relpages > 0) FROM pg_class
             WHERE oid = 'ingestd.jobs'::regclass",
        )
        .await;
    assert_eq!(left, "0 t");
    rig.sql(burst).await;
    assert_eq!(faults(&rig).await, []);
}

#[tokio::test]
async fn a_missing_index_is_found() {
    let rig = Rig::new().await;
    rig.sql("DROP INDEX ingestd.jobs_ready").await;
    let found = faults(&rig).await;
    let names: Vec<_> = found.iter().map(|(name, _)| *name).collect();
    for name in ["claim", "next_due", "discover", "depth"] {
        assert!(names.contains(&name), "{found:?}");
    }
    assert!(!names.contains(&"finish"), "{found:?}");
    let (_, claim) = &found[0];
    assert!(claim.contains("jobs_ready is not used"), "{claim}");
    // Nothing is left behind on the connection, and nothing was changed.
    let left: i64 = rig
        .ask("SELECT count(*) FROM pg_prepared_statements WHERE name = 'ingestd_hot'")
        .await;
    assert_eq!(left, 0);
}

#[tokio::test]
async fn partitions_reach_three_days_ahead_once_a_daemon_ran() {
    let rig = Rig::new().await;
    stop(rig.play([done("t.done")]).await).await;
    let tables = watch::partitions(rig.pool()).await.unwrap();
    let names: Vec<_> = tables.iter().map(|table| table.table.as_str()).collect();
    assert!(
        names.contains(&"job_history") && names.contains(&"job_attempts"),
        "{names:?}"
    );
    assert!(
        tables.iter().all(|table| table.ahead_days == 3),
        "{tables:?}"
    );
    let today: String = rig
        .ask("SELECT 'job_history_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')")
        .await;
    let drop = AssertSqlSafe(format!("DROP TABLE ingestd.{today}"));
    sqlx::raw_sql(drop).execute(rig.pool()).await.unwrap();
    let tables = watch::partitions(rig.pool()).await.unwrap();
    let history = tables.iter().find(|table| table.table == "job_history");
    assert_eq!(history.unwrap().ahead_days, -1);
}
