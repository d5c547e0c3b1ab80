//! Leases of batches that are lost, given back or asked about at the wrong moment.

use super::{
    super::super::{claim::CLAIM_FAIR, session::beat},
    *,
};

/// Says how many jobs run in their rows, and how many batches there are.
const TOLD: &str =
    "SELECT concat_ws(' ', (SELECT count(*) FROM ingestd.jobs WHERE state = 'running'),
                                      (SELECT count(*) FROM ingestd.batch_leases))";

/// Takes the lease of a running job away, as whoever hands it back does.
async fn give_back(db: &Database, id: i64) {
    let back = format!(
        "UPDATE ingestd.jobs SET state = 'queued', lease_id = NULL, worker_id = NULL, deadline_at = NULL,
         attempt = attempt - 1 WHERE id = {id} AND state = 'running'"
    );
    run(db.pool(), &back).await;
}

#[tokio::test]
async fn each_job_has_the_time_of_its_kind() {
    let (db, worker) = database(2).await;
    run(
        db.pool(),
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.quick', 'default', 3, 1);
         INSERT INTO ingestd.jobs (kind) VALUES ('t.quick')",
    )
    .await;
    let mut conn = db.pool().acquire().await.unwrap();
    let rows = ask_for(&mut conn, worker, 3).await.unwrap();
    let oldest: i64 = ask(db.pool(), "SELECT min(id) FROM ingestd.batch_leases").await;
    let since: Vec<i64> = rows.iter().map(|row| row.get("batches_since")).collect();
    assert_eq!(since, [oldest; 3], "a later claim looks at both batches");
    let n_back = rescue::hand_back_in_time(&mut conn, worker).await.unwrap();
    assert_eq!(n_back, 2);
    let left: String = ask(
        db.pool(),
        "SELECT kind FROM ingestd.jobs WHERE state = 'running'",
    )
    .await;
    assert_eq!(left, "t.quick", "it is past its deadline, and charged");
}

#[tokio::test]
async fn the_last_resort_waits_for_no_transaction() {
    let (db, worker) = database(3).await;
    let batch = claimed(&db, worker, 3).await;
    let mut conn = db.pool().acquire().await.unwrap();
    settle(&mut conn, &[batch[0].id]).await.unwrap();
    let mut attempts = db.pool().begin().await.unwrap();
    let hold = "SELECT FROM ingestd.jobs WHERE id <> $1 FOR NO KEY UPDATE";
    let hold = sqlx::query(hold).bind(batch[2].id);
    hold.execute(&mut *attempts).await.unwrap();
    let back = rescue::hand_back_in_time(&mut conn, worker);
    let n_back = tokio::time::timeout(PATIENCE, back).await;
    assert_eq!(n_back.unwrap().unwrap(), 1, "those that nobody holds");
    attempts.rollback().await.unwrap();
    assert_eq!(ask::<String>(db.pool(), TOLD).await, "1 1");
    settle_lost(&mut conn, Duration::ZERO).await.unwrap();
    assert_eq!(
        ask::<String>(db.pool(), TOLD).await,
        "2 0",
        "left to a rescue"
    );
}

#[tokio::test]
async fn what_hangs_is_settled_for_a_rescue() {
    let (db, worker) = database(1).await;
    claimed(&db, worker, 1).await;
    let mut conn = db.pool().acquire().await.unwrap();
    let late = "UPDATE ingestd.batch_leases SET started_at = clock_timestamp() - interval '70 s'";
    run(db.pool(), late).await;
    settle_lost(&mut conn, Duration::from_mins(1))
        .await
        .unwrap();
    assert_eq!(
        ask::<String>(db.pool(), TOLD).await,
        "0 1",
        "within its grace"
    );
    settle_lost(&mut conn, Duration::from_secs(5))
        .await
        .unwrap();
    assert_eq!(ask::<String>(db.pool(), TOLD).await, "1 0");
}

#[tokio::test]
async fn who_changes_a_running_job_keeps_it_from_going_back_and_being_claimed() {
    let (db, worker) = database(1).await;
    let job = claimed(&db, worker, 1).await.remove(0);
    let mut conn = db.pool().acquire().await.unwrap();
    settle_worker(&mut conn, worker, None).await.unwrap();
    let change = begin(&mut conn, JobId(job.id)).await.unwrap();
    let pool = db.pool().clone();
    let mut back =
        TaskTracker::new().spawn(async move { rescue::hand_back(&pool, worker).await.unwrap() });
    tokio::select! {
        () = until_waiting(db.pool(), 1) => {}
        _ = &mut back => panic!("it went back"),
    }
    change.commit().await.unwrap();
    assert_eq!(back.await.unwrap(), 1);
}

#[tokio::test]
async fn a_job_that_was_given_back_is_claimed_though_its_batch_is_still_there() {
    let (db, worker) = database(2).await;
    let batch = claimed(&db, worker, 2).await;
    settle(&mut db.pool().acquire().await.unwrap(), &[batch[0].id])
        .await
        .unwrap();
    give_back(&db, batch[0].id).await;
    let again = claimed(&db, worker, 2).await;
    assert_eq!(again.len(), 1, "the other one is leased");
    assert_eq!(again[0].id, batch[0].id);
    assert_eq!(claimed(&db, worker, 2).await, [], "both are");
    assert_eq!(finish(db.pool(), worker, &batch, &[]).await, [batch[1].id]);
    assert_eq!(finish(db.pool(), worker, &again, &[]).await, [batch[0].id]);
}

