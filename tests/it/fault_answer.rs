//! Postgres committed, and the answer that says so never comes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use ingestd::queue::{Done, JobError, rule};
use sqlx::PgConnection;

use crate::{
    proxy::{Proxy, Then},
    queue_ledger as ledger,
    queue_rig::{PATIENCE, Play, Rig, Setup, done, play, run, stop, until},
};

/// Runs one job of one kind whose answer to the transaction with `needle` is lost. Returns how many
/// attempts began, and: how the job ended, lines and different lines of the ledger, dead letters,
/// failed attempts.
async fn one_answer_lost(play: Play, needle: &'static str, then: Then) -> (usize, String) {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    run(&observer, ledger::TABLES).await;
    let proxy = Proxy::start(rig.url()).await;
    let n_begun = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&n_begun);
    let counted = play.before(move || {
        begun.fetch_add(1, Ordering::SeqCst);
    });
    let kind = counted.kind.name;
    let mut setup = Setup::of([counted]).lost_after(Duration::from_secs(3));
    setup.acquire_timeout = Duration::from_secs(1);
    let engine = setup.start(&proxy.url()).await;
    proxy.lose(needle, 1, then);
    run(
        &observer,
        &format!(
            "WITH j AS (INSERT INTO ingestd.jobs (kind) VALUES ('{kind}') RETURNING id)
             INSERT INTO cursors (job) SELECT id FROM j"
        ),
    )
    .await;
    proxy.until_lost(1).await;
    until(&observer, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
    stop(engine).await;
    let told = "SELECT concat_ws(' ', (SELECT string_agg(state, ',') FROM ingestd.job_history),
                  (SELECT count(*) FROM ledger), (SELECT count(DISTINCT step) FROM ledger),
                  (SELECT count(*) FROM ingestd.dead_jobs), (SELECT count(*) FROM ingestd.job_attempts))";
    (n_begun.load(Ordering::SeqCst), rig.ask(told).await)
}

#[tokio::test]
async fn outcomes_whose_commit_was_not_answered_are_not_written_again() {
    for then in [Then::Reset, Then::Silence] {
        let (n, told) = one_answer_lost(done("t.done"), "Completes or cancels", then).await;
        assert_eq!((n, told.as_str()), (1, "completed 0 0 0 0"), "{then:?}");
    }
}

#[tokio::test]
async fn a_retry_whose_commit_was_not_answered_is_one_retry() {
    let fails_once = play("t.fails", |ctx| async move {
        match ctx.lease().attempt {
            1 => Err(anyhow::anyhow!("the first fails").into()),
            _ => Ok(Done::new()),
        }
    });
    let (n, told) = one_answer_lost(fails_once, "Puts jobs back", Then::Reset).await;
    assert_eq!((n, told.as_str()), (2, "completed 0 0 0 1"));
}

#[tokio::test]
async fn a_chunk_whose_commit_was_not_answered_is_not_written_again() {
    let (n, told) = one_answer_lost(ledger::job(), "UPDATE cursors", Then::Reset).await;
    assert_eq!((n, told.as_str()), (2, "completed 3 3 0 1"));
}

#[tokio::test]
async fn a_job_whose_own_completion_was_not_answered_is_complete() {
    let last = "UPDATE cursors SET step = $2 WHERE job = $1-- Completes";
    let (n, told) = one_answer_lost(ledger::job(), last, Then::Reset).await;
    assert_eq!((n, told.as_str()), (1, "completed 3 3 0 0"));
}

/// A job of two saved steps that note each time they are done.
fn steps() -> Play {
    play("t.steps", |ctx| async move {
        for n in [1, 2] {
            let work = async || {
                let mut conn = ctx.state().db.acquire().await?;
                ledger::write(&mut conn, &ctx, n).await?;
                Ok(n)
            };
            ctx.step(&format!("step {n}"), work).await?;
        }
        Ok(Done::new())
    })
}

#[tokio::test]
async fn a_step_whose_save_was_not_answered_is_not_done_again() {
    for then in [Then::Reset, Then::Silence] {
        let (n, told) = one_answer_lost(steps(), "Saves the result of a step", then).await;
        assert_eq!((n, told.as_str()), (1, "completed 2 2 0 0"), "{then:?}");
    }
}

#[tokio::test]
async fn a_step_in_a_transaction_whose_commit_was_not_answered_is_not_done_again() {
    let in_transaction = play("t.step_in", |ctx| async move {
        for n in [1, 2] {
            let mut tx = ctx.state().db.begin().await?;
            let write = async |conn: &mut PgConnection| {
                ledger::write(conn, &ctx, n).await?;
                Ok(n)
            };
            ctx.step_in(&mut tx, &format!("step {n}"), write).await?;
            tx.commit().await?;
        }
        Ok(Done::new())
    });
    let (n, told) = one_answer_lost(in_transaction, "INSERT INTO ledger", Then::Reset).await;
    assert_eq!((n, told.as_str()), (2, "completed 2 2 0 1"));
}

