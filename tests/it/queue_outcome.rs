//! How an attempt ends, and what becomes of the job: retry, death, snooze, panic, timeout.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::queue::{Done, Job, JobError, JobId, control, dead};
use serde::{Deserialize, Serialize};

use crate::queue_rig::{Ctx, Outcome, Play, Rig, Setup, Stage, counter, done, play, stop};

fn failing(name: &'static str, error: &'static str) -> Play {
    play(
        name,
        move |_| async move { Err(anyhow::anyhow!(error).into()) },
    )
}

#[tokio::test]
async fn a_failure_is_stored_tried_again_and_at_last_dead() {
    let rig = Rig::new().await;
    let error = std::io::Error::other("the disk said no");
    let fails = play("t.fails", move |_| {
        let error = anyhow::anyhow!(std::io::Error::new(error.kind(), error.to_string()));
        async move { Err(error.context("cannot write").into()) }
    });
    // The second wait is 600 ms: long enough to be seen between two looks.
    let engine = rig
        .play([fails.first_wait(Duration::from_millis(300)).attempts(3)])
        .await;
    let id: i64 = rig
        .ask("INSERT INTO ingestd.jobs (kind, args, tenant) VALUES ('t.fails', '{\"a\": 1}', 'acme') RETURNING id")
        .await;
    rig.until(
        "EXISTS (SELECT FROM ingestd.jobs WHERE state = 'queued' AND attempt = 2 AND lease_id IS NULL
           AND worker_id IS NULL AND deadline_at IS NULL
           AND run_at - now() <= interval '600 ms' AND run_at > started_at
           AND last_error = 'cannot write: the disk said no')",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs)").await;
    let letter: String = rig
        .ask(
            "SELECT concat_ws(' ', id, kind, args, queue, attempt, crashes, reason, error, tenant)
             FROM ingestd.dead_jobs",
        )
        .await;
    let expected = format!(
        "{id} t.fails {{\"a\": 1}} default 3 0 exhausted cannot write: the disk said no acme"
    );
    assert_eq!(letter, expected);
    let attempts: String = rig
        .ask(
            "SELECT string_agg(concat_ws(' ', attempt, outcome, error_kind, error), ', ' ORDER BY attempt)
             FROM ingestd.job_attempts WHERE started_at <= finished_at AND worker_id IS NOT NULL",
        )
        .await;
    let line = "io cannot write: the disk said no";
    assert_eq!(
        attempts,
        format!("1 retry {line}, 2 retry {line}, 3 dead {line}")
    );
    let waits: Vec<i64> = sqlx::query_scalar(
        "SELECT (extract(epoch FROM started_at - lag(finished_at) OVER (ORDER BY attempt)) * 1000)::bigint
         FROM ingestd.job_attempts ORDER BY attempt OFFSET 1",
    )
    .fetch_all(rig.pool())
    .await
    .unwrap();
    // Never before the backoff is over; the attempt's end is noted a little after the wait begins.
    assert!(waits[0] >= 200 && waits[1] >= 500, "{waits:?}");
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_delay_that_was_asked_for_replaces_the_backoff() {
    let rig = Rig::new().await;
    let busy = play("t.busy", |_| async {
        let after = Some(Duration::from_hours(2));
        Err(JobError::Retry {
            error: anyhow::anyhow!("429"),
            after,
        })
    });
    let engine = rig.play([busy]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.busy')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE run_at > now() + interval '119 min')")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn the_rows_own_number_of_attempts_wins() {
    let rig = Rig::new().await;
    let engine = rig.play([failing("t.rowwise", "no")]).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, max_attempts) VALUES ('t.rowwise', 1), ('t.rowwise', 5)",
    )
    .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.dead_jobs)")
        .await;
    let attempts = "SELECT string_agg(attempt::text, ',' ORDER BY attempt) FROM ingestd.dead_jobs";
    assert_eq!(rig.ask::<String>(attempts).await, "1,5");
    stop(engine).await;
}

/// A job that is particular about its arguments.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Strict {
    count: u8,
}

impl Job for Strict {
    const KIND: &'static str = "t.strict";
    type Context = Stage;

    async fn run(self, _: &Ctx) -> Outcome {
        Ok(Done::new())
    }
}

