//! The oracle of all fault tests: what jobs wrote, in a table that would show it twice.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use crate::queue_rig::{Ctx, Outcome, Play, args, ask, play, run, until, until_none};

/// No unique key on the ledger: it would hide what was written twice.
pub(crate) const TABLES: &str = "
    CREATE TABLE ledger (seq bigint GENERATED ALWAYS AS IDENTITY, job bigint, step int, lease bigint);
    CREATE TABLE cursors (job bigint PRIMARY KEY, step int NOT NULL DEFAULT 0);
    CREATE TABLE stops (job bigint PRIMARY KEY, point text NOT NULL)";

/// Where the first attempt of a [`job`] stops for ever if its arguments say `{"stop": …}`: those
/// about a step in the second of three, and the last when the job has completed itself.
pub(crate) const POINTS: [&str; 5] = [
    "claimed",
    "mid chunk",
    "before commit",
    "after commit",
    "completed",
];

/// Writes a line, in the caller's transaction.
pub(crate) async fn write(conn: &mut PgConnection, ctx: &Ctx, step: i32) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO ledger (job, step, lease) VALUES ($1, $2, $3)")
        .bind(ctx.lease().id)
        .bind(step)
        .bind(ctx.lease().lease_id)
        .execute(conn)
        .await?;
    Ok(())
}

/// Stops for ever where the arguments say so, once per job, and notes that on another connection.
async fn pass(ctx: &Ctx, point: &str) -> sqlx::Result<()> {
    if args(ctx)["stop"] != point {
        return Ok(());
    }
    let noted = sqlx::query("INSERT INTO stops VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(ctx.lease().id)
        .bind(point)
        .execute(&ctx.state().db)
        .await?;
    if noted.rows_affected() > 0 {
        std::future::pending::<()>().await;
    }
    Ok(())
}

/// A job of three steps; no number of faults exhausts its attempts.
pub(crate) fn job() -> Play {
    job_with(|| Duration::from_millis(fastrand::u64(0..10)))
}

/// As [`job`], with so long a pause before each step.
pub(crate) fn job_with(pause: fn() -> Duration) -> Play {
    play("t.ledger", move |ctx| three_steps(ctx, pause)).attempts(10_000)
}

/// Goes on after the last committed step; each commits with the cursor, the last with the completion.
///
/// Nothing but the fence keeps an attempt that has lost its lease from writing a step again.
async fn three_steps(ctx: Ctx, pause: fn() -> Duration) -> Outcome {
    pass(&ctx, "claimed").await?;
    let done: i32 = sqlx::query_scalar("SELECT step FROM cursors WHERE job = $1")
        .bind(ctx.lease().id)
        .fetch_one(&ctx.state().db)
        .await?;
    for step in done + 1..=3 {
        tokio::time::sleep(pause()).await;
        let mut tx = ctx.state().db.begin().await?;
        ctx.fence(&mut tx).await?;
        write(&mut tx, &ctx, step).await?;
        if step == 2 {
            pass(&ctx, "mid chunk").await?;
        }
        sqlx::query("UPDATE cursors SET step = $2 WHERE job = $1")
            .bind(ctx.lease().id)
            .bind(step)
            .execute(&mut *tx)
            .await?;
        if step == 3 {
            let done = ctx.complete_in(&mut tx).await?;
            tx.commit().await?;
            pass(&ctx, "completed").await?;
            return Ok(done);
        }
        if step == 2 {
            pass(&ctx, "before commit").await?;
        }
        tx.commit().await?;
        if step == 2 {
            pass(&ctx, "after commit").await?;
        }
    }
    unreachable!("the third step completes the job")
}

/// Makes the tables and enqueues `n` jobs.
pub(crate) async fn enqueue(pool: &PgPool, n: i64) {
    run(pool, TABLES).await;
    more(pool, n, "{}").await;
}

/// Enqueues `n` more jobs with these arguments.
pub(crate) async fn more(pool: &PgPool, n: i64, args: &str) {
    let insert = format!(
        "WITH j AS (INSERT INTO ingestd.jobs (kind, args)
                    SELECT 't.ledger', '{args}' FROM generate_series(1, {n}) RETURNING id)
         INSERT INTO cursors (job) SELECT id FROM j"
    );
    run(pool, &insert).await;
}

/// Waits until the ledger has `n` lines, for as long as it grows.
pub(crate) async fn lines(pool: &PgPool, n: i64) {
    let mut goal = 0;
    while goal < n {
        goal = n.min(goal + 20);
        until(pool, &format!("(SELECT count(*) >= {goal} FROM ledger)")).await;
    }
}

/// Waits until every job is finished, for as long as jobs or steps to do become fewer.
///
/// It may take minutes: those that were there when two daemons died run one at a time.
pub(crate) async fn settle(pool: &PgPool) {
    let left = "(SELECT count(*) FROM ingestd.jobs)
                + (SELECT coalesce(sum(3 - step), 0) FROM cursors)";
    until_none(pool, left).await;
}

/// Waits until every job is finished and asserts that nothing was lost and nothing done twice.
pub(crate) async fn check(pool: &PgPool, n: i64, told: &str) {
    until(pool, "EXISTS (SELECT FROM ledger)").await;
    settle(pool).await;
    let verdict: String = ask(
        pool,
        "SELECT concat_ws(' ',
           (SELECT count(*) FROM ingestd.job_history WHERE state = 'completed'),
           (SELECT count(DISTINCT id) FROM ingestd.job_history), (SELECT count(*) FROM ledger),
           (SELECT count(DISTINCT (job, step)) FROM ledger), (SELECT count(*) FROM ingestd.dead_jobs),
           (SELECT count(*) FROM (SELECT lease < lag(lease) OVER (PARTITION BY job ORDER BY seq) back
                                  FROM ledger) o WHERE back))",
    )
    .await;
    let expected = format!("{n} {n} {steps} {steps} 0 0", steps = n * 3);
    assert_eq!(
        verdict, expected,
        "completed, distinct, lines, distinct, dead, leases out of order; {told}"
    );
}
