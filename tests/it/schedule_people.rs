//! What people do to schedules: change, run now, make up for a range.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use ingestd::queue::schedule::{
    Definition, Overlap,
    backfill::{self, BackfillError, Range},
    control::{self, Change, RunNow},
    explain,
};

use crate::queue_rig::{Rig, Setup, done, stop};

/// Makes a rig whose database knows `t.kind`, without a daemon.
async fn quiet() -> Rig {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.kind', 'default', 3, 60)",
    )
    .await;
    rig
}

/// A range of whole hours before the present one.
async fn hours(rig: &Rig, from: i64, to: i64) -> Range {
    let hour: DateTime<Utc> = rig.ask("SELECT date_trunc('hour', now())").await;
    Range {
        from: hour - TimeDelta::hours(from),
        to: hour - TimeDelta::hours(to),
        limit: None,
        spacing: Duration::ZERO,
        priority: None,
        force: false,
        retention_days: 30,
    }
}

async fn hourly(rig: &Rig, overlap: Overlap) {
    let definition = Definition {
        overlap,
        ..Definition::new("0 * * * *", "t.kind")
    };
    let mut conn = rig.pool().acquire().await.unwrap();
    let made = control::create(&mut conn, "hourly", &definition, false).await;
    assert_eq!(made.unwrap(), Change::Made);
}

#[tokio::test]
async fn a_range_is_made_up_for_once() {
    let rig = quiet().await;
    hourly(&rig, Overlap::Allow).await;
    // One became a job, one was left out, one failed; the others nobody saw.
    rig.sql(
        "INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id, error)
         SELECT 'hourly', date_trunc('hour', now()) - n * interval '1 h', result, job, error
         FROM (VALUES (2, 'enqueued', 4711, NULL), (3, 'missed', NULL, NULL),
                      (4, 'failed', NULL, 'no')) t (n, result, job, error)",
    )
    .await;
    let range = hours(&rig, 6, 0).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let plan = backfill::plan(&mut conn, "hourly", &range).await.unwrap();
    assert_eq!((plan.n_jobs, plan.n_skipped, plan.left_from), (5, 1, None));
    assert_eq!(plan.skipped[0].job_id.0, 4711);
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 0);
    let done = backfill::backfill(&mut conn, "hourly", &range, "me")
        .await
        .unwrap();
    assert_eq!((done.n_jobs, done.n_skipped, done.job_ids.len()), (5, 1, 5));
    let again = backfill::backfill(&mut conn, "hourly", &range, "me")
        .await
        .unwrap();
    assert_eq!((again.n_jobs, again.n_skipped), (0, 6));
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', count(*), count(DISTINCT j.id),
                      bool_and((j.meta->>'tick_at')::timestamptz = t.tick_at),
                      bool_and(j.meta->>'backfill' = 'true' AND j.meta->>'schedule' = 'hourly'),
                      bool_and(j.meta->>'enqueued_by' = 'me' AND t.error IS NULL))
             FROM ingestd.schedule_ticks t JOIN ingestd.jobs j ON j.id = t.job_id
             WHERE t.result = 'backfilled'",
        )
        .await;
    assert_eq!(verdict, "5 5 t t t");
    // A tick's own job and a backfilled one look alike to whoever reads tick_at.
    let text = "SELECT bool_and(meta->>'tick_at' LIKE '%:00:00Z') FROM ingestd.jobs";
    assert!(rig.ask::<bool>(text).await);
}

#[tokio::test]
async fn a_limit_is_gone_on_from() {
    let rig = quiet().await;
    hourly(&rig, Overlap::Allow).await;
    let mut range = hours(&rig, 5, 0).await;
    range.limit = Some(2);
    range.priority = Some(3);
    range.spacing = Duration::from_secs(10);
    let mut conn = rig.pool().acquire().await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..4 {
        let done = backfill::backfill(&mut conn, "hourly", &range, "me")
            .await
            .unwrap();
        counts.push((done.n_jobs, done.left_from.is_some()));
    }
    assert_eq!(counts, [(2, true), (2, true), (1, false), (0, false)]);
    let spaced: bool = rig
        .ask(
            "SELECT count(*) FILTER (WHERE run_at = created_at + interval '10 s') = 2
               AND bool_and(priority = 3) FROM ingestd.jobs",
        )
        .await;
    assert!(spaced, "the second of each two is due ten seconds later");
}

