//! Steps: a later attempt goes on where the last one ended, and a late one saves nothing.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::queue::{
    Done, JobError, JobId,
    dead::{self, Begin},
    record,
};
use tokio::sync::Semaphore;

use crate::queue_rig::{Ctx, Rig, Setup, counter, play, run, stop, until_true};

/// Counts how often each step's work was run.
#[derive(Clone, Default)]
struct Worked(Arc<Mutex<Vec<String>>>);

impl Worked {
    fn on(&self, step: &str) {
        self.0.lock().unwrap().push(step.to_owned());
    }

    fn all(&self) -> String {
        self.0.lock().unwrap().join(" ")
    }
}

/// Adds up: each step returns one more than the one before.
async fn count_up(ctx: &Ctx, worked: &Worked, from: u32, step: &str) -> Result<u32, JobError> {
    let work = async || {
        worked.on(step);
        Ok(from + 1)
    };
    ctx.step(step, work).await
}

const ERRORS: &str = "SELECT string_agg(error, '; ' ORDER BY attempt) FROM ingestd.job_attempts";

#[tokio::test]
async fn a_retried_job_skips_what_is_done() {
    let (rig, worked) = (Rig::new().await, Worked::default());
    let works = worked.clone();
    let engine = rig
        .play([play("t.steps", move |ctx| {
            let worked = works.clone();
            async move {
                let one = count_up(&ctx, &worked, 0, "one").await?;
                let two = count_up(&ctx, &worked, one, "two").await?;
                if ctx.lease().attempt == 1 {
                    return Err(anyhow::anyhow!("between two steps").into());
                }
                let work = async || {
                    worked.on("three");
                    match ctx.lease().attempt {
                        2 => Err(anyhow::anyhow!("within a step").into()),
                        _ => Ok(two + 1),
                    }
                };
                let three: u32 = ctx.step("three", work).await?;
                assert_eq!(three, 3);
                Ok(Done::new())
            }
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.steps')")
        .await;
    rig.until_idle().await;
    let errors: String = rig.ask(ERRORS).await;
    assert_eq!(errors, "between two steps; within a step");
    assert_eq!(worked.all(), "one two three three");
    let saved = "SELECT string_agg(concat_ws(' ', step, result, attempt), ', ' ORDER BY result)
                 FROM ingestd.job_steps";
    assert_eq!(
        rig.ask::<String>(saved).await,
        "one 1 1, two 2 1, three 3 3"
    );
    stop(engine).await;
}

#[tokio::test]
async fn a_step_and_its_effects_commit_or_roll_back_together() {
    let (rig, worked) = (Rig::new().await, Worked::default());
    rig.sql("CREATE TABLE effects (attempt smallint)").await;
    let works = worked.clone();
    let engine = rig
        .play([play("t.together", move |ctx| {
            let worked = works.clone();
            async move {
                let mut tx = ctx.state().db.begin().await?;
                let attempt = ctx.lease().attempt;
                let write = async |conn: &mut sqlx::PgConnection| {
                    worked.on("write");
                    let insert = sqlx::query("INSERT INTO effects VALUES ($1)");
                    insert.bind(attempt).execute(conn).await?;
                    Ok(attempt)
                };
                let written: i16 = ctx.step_in(&mut tx, "write", write).await?;
                match attempt {
                    1 => return Err(anyhow::anyhow!("rolled back").into()),
                    2 => {
                        tx.commit().await?;
                        return Err(anyhow::anyhow!("committed").into());
                    }
                    _ => assert_eq!(written, 2),
                }
                Ok(Done::new())
            }
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.together')")
        .await;
    rig.until_idle().await;
    assert_eq!(rig.ask::<String>(ERRORS).await, "rolled back; committed");
    assert_eq!(worked.all(), "write write");
    let effects = "SELECT string_agg(attempt::text, ' ') FROM effects";
    assert_eq!(rig.ask::<String>(effects).await, "2");
    let steps = "SELECT string_agg(concat_ws(' ', step, attempt), ', ') FROM ingestd.job_steps";
    assert_eq!(rig.ask::<String>(steps).await, "write 2");
    stop(engine).await;
}

/// Takes every lease away, as a rescue does that believes the workers dead.
const TAKE_AWAY: &str = "
    UPDATE ingestd.jobs SET state = 'queued', lease_id = NULL, worker_id = NULL
    WHERE state = 'running'";

/// Saves one step in the way that the arguments say.
async fn save(ctx: &Ctx, work: impl AsyncFnOnce() -> u32) -> Result<Done, JobError> {
    let value: u32 = if ctx.lease().args.get().contains("in") {
        // Fenced before it works, it would hold on to its lease until it is let go on.
        let n = work().await;
        let mut tx = ctx.state().db.begin().await?;
        let value = ctx.step_in(&mut tx, "contested", async |_| Ok(n)).await?;
        tx.commit().await?;
        value
    } else {
        ctx.step("contested", async || Ok(work().await)).await?
    };
    assert_eq!(value, 2, "the first attempt saved nothing");
    Ok(Done::new())
}

#[tokio::test]
async fn of_two_attempts_at_once_only_the_one_with_the_lease_saves() {
    let rig = Rig::new().await;
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    let begun = Arc::new(AtomicUsize::new(0));
    let (waits, begins) = (gates.clone(), Arc::clone(&begun));
    let contested = play("t.stale_step", move |ctx| {
        let attempt = ctx.lease().attempt;
        let gate = Arc::clone(&waits[usize::from(attempt != 1)]);
        let begun = Arc::clone(&begins);
        async move {
            let work = async || {
                begun.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                u32::from(attempt.unsigned_abs())
            };
            save(&ctx, work).await
        }
    });
    let setup = Setup::of([contested.queue("stale_step")])
        .slots("stale_step", 4)
        // No heartbeat tells the first attempts that they have lost their leases.
        .with(|q| q.heartbeat_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    rig.sql(
        r#"INSERT INTO ingestd.jobs (kind, args)
           VALUES ('t.stale_step', '{}'), ('t.stale_step', '{"in": true}')"#,
    )
    .await;
    until_true("both first attempts work", || {
        begun.load(Ordering::SeqCst) == 2
    })
    .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.jobs WHERE state = 'running')")
        .await;
    rig.sql(TAKE_AWAY).await;
    until_true("both second attempts work", || {
        begun.load(Ordering::SeqCst) == 4
    })
    .await;
    gates[0].add_permits(2);
    let fenced = || counter("ingestd_lease_lost_total{queue=\"stale_step\"}");
    until_true("both first attempts were fenced", || fenced() >= 2.0).await;
    let n_saved = "SELECT count(*) FROM ingestd.job_steps";
    assert_eq!(rig.ask::<i64>(n_saved).await, 0);
    gates[1].add_permits(2);
    rig.until_idle().await;
    let saved = "SELECT string_agg(concat_ws(' ', step, result, attempt), ', ')
                 FROM ingestd.job_steps";
    assert_eq!(
        rig.ask::<String>(saved).await,
        "contested 2 2, contested 2 2"
    );
    let ended = "SELECT count(*) FROM ingestd.job_history WHERE attempt = 2";
    assert_eq!(rig.ask::<i64>(ended).await, 2);
    stop(engine).await;
}

#[tokio::test]
async fn a_result_that_no_longer_fits_fails_the_attempt_and_is_kept() {
    let (rig, worked) = (Rig::new().await, Worked::default());
    let works = worked.clone();
    let engine = rig
        .play([play("t.upgraded", move |ctx| {
            let worked = works.clone();
            async move {
                let work = async || {
                    worked.on("names");
                    Ok(Vec::new())
                };
                let _: Vec<String> = ctx.step("names", work).await?;
                Ok(Done::new())
            }
        })])
        .await;
    rig.sql(
        r#"WITH job AS (INSERT INTO ingestd.jobs (kind) VALUES ('t.upgraded') RETURNING id)
           INSERT INTO ingestd.job_steps (job_id, step, result, lease_id, attempt)
           SELECT id, 'names', '{"n": 1}', 0, 1 FROM job"#,
    )
    .await;
    rig.until_idle().await;
    let error: String = rig.ask("SELECT error FROM ingestd.dead_jobs").await;
    assert!(error.contains(r#"step "names" does not fit"#), "{error}");
    let retried = "SELECT count(*) FROM ingestd.job_attempts WHERE outcome = 'retry' AND error LIKE '%names%'";
    assert_eq!(
        rig.ask::<i64>(retried).await,
        2,
        "another version may fit it"
    );
    assert_eq!(worked.all(), "");
    stop(engine).await;
}

#[tokio::test]
async fn a_result_that_the_database_refuses_is_fatal_and_names_the_step() {
    let rig = Rig::new().await;
    let engine = rig
        .play([play("t.refused", |ctx| async move {
            ctx.step("nul", async || Ok("a\0b".to_owned())).await?;
            Ok(Done::new())
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.refused')")
        .await;
    rig.until_idle().await;
    let died: String = rig
        .ask("SELECT reason || ': ' || error FROM ingestd.dead_jobs")
        .await;
    assert!(
        died.starts_with(r#"fatal: the result of step "nul" cannot be saved"#),
        "{died}"
    );
    stop(engine).await;
}

#[tokio::test]
async fn a_step_is_progress_and_the_crashes_before_it_are_forgotten() {
    let rig = Rig::new().await;
    let (saved, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (has_saved, may_go_on) = (Arc::clone(&saved), Arc::clone(&go_on));
    let engine = rig
        .play([play("t.crashed", move |ctx| {
            let (saved, go_on) = (Arc::clone(&has_saved), Arc::clone(&may_go_on));
            async move {
                ctx.step("a", async || Ok(())).await?;
                saved.add_permits(1);
                go_on.acquire().await?.forget();
                Ok(Done::new())
            }
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind, crashes) VALUES ('t.crashed', 1)")
        .await;
    saved.acquire().await.unwrap().forget();
    assert_eq!(rig.ask::<i16>("SELECT crashes FROM ingestd.jobs").await, 0);
    go_on.add_permits(1);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_result_outlives_connections_that_are_cut_before_it_is_saved() {
    let (rig, worked) = (Rig::new().await, Worked::default());
    let observer = rig.observer().await;
    let works = worked.clone();
    let engine = rig
        .play([play("t.cut", move |ctx| {
            let (worked, observer) = (works.clone(), observer.clone());
            async move {
                let one = count_up(&ctx, &worked, 0, "one").await?;
                let work = async || {
                    worked.on("two");
                    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                               WHERE datname = current_database() AND application_name = 'ingestd'";
                    run(&observer, cut).await;
                    Ok(one + 1)
                };
                let two: u32 = ctx.step("two", work).await?;
                assert_eq!(two, 2);
                Ok(Done::new())
            }
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.cut')")
        .await;
    rig.until_idle().await;
    assert_eq!(worked.all(), "one two");
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_steps WHERE attempt = 1")
            .await,
        2
    );
    stop(engine).await;
}

#[tokio::test]
async fn a_handler_that_holds_every_connection_of_the_jobs_still_saves_its_steps() {
    let rig = Rig::new().await;
    let engine = rig
        .play([play("t.greedy", |ctx| async move {
            let mut held = Vec::new();
            for _ in 0..ctx.state().db.options().get_max_connections() {
                held.push(ctx.state().db.acquire().await?);
            }
            ctx.step("a", async || Ok(held.len())).await?;
            Ok(Done::new())
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.greedy')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    stop(engine).await;
}

#[tokio::test]
async fn a_replay_goes_on_after_the_steps_or_begins_afresh() {
    let (rig, worked) = (Rig::new().await, Worked::default());
    let works = worked.clone();
    let engine = rig
        .play([play("t.replayed", move |ctx| {
            let worked = works.clone();
            async move {
                count_up(&ctx, &worked, 0, "one").await?;
                Err(JobError::fatal(anyhow::anyhow!("after one step")))
            }
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.replayed')")
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    for (n_dead, begin, expected) in [
        (1, Begin::AfterItsSteps, "one"),
        (2, Begin::Afresh, "one"),
        (3, Begin::Afresh, "one one"),
    ] {
        rig.until(&format!(
            "(SELECT count(*) = {n_dead} FROM ingestd.dead_jobs)"
        ))
        .await;
        assert_eq!(worked.all(), expected);
        let last = "SELECT max(id) FROM ingestd.dead_jobs";
        let last = JobId(rig.ask(last).await);
        let replayed = dead::replay_with(&mut conn, last, None, begin)
            .await
            .unwrap();
        assert!(replayed.is_some());
    }
    rig.until("(SELECT count(*) = 4 FROM ingestd.dead_jobs)")
        .await;
    assert_eq!(worked.all(), "one one one");
    stop(engine).await;
}

#[tokio::test]
async fn a_replay_has_the_same_keys_outside_until_it_begins_afresh() {
    let (rig, keys) = (Rig::new().await, Worked::default());
    let noted = keys.clone();
    let engine = rig
        .play([play("t.charges", move |ctx| {
            let noted = noted.clone();
            async move {
                noted.on(&ctx.idempotency_key("charge"));
                Err(JobError::fatal(anyhow::anyhow!(
                    "who knows whether it was charged"
                )))
            }
        })])
        .await;
    let first: i64 = rig
        .ask("INSERT INTO ingestd.jobs (kind) VALUES ('t.charges') RETURNING id")
        .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let (mut id, other) = (first, serde_json::json!({ "amount": 2 }));
    for (n_dead, args, begin) in [
        (1, None, Begin::AfterItsSteps),
        (2, Some(&other), Begin::AfterItsSteps),
        (3, None, Begin::Afresh),
    ] {
        rig.until(&format!(
            "(SELECT count(*) = {n_dead} FROM ingestd.dead_jobs)"
        ))
        .await;
        let new = dead::replay_with(&mut conn, JobId(id), args, begin);
        id = new.await.unwrap().unwrap().0;
    }
    rig.until("(SELECT count(*) = 4 FROM ingestd.dead_jobs)")
        .await;
    // What SQL replays goes on with what began afresh.
    let afresh = id;
    rig.sql(&format!("SELECT ingestd.replay({afresh})")).await;
    rig.until("(SELECT count(*) = 5 FROM ingestd.dead_jobs)")
        .await;
    let expected = [first, first, first, afresh, afresh];
    let expected = expected.map(|id| format!("ingestd-job-{id}-charge"));
    assert_eq!(keys.all(), expected.join(" "));
    stop(engine).await;
}

#[tokio::test]
async fn sql_replays_after_the_steps_too() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
           VALUES ('t.k', 'default', 1, 60);
         INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at)
         SELECT -n, 't.k', '{}', 'default', 1, 1, 0, 'fatal', 'no', 1, now()
         FROM generate_series(1, 3) n;
         INSERT INTO ingestd.job_steps (job_id, step, result, lease_id, attempt)
         SELECT -n, 'one', '1', 1, 1 FROM generate_series(1, 3) n",
    )
    .await;
    for (call, n_steps, origin) in [
        ("ingestd.replay(-1)", 1, Some(-1)),
        ("ingestd.replay(-2, args => '{\"a\": 1}')", 0, Some(-2)),
        ("ingestd.replay(-3, afresh => true)", 0, None),
    ] {
        let job: i64 = rig.ask(&format!("SELECT {call}")).await;
        let steps = format!("SELECT count(*) FROM ingestd.job_steps WHERE job_id = {job}");
        assert_eq!(rig.ask::<i64>(&steps).await, n_steps, "{call}");
        let of = format!("SELECT origin_id FROM ingestd.jobs WHERE id = {job}");
        assert_eq!(rig.ask::<Option<i64>>(&of).await, origin, "{call}");
    }
}

#[tokio::test]
async fn steps_and_progress_go_once_nobody_can_go_on_with_the_job() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.swept', 'swept', 3, 60);
         INSERT INTO ingestd.jobs (kind) VALUES ('t.swept');
         INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at, replayed_to, replayed_at)
         SELECT 9000 + n, 't.swept', '{}', 'swept', 1, 1, 0, 'fatal', 'gone', 1, now(),
           CASE WHEN n = 2 THEN 1 END, CASE WHEN n = 2 THEN now() END
         FROM generate_series(1, 2) n;
         -- the live one, the two letters, and 2,500 that are over
         INSERT INTO ingestd.job_steps (job_id, step, result, lease_id, attempt)
         SELECT id, step, '1', 1, 1 FROM (
           SELECT id FROM ingestd.jobs UNION ALL SELECT 9001 UNION ALL SELECT 9002
           UNION ALL SELECT generate_series(10001, 12500)) ids, unnest('{a,b}'::text[]) step;
         INSERT INTO ingestd.job_progress (job_id, lease_id, attempt, n_done)
         SELECT DISTINCT job_id, 1, 1, 1 FROM ingestd.job_steps",
    )
    .await;
    let gone = record::sweep(rig.pool()).await.unwrap();
    assert_eq!(gone, 3 * 2501);
    for table in ["job_steps", "job_progress"] {
        let left = format!(
            "SELECT count(*) FILTER (WHERE job_id = 9001) || ' ' ||
                    count(*) FILTER (WHERE job_id IN (SELECT id FROM ingestd.jobs)) || ' ' ||
                    count(*) / count(DISTINCT job_id) || ' ' || count(DISTINCT job_id)
             FROM ingestd.{table}"
        );
        let expected = if table == "job_steps" {
            "2 2 2 2"
        } else {
            "1 1 1 2"
        };
        assert_eq!(rig.ask::<String>(&left).await, expected, "{table}");
    }
    assert_eq!(record::sweep(rig.pool()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_step_whose_commit_was_not_answered_is_not_done_twice() {
    let rig = Rig::new().await;
    rig.sql("CREATE TABLE effects (attempt smallint)").await;
    let engine = rig
        .play([play("t.unanswered", |ctx| async move {
            let write = async |conn: &mut sqlx::PgConnection| {
                let insert = sqlx::query("INSERT INTO effects VALUES ($1)");
                insert.bind(ctx.lease().attempt).execute(conn).await?;
                Ok(())
            };
            let mut tx = ctx.state().db.begin().await?;
            ctx.step_in(&mut tx, "write", write).await?;
            tx.commit().await?;
            if ctx.lease().attempt == 1 {
                // It believes the commit failed, and begins again.
                let mut tx = ctx.state().db.begin().await?;
                ctx.step_in(&mut tx, "write", write).await?;
                tx.commit().await?;
            }
            Ok(Done::new())
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.unanswered')")
        .await;
    rig.until_idle().await;
    let error: String = rig.ask(ERRORS).await;
    assert!(
        error.contains(r#"step "write" is saved already"#),
        "{error}"
    );
    let effects = "SELECT string_agg(attempt::text, ' ') FROM effects";
    assert_eq!(rig.ask::<String>(effects).await, "1");
    let ended = "SELECT attempt FROM ingestd.job_history";
    assert_eq!(rig.ask::<i16>(ended).await, 2);
    stop(engine).await;
}