#[tokio::test]
async fn bad_arguments_and_fatal_errors_are_dead_at_once() {
    let rig = Rig::new().await;
    let fatal = play("t.fatal", |_| async {
        Err(JobError::fatal(anyhow::anyhow!("gone for good")))
    });
    let engine = rig.play([Play::of::<Strict>(), fatal]).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args) VALUES
           ('t.fatal', '{}'), ('t.strict', '{\"count\": 300}'), ('t.strict', '{\"count\": 3}')",
    )
    .await;
    rig.until_idle().await;
    let letters: Vec<(String, String, i16, String)> =
        sqlx::query_as("SELECT kind, reason, attempt, error FROM ingestd.dead_jobs ORDER BY kind")
            .fetch_all(rig.pool())
            .await
            .unwrap();
    let [fatal, strict] = letters.as_slice() else {
        panic!("{letters:?}")
    };
    assert_eq!(
        *fatal,
        ("t.fatal".into(), "fatal".into(), 1, "gone for good".into())
    );
    assert_eq!((strict.1.as_str(), strict.2), ("fatal", 1));
    assert!(
        strict.3.contains("300") && strict.3.contains("u8"),
        "{}",
        strict.3
    );
    let kind = "SELECT error_kind FROM ingestd.job_attempts WHERE kind = 't.strict'";
    assert_eq!(rig.ask::<String>(kind).await, "validation");
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_history")
            .await,
        1
    );
    stop(engine).await;
}

#[tokio::test]
async fn a_snooze_is_no_attempt() {
    let rig = Rig::new().await;
    let naps = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&naps);
    let sleepy = play("t.sleepy", move |_| {
        let n_naps = taken.fetch_add(1, Ordering::SeqCst);
        async move {
            if n_naps < 5 {
                Err(JobError::Snooze(Duration::from_millis(10)))
            } else {
                Ok(Done::new())
            }
        }
    });
    // More naps than attempts.
    let engine = rig.play([sleepy.attempts(2)]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.sleepy')")
        .await;
    rig.until_idle().await;
    assert_eq!(
        rig.ask::<i16>("SELECT attempt FROM ingestd.job_history")
            .await,
        1
    );
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_attempts")
            .await,
        0
    );
    assert_eq!(naps.load(Ordering::SeqCst), 6);
    stop(engine).await;
}

/// Panics when it is dropped.
struct Grenade;

impl Drop for Grenade {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

#[tokio::test]
async fn a_panic_is_an_attempt_and_the_worker_lives() {
    let rig = Rig::new().await;
    let at_once = play("t.panics", |_| -> futures::future::Ready<Outcome> {
        panic!("at once")
    });
    let later = play("t.panics_later", |_| async {
        tokio::task::yield_now().await;
        std::panic::panic_any(String::from("later"))
    });
    let in_drop = play("t.panics_in_drop", |_| async {
        let _grenade = Grenade;
        tokio::task::yield_now().await;
        Ok(Done::new())
    });
    let engine = Setup::of([
        at_once.attempts(1),
        later.attempts(1),
        in_drop.attempts(1),
        done("t.calm"),
    ])
    .slots("default", 1)
    .start(rig.url())
    .await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind) VALUES
           ('t.panics'), ('t.panics_later'), ('t.panics_in_drop'), ('t.calm')",
    )
    .await;
    rig.until_idle().await;
    let attempts: String = rig
        .ask(
            "SELECT string_agg(concat_ws(' ', error_kind, error), ', ' ORDER BY kind)
             FROM ingestd.job_attempts",
        )
        .await;
    assert_eq!(
        attempts,
        "panic panicked: at once, panic panicked: dropped, panic panicked: later"
    );
    assert_eq!(
        rig.ask::<String>("SELECT kind FROM ingestd.job_history")
            .await,
        "t.calm"
    );
    assert!(engine.is_alive());
    stop(engine).await;
}

