//! Many at once: daemons that one notification wakes, and people who act on jobs as those end.

use std::time::Duration;

use ingestd::queue::{JobError, JobId, control, dead};
use sqlx::PgPool;

use crate::{
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, counter, play, stop},
};

/// How often daemons of this process looked for work in the queue `herd`, by reason.
fn looks(reason: &str) -> f64 {
    counter(&format!(
        r#"ingestd_wakeups_total{{queue="herd",reason="{reason}"}}"#
    ))
}

#[tokio::test]
async fn one_notification_makes_each_daemon_look_once() {
    const DAEMONS: u32 = 6;
    const WAVES: u32 = 25;
    let rig = Rig::new().await;
    let setup = Setup::of([ledger::job().queue("herd")])
        .slots("herd", 2)
        .with(|queue| queue.poll_interval = Duration::from_hours(1));
    let herd = futures::future::join_all((0..DAEMONS).map(|_| setup.start(rig.url()))).await;
    rig.sql(ledger::TABLES).await;
    for wave in 1..=WAVES {
        rig.sql(
            "WITH j AS (INSERT INTO ingestd.jobs (kind) VALUES ('t.ledger') RETURNING id)
             INSERT INTO cursors (job) SELECT id FROM j",
        )
        .await;
        rig.until(&format!(
            "(SELECT count(*) = {wave} FROM ingestd.job_history)"
        ))
        .await;
    }
    ledger::check(rig.pool(), WAVES.into(), "one job a wave").await;
    futures::future::join_all(herd.into_iter().map(stop)).await;
    // Each was told at most once a wave, and when it began to listen; and looked once more each
    // time, for whoever could not tell.
    let (told, trailing) = (looks("notify"), looks("timer"));
    let most = f64::from(DAEMONS * (WAVES + 1));
    assert!(
        told > 0.0 && told <= most,
        "{told} looks for {most} notifications"
    );
    assert!(trailing <= told + looks("drain"), "{trailing} after {told}");
}

/// Does a hundred things to whatever job, as several people might at the same time.
async fn meddle(pool: &PgPool, seed: u64) {
    let mut dice = fastrand::Rng::with_seed(seed);
    for _ in 0..100 {
        let mut conn = pool.acquire().await.unwrap();
        let ids: Vec<i64> =
            sqlx::query_scalar("SELECT id FROM ingestd.all_jobs WHERE kind LIKE 't.%' ORDER BY id")
                .fetch_all(&mut *conn)
                .await
                .unwrap();
        let id = JobId(ids[dice.usize(..ids.len())]);
        match dice.u8(..10) {
            0..3 => drop(control::cancel(&mut conn, id).await.unwrap()),
            3..6 => drop(control::run_now(&mut conn, id).await.unwrap()),
            6..8 => drop(dead::replay(&mut conn, id).await.unwrap()),
            8 => control::pause(&mut conn, "default").await.unwrap(),
            _ => drop(control::resume(&mut conn, "default").await.unwrap()),
        }
    }
}

#[tokio::test]
async fn people_who_act_while_jobs_end_never_make_two_ends() {
    let rig = Rig::new().await;
    let dies = play("t.dies", |_| async {
        Err(JobError::fatal(anyhow::anyhow!("told to")))
    });
    let setup = Setup::of([ledger::job(), dies]).slots("default", 8);
    let engine = setup.start(rig.url()).await;
    ledger::enqueue(rig.pool(), 150).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.dies' FROM generate_series(1, 40)")
        .await;
    let seed = fastrand::u64(..);
    let people = (0..4).map(|person| meddle(rig.pool(), seed.wrapping_add(person)));
    futures::future::join_all(people).await;
    control::resume(&mut rig.pool().acquire().await.unwrap(), "default")
        .await
        .unwrap();
    rig.until_idle().await;
    stop(engine).await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ',
               (SELECT count(*) || '/' || count(DISTINCT id) FROM ingestd.job_history WHERE kind = 't.ledger'),
               (SELECT count(*) - count(DISTINCT (job, step)) FROM ledger),
               (SELECT count(*) FROM ingestd.job_history h
                WHERE kind = 't.ledger' AND (state = 'completed') IS DISTINCT FROM
                      ((SELECT count(*) FROM ledger WHERE job = h.id) = 3)),
               (SELECT count(*) FROM ingestd.dead_jobs)
                 + (SELECT count(*) FROM ingestd.job_history WHERE kind = 't.dies')
                 - (SELECT count(replayed_to) FROM ingestd.dead_jobs),
               (SELECT count(replayed_to) - count(DISTINCT replayed_to) FROM ingestd.dead_jobs))",
        )
        .await;
    assert_eq!(
        verdict, "150/150 0 0 40 0",
        "ends/jobs, lines twice, ends that do not fit, letters not accounted for, replays twice; seed {seed}"
    );
}
