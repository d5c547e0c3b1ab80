//! Who is woken by what, and what happens where nobody is.

use std::time::Duration;

use sqlx::{Executor, postgres::PgListener};

use crate::queue_rig::{Rig, Setup, counter, done, stop, until_true};

/// Nothing is found by polling within the time of any test.
fn never_polling(kind: &'static str, queue: &'static str) -> Setup {
    Setup::of([done(kind).queue(queue)]).with(|q| q.poll_interval = Duration::from_hours(1))
}

fn looks(queue: &str, reason: &str) -> f64 {
    let series = format!("ingestd_wakeups_total{{queue=\"{queue}\",reason=\"{reason}\"}}");
    counter(&series)
}

/// Waits until the workers of `n` engines sleep in `queue`, each listening.
async fn until_asleep(rig: &Rig, n: u32) {
    rig.until(&format!(
        "(SELECT count(*) = {n} FROM pg_stat_activity
          WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle')"
    ))
    .await;
}

fn history(n: u32) -> String {
    format!("(SELECT count(*) = {n} FROM ingestd.job_history)")
}

#[tokio::test]
async fn a_transaction_that_goes_on_silences_nobody_else() {
    let rig = Rig::new().await;
    let engine = never_polling("t.woken", "woken").start(rig.url()).await;
    until_asleep(&rig, 1).await;
    // The look of a listener that has just connected; a notification before it would be the same one.
    until_true("it listens", || looks("woken", "notify") >= 1.0).await;
    let insert = "INSERT INTO ingestd.jobs (kind) VALUES ('t.woken')";
    let mut long = rig.pool().begin().await.unwrap();
    long.execute(insert).await.unwrap();
    for n in 1..=3_u32 {
        rig.sql(insert).await;
        rig.until(&history(n)).await;
        let notified = || looks("woken", "notify") >= f64::from(n + 1);
        until_true("a notification woke it", notified).await;
    }
    // Its own job is announced when it is there.
    long.commit().await.unwrap();
    rig.until(&history(4)).await;
    stop(engine).await;
}

#[tokio::test]
async fn a_lost_notification_costs_the_poll_interval() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.lost").queue("lost")]).await;
    until_true("it listens", || looks("lost", "notify") >= 1.0).await;
    // Whoever holds the lock is about to notify, so the others need not.
    let mut holder = rig.pool().begin().await.unwrap();
    holder
        .execute("SELECT pg_advisory_xact_lock(1229866835, hashtext('lost'))")
        .await
        .unwrap();
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.lost')")
        .await;
    rig.until(&history(1)).await;
    assert!(looks("lost", "notify") < 2.0);
    holder.rollback().await.unwrap();
    stop(engine).await;
}

#[tokio::test]
async fn one_notification_per_transaction_and_queue_for_due_rows_only() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.a', 'a', 3, 60), ('t.b', 'b', 3, 60)",
    )
    .await;
    let mut listener = PgListener::connect(rig.url()).await.unwrap();
    listener.listen("ingestd_wake").await.unwrap();
    let mut tx = rig.pool().begin().await.unwrap();
    for statement in [
        "INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.a', now() + interval '1 h')",
        "SAVEPOINT undone",
        "INSERT INTO ingestd.jobs (kind) SELECT 't.a' FROM generate_series(1, 3)",
        "ROLLBACK TO undone",
        "INSERT INTO ingestd.jobs (kind) SELECT 't.a' FROM generate_series(1, 500)",
        "INSERT INTO ingestd.jobs (kind, queue)
         SELECT 't.b', q FROM generate_series(1, 50), unnest('{a,b}'::text[]) q",
        "INSERT INTO ingestd.jobs (kind, queue, run_at) VALUES ('t.b', 'c', now() + interval '1 h')",
        "SELECT pg_notify('ingestd_wake', 'mark')",
    ] {
        tx.execute(statement).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(listener.recv().await.unwrap().payload().to_owned());
    }
    told.sort();
    assert_eq!(told, ["a", "b", "mark"]);
    // The mark that a queue was taken care of ends with its transaction.
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.a')")
        .await;
    assert_eq!(listener.recv().await.unwrap().payload(), "a");
}

#[tokio::test]
async fn a_kind_is_checked_whatever_the_session_saw_before() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.known', 'a', 3, 60)",
    )
    .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    for queue in ["NULL", "'a'"] {
        let insert = |kind: &str| {
            format!("INSERT INTO ingestd.jobs (kind, queue) VALUES ('{kind}', {queue})")
        };
        for kind in ["t.known", "t.known", "t.unknown", "t.known", "t.unknown"] {
            let done = conn.execute(sqlx::AssertSqlSafe(insert(kind))).await;
            assert_eq!(done.is_ok(), kind == "t.known", "{kind} {queue}: {done:?}");
        }
    }
    let mixed = "INSERT INTO ingestd.jobs (kind, queue)
                 VALUES ('t.known', 'a'), ('t.known', 'a'), ('t.unknown', 'a')";
    let error = conn.execute(mixed).await.unwrap_err();
    assert!(error.to_string().contains("t.unknown"), "{error}");
}

#[tokio::test]
async fn one_notification_makes_each_engine_look_twice_at_most() {
    const ENGINES: u32 = 12;
    let rig = Rig::new().await;
    let setup = never_polling("t.herd", "herd");
    let mut engines = Vec::new();
    for _ in 0..ENGINES {
        engines.push(setup.start(rig.url()).await);
    }
    until_asleep(&rig, ENGINES).await;
    let all = || ["notify", "timer", "drain", "poll"].map(|reason| looks("herd", reason));
    // Asleep: the look of the start and that of the connected listener are over.
    let n = f64::from(ENGINES);
    until_true("they looked twice", || all()[0] >= n && all()[1] >= n).await;
    let before: f64 = all().iter().sum();
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.herd')")
        .await;
    rig.until(&history(1)).await;
    until_true("all were woken", || looks("herd", "notify") >= n * 2.0).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.herd')")
        .await;
    rig.until(&history(2)).await;
    let after: f64 = all().iter().sum();
    // Per notification one look for it, the trailing one, and the full one that follows where a
    // floor was used.
    assert!(after - before <= n * 6.0, "{before} {after}");
    for engine in engines {
        stop(engine).await;
    }
}
