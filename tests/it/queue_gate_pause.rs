//! Jobs behind a paused gate that had slipped past it: none begins.

use std::sync::Arc;

use ingestd::queue::{
    Done,
    gate::define::{self, Limits},
};
use tokio::sync::Semaphore;

use crate::queue_rig::{Play, Rig, Setup, done, play, stop};

/// Notes each change of a gated job's state, for what it was in between is soon mended.
const MOVES: &str = "
    CREATE TABLE moves (n bigint GENERATED ALWAYS AS IDENTITY, told text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO moves (told) VALUES (OLD.state || '>' || NEW.state);
      RETURN NULL;
    END$$;
    CREATE TRIGGER note AFTER UPDATE OF state ON ingestd.jobs FOR EACH ROW
      WHEN (OLD.gate_key IS NOT NULL AND OLD.state <> NEW.state) EXECUTE FUNCTION note()";

/// Waits until a running job of a gate is not running any more, and returns what it became.
async fn given_back(rig: &Rig) -> String {
    rig.until("EXISTS (SELECT FROM moves WHERE told LIKE 'running>%')")
        .await;
    rig.ask("SELECT told FROM moves WHERE told LIKE 'running>%' ORDER BY n LIMIT 1")
        .await
}

/// Makes a gate of two at once for the key `api`.
async fn gate(rig: &Rig) {
    let limits = Limits {
        max_running: Some(2),
        ..Limits::default()
    };
    let mut conn = rig.pool().acquire().await.unwrap();
    define::set(&mut conn, "api", &limits).await.unwrap();
}

async fn pause(rig: &Rig) {
    let mut conn = rig.pool().acquire().await.unwrap();
    define::pause(&mut conn, "api").await.unwrap();
}

async fn resume(rig: &Rig) {
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(define::resume(&mut conn, "api").await.unwrap());
}

/// A kind whose jobs wait for a permit.
fn slow() -> (Play, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&permits);
    let play = play("t.slow", move |_| {
        let permits = Arc::clone(&waits);
        async move {
            permits.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    (play, permits)
}

#[tokio::test]
async fn what_was_claimed_ahead_when_its_gate_was_paused_is_held_again() {
    let (rig, (slow, permits)) = (Rig::new().await, slow());
    gate(&rig).await;
    let setup = Setup::of([slow, done("t.short")]).slots("default", 1);
    let engine = setup.start(rig.url()).await;
    // It learns that its jobs are short, and claims ahead.
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.short' FROM generate_series(1, 40)")
        .await;
    rig.until_idle().await;
    rig.sql(MOVES).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.slow')")
        .await;
    rig.until("(SELECT state = 'running' FROM ingestd.jobs)")
        .await;
    rig.sql("INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('t.short', 'api')")
        .await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.jobs WHERE state = 'running')")
        .await;
    pause(&rig).await;
    assert_eq!(given_back(&rig).await, "running>held");
    resume(&rig).await;
    permits.add_permits(1);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn what_a_lost_claim_got_is_held_again_where_its_gate_is_paused() {
    let rig = Rig::new().await;
    gate(&rig).await;
    pause(&rig).await;
    let setup = Setup::of([done("t.short"), done("t.bait")]).in_rows();
    let engine = setup.start(rig.url()).await;
    rig.sql(MOVES).await;
    // As a claim left it whose answer was lost; and every claim from now on fails.
    rig.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN RAISE EXCEPTION 'no'; END$$;
         CREATE TRIGGER refuse BEFORE UPDATE ON ingestd.jobs
           FOR EACH ROW WHEN (NEW.kind = 't.bait') EXECUTE FUNCTION refuse();
         INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('t.short', 'api');
         UPDATE ingestd.jobs SET state = 'running', lease_id = nextval('ingestd.lease_seq'),
           attempt = 1, worker_id = (SELECT id FROM ingestd.workers WHERE ended_at IS NULL),
           deadline_at = now() + interval '1 h';
         INSERT INTO ingestd.jobs (kind) VALUES ('t.bait')",
    )
    .await;
    assert_eq!(given_back(&rig).await, "running>held");
    rig.sql("DROP TRIGGER refuse ON ingestd.jobs").await;
    resume(&rig).await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn what_slipped_past_a_pause_is_taken_back_at_the_next_look() {
    let rig = Rig::new().await;
    gate(&rig).await;
    pause(&rig).await;
    stop(rig.play([done("t.other")]).await).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, gate_key) SELECT 't.other', 'api' FROM generate_series(1, 2);
         UPDATE ingestd.jobs SET state = 'queued' WHERE id = (SELECT min(id) FROM ingestd.jobs)",
    )
    .await;
    // Nobody here can run them, and nobody tells the gate of them.
    let engine = rig.play([done("t.short")]).await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.jobs WHERE state = 'held')")
        .await;
    stop(engine).await;
}
