//! A network that swallows what is sent, without a word: connections stay open and nothing comes.

use std::{sync::Arc, time::Duration};

use ingestd::queue::Done;
use tokio::sync::Semaphore;

use crate::{
    proxy::Proxy,
    queue_rig::{Rig, Setup, done, play, run, stop, until},
};

#[tokio::test]
async fn connections_that_fell_silent_are_given_up() {
    let rig = Rig::new().await;
    let observer = rig.observer().await;
    let proxy = Proxy::start(rig.url()).await;
    let gate = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&gate);
    let ends = play("t.ends", move |_| {
        let gate = Arc::clone(&waits);
        async move {
            gate.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    let mut setup = Setup::of([ends, done("t.after")]).lost_after(Duration::from_secs(3));
    setup.acquire_timeout = Duration::from_secs(1);
    let engine = setup.start(&proxy.url()).await;
    let insert = "INSERT INTO ingestd.jobs (kind) VALUES ('t.ends'), ('t.after')";
    run(&observer, insert).await;
    until(&observer, "EXISTS (SELECT FROM ingestd.job_history)").await;
    // A claim and a completion are under way, and their answers will never come.
    let mut lock = observer.begin().await.unwrap();
    let exclusive = "LOCK TABLE ingestd.jobs IN EXCLUSIVE MODE";
    sqlx::query(exclusive).execute(&mut *lock).await.unwrap();
    gate.add_permits(1);
    let blocked = |what: &str| {
        format!(
            "EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
               AND wait_event_type = 'Lock' AND query LIKE '%{what}%')"
        )
    };
    until(&observer, &blocked("Claims up to")).await;
    until(&observer, &blocked("Completes or cancels")).await;
    proxy.freeze();
    lock.rollback().await.unwrap();
    let insert = "INSERT INTO ingestd.jobs (kind) SELECT 't.after' FROM generate_series(1, 20)";
    run(&observer, insert).await;
    let all = "(SELECT count(*) = 22 AND count(DISTINCT id) = 22 FROM ingestd.job_history)";
    until(&observer, all).await;
    stop(engine).await;
    assert!(
        rig.ask::<bool>("SELECT NOT EXISTS (SELECT FROM ingestd.jobs)")
            .await
    );
}