#[tokio::test]
async fn a_backfill_that_cannot_be_right_is_refused() {
    let rig = quiet().await;
    hourly(&rig, Overlap::Skip).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let mut refused = async |range: &Range| {
        backfill::backfill(&mut conn, "hourly", range, "me")
            .await
            .err()
            .map(|error| match error {
                BackfillError::Backwards => "backwards",
                BackfillError::Future(_) => "future",
                BackfillError::OutOfRange => "out of range",
                BackfillError::TooMany(_) => "too many",
                BackfillError::TooLong(_) => "too long",
                BackfillError::Overlaps => "overlaps",
                BackfillError::Forgotten { .. } => "forgotten",
                _ => "else",
            })
    };
    assert_eq!(refused(&hours(&rig, 1, 1).await).await, Some("backwards"));
    assert_eq!(refused(&hours(&rig, 1, -1).await).await, Some("future"));
    let mut range = hours(&rig, 5, 0).await;
    assert_eq!(refused(&range).await, Some("overlaps"));
    range.limit = Some(0);
    assert_eq!(refused(&range).await, Some("out of range"));
    range = hours(&rig, 20_000, 0).await;
    range.force = true;
    assert_eq!(refused(&range).await, Some("too many"));
    range = hours(&rig, 200_000, 0).await;
    range.force = true;
    assert_eq!(refused(&range).await, Some("too long"));
    rig.sql("UPDATE ingestd.schedules SET created_at = now() - interval '40 days'")
        .await;
    range = hours(&rig, 24 * 35, 0).await;
    range.spacing = Duration::from_secs(1);
    assert_eq!(refused(&range).await, Some("forgotten"));
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 0);
    range.force = true;
    assert_eq!(refused(&range).await, None);
    let missing = backfill::plan(&mut conn, "none", &range).await.unwrap_err();
    assert!(matches!(missing, BackfillError::NotFound));
}

#[tokio::test]
async fn a_tick_that_was_backfilled_is_not_ticked_again() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.kind")]).await;
    // Paused, its last three hours pass; somebody makes up for two of them, then it is set back.
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, paused_at)
         VALUES ('hourly', '0 * * * *', 't.kind', 'all', now())",
    )
    .await;
    let range = hours(&rig, 2, 0).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let done = backfill::backfill(&mut conn, "hourly", &range, "me")
        .await
        .unwrap();
    assert_eq!(done.n_jobs, 2);
    rig.sql(
        "UPDATE ingestd.schedules
         SET paused_at = NULL, next_at = date_trunc('hour', now()) - interval '3 h'",
    )
    .await;
    rig.until("(SELECT next_at > now() FROM ingestd.schedules)")
        .await;
    rig.until_idle().await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', count(*) FILTER (WHERE result = 'backfilled'),
                      count(*) FILTER (WHERE result = 'enqueued') >= 2,
                      count(*) = (SELECT count(*) FROM ingestd.job_history))
             FROM ingestd.schedule_ticks",
        )
        .await;
    assert_eq!(verdict, "2 t t");
    stop(engine).await;
}