#[tokio::test]
async fn a_claim_that_was_not_answered_is_handed_back_unburnt() {
    for then in [Then::Reset, Then::Silence] {
        let attempts = play("t.counts", |ctx| async move {
            assert_eq!(ctx.lease().attempt, 1, "the lost claim was no attempt");
            Ok(Done::new())
        });
        let (n, told) = one_answer_lost(attempts, "Claims up to", then).await;
        assert_eq!((n, told.as_str()), (1, "completed 0 0 0 0"), "{then:?}");
    }
}

/// Two claims are on their way, and the answer to the first one is lost: what the second one gets
/// is this worker's all the same, and not handed back with what the first one got.
#[tokio::test]
async fn a_claim_on_its_way_is_not_handed_back_with_one_that_was_lost() {
    const N_JOBS: usize = 6_000;
    for is_second_lost in [false, true] {
        let rig = Rig::new().await;
        let observer = rig.observer().await;
        let proxy = Proxy::start(rig.url()).await;
        let n_begun = Arc::new(AtomicUsize::new(0));
        let begun = Arc::clone(&n_begun);
        let short = play("t.short", |_| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Ok(Done::new())
        });
        let counted = short.before(move || {
            begun.fetch_add(1, Ordering::SeqCst);
        });
        // Nobody else hands back what was lost.
        let setup = Setup::of([counted])
            .slots("default", 100)
            .with(|queue| queue.lost_after = Duration::from_mins(10));
        let engine = setup.start(&proxy.url()).await;
        let insert = format!(
            "INSERT INTO ingestd.jobs (kind) SELECT 't.short' FROM generate_series(1, {N_JOBS})"
        );
        run(&observer, &insert).await;
        // Jobs are claimed ahead by now, and there are more than two claims take.
        let many = "(SELECT count(*) >= 500 FROM ingestd.job_history)";
        until(&observer, many).await;
        proxy.lose("Claims up to", 2, Then::Late);
        proxy.until_late(2).await;
        proxy.drop_late();
        proxy.until_lost(1).await;
        // Whoever handed back now would take from the second claim what it is about to begin: it
        // gets the time for it, ten times the pause before a hand-back.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if is_second_lost {
            proxy.drop_late();
        } else {
            proxy.deliver();
        }
        until(&observer, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
        stop(engine).await;
        let told = "SELECT concat_ws(' ', count(*), count(*) FILTER (WHERE attempt = 1),
                      (SELECT count(*) FROM ingestd.job_attempts)) FROM ingestd.job_history";
        assert_eq!(
            (
                n_begun.load(Ordering::SeqCst),
                rig.ask::<String>(told).await
            ),
            (N_JOBS, format!("{N_JOBS} {N_JOBS} 0")),
            "begun; complete, in the first attempt, failed; is the second lost? {is_second_lost}"
        );
    }
}

#[tokio::test]
async fn ticks_whose_commit_was_not_answered_become_one_job_each() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let proxy = Proxy::start(rig.url()).await;
    let engine = Setup::of([done("t.tick")]).start(&proxy.url()).await;
    proxy.lose("INSERT INTO ingestd.schedule_ticks", 3, Then::Reset);
    run(
        &observer,
        "INSERT INTO ingestd.schedules (name, cron, kind, missed)
         VALUES ('every second', '* * * * * *', 't.tick', 'all')",
    )
    .await;
    proxy.until_lost(3).await;
    until(
        &observer,
        "(SELECT count(*) >= 5 FROM ingestd.schedule_ticks)",
    )
    .await;
    run(&observer, "UPDATE ingestd.schedules SET paused_at = now()").await;
    rig.until_idle().await;
    stop(engine).await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', extract(epoch FROM max(tick_at) - min(tick_at))::int + 1 - count(*),
               count(*) - count(DISTINCT job_id),
               (SELECT count(*) FROM ingestd.job_history WHERE kind = 't.tick') - count(*))
             FROM ingestd.schedule_ticks WHERE schedule = 'every second'",
        )
        .await;
    assert_eq!(
        verdict, "0 0 0",
        "left out, without a job of its own, jobs too many"
    );
}

/// Kills the session that writes down how a job ended, three times over.
const DEADLY: &str = "
    CREATE SEQUENCE deaths;
    CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      -- A sequence keeps its count when the transaction that drew from it is rolled back.
      IF (TG_OP = 'DELETE' OR OLD.state = 'running') AND nextval('deaths') <= 3 THEN
        PERFORM pg_terminate_backend(pg_backend_pid());
        PERFORM pg_sleep(60);
      END IF;
      RETURN NULL;
    END$$;
    CREATE TRIGGER die AFTER UPDATE OR DELETE ON ingestd.jobs
      FOR EACH ROW EXECUTE FUNCTION die()";

