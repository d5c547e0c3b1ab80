//! Schedules under faults: pumps that die at every step, clocks that are set, long outages, and
//! random ones.

use chrono::{DateTime, Utc};
use ingestd::queue::{Timetable, schedule::Missed};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

use crate::queue_rig::{Rig, Setup, done, run, stop, until};

/// Makes every session that reaches a step of a tick's transaction die there, six times over.
fn deadly(step: &str) -> String {
    format!(
        "CREATE SEQUENCE deaths;
         CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
           -- A sequence keeps its count when the transaction that drew from it is rolled back.
           IF nextval('deaths') <= 6 THEN
             PERFORM pg_terminate_backend(pg_backend_pid());
             PERFORM pg_sleep(60);
           END IF;
           RETURN NULL;
         END$$;
         {step}"
    )
}

#[tokio::test]
async fn a_pump_may_die_at_any_step() {
    for (name, step) in [
        (
            "after a job",
            "CREATE TRIGGER die AFTER INSERT ON ingestd.jobs
                         FOR EACH ROW EXECUTE FUNCTION die()",
        ),
        (
            "after a tick",
            "CREATE TRIGGER die AFTER INSERT ON ingestd.schedule_ticks
                          FOR EACH ROW EXECUTE FUNCTION die()",
        ),
        (
            "after the next time",
            "CREATE TRIGGER die AFTER UPDATE OF next_at ON ingestd.schedules
                                 FOR EACH ROW EXECUTE FUNCTION die()",
        ),
        (
            "at the commit",
            "CREATE CONSTRAINT TRIGGER die AFTER INSERT ON ingestd.schedule_ticks
                           DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()",
        ),
    ] {
        let rig = Rig::new().await;
        let observer = rig.observer().await;
        let setup = Setup::of([done("t.ticks")]);
        let engines = [setup.start(rig.url()).await, setup.start(rig.url()).await];
        run(&observer, &deadly(step)).await;
        let insert = "INSERT INTO ingestd.schedules (name, cron, kind, missed, next_at)
                      VALUES ('yearly', '0 0 1 1 *', 't.ticks', 'all',
                              date_trunc('year', now(), 'UTC') - interval '4 years')";
        run(&observer, insert).await;
        until(&observer, "(SELECT next_at > now() FROM ingestd.schedules)").await;
        until(&observer, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
        let verdict: String = sqlx::query_scalar(
            "SELECT concat_ws(' ', (SELECT last_value > 6 FROM deaths), count(*),
                      count(DISTINCT t.job_id), count(h.id),
                      (SELECT count(*) FROM ingestd.job_history))
             FROM ingestd.schedule_ticks t LEFT JOIN ingestd.job_history h ON h.id = t.job_id",
        )
        .fetch_one(&observer)
        .await
        .unwrap();
        assert_eq!(
            verdict, "t 5 5 5 5",
            "{name}: deaths, ticks, their jobs, all jobs"
        );
        for engine in engines {
            stop(engine).await;
        }
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_leaves_no_schedule_behind() {
    let rig = Rig::new().await;
    // As it stands after the clock ran a year ahead, ticked there, and was set back: of the next
    // ten minutes every second tick became a job, the others were missed; the last one failed.
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, last_error, next_at, last_at)
         VALUES ('ahead', '* * * * * *', 't.ticks', 'all', 'no such kind',
                 date_trunc('second', now()) + interval '1 year 1 s',
                 date_trunc('second', now()) + interval '1 year');
         INSERT INTO ingestd.schedule_ticks (schedule, tick_at, result, job_id)
         SELECT 'ahead', date_trunc('second', now()) + n * interval '1 s',
                CASE n % 2 WHEN 0 THEN 'enqueued' ELSE 'missed' END,
                CASE n % 2 WHEN 0 THEN -n END
         FROM generate_series(1, 600) n",
    )
    .await;
    let engine = rig.play([done("t.ticks")]).await;
    rig.until("(SELECT count(*) >= 3 FROM ingestd.schedule_ticks WHERE job_id > 0)")
        .await;
    rig.sql("UPDATE ingestd.schedules SET paused_at = now()")
        .await;
    rig.until_idle().await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', count(*) FILTER (WHERE job_id < 0),
               count(*) FILTER (WHERE result = 'missed' AND tick_at > now()),
               count(*) FILTER (WHERE job_id > 0) - (SELECT count(*) FROM ingestd.job_history))
             FROM ingestd.schedule_ticks",
        )
        .await;
    assert_eq!(
        verdict, "300 0 0",
        "done ahead, still taken for missed, doubled"
    );
    stop(engine).await;
}

