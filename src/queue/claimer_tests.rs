//! What becomes of a claim where nobody is left to run what it brings.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    claim::KnownKinds,
    claimer::Claimer,
    floor::Floor,
    job::{Done, Job, JobContext, JobError},
    kind::Kind,
    lease::Leases,
    nobody::Nobody,
    progress::Claims,
    rule::Rule,
    session::Session,
    slot::Slots,
    wake::Bell,
};
use crate::{db::Bounded, testing::Database};

/// Generous: the machine may be busy compiling.
const PATIENCE: Duration = Duration::from_secs(40);

#[derive(serde::Serialize, serde::Deserialize)]
struct Nothing {}

impl Job for Nothing {
    const KIND: &'static str = "t.nothing";
    type Context = ();

    async fn run(self, _: &JobContext<()>) -> Result<Done, JobError> {
        Ok(Done::new())
    }
}

/// Waits until the database says that `condition` is true.
async fn until(pool: &PgPool, condition: &'static str) {
    let begun = Instant::now();
    while !sqlx::query_scalar::<_, bool>(condition)
        .fetch_one(pool)
        .await
        .unwrap()
    {
        assert!(begun.elapsed() < PATIENCE, "never came true: {condition}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_claimer_that_nobody_listens_to_ends_and_holds_nothing() {
    let db = Database::create().await;
    sqlx::raw_sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.nothing', 'default', 3, 60);
         INSERT INTO ingestd.jobs (kind) VALUES ('t.nothing')",
    )
    .execute(db.pool())
    .await
    .unwrap();
    let worker_id = sqlx::query_scalar(
        "INSERT INTO ingestd.workers (host, pid, version, queues)
         VALUES ('test', 1, '0', '{}') RETURNING id",
    )
    .fetch_one(db.pool())
    .await
    .unwrap();
    let session = Session {
        worker_id,
        cancel: CancellationToken::new(),
    };
    let (_lives, session) = watch::channel(Some(Arc::new(session)));
    let (claims, slots) = (Claims::new(PATIENCE), Slots::new(4));
    let (leases, queue): (Leases, Arc<str>) = (Leases::default(), "default".into());
    let (sender, listener) = mpsc::channel(1);
    let claimer = Claimer {
        steps: claims.begin(&queue, &slots),
        queue,
        db: Bounded {
            pool: db.pool().clone(),
            limit: PATIENCE,
        },
        kinds: Arc::new(KnownKinds::of(&[Kind::of::<Nothing>()])),
        slots,
        floor: Floor::default(),
        rule: Rule::default(),
        rule_read: std::time::Instant::now(),
        last_tenant: String::new(),
        nobody: Nobody::default(),
        worth_a_batch: 0,
        turn: 0,
        unheard: Vec::new(),
        bell: Arc::new(Bell::default()),
        session,
        leases: leases.clone(),
        claimed: sender,
        stop: CancellationToken::new(),
        poll_interval: Duration::from_millis(10),
        trailing_poll: Duration::from_millis(1),
    };
    // While its claim waits for the table, whoever would run the job is gone.
    let mut lock = db.pool().begin().await.unwrap();
    let exclusive = sqlx::query("LOCK TABLE ingestd.jobs IN EXCLUSIVE MODE");
    exclusive.execute(&mut *lock).await.unwrap();
    let running = tokio_util::task::TaskTracker::new().spawn(claimer.run());
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                   AND wait_event_type = 'Lock' AND query LIKE '%Claims up to%')";
    until(db.pool(), waits).await;
    drop(listener);
    lock.rollback().await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, running).await;
    ended.expect("it claims on").unwrap();
    let state = "SELECT state = 'running' FROM ingestd.jobs";
    until(db.pool(), state).await;
    assert!(leases.held().is_empty(), "so that it is handed back");
    assert_eq!(claims.stalled(true), [Arc::from("default")], "it is missed");
}
