//! The fence: a late worker changes nothing, and what a job writes commits with its outcome.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use ingestd::queue::{Done, JobError};
use tokio::sync::Semaphore;

use crate::{
    queue_ledger as ledger,
    queue_rig::{Ctx, Outcome, Rig, Setup, args, counter, play, run, stop, until_true},
};

#[tokio::test]
async fn a_completion_commits_or_rolls_back_with_the_handlers_writes() {
    let rig = Rig::new().await;
    rig.sql(ledger::TABLES).await;
    let engine = rig
        .play([play("t.together", |ctx| async move {
            let mut tx = ctx.state().db.begin().await?;
            ledger::write(&mut tx, &ctx, 1).await?;
            let done = ctx.complete_in(&mut tx).await?;
            if ctx.lease().attempt == 1 {
                return Err(anyhow::anyhow!("after all not").into());
            }
            tx.commit().await?;
            Ok(done)
        })])
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.together')")
        .await;
    rig.until_idle().await;
    assert_eq!(
        rig.ask::<i16>("SELECT attempt FROM ingestd.job_history")
            .await,
        2
    );
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ledger").await, 1);
    stop(engine).await;
}

/// Takes every lease away, as a rescue does that believes the workers dead.
const TAKE_AWAY: &str = "
    UPDATE ingestd.jobs SET state = 'queued', lease_id = NULL, worker_id = NULL
    WHERE state = 'running'";

/// Ends an attempt in one of the ways in which one can end.
async fn end(ctx: &Ctx) -> Outcome {
    let mut tx = ctx.state().db.begin().await?;
    match args(ctx).get("way").and_then(|way| way.as_str()).unwrap() {
        "complete" => return Ok(Done::new()),
        "retry" => return Err(anyhow::anyhow!("try again").into()),
        "snooze" => return Err(JobError::Snooze(Duration::from_hours(1))),
        "fatal" => return Err(JobError::fatal(anyhow::anyhow!("never again"))),
        "fence" => {
            ctx.fence(&mut tx).await?;
            ledger::write(&mut tx, ctx, 1).await?;
        }
        way => {
            assert_eq!(way, "complete_in");
            ledger::write(&mut tx, ctx, 1).await?;
            let done = ctx.complete_in(&mut tx).await?;
            tx.commit().await?;
            return Ok(done);
        }
    }
    tx.commit().await?;
    Ok(Done::new())
}

#[tokio::test]
async fn a_stale_lease_has_no_effect_of_any_kind() {
    let rig = Rig::new().await;
    rig.sql(ledger::TABLES).await;
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    let (waits, seen) = (gates.clone(), Arc::new(Mutex::new(HashSet::new())));
    let contested = play("t.contested", move |ctx| {
        let is_first = seen.lock().unwrap().insert(ctx.lease().id);
        let gate = Arc::clone(&waits[usize::from(!is_first)]);
        async move {
            gate.acquire().await?.forget();
            if is_first {
                return end(&ctx).await;
            }
            let mut tx = ctx.state().db.begin().await?;
            ledger::write(&mut tx, &ctx, 2).await?;
            let done = ctx.complete_in(&mut tx).await?;
            tx.commit().await?;
            Ok(done)
        }
    });
    let setup = Setup::of([contested.queue("fenced")])
        .slots("fenced", 12)
        // No heartbeat tells the first attempts that they have lost their leases.
        .with(|q| q.heartbeat_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, args) SELECT 't.contested', jsonb_build_object('way', way)
         FROM unnest(ARRAY['complete', 'retry', 'snooze', 'fatal', 'fence', 'complete_in']) way",
    )
    .await;
    rig.until("(SELECT count(*) = 6 FROM ingestd.jobs WHERE state = 'running')")
        .await;
    rig.sql(TAKE_AWAY).await;
    let second = "(SELECT count(*) = 6 FROM ingestd.jobs WHERE state = 'running' AND attempt = 2)";
    rig.until(second).await;

    gates[0].add_permits(6);
    let fenced = || counter("ingestd_lease_lost_total{queue=\"fenced\"}");
    until_true("six outcomes were fenced", || fenced() >= 6.0).await;
    let untouched =
        "SELECT (SELECT count(*) FROM ingestd.jobs WHERE state = 'running' AND attempt = 2
                               AND last_error IS NULL)
                     - (SELECT count(*) FROM ledger) - (SELECT count(*) FROM ingestd.job_history)
                     - (SELECT count(*) FROM ingestd.dead_jobs)
                     - (SELECT count(*) FROM ingestd.job_attempts)";
    assert_eq!(rig.ask::<i64>(untouched).await, 6);

    gates[1].add_permits(6);
    rig.until("(SELECT count(*) = 6 FROM ingestd.job_history WHERE attempt = 2)")
        .await;
    assert_eq!(
        rig.ask::<i64>("SELECT count(*) FROM ledger WHERE step = 2")
            .await,
        6
    );
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ledger").await, 6);
    stop(engine).await;
    assert!(fenced() < 7.0, "the second attempts were no late ones");
}