#[tokio::test]
async fn outcomes_whose_sessions_died_are_written_all_the_same() {
    let fails_once = play("t.fails", |ctx| async move {
        match ctx.lease().attempt {
            1 => Err(anyhow::anyhow!("the first fails").into()),
            _ => Ok(Done::new()),
        }
    });
    let fatal = play("t.fatal", |_| async {
        Err(JobError::fatal(anyhow::anyhow!("no")))
    });
    for (play, expected) in [
        (done("t.done"), "1 completed 0 0"),
        (fails_once, "2 completed 1 0"),
        (fatal, "1 1 1"),
    ] {
        let (rig, kind) = (Rig::new().await, play.kind.name);
        let observer = rig.observer().await;
        let n_begun = Arc::new(AtomicUsize::new(0));
        let begun = Arc::clone(&n_begun);
        let counted = play.before(move || {
            begun.fetch_add(1, Ordering::SeqCst);
        });
        // Nobody else would find the job before its deadline.
        let setup = Setup::of([counted.timeout(Duration::from_hours(1))]);
        let engine = setup.start(rig.url()).await;
        run(&observer, DEADLY).await;
        let insert = format!("INSERT INTO ingestd.jobs (kind) VALUES ('{kind}')");
        run(&observer, &insert).await;
        until(&observer, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
        stop(engine).await;
        let told = "SELECT concat_ws(' ', (SELECT string_agg(state, ',') FROM ingestd.job_history),
                      (SELECT count(*) FROM ingestd.job_attempts),
                      (SELECT count(*) FROM ingestd.dead_jobs)) FROM deaths WHERE last_value > 3";
        let told: String = rig.ask(told).await;
        let told = format!("{} {told}", n_begun.load(Ordering::SeqCst));
        assert_eq!(
            told, expected,
            "begun; state, failed attempts, dead; {kind}"
        );
    }
}

#[tokio::test]
async fn a_worker_that_is_not_answered_introduces_itself_again() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let proxy = Proxy::start(rig.url()).await;
    let setup = Setup::of([done("t.done")]).lost_after(Duration::from_secs(3));
    proxy.lose("INSERT INTO ingestd.workers", 1, Then::Silence);
    let url = proxy.url();
    let twice = until(&observer, "(SELECT count(*) = 2 FROM ingestd.workers)");
    let (engine, ()) = tokio::join!(setup.start(&url), twice);
    run(
        &observer,
        "INSERT INTO ingestd.jobs (kind) VALUES ('t.done')",
    )
    .await;
    until(&observer, "EXISTS (SELECT FROM ingestd.job_history)").await;
    stop(engine).await;
}

#[tokio::test]
async fn a_worker_that_takes_leave_waits_for_no_answer_for_ever() {
    let rig = Rig::new().await;
    let proxy = Proxy::start(rig.url()).await;
    let setup = Setup::of([done("t.done")]).lost_after(Duration::from_secs(3));
    let engine = setup.start(&proxy.url()).await;
    proxy.lose("end_reason = 'stopped'", 1, Then::Silence);
    let stopped = async {
        let stopped = tokio::time::timeout(PATIENCE, stop(engine)).await;
        proxy.reset(); // else a heart that waits would keep the test from ending, too
        assert!(stopped.is_ok(), "it waits for an answer to its last word");
    };
    tokio::join!(stopped, proxy.until_lost(1));
    let end = "SELECT string_agg(end_reason, ',') FROM ingestd.workers";
    assert_eq!(rig.ask::<String>(end).await, "stopped");
}

/// What a claim brings may be on its way to the worker for as long as two statements take.
#[tokio::test]
async fn what_is_on_its_way_to_its_worker_is_no_stray() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let proxy = Proxy::start(rig.url()).await;
    let n_begun = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&n_begun);
    let counted = done("t.done").before(move || {
        begun.fetch_add(1, Ordering::SeqCst);
    });
    let setup = Setup::of([counted])
        .lost_after(Duration::from_secs(3))
        .with(|queue| queue.rescue_interval = Duration::from_millis(100));
    let mut conn = observer.acquire().await.unwrap();
    rule::set_fair(&mut conn, "default", true).await.unwrap();
    drop(conn);
    let engine = setup.start(&proxy.url()).await;
    let is_fair = "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                   AND query LIKE '%AS last' AND application_name = 'ingestd')";
    until(&observer, is_fair).await;
    proxy.lose("but the tenants take turns", 2, Then::Late);
    run(
        &observer,
        "INSERT INTO ingestd.jobs (kind) VALUES ('t.done')",
    )
    .await;
    proxy.until_late(1).await;
    if !is_claimed(&rig).await {
        proxy.deliver(); // the one before the job was there
        proxy.until_late(2).await;
    }
    // The claim is late, and so is the statement after it: together for longer than a worker may be
    // silent, each for less.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    proxy.lose("SELECT tenant FROM after WHERE n = 64", 1, Then::Silence);
    proxy.deliver();
    until(&observer, "EXISTS (SELECT FROM ingestd.job_history)").await;
    stop(engine).await;
    assert_eq!(n_begun.load(Ordering::SeqCst), 1, "begun");
}

/// Says whether the database runs something.
async fn is_claimed(rig: &Rig) -> bool {
    rig.ask("SELECT EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await
}
