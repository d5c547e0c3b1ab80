//! Schedules: one job a tick, however many daemons; what was missed, what overlaps, what is wrong.

use std::{sync::Arc, time::Duration};

use ingestd::queue::Done;
use tokio::sync::Semaphore;

use crate::queue_rig::{Play, Rig, Setup, done, play, run, stop, until};

fn waiting(name: &'static str) -> (Play, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let play = play(name, move |_| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    (play, gate)
}

/// Counts the ticks of a schedule by their result: `enqueued 1, missed 3`.
fn results(schedule: &str) -> String {
    format!(
        "SELECT string_agg(result || ' ' || n, ', ' ORDER BY result)
         FROM (SELECT result, count(*) n FROM ingestd.schedule_ticks
               WHERE schedule = '{schedule}' GROUP BY result) r"
    )
}

#[tokio::test]
async fn two_engines_make_one_job_of_every_tick() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let setup = Setup::of([done("t.ticks")]);
    let mut engines = vec![setup.start(rig.url()).await, setup.start(rig.url()).await];
    // A busy machine may be late for a tick; then it is to make up for all.
    let insert = "INSERT INTO ingestd.schedules (name, cron, kind, missed)
                  VALUES ('every second', '* * * * * *', 't.ticks', 'all')";
    run(&observer, insert).await;
    let enqueued = |n: i32| {
        format!("(SELECT count(*) >= {n} FROM ingestd.schedule_ticks WHERE result = 'enqueued')")
    };
    until(&observer, &enqueued(2)).await;
    // One goes, right after the sessions of both were cut.
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'ingestd'";
    run(&observer, cut).await;
    stop(engines.remove(0)).await;
    until(&observer, &enqueued(5)).await;
    run(&observer, "UPDATE ingestd.schedules SET paused_at = now()").await;
    until(&observer, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
    let verdict: String = sqlx::query_scalar(
        "SELECT concat_ws(' ',
           extract(epoch FROM max(tick_at) - min(tick_at))::int + 1 - count(*),
           count(*) - count(DISTINCT job_id), count(*) - (SELECT count(*) FROM ingestd.job_history),
           count(*) - count(*) FILTER (WHERE result = 'enqueued'),
           bool_and(tick_at <= handled_at))
         FROM ingestd.schedule_ticks",
    )
    .fetch_one(&observer)
    .await
    .unwrap();
    assert_eq!(
        verdict, "0 0 0 0 t",
        "left out, doubled, lost, not enqueued, not too early"
    );
    for engine in engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn missed_ticks_are_skipped_made_up_for_once_or_all() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.yearly")]).await;
    // Every new year since the one three years ago: four ticks, none of them fresh.
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, missed_max, next_at)
         SELECT name, '0 0 1 1 *', 't.yearly', missed, missed_max,
                date_trunc('year', now(), 'UTC') - interval '3 years'
         FROM (VALUES ('skip', 'skip', 100), ('once', 'once', 100), ('all', 'all', 100),
                      ('two', 'all', 2)) s (name, missed, missed_max)",
    )
    .await;
    rig.until("(SELECT bool_and(next_at > now()) FROM ingestd.schedules)")
        .await;
    for (name, expected) in [
        ("skip", "missed 4"),
        ("once", "enqueued 1, missed 3"),
        ("all", "enqueued 4"),
        ("two", "enqueued 2, missed 2"),
    ] {
        assert_eq!(rig.ask::<String>(&results(name)).await, expected, "{name}");
    }
    let newest = "SELECT tick_at = date_trunc('year', now(), 'UTC') FROM ingestd.schedule_ticks
                  WHERE schedule = 'once' AND result = 'enqueued'";
    assert!(rig.ask::<bool>(newest).await);
    rig.until("(SELECT count(*) = 7 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn once_is_once_after_any_number_of_ticks() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.hourly")]).await;
    // 21,600 ticks: more than one round looks at. None is to come due while the test runs.
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, missed_max, next_at)
         SELECT missed, '0 * * * *', 't.hourly', missed, 3,
                date_trunc('hour', now()) - interval '900 days' + interval '1 hour'
         FROM unnest(ARRAY['once', 'all']) missed",
    )
    .await;
    rig.until("(SELECT bool_and(next_at > now()) FROM ingestd.schedules)")
        .await;
    let backlog = "SELECT string_agg(schedule || ' ' || n, ', ' ORDER BY schedule) FROM (
                     SELECT schedule, count(*) FILTER (WHERE result = 'enqueued') n
                     FROM ingestd.schedule_ticks
                     WHERE tick_at <= (SELECT min(created_at) FROM ingestd.schedules)
                     GROUP BY schedule) s";
    assert_eq!(rig.ask::<String>(backlog).await, "all 3, once 1");
    stop(engine).await;
}