#[tokio::test]
async fn a_run_now_is_beside_the_ticks_and_minds_the_overlap() {
    let rig = quiet().await;
    hourly(&rig, Overlap::Skip).await;
    rig.sql("UPDATE ingestd.schedules SET next_at = '2100-01-01'")
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let run = control::run_now(&mut conn, "hourly", "me", false)
        .await
        .unwrap();
    let RunNow::Enqueued(first) = run else {
        panic!("{run:?}")
    };
    let run = control::run_now(&mut conn, "hourly", "me", false)
        .await
        .unwrap();
    assert_eq!(run, RunNow::Overlaps(first));
    let run = control::run_now(&mut conn, "hourly", "me", true)
        .await
        .unwrap();
    assert!(matches!(run, RunNow::Enqueued(id) if id != first));
    let run = control::run_now(&mut conn, "none", "me", true)
        .await
        .unwrap();
    assert_eq!(run, RunNow::NotFound);
    let kept = "SELECT next_at = '2100-01-01' FROM ingestd.schedules";
    assert!(rig.ask::<bool>(kept).await);
    let meta = "SELECT bool_and(meta @> '{\"schedule\": \"hourly\", \"by_hand\": true,
                                         \"enqueued_by\": \"me\"}') FROM ingestd.jobs";
    assert!(rig.ask::<bool>(meta).await);
    // A tick now finds the job made by hand in its way.
    rig.sql("UPDATE ingestd.schedules SET next_at = date_trunc('hour', now())")
        .await;
    let engine = Setup::of([]).start(rig.url()).await;
    rig.until("EXISTS (SELECT FROM ingestd.schedule_ticks WHERE result = 'overlap')")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn a_change_of_the_line_forgets_the_next_time_and_nothing_else_does() {
    let rig = quiet().await;
    hourly(&rig, Overlap::Allow).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let next = "SELECT coalesce(next_at::date::text, 'none') FROM ingestd.schedules";
    rig.sql("UPDATE ingestd.schedules SET next_at = '2100-01-01'")
        .await;
    let mut definition = Definition::new("0 * * * *", "t.kind");
    definition.jitter_ms = 5;
    let changed = control::change(&mut conn, "hourly", &definition)
        .await
        .unwrap();
    assert_eq!(
        (changed, rig.ask::<String>(next).await.as_str()),
        (Change::Made, "2100-01-01")
    );
    definition.timezone = "Asia/Kolkata".to_owned();
    control::change(&mut conn, "hourly", &definition)
        .await
        .unwrap();
    assert_eq!(rig.ask::<String>(next).await, "none");
    // In plain SQL as well; a statement that says when is obeyed.
    rig.sql("UPDATE ingestd.schedules SET next_at = '2100-01-01'")
        .await;
    rig.sql("UPDATE ingestd.schedules SET cron = '5 * * * *'")
        .await;
    assert_eq!(rig.ask::<String>(next).await, "none");
    rig.sql("UPDATE ingestd.schedules SET cron = '6 * * * *', next_at = '2100-01-01'")
        .await;
    assert_eq!(rig.ask::<String>(next).await, "2100-01-01");
    let unknown = Definition::new("0 * * * *", "t.kin");
    let error = control::change(&mut conn, "hourly", &unknown).await;
    assert!(error.unwrap_err().to_string().contains("t.kin"));
    let missing = control::change(&mut conn, "none", &definition)
        .await
        .unwrap();
    assert_eq!(missing, Change::NotFound);
    rig.sql("UPDATE ingestd.schedules SET origin = 'config', config_set = 's'")
        .await;
    let owned = Change::Owned("config".to_owned());
    assert_eq!(
        control::change(&mut conn, "hourly", &definition)
            .await
            .unwrap(),
        owned
    );
    assert_eq!(control::remove(&mut conn, "hourly").await.unwrap(), owned);
    let taken = control::create(&mut conn, "hourly", &definition, false)
        .await
        .unwrap();
    assert_eq!(taken, Change::Taken("config".to_owned()));
}

#[tokio::test]
async fn an_explanation_has_ticks_their_jobs_and_what_failed() {
    let rig = quiet().await;
    hourly(&rig, Overlap::Queue).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    rig.sql(
        "INSERT INTO ingestd.dead_jobs
           (id, kind, args, queue, priority, attempt, crashes, reason, error, fingerprint, created_at)
         VALUES (7, 't.kind', '{}', 'default', 1, 3, 0, 'exhausted', 'no such host', 1, now());
         INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id)
         VALUES ('hourly', date_trunc('hour', now()) - interval '1 h', 'enqueued', 7)",
    )
    .await;
    let RunNow::Enqueued(id) = control::run_now(&mut conn, "hourly", "me", false)
        .await
        .unwrap()
    else {
        panic!("it is unfinished by nobody")
    };
    let explained = explain::explain(&mut conn, "hourly", 10)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(explained.upcoming.len(), 10);
    let states: Vec<_> = explained
        .last_ticks
        .iter()
        .map(|tick| (tick.result.as_str(), tick.job_state.as_deref()))
        .collect();
    assert_eq!(
        states,
        [("by_hand", Some("queued")), ("enqueued", Some("dead"))]
    );
    let failed = explained.last_failure.unwrap();
    assert_eq!(
        (failed.job_id.unwrap().0, failed.error.as_deref()),
        (7, Some("no such host"))
    );
    assert_eq!(explained.unfinished_job, Some(id));
    assert!(
        explained.if_due_now.contains("would wait"),
        "{}",
        explained.if_due_now
    );
    assert!(
        explain::explain(&mut conn, "none", 1)
            .await
            .unwrap()
            .is_none()
    );
}