#[tokio::test]
async fn a_timeout_is_a_retry_and_its_siblings_go_on() {
    let rig = Rig::new().await;
    let n_tries = Arc::new(AtomicUsize::new(0));
    let tries = Arc::clone(&n_tries);
    let slow = play("t.slow", move |_| {
        let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(Done::new())
        }
    });
    let timeout = Duration::from_millis(300);
    let engine = rig.play([slow.timeout(timeout), done("t.sibling")]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.slow')")
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.sibling' FROM generate_series(1, 50)")
        .await;
    rig.until_idle().await;
    let attempt: String = rig
        .ask("SELECT concat_ws(' ', attempt, outcome, error_kind, error) FROM ingestd.job_attempts")
        .await;
    assert_eq!(attempt, "1 retry timeout timed out after 300ms");
    let slow = "SELECT attempt FROM ingestd.job_history WHERE kind = 't.slow'";
    assert_eq!(rig.ask::<i16>(slow).await, 2);
    stop(engine).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_handler_that_blocks_its_thread_times_out_too() {
    let rig = Rig::new().await;
    let release = Arc::new(AtomicBool::new(false));
    let (released, blocked) = (Arc::clone(&release), Arc::new(AtomicUsize::new(0)));
    let n_blocked = Arc::clone(&blocked);
    let blocks = play("t.blocks", move |_| {
        let release = Arc::clone(&release);
        let first = n_blocked.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            while first && !release.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            Ok(Done::new())
        }
    });
    let engine = rig
        .play([
            blocks.timeout(Duration::from_millis(300)),
            done("t.sibling"),
        ])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.blocks')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_attempts WHERE error_kind = 'timeout')")
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.sibling' FROM generate_series(1, 20)")
        .await;
    // The retry completes while the first attempt still blocks its thread.
    rig.until_idle().await;
    assert!(engine.is_alive());
    released.store(true, Ordering::SeqCst);
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.job_history")
            .await,
        21
    );
    stop(engine).await;
}

#[tokio::test]
async fn an_error_that_postgres_cannot_store_hurts_nobody_else() {
    let rig = Rig::new().await;
    let engine = rig
        .play([
            failing("t.nul", "a \0 in the error").attempts(2),
            failing("t.retried", "plain").attempts(2),
            play("t.nul_fatal", |_| async {
                Err(JobError::fatal(anyhow::anyhow!("\0")))
            }),
            play("t.huge", |_| async {
                Err(anyhow::anyhow!("é".repeat(5_000_000)).into())
            })
            .attempts(1),
        ])
        .await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind)
         SELECT kind FROM unnest(ARRAY['t.nul', 't.retried', 't.nul_fatal', 't.huge']) kind,
                generate_series(1, 5)",
    )
    .await;
    rig.until_idle().await;
    let letters: String = rig
        .ask(
            "SELECT string_agg(concat_ws(' ', kind, n, reasons), ', ' ORDER BY kind) FROM (
               SELECT kind, count(*) n, string_agg(DISTINCT reason, ',') reasons
               FROM ingestd.dead_jobs WHERE crashes = 0 GROUP BY kind) k",
        )
        .await;
    let expected =
        "t.huge 5 exhausted, t.nul 5 exhausted, t.nul_fatal 5 fatal, t.retried 5 exhausted";
    assert_eq!(letters, expected);
    let longest = "SELECT max(octet_length(error)) FROM ingestd.dead_jobs";
    assert!(rig.ask::<i32>(longest).await <= 20_000);
    stop(engine).await;
}

#[tokio::test]
async fn on_dead_runs_in_the_burials_transaction() {
    let rig = Rig::new().await;
    rig.sql("CREATE TABLE graves (job_id bigint PRIMARY KEY, error text)")
        .await;
    let engine = rig
        .play([failing("t.mourned", "no").attempts(1), done("t.other")])
        .await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args) VALUES ('t.mourned',
           jsonb_build_object('on_dead', 'INSERT INTO graves VALUES ($1, $2)'))",
    )
    .await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs d JOIN graves g ON g.job_id = d.id AND g.error = d.error)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn a_failing_on_dead_keeps_its_job_and_no_other() {
    let rig = Rig::new().await;
    rig.sql("CREATE TABLE graves (job_id bigint, error text, CHECK (error <> 'cursed'))")
        .await;
    let [cursed, mourned] = [failing("t.cursed", "cursed"), failing("t.mourned", "no")];
    let setup = Setup::of([cursed.attempts(1), mourned.attempts(1), done("t.other")]);
    let engine = setup.start(rig.url()).await;
    // Ids in turn, so that every batch has some of both.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args)
         SELECT kind, jsonb_build_object('on_dead', 'INSERT INTO graves VALUES ($1, $2)')
         FROM generate_series(1, 3), unnest(ARRAY['t.cursed', 't.mourned', 't.other']) kind",
    )
    .await;
    rig.until("(SELECT count(*) = 3 FROM ingestd.dead_jobs WHERE kind = 't.mourned')")
        .await;
    rig.until("(SELECT count(*) = 3 FROM ingestd.job_history WHERE kind = 't.other')")
        .await;
    rig.until("(SELECT count(*) = 3 FROM graves)").await;
    let cursed = "SELECT count(*) FROM ingestd.jobs WHERE kind = 't.cursed'";
    assert_eq!(rig.ask::<i64>(cursed).await, 3);
    stop(engine).await;
}