#[tokio::test]
async fn many_missed_ticks_are_made_up_for_in_transactions_of_bounded_size() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.many")]).await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, missed_max, next_at)
         VALUES ('many', '* * * * * *', 't.many', 'all', 10000,
                 date_trunc('second', now()) - interval '1300 s')",
    )
    .await;
    rig.until("(SELECT next_at > now() FROM ingestd.schedules)")
        .await;
    // The time at which a transaction began tells which ticks it handled.
    let largest = "SELECT max(n) FROM (
                     SELECT count(*) AS n FROM ingestd.schedule_ticks GROUP BY handled_at) handled";
    let largest: i64 = rig.ask(largest).await;
    assert!(largest <= 500, "{largest}");
    let all = "SELECT count(*) >= 1300 AND bool_and(result = 'enqueued')
                 AND count(*) = extract(epoch FROM max(tick_at) - min(tick_at)) + 1
               FROM ingestd.schedule_ticks";
    assert!(rig.ask::<bool>(all).await);
    stop(engine).await;
}

#[tokio::test]
async fn a_tick_is_handled_once_even_when_next_at_is_set_back() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.yearly"), done("t.other")]).await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, next_at)
         VALUES ('back', '0 0 1 1 *', 't.yearly', 'all',
                 date_trunc('year', now(), 'UTC') - interval '2 years')",
    )
    .await;
    rig.until("(SELECT next_at > now() FROM ingestd.schedules)")
        .await;
    assert_eq!(rig.ask::<String>(&results("back")).await, "enqueued 3");
    // One of the old ticks and one that nobody has seen, and a schedule that is due after them.
    rig.sql(
        "UPDATE ingestd.schedules SET next_at = date_trunc('year', now(), 'UTC') - interval '3 years';
         INSERT INTO ingestd.schedules (name, cron, kind, next_at)
           VALUES ('other', '0 0 1 1 *', 't.other', date_trunc('year', now(), 'UTC'))",
    )
    .await;
    rig.until("(SELECT bool_and(next_at > now()) FROM ingestd.schedules)")
        .await;
    assert_eq!(rig.ask::<String>(&results("back")).await, "enqueued 4");
    assert_eq!(rig.ask::<String>(&results("other")).await, "enqueued 1");
    rig.until("(SELECT count(*) = 5 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn a_tick_that_overlaps_is_skipped() {
    let rig = Rig::new().await;
    let (play, gate) = waiting("t.overlaps");
    let engine = rig.play([play]).await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, overlap)
         VALUES ('skips', '* * * * * *', 't.overlaps', 'skip')",
    )
    .await;
    let overlaps = "EXISTS (SELECT FROM ingestd.schedule_ticks WHERE result = 'overlap')";
    rig.until(overlaps).await;
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 1);
    gate.add_permits(1);
    rig.until("(SELECT count(*) = 2 FROM ingestd.schedule_ticks WHERE result = 'enqueued')")
        .await;
    gate.add_permits(1000);
    stop(engine).await;
}

