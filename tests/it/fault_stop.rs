//! A daemon stops while its claims are on their way.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    proxy::{Proxy, Then},
    queue_rig::{Play, Rig, Setup, done, run, stop, until},
};

/// A kind that completes at once, and how many have begun.
fn counted() -> (Play, Arc<AtomicUsize>) {
    let n_begun = Arc::new(AtomicUsize::new(0));
    let begun = Arc::clone(&n_begun);
    let play = done("t.done").before(move || {
        begun.fetch_add(1, Ordering::SeqCst);
    });
    (play, n_begun)
}

/// What the database says of the only job; waits for whoever is about to change it.
const JOB: &str = "SELECT concat_ws(' ', state, attempt, crashes) FROM ingestd.jobs FOR UPDATE";

#[tokio::test]
async fn what_a_claim_brings_after_the_stop_goes_back_unbegun() {
    let (rig, (play, n_begun)) = (Rig::new().await, counted());
    let observer = rig.observer().await;
    let proxy = Proxy::start(rig.url()).await;
    let engine = Setup::of([play]).start(&proxy.url()).await;
    proxy.lose("Claims up to", 2, Then::Late);
    run(
        &observer,
        "INSERT INTO ingestd.jobs (kind) VALUES ('t.done')",
    )
    .await;
    proxy.until_late(1).await;
    let is_claimed = "SELECT EXISTS (SELECT FROM ingestd.jobs WHERE state = 'running')
                        OR EXISTS (SELECT FROM ingestd.batch_leases)";
    if !rig.ask::<bool>(is_claimed).await {
        proxy.deliver(); // the one before the job was there
        proxy.until_late(2).await;
    }
    // The stop is told first.
    tokio::join!(stop(engine), async { proxy.deliver() });
    assert_eq!(n_begun.load(Ordering::SeqCst), 0, "begun");
    assert_eq!(rig.ask::<String>(JOB).await, "queued 0 0");
}

/// Makes every claim wait, with the row in its hands, until it gets lock 7.
const HOLD: &str = "
    CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_advisory_xact_lock_shared(7);
      RETURN NEW;
    END$$;
    CREATE TRIGGER hold BEFORE UPDATE ON ingestd.jobs FOR EACH ROW
      WHEN (OLD.state = 'queued' AND NEW.state = 'running') EXECUTE FUNCTION hold();
    CREATE TRIGGER hold BEFORE INSERT ON ingestd.batch_leases FOR EACH ROW
      EXECUTE FUNCTION hold()";

#[tokio::test]
async fn a_claim_that_is_not_over_when_the_daemon_stops_is_waited_for() {
    let (rig, (play, n_begun)) = (Rig::new().await, counted());
    let observer = rig.observer().await;
    run(&observer, HOLD).await;
    let mut holder = observer.acquire().await.unwrap();
    let lock = sqlx::query("SELECT pg_advisory_lock(7)");
    lock.execute(&mut *holder).await.unwrap();
    let engine = Setup::of([play]).start(rig.url()).await;
    run(
        &observer,
        "INSERT INTO ingestd.jobs (kind) VALUES ('t.done')",
    )
    .await;
    let waits = "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7
                 AND NOT granted AND database = (SELECT oid FROM pg_database
                                                 WHERE datname = current_database()))";
    until(&observer, waits).await;
    // Whoever did not wait for the claim would be gone before it is over: it gets the time for it.
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let unlock = sqlx::query("SELECT pg_advisory_unlock(7)");
        unlock.execute(&mut *holder).await.unwrap();
    };
    tokio::join!(stop(engine), release);
    assert_eq!(n_begun.load(Ordering::SeqCst), 0, "begun");
    assert_eq!(rig.ask::<String>(JOB).await, "queued 0 0");
}
