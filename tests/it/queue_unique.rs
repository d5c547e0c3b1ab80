//! Unique per period: one job in each, whoever asks, and however the first one ends.

use std::time::Duration;

use ingestd::queue::{Enqueued, NewJob, enqueue_raw};
use sqlx::PgPool;

use crate::queue_rig::{Rig, Setup, counter, done, stop};

/// Long enough that no test sees two periods of it.
const LONG: Duration = Duration::from_hours(300 * 24);

fn job(kind: &str, key: &str, period: Duration) -> NewJob {
    NewJob {
        kind: kind.into(),
        unique_key: Some(key.into()),
        unique_for: Some(period),
        ..NewJob::default()
    }
}

async fn enqueue(pool: &PgPool, job: &NewJob) -> Enqueued {
    let mut conn = pool.acquire().await.unwrap();
    enqueue_raw(&mut conn, job).await.unwrap()
}

/// A rig whose database knows one kind.
async fn rig(kind: &'static str) -> Rig {
    let rig = Rig::new().await;
    stop(rig.play([done(kind)]).await).await;
    rig
}

#[tokio::test]
async fn a_finished_job_holds_its_period() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.hourly")]).await;
    let new = job("t.hourly", "report", LONG);
    let first = enqueue(rig.pool(), &new).await;
    assert!(first.inserted && first.id.is_some());
    rig.until_idle().await;
    let deduplicated = "ingestd_jobs_deduplicated_total{queue=\"default\",kind=\"t.hourly\"}";
    let before = counter(deduplicated);
    let second = enqueue(rig.pool(), &new).await;
    assert_eq!((second.id, second.inserted), (first.id, false));
    assert!(counter(deduplicated) > before);
    // Another key, another length of period, and none are other jobs.
    for other in [
        job("t.hourly", "other", LONG),
        job("t.hourly", "report", LONG + Duration::from_secs(1)),
        NewJob {
            unique_for: None,
            ..new
        },
    ] {
        assert!(enqueue(rig.pool(), &other).await.inserted);
    }
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn the_next_period_has_a_job_of_its_own() {
    let rig = rig("t.next").await;
    let new = job("t.next", "tick", Duration::from_secs(1));
    let first = enqueue(rig.pool(), &new).await;
    // The first one never ran: an unfinished job of an earlier period is in nobody's way.
    loop {
        let next = enqueue(rig.pool(), &new).await;
        if next.inserted {
            assert_ne!(next.id, first.id);
            return;
        }
    }
}

#[tokio::test]
async fn periods_begin_where_people_expect_it() {
    let rig = Rig::new().await;
    for (length, start) in [
        ("1 hour", "2026-11-27 13:00:00Z"),
        ("1 day", "2026-11-27 00:00:00Z"),
        ("7 days", "2026-11-23 00:00:00Z"),
        ("90 seconds", "2026-11-27 13:39:00Z"),
    ] {
        let is_start = format!(
            "SELECT ingestd.period_start('{length}', '2026-11-27 14:40:29+01') = '{start}'"
        );
        assert!(rig.ask::<bool>(&is_start).await, "{length}");
    }
}

#[tokio::test]
async fn a_period_that_is_none_is_refused() {
    let rig = rig("t.refused").await;
    for (arguments, said) in [
        ("unique_for => '1 hour'", "unique_for without unique_key"),
        (
            "unique_key => 'k', unique_for => '1 month'",
            "unique_for is 1 mon",
        ),
        (
            "unique_key => 'k', unique_for => '0 s'",
            "unique_for is 00:00:00",
        ),
        (
            "unique_key => 'k', unique_for => '-1 h'",
            "unique_for is -01:00:00",
        ),
        (
            "unique_key => 'k', unique_for => '1.5 s'",
            "unique_for is 00:00:01.5",
        ),
        (
            "unique_key => 'k', unique_for => '367 days'",
            "unique_for is 367 days",
        ),
    ] {
        let statement = format!("SELECT ingestd.enqueue('t.refused', {arguments})");
        let error = sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(rig.pool())
            .await
            .unwrap_err();
        assert!(error.to_string().contains(said), "{arguments}: {error}");
    }
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.unique_periods")
            .await,
        0
    );
}

/// Has eight clients enqueue the same while a ninth holds its own back, which then ends by `end`.
/// Returns the ninth's job and what the eight got.
async fn race(rig: &Rig, new: &NewJob, end: &'static str) -> (Enqueued, Vec<Enqueued>) {
    let observer = rig.observer().await;
    let mut tx = observer.acquire().await.unwrap();
    sqlx::query("BEGIN").execute(&mut *tx).await.unwrap();
    let ninth = enqueue_raw(&mut tx, new).await.unwrap();
    let eight = futures::future::join_all((0..8).map(|_| async {
        let pool = PgPool::connect(rig.url()).await.unwrap();
        enqueue(&pool, new).await
    }));
    let end = async {
        rig.until(
            "(SELECT count(*) = 8 FROM pg_stat_activity
              WHERE datname = current_database() AND wait_event_type = 'Lock')",
        )
        .await;
        sqlx::query(end).execute(&mut *tx).await.unwrap();
    };
    let (got, ()) = tokio::join!(eight, end);
    (ninth, got)
}

#[tokio::test]
async fn of_nine_at_once_one_inserts_and_eight_find() {
    let rig = rig("t.race").await;
    let new = job("t.race", "once", LONG);
    let (ninth, got) = race(&rig, &new, "COMMIT").await;
    for other in got {
        assert_eq!((other.id, other.inserted), (ninth.id, false));
    }
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 1);
}

#[tokio::test]
async fn after_a_rollback_another_inserts() {
    let rig = rig("t.undone").await;
    let new = job("t.undone", "once", LONG);
    let (ninth, got) = race(&rig, &new, "ROLLBACK").await;
    assert_eq!(got.iter().filter(|other| other.inserted).count(), 1);
    let ids: std::collections::HashSet<_> = got.iter().map(|other| other.id).collect();
    assert_eq!(ids.len(), 1, "{got:?}");
    assert!(!ids.contains(&ninth.id) && !ids.contains(&None));
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 1);
}

#[tokio::test]
async fn periods_are_forgotten_a_day_after_their_end() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.unique_periods (unique_key, job_id, expires_at)
         VALUES ('over', 1, now() - interval '25 h'), ('just over', 2, now() - interval '1 h'),
                ('not over', 3, now() + interval '1 h')",
    )
    .await;
    let engine = Setup::of([done("t.kept")]).start(rig.url()).await;
    rig.until("NOT EXISTS (SELECT FROM ingestd.unique_periods WHERE unique_key = 'over')")
        .await;
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.unique_periods")
            .await,
        2
    );
    stop(engine).await;
}