#[tokio::test]
async fn nobody_takes_the_lease_of_a_fenced_transaction() {
    let rig = Rig::new().await;
    let (fenced, go_on) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (has_fenced, may_go_on) = (Arc::clone(&fenced), Arc::clone(&go_on));
    let holds = play("t.holds", move |ctx| {
        let (fenced, go_on) = (Arc::clone(&has_fenced), Arc::clone(&may_go_on));
        async move {
            let mut tx = ctx.state().db.begin().await?;
            ctx.fence(&mut tx).await?;
            fenced.add_permits(1);
            go_on.acquire().await?.forget();
            tx.commit().await?;
            // Progress was made, so the crashes before it count no more.
            fenced.add_permits(1);
            go_on.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    let engine = rig.play([holds]).await;
    let free = "SELECT count(*) FROM
                (SELECT FROM ingestd.jobs WHERE state = 'running' FOR UPDATE SKIP LOCKED) free";
    for crashes in [0, 1] {
        let values = format!("VALUES ('t.holds', {crashes})");
        rig.sql(&format!(
            "INSERT INTO ingestd.jobs (kind, crashes) {values}"
        ))
        .await;
        fenced.acquire().await.unwrap().forget();
        assert_eq!(rig.ask::<i64>(free).await, 0);
        let count = "SELECT crashes FROM ingestd.jobs";
        assert_eq!(rig.ask::<i16>(count).await, crashes);
        go_on.add_permits(1);
        fenced.acquire().await.unwrap().forget();
        assert_eq!(rig.ask::<i64>(free).await, 1);
        assert_eq!(rig.ask::<i16>(count).await, 0);
        go_on.add_permits(1);
        rig.until_idle().await;
    }
    stop(engine).await;
}

/// Cuts sessions, takes leases away and does both, at moments drawn from the seed.
async fn torment(observer: &sqlx::PgPool, seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    for _ in 0..25 {
        tokio::time::sleep(Duration::from_millis(chance.u64(10..120))).await;
        let (cut, take) = [(true, false), (false, true), (true, true)][chance.usize(0..3)];
        if take {
            let some = format!("{TAKE_AWAY} AND id % 3 = {}", chance.u8(0..3));
            run(observer, &some).await;
        }
        if cut {
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                       WHERE datname = current_database() AND application_name = 'ingestd'";
            run(observer, cut).await;
        }
    }
}

#[tokio::test]
async fn the_ledger_has_everything_once_whatever_is_cut() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let setup = Setup::of([ledger::job()]).slots("default", 8);
    let engines = [setup.start(rig.url()).await, setup.start(rig.url()).await];
    ledger::enqueue(&observer, 400).await;
    let seed = fastrand::u64(..);
    torment(&observer, seed).await;
    ledger::check(&observer, 400, &format!("seed {seed}")).await;
    for engine in engines {
        stop(engine).await;
    }
}