#[tokio::test]
async fn a_lease_that_was_taken_away_settles_nothing() {
    let (db, worker) = database(1).await;
    let mut conn = db.pool().acquire().await.unwrap();
    let lost = claimed(&db, worker, 1).await.remove(0);
    settle(&mut conn, &[lost.id]).await.unwrap();
    give_back(&db, lost.id).await;
    settle(&mut conn, &[lost.id]).await.unwrap();
    settle_own(&mut conn, &lease(&lost, worker)).await.unwrap();
    assert_eq!(ask::<String>(db.pool(), TOLD).await, "0 1");
    settle_worker(&mut conn, worker, None).await.unwrap();
    assert_eq!(ask::<String>(db.pool(), TOLD).await, "0 0");
}

#[tokio::test]
async fn what_somebody_has_locked_is_waited_for() {
    let (db, worker) = database(2).await;
    let batch = claimed(&db, worker, 2).await;
    let mut attempt = db.pool().begin().await.unwrap();
    settle_own(&mut attempt, &lease(&batch[0], worker))
        .await
        .unwrap();
    let pool = db.pool().clone();
    let back =
        TaskTracker::new().spawn(async move { rescue::hand_back(&pool, worker).await.unwrap() });
    let began = Instant::now();
    while ask::<String>(db.pool(), TOLD).await != "1 1" {
        assert!(began.elapsed() < PATIENCE, "the other one is not settled");
    }
    attempt.rollback().await.unwrap();
    assert_eq!(back.await.unwrap(), 2);
}

#[tokio::test]
async fn what_was_claimed_before_the_clock_was_set_back_is_settled() {
    let (db, worker) = database(1).await;
    claimed(&db, worker, 1).await;
    let later = "UPDATE ingestd.batch_leases SET started_at = clock_timestamp() + interval '1 h'";
    run(db.pool(), later).await;
    let mut conn = db.pool().acquire().await.unwrap();
    settle_older(&mut conn, worker, SETTLE_AFTER, None)
        .await
        .unwrap();
    assert_eq!(ask::<String>(db.pool(), TOLD).await, "1 0");
}

#[tokio::test]
async fn a_batch_s_id_that_came_round_again_is_another_s() {
    let (db, theirs) = database(2).await;
    let batch = claimed(&db, theirs, 1).await;
    let ours = worker(db.pool(), true).await;
    let job = claimed(&db, ours, 1).await;
    // A failover lost what we claimed, and the id of our batch is theirs by now.
    let ended = batch[0].batch_id.unwrap();
    let both = [ended, job[0].batch_id.unwrap()];
    assert_eq!(finish(db.pool(), ours, &job, &both).await.len(), 1);
    assert_eq!(ask::<String>(db.pool(), TOLD).await, "0 1");
    let lost = Claimed {
        batch_id: Some(ended),
        ..batch[0]
    };
    let mut conn = db.pool().acquire().await.unwrap();
    settle_own(&mut conn, &lease(&lost, ours)).await.unwrap();
    assert_eq!(ask::<String>(db.pool(), TOLD).await, "0 1");
}

#[tokio::test]
async fn who_takes_turns_leaves_alone_what_is_leased() {
    let (db, worker) = database(4).await;
    let batch = claimed(&db, worker, 2).await;
    run(
        db.pool(),
        "INSERT INTO ingestd.queues (queue, fair, max_running) VALUES ('default', true, 3)",
    )
    .await;
    let minute = PgInterval {
        microseconds: 60_000_000,
        ..PgInterval::default()
    };
    let found = sqlx::query(CLAIM_FAIR)
        .bind("default")
        .bind(4_i64)
        .bind([0_i16, 1, 2, 3])
        .bind([None::<chrono::DateTime<chrono::Utc>>; 4])
        .bind(worker)
        .bind(["t.many"])
        .bind([minute])
        .bind(true)
        .bind("")
        .bind([None::<i64>; 4])
        .fetch_all(db.pool())
        .await
        .unwrap();
    let open: i64 = found[0].get("n_open");
    assert_eq!(open, 1, "two of three are leased");
    let got: Vec<i64> = found.iter().filter_map(|row| row.get("id")).collect();
    let leased = |id: &i64| batch.iter().any(|c| c.id == *id);
    assert!(!got.iter().any(leased), "{got:?}");
    assert_eq!(finish(db.pool(), worker, &batch, &[]).await.len(), 2);
}

#[tokio::test]
async fn a_heartbeat_tells_whose_lease_is_gone_and_nobody_else() {
    let (db, worker) = database(2).await;
    let batch = claimed(&db, worker, 2).await;
    let leases: Vec<i64> = batch.iter().map(|c| c.lease_id).collect();
    let mut conn = db.pool().acquire().await.unwrap();
    let slots = serde_json::json!({});
    let told = beat(&mut conn, worker, &leases, &slots).await.unwrap();
    assert_eq!(told.unwrap().0, [0_i64; 0], "both are leased in the batch");
    settle_worker(&mut conn, worker, None).await.unwrap();
    give_back(&db, batch[0].id).await;
    let told = beat(&mut conn, worker, &leases, &slots).await.unwrap();
    assert_eq!(told.unwrap().0, [leases[0]]);
}