#[tokio::test]
async fn an_on_dead_that_hides_its_error_does_not_lose_the_job() {
    let rig = Rig::new().await;
    let engine = rig.play([Play::of::<Hiding>()]).await;
    let lost = "ingestd_job_attempts_total{queue=\"default\",kind=\"t.hiding\",outcome=\"dead\"}";
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.hiding')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')")
        .await;
    stop(engine).await;
    // The transaction was rolled back, so nothing may say that it is dead.
    assert!(counter(lost) < 1.0);
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ingestd.dead_jobs")
            .await,
        0
    );
    assert_eq!(
        rig.ask::<String>("SELECT state FROM ingestd.jobs").await,
        "queued"
    );
}

/// A job whose `on_dead` fails in the database and says that all is well.
#[derive(Serialize, Deserialize)]
struct Hiding {}

impl Job for Hiding {
    const KIND: &'static str = "t.hiding";
    type Context = Stage;

    async fn run(self, _: &Ctx) -> Outcome {
        Err(JobError::fatal(anyhow::anyhow!("dead")))
    }

    async fn on_dead(
        conn: &mut sqlx::PgConnection,
        _: &ingestd::queue::DeadJob,
    ) -> sqlx::Result<()> {
        drop(sqlx::query("SELECT 1 / 0").execute(conn).await);
        Ok(())
    }
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once_and_says_so() {
    let rig = Rig::new().await;
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = Arc::clone(&broken);
    let mended = play("t.mended", move |_| {
        let broken = is_broken.load(Ordering::SeqCst);
        async move {
            if broken {
                Err(JobError::fatal(anyhow::anyhow!("broken")))
            } else {
                Ok(Done::new())
            }
        }
    });
    let engine = rig.play([mended]).await;
    let id: i64 = rig
        .ask(
            "INSERT INTO ingestd.jobs (kind, args, priority, tenant, meta, unique_key)
             VALUES ('t.mended', '{\"a\": 1}', 2, 'acme', '{\"tag\": 1}', 'key') RETURNING id",
        )
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.dead_jobs)").await;
    let mut conn = rig.pool().acquire().await.unwrap();
    // Once more in vain, so that the second letter tells where it comes from.
    let second = dead::replay(&mut conn, JobId(id)).await.unwrap().unwrap();
    assert_eq!(dead::replay(&mut conn, JobId(id)).await.unwrap(), None);
    rig.until("(SELECT count(*) = 2 FROM ingestd.dead_jobs)")
        .await;
    let provenance: String = rig
        .ask(
            "SELECT concat_ws(' ', a.replayed_to = b.id, b.replayed_from = a.id, b.replayed_at IS NULL,
               a.fingerprint = b.fingerprint, b.args, b.priority, b.tenant, b.meta, b.unique_key)
             FROM ingestd.dead_jobs a JOIN ingestd.dead_jobs b ON b.id > a.id",
        )
        .await;
    let meta = format!("{{\"tag\": 1, \"replayed_from\": {id}}}");
    assert_eq!(
        provenance,
        format!("t t t t {{\"a\": 1}} 2 acme {meta} key")
    );
    broken.store(false, Ordering::SeqCst);
    let retried = ingestd::runs::retry_job(&mut conn, second).await.unwrap();
    assert!(matches!(retried, control::Retried::Replayed(third) if third != second));
    rig.until("EXISTS (SELECT FROM ingestd.job_history)").await;
    assert_eq!(
        ingestd::runs::retry_job(&mut conn, second).await.unwrap(),
        control::Retried::NotFound
    );
    stop(engine).await;
}