#[tokio::test]
async fn overlapping_ticks_wait_for_their_turn() {
    let rig = Rig::new().await;
    let (play, gate) = waiting("t.queues");
    let engine = rig.play([play]).await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, overlap, missed, next_at)
         VALUES ('queues', '0 0 1 1 *', 't.queues', 'queue', 'all',
                 date_trunc('year', now(), 'UTC') - interval '3 years')",
    )
    .await;
    for n in 1..=4 {
        // In their order, one unfinished at a time.
        let nth = format!(
            "(SELECT count(*) = {n} AND max(tick_at) = date_trunc('year', now(), 'UTC')
                + ({n} - 4) * interval '1 year' FROM ingestd.schedule_ticks)"
        );
        rig.until(&nth).await;
        rig.until("(SELECT count(*) = 1 FROM ingestd.jobs WHERE state = 'running')")
            .await;
        assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 1);
        gate.add_permits(1);
    }
    rig.until("(SELECT next_at > now() FROM ingestd.schedules)")
        .await;
    assert_eq!(rig.ask::<String>(&results("queues")).await, "enqueued 4");
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn what_is_wrong_is_marked_and_stops_nobody_else() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.right")]).await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, timezone, kind, next_at) VALUES
           ('new bad line', 'every day', 'UTC', 't.right', NULL),
           ('new bad zone', '* * * * *', 'Mars/Base', 't.right', NULL),
           ('edited to a bad line', 'every day', 'UTC', 't.right', now() - interval '3 s'),
           ('no such kind', '0 0 1 1 *', 'UTC', 't.wrong', now() - interval '2 s'),
           ('never again', '0 0 30 2 *', 'UTC', 't.right', NULL),
           ('right', '0 0 1 1 *', 'UTC', 't.right', now() - interval '1 s')",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    rig.until("(SELECT count(*) = 5 FROM ingestd.schedules WHERE last_error IS NOT NULL)")
        .await;
    let marked = "SELECT string_agg(name || ': ' || last_error, E'\\n' ORDER BY name)
                  FROM ingestd.schedules WHERE last_error IS NOT NULL";
    let marked: String = rig.ask(marked).await;
    let lines: Vec<_> = marked.lines().collect();
    assert!(
        lines[0].contains("edited") && lines[0].contains("every day"),
        "{marked}"
    );
    assert!(
        lines[1].contains("never again") && lines[1].contains("ever comes"),
        "{marked}"
    );
    assert!(
        lines[2].contains("new bad line") && lines[2].contains("every day"),
        "{marked}"
    );
    assert!(lines[3].contains("Mars/Base"), "{marked}");
    assert!(
        lines[4].contains("no such kind") && lines[4].contains("t.wrong"),
        "{marked}"
    );
    assert_eq!(
        rig.ask::<String>(&results("no such kind")).await,
        "failed 1"
    );
    // Mended as the command line does it: the line, and what was computed from it.
    rig.sql(
        "UPDATE ingestd.schedules SET cron = '* * * * * *', next_at = NULL, last_error = NULL
         WHERE name = 'new bad line'",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.schedule_ticks WHERE schedule = 'new bad line')")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn a_paused_schedule_ticks_past_and_resumes_with_the_next() {
    let rig = Rig::new().await;
    let engine = rig.play([done("t.paused"), done("t.witness")]).await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, paused_at) VALUES
           ('paused', '* * * * * *', 't.paused', 'all', now()),
           ('witness', '* * * * * *', 't.witness', 'all', NULL)",
    )
    .await;
    rig.until("(SELECT count(*) >= 2 FROM ingestd.schedule_ticks WHERE schedule = 'witness')")
        .await;
    let none = "SELECT NOT EXISTS (SELECT FROM ingestd.schedule_ticks WHERE schedule = 'paused')";
    assert!(rig.ask::<bool>(none).await);
    rig.sql("UPDATE ingestd.schedules SET paused_at = NULL, next_at = NULL, updated_at = now()")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.schedule_ticks WHERE schedule = 'paused')")
        .await;
    let first = "SELECT min(t.tick_at) > min(s.updated_at) FROM ingestd.schedules s
                 JOIN ingestd.schedule_ticks t ON t.schedule = s.name WHERE s.name = 'paused'";
    assert!(rig.ask::<bool>(first).await);
    stop(engine).await;
}

#[tokio::test]
async fn jitter_delays_the_job_and_not_the_tick() {
    let rig = Rig::new().await;
    let engine = Setup::of([done("t.jittered")])
        .with(|q| q.poll_interval = Duration::from_hours(1))
        .start(rig.url())
        .await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, jitter_ms, next_at)
         VALUES ('jitter', '0 0 1 1 *', 't.jittered', 'all', 3600000,
                 date_trunc('year', now(), 'UTC') - interval '20 years')",
    )
    .await;
    rig.until("(SELECT count(*) = 21 FROM ingestd.schedule_ticks)")
        .await;
    let spread = "SELECT count(DISTINCT run_at) > 10 AND max(run_at) < now() + interval '1 h'
                  FROM ingestd.all_jobs";
    assert!(rig.ask::<bool>(spread).await);
    stop(engine).await;
}