#[tokio::test]
async fn a_week_away_costs_no_more_than_the_policy_says() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed, missed_max, overlap, next_at)
         SELECT name, '* * * * *', 't.ticks', missed, most, overlap,
                date_trunc('minute', now()) - interval '7 days'
         FROM (VALUES ('skip', 'skip', 50, 'allow'), ('once', 'once', 50, 'allow'),
                      ('all', 'all', 50, 'allow'), ('one by one', 'all', 5, 'queue'))
              s (name, missed, most, overlap)",
    )
    .await;
    let before: DateTime<Utc> = rig.ask("SELECT now()").await;
    let engine = rig.play([done("t.ticks")]).await;
    rig.until("(SELECT bool_and(next_at > now()) FROM ingestd.schedules)")
        .await;
    for (name, most) in [("skip", 1), ("once", 1), ("all", 50), ("one by one", 5)] {
        let (old, all): (i64, i64) = sqlx::query_as(
            "SELECT count(*) FILTER (WHERE tick_at <= $2), count(*) FROM ingestd.schedule_ticks
             WHERE schedule = $1 AND result = 'enqueued'",
        )
        .bind(name)
        .bind(before)
        .fetch_one(rig.pool())
        .await
        .unwrap();
        // Minutes that begin meanwhile have ticks of their own, which may take the place of old ones.
        let least = if name == "skip" { 0 } else { most };
        assert!(
            old <= most && all >= least,
            "{name}: {old} of the week, {all} in all"
        );
    }
    let whole = "SELECT bool_and(n = 1 + extract(epoch FROM newest - oldest) / 60 AND n > 10000)
                 FROM (SELECT count(*) n, max(tick_at) newest, min(tick_at) oldest
                       FROM ingestd.schedule_ticks GROUP BY schedule) s";
    assert!(rig.ask::<bool>(whole).await, "every tick is accounted for");
    stop(engine).await;
}

/// A schedule and how many of its ticks passed while no daemon ran.
#[derive(Debug, Clone)]
struct Outage {
    cron: &'static str,
    zone: &'static str,
    missed: Missed,
    missed_max: i32,
    n_ticks: usize,
}

fn outage() -> impl Strategy<Value = Outage> {
    // Rare enough that hardly any tick falls into the test itself.
    let crons = prop::sample::select(vec![
        "0 0 1 1 *",
        "15 4 1 * *",
        "30 2 * * 0",
        "59 59 1 * * 1",
    ]);
    let zones = prop::sample::select(vec!["UTC", "Europe/Prague", "Australia/Lord_Howe"]);
    let missed = prop::sample::select(vec![Missed::Skip, Missed::Once, Missed::All]);
    (crons, zones, missed, 1..40_i32, 1..120_usize).prop_map(
        |(cron, zone, missed, missed_max, n_ticks)| Outage {
            cron,
            zone,
            missed,
            missed_max,
            n_ticks,
        },
    )
}

/// Returns the due times up to `now`, about `n` of them, oldest first.
fn passed(outage: &Outage, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let timetable = Timetable::parse(outage.cron, outage.zone).unwrap();
    let begin = now - chrono::TimeDelta::days(366 * 120);
    let begin = match outage.cron {
        "0 0 1 1 *" => begin,
        _ => now - chrono::TimeDelta::days(31 * 125),
    };
    let mut all: Vec<_> =
        std::iter::successors(timetable.next_after(begin), |at| timetable.next_after(*at))
            .take_while(|at| *at <= now)
            .collect();
    all.split_off(all.len().saturating_sub(outage.n_ticks))
}

#[tokio::test]
async fn no_tick_is_lost_or_doubled_after_random_outages() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let outages: Vec<Outage> = (0..60)
        .map(|_| outage().new_tree(&mut runner).unwrap().current())
        .collect();
    let rig = Rig::new().await;
    let now: DateTime<Utc> = rig.ask("SELECT now()").await;
    for (n, outage) in outages.iter().enumerate() {
        sqlx::query(
            "INSERT INTO ingestd.schedules
               (name, cron, timezone, kind, missed, missed_max, next_at)
             VALUES ($1, $2, $3, 't.ticks', $4, $5, $6)",
        )
        .bind(n.to_string())
        .bind(outage.cron)
        .bind(outage.zone)
        .bind(outage.missed)
        .bind(outage.missed_max)
        .bind(passed(outage, now)[0])
        .execute(rig.pool())
        .await
        .unwrap();
    }
    let setup = Setup::of([done("t.ticks")]);
    let engines = [setup.start(rig.url()).await, setup.start(rig.url()).await];
    rig.until("(SELECT bool_and(next_at > now()) FROM ingestd.schedules)")
        .await;
    rig.until_idle().await;
    for (n, outage) in outages.iter().enumerate() {
        let handled: Vec<(DateTime<Utc>, bool)> = sqlx::query_as(
            "SELECT tick_at, job_id IS NOT NULL FROM ingestd.schedule_ticks
             WHERE schedule = $1 AND tick_at <= $2 ORDER BY tick_at",
        )
        .bind(n.to_string())
        .bind(now)
        .fetch_all(rig.pool())
        .await
        .unwrap();
        let due = passed(outage, now);
        let ticks: Vec<_> = handled.iter().map(|(at, _)| *at).collect();
        assert_eq!(ticks, due, "{outage:?}");
        let most = match outage.missed {
            Missed::All => usize::try_from(outage.missed_max).unwrap(),
            Missed::Once => 1,
            Missed::Skip => 0,
        };
        let n_jobs = handled.iter().filter(|(_, job)| *job).count();
        let newest = handled.iter().rev().take(n_jobs).all(|(_, job)| *job);
        // A tick within the test's own time may be fresh, or take the place of a missed one.
        let expected = most.min(due.len());
        let near = expected.saturating_sub(1)..=expected + 1;
        assert!(
            newest && near.contains(&n_jobs),
            "{n_jobs} of {expected}: {outage:?}"
        );
    }
    let twice = "SELECT count(*) - count(DISTINCT job_id) + count(job_id)
                   - (SELECT count(*) FROM ingestd.job_history)
                 FROM ingestd.schedule_ticks WHERE job_id IS NOT NULL";
    assert_eq!(rig.ask::<i64>(twice).await, 0);
    for engine in engines {
        stop(engine).await;
    }
}
