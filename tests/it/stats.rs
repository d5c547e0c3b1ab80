//! Figures per minute: what ends is added up, written, read, and kept while Postgres is away.

use std::time::Duration;

use ingestd::queue::{
    JobError,
    stats::{self, StatsFilter},
};
use sqlx::PgPool;

use crate::queue_rig::{Rig, Setup, done, play, stop};

const ALL: StatsFilter<'_> = StatsFilter {
    queue: None,
    kind: None,
    minutes: 60,
};

async fn sum(pool: &PgPool, outcome: &str) -> Option<i64> {
    sqlx::query_scalar("SELECT sum(n_jobs)::bigint FROM ingestd.job_stats WHERE outcome = $1")
        .bind(outcome)
        .fetch_one(pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn every_outcome_is_added_up_by_the_time_the_daemon_has_stopped() {
    let rig = Rig::new().await;
    let fails = play("t.fails", |_| async {
        Err(JobError::from(anyhow::anyhow!("no")))
    });
    let sleeps = play("t.sleeps", |ctx| async move {
        drop(ctx);
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(ingestd::queue::Done::new())
    });
    let engine = rig.play([done("t.done"), fails.attempts(3), sleeps]).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind) SELECT 't.done' FROM generate_series(1, 50);
         INSERT INTO ingestd.jobs (kind, queue) VALUES ('t.done', 'other'), ('t.fails', 'other');
         INSERT INTO ingestd.jobs (kind) VALUES ('t.sleeps')",
    )
    .await;
    rig.until_idle().await;
    stop(engine).await;

    assert_eq!(sum(rig.pool(), "success").await, Some(52));
    assert_eq!(sum(rig.pool(), "retry").await, Some(2));
    assert_eq!(sum(rig.pool(), "dead").await, Some(1));
    let whole: bool = rig
        .ask(
            "SELECT bool_and(n_jobs = (SELECT sum(b) FROM unnest(buckets) b)
                             AND cardinality(buckets) = 7
                             AND minute = date_trunc('minute', minute)
                             AND minute BETWEEN now() - interval '5 min' AND now())
             FROM ingestd.job_stats",
        )
        .await;
    assert!(whole);
    let slow: bool = rig
        .ask("SELECT sum(duration_ms) >= 20 AND sum(buckets[1]) = 0 FROM ingestd.job_stats WHERE kind = 't.sleeps'")
        .await;
    assert!(slow);

    let kinds = stats::by_kind(rig.pool(), ALL).await.unwrap();
    let names: Vec<_> = kinds
        .iter()
        .map(|k| (k.queue.as_str(), k.kind.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("default", "t.done"),
            ("default", "t.sleeps"),
            ("other", "t.done"),
            ("other", "t.fails")
        ]
    );
    assert_eq!(kinds[0].figures.success, 50);
    assert!((kinds[0].per_minute - 50.0 / 60.0).abs() < 1e-9);
    assert_eq!((kinds[3].figures.failed(), kinds[3].figures.dead), (3, 1));
    assert!(kinds[1].figures.p50_seconds.unwrap() >= 0.005);
}

#[tokio::test]
async fn figures_are_written_while_the_daemon_runs_and_daemons_add_to_the_same_rows() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.done")]);
    let (one, two) = tokio::join!(setup.start(rig.url()), setup.start(rig.url()));
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.done' FROM generate_series(1, 2000)")
        .await;
    rig.until("coalesce((SELECT sum(n_jobs) FROM ingestd.job_stats), 0) = 2000")
        .await;
    tokio::join!(stop(one), stop(two));
    assert_eq!(sum(rig.pool(), "success").await, Some(2000));
}

#[tokio::test]
async fn what_cannot_be_written_is_kept_for_the_next_time() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.done")]).await;
    // The table refuses everything, and a sequence, which no rollback takes back, tells that it did.
    rig.sql(
        "CREATE SEQUENCE ingestd.refused;
         CREATE FUNCTION ingestd.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM nextval('ingestd.refused'); RAISE EXCEPTION 'not now'; END$$;
         CREATE TRIGGER refuse BEFORE INSERT ON ingestd.job_stats
           FOR EACH ROW EXECUTE FUNCTION ingestd.refuse();
         INSERT INTO ingestd.jobs (kind) SELECT 't.done' FROM generate_series(1, 100)",
    )
    .await;
    rig.until("(SELECT is_called FROM ingestd.refused)").await;
    rig.until_idle().await;
    rig.sql("DROP TRIGGER refuse ON ingestd.job_stats").await;
    rig.until("coalesce((SELECT sum(n_jobs) FROM ingestd.job_stats), 0) = 100")
        .await;
    stop(engine).await;
    assert_eq!(sum(rig.pool(), "success").await, Some(100));
}

#[tokio::test]
async fn figures_are_read_by_minute_and_by_filter() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_stats
           (minute, kind, queue, outcome, n_jobs, duration_ms, wait_ms, buckets)
         SELECT date_trunc('minute', now()) - n * interval '1 min', kind, queue, outcome,
                10, 400, 1000, '{0,10,0,0,0,0,0}'
         FROM (VALUES (0), (1), (59), (60), (600)) AS m (n),
              (VALUES ('t.a', 'q'), ('t.b', 'r')) AS k (kind, queue),
              (VALUES ('success'), ('dead')) AS o (outcome)",
    )
    .await;
    let minutes = stats::by_minute(rig.pool(), ALL).await.unwrap();
    // The minute that began 60 minutes ago is no longer of the last 60.
    assert!((3..=4).contains(&minutes.len()), "{minutes:?}"); // a minute may begin in between
    assert!(minutes.is_sorted_by_key(|minute| minute.minute));
    let last = &minutes[minutes.len() - 1].figures;
    assert_eq!((last.attempts, last.success, last.dead), (40, 20, 20));
    assert!((last.mean_seconds - 0.04).abs() < 1e-9);
    assert!((last.mean_wait_seconds - 0.1).abs() < 1e-9);
    let p50 = last.p50_seconds.unwrap();
    assert!((0.005..=0.05).contains(&p50), "{p50}");

    let one = StatsFilter {
        kind: Some("t.a"),
        queue: Some("q"),
        minutes: 5,
    };
    let kinds = stats::by_kind(rig.pool(), one).await.unwrap();
    assert_eq!(kinds.len(), 1);
    assert_eq!(kinds[0].figures.attempts, 40);
    let none = StatsFilter {
        kind: Some("t.a"),
        queue: Some("r"),
        minutes: 5,
    };
    assert_eq!(stats::by_kind(rig.pool(), none).await.unwrap(), []);
}
