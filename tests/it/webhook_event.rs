//! Which events become which deliveries, and that they do in the transaction of the event.

use ingestd::{
    config, db,
    queue::{Done, JobError, control},
    runs::{self, NewRun, RunId},
};

use secrecy::SecretString;

use crate::{
    queue_rig::{Rig, Setup, done, play, stop},
    webhook_rig::hook,
};

const EVERYTHING: &str =
    "job.completed,job.dead,job.cancelled,run.completed,run.failed,run.cancelled";

/// Every delivery as `webhook type id`, in order.
async fn deliveries(rig: &Rig) -> Vec<String> {
    sqlx::query_scalar(
        "SELECT concat_ws(' ', args ->> 'webhook', args ->> 'type',
                coalesce(args #>> '{data,job,kind}', args #>> '{data,run,system}'))
         FROM ingestd.jobs WHERE kind = 'system.webhook' ORDER BY 1",
    )
    .fetch_all(rig.pool())
    .await
    .unwrap()
}

async fn until_the_rest_is_done(rig: &Rig) {
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE kind <> 'system.webhook')")
        .await;
}

#[tokio::test]
async fn a_job_that_ends_is_told_to_those_who_asked() {
    let rig = Rig::new().await;
    let all = hook(&rig, "http://a.test/", EVERYTHING, &[]).await;
    let dead = hook(&rig, "http://a.test/", "job.dead", &[]).await;
    let kinds = [("kinds", "'{t.good,u.none}'")];
    let good = hook(&rig, "http://a.test/", EVERYTHING, &kinds).await;
    let system = [("kinds", "'{u.*}'")];
    let u = hook(&rig, "http://a.test/", EVERYTHING, &system).await;
    let queues = [("queues", "'{aside}'")];
    let aside = hook(&rig, "http://a.test/", EVERYTHING, &queues).await;
    let acme = [("tenant", "'acme'")];
    hook(&rig, "http://a.test/", EVERYTHING, &acme).await;
    let paused = [("paused_at", "now()"), ("pause_reason", "'why not'")];
    hook(&rig, "http://a.test/", EVERYTHING, &paused).await;
    let plays = [
        done("t.good"),
        done("u.good").queue("aside"),
        play("t.bad", |_| async {
            Err(JobError::Fatal(anyhow::anyhow!("asked to")))
        }),
        play("t.stopped", |_| async { Err(JobError::Cancelled) }),
    ];
    let engine = rig.play(plays).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind) VALUES ('t.good'), ('u.good'), ('t.bad'), ('t.stopped')",
    )
    .await;
    until_the_rest_is_done(&rig).await;
    stop(engine).await;
    let mut expected = vec![
        format!("{all} job.completed t.good"),
        format!("{all} job.completed u.good"),
        format!("{all} job.dead t.bad"),
        format!("{all} job.cancelled t.stopped"),
        format!("{dead} job.dead t.bad"),
        format!("{good} job.completed t.good"),
        format!("{u} job.completed u.good"),
        format!("{aside} job.completed u.good"),
    ];
    expected.sort();
    assert_eq!(deliveries(&rig).await, expected);
    let gate =
        "SELECT bool_and(gate_key = 'webhook:' || (args ->> 'webhook') AND queue = 'webhooks'
                AND tenant = 'default') FROM ingestd.jobs WHERE kind = 'system.webhook'";
    assert!(rig.ask::<bool>(gate).await);
}

#[tokio::test]
async fn tenants_hear_of_their_own_jobs_only() {
    let rig = Rig::new().await;
    let acme = hook(&rig, "http://a.test/", EVERYTHING, &[("tenant", "'acme'")]).await;
    let default = hook(&rig, "http://a.test/", EVERYTHING, &[]).await;
    let engine = rig.play([done("t.good"), done("t.other")]).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, tenant) VALUES
         ('t.good', 'acme'), ('t.other', 'evil'), ('t.other', 'default'), ('t.other', NULL)",
    )
    .await;
    until_the_rest_is_done(&rig).await;
    stop(engine).await;
    let expected = [
        format!("{acme} job.completed t.good"),
        format!("{default} job.completed t.other"),
        format!("{default} job.completed t.other"),
    ];
    assert_eq!(deliveries(&rig).await, expected);
}

#[tokio::test]
async fn a_waiting_job_that_is_cancelled_is_told() {
    let rig = Rig::new().await;
    hook(&rig, "http://a.test/", "job.cancelled", &[]).await;
    rig.sql("INSERT INTO ingestd.job_kinds VALUES ('t.good', 'default', 1, 1)")
        .await;
    let id = rig
        .ask("INSERT INTO ingestd.jobs (kind, run_at) VALUES ('t.good', '2100-01-01') RETURNING id")
        .await;
    let mut tx = rig.pool().begin().await.unwrap();
    control::cancel(&mut tx, id).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(deliveries(&rig).await, Vec::<String>::new(), "rolled back");
    let mut conn = rig.pool().acquire().await.unwrap();
    control::cancel(&mut conn, id).await.unwrap();
    assert_eq!(deliveries(&rig).await.len(), 1);
}

#[tokio::test]
async fn what_completes_in_a_transaction_is_told_if_that_commits() {
    let rig = Rig::new().await;
    hook(&rig, "http://a.test/", "job.completed", &[]).await;
    let act = play("t.tx", |ctx| async move {
        let mut tx = ctx.state().db.begin().await?;
        let done: Done = ctx.complete_in(&mut tx).await?;
        if ctx.lease().attempt == 1 {
            tx.rollback().await?;
            return Err(anyhow::anyhow!("not this time").into());
        }
        tx.commit().await?;
        Ok(done)
    });
    let engine = rig.play([act]).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.tx')")
        .await;
    until_the_rest_is_done(&rig).await;
    stop(engine).await;
    assert_eq!(deliveries(&rig).await.len(), 1);
    let attempt = "SELECT (args #>> '{data,job,attempt}')::int FROM ingestd.jobs";
    assert_eq!(rig.ask::<i32>(attempt).await, 2);
}

#[tokio::test]
async fn thousands_of_completions_are_one_delivery_each() {
    let rig = Rig::new().await;
    hook(&rig, "http://a.test/", "job.completed", &[]).await;
    let setup = Setup::of([done("t.good")]).slots("default", 500);
    rig.sql(
        "INSERT INTO ingestd.job_kinds VALUES ('t.good', 'default', 1, 1);
         INSERT INTO ingestd.jobs (kind) SELECT 't.good' FROM generate_series(1, 5000)",
    )
    .await;
    let engine = setup.start(rig.url()).await;
    until_the_rest_is_done(&rig).await;
    stop(engine).await;
    let counts = "SELECT concat_ws(' ', count(*), count(DISTINCT args ->> 'message'),
                         count(DISTINCT args #>> '{data,job,id}')) FROM ingestd.jobs";
    assert_eq!(rig.ask::<String>(counts).await, "5000 5000 5000");
}

#[tokio::test]
async fn deliveries_are_no_events() {
    let rig = Rig::new().await;
    hook(&rig, "http://a.test/", EVERYTHING, &[]).await;
    rig.sql(
        "INSERT INTO ingestd.job_history
           (shard, id, kind, queue, state, priority, attempt, created_at, run_at)
         SELECT 0, 1000 + n, 'system.webhook', 'webhooks', state, 1, 1, now(), now()
         FROM unnest('{completed,cancelled}'::text[]) WITH ORDINALITY AS s (state, n);
         INSERT INTO ingestd.dead_jobs
           (id, kind, args, queue, priority, attempt, crashes, reason, error, fingerprint, created_at)
         VALUES (2000, 'system.webhook', '{}', 'webhooks', 1, 1, 0, 'fatal', 'why', 0, now())",
    )
    .await;
    assert_eq!(deliveries(&rig).await, Vec::<String>::new());
}

/// The queue's sessions read no table without an index; one they had to would cost every completion
/// as much as the planner makes of that.
#[tokio::test]
async fn the_look_for_webhooks_has_an_index() {
    let rig = Rig::new().await;
    let database = config::Database {
        url: Some(SecretString::from(rig.url())),
        ..config::Database::default()
    };
    let queue = db::connect_queue(&database).await.unwrap();
    let look = "EXPLAIN SELECT EXISTS (SELECT FROM ingestd.webhooks WHERE paused_at IS NULL)";
    let plan: Vec<String> = sqlx::query_scalar(look).fetch_all(&queue).await.unwrap();
    assert!(plan.join("\n").contains("webhooks_live"), "{plan:?}");
    let join = "EXPLAIN SELECT FROM (VALUES ('t.good', NULL)) e (kind, tenant)
                JOIN ingestd.webhooks w
                  ON w.tenant = coalesce(e.tenant, 'default') AND w.paused_at IS NULL
                WHERE e.kind <> 'system.webhook' AND 'job.dead' = ANY (w.events)";
    let plan: Vec<String> = sqlx::query_scalar(join).fetch_all(&queue).await.unwrap();
    assert!(plan.join("\n").contains("webhooks_live"), "{plan:?}");
}

async fn new_run(rig: &Rig, tenant: &str) -> RunId {
    let new = NewRun {
        system: "product_import",
        job_kind: Some("product_import.run"),
        tenant: tenant.into(),
        triggered_by: "test".into(),
        params: serde_json::json!({}),
        items_total: Some(3),
    };
    let mut conn = rig.pool().acquire().await.unwrap();
    let id = runs::create(&mut conn, &new).await.unwrap();
    runs::begin(&mut conn, id).await.unwrap().unwrap();
    id
}

#[tokio::test]
async fn a_run_that_ends_is_told_each_time_it_does() {
    let rig = Rig::new().await;
    rig.sql("INSERT INTO ingestd.job_kinds VALUES ('product_import.run', 'import', 5, 60) ON CONFLICT DO NOTHING")
        .await;
    let events = "run.completed,run.failed,run.cancelled";
    let all = hook(&rig, "http://a.test/", events, &[]).await;
    let import = [("kinds", "'{product_import.run}'")];
    let import = hook(&rig, "http://a.test/", "run.failed", &import).await;
    hook(
        &rig,
        "http://a.test/",
        events,
        &[("kinds", "'{product_check.*}'")],
    )
    .await;
    let mut conn = rig.pool().acquire().await.unwrap();
    new_run(&rig, "acme").await;
    let completed = new_run(&rig, "default").await;
    runs::complete(&mut conn, completed).await.unwrap();
    rig.sql("UPDATE ingestd.runs SET state = state, stage = 'nothing new'")
        .await;
    let failed = new_run(&rig, "default").await;
    runs::fail(&mut conn, failed, "it broke").await.unwrap();
    runs::fail(&mut conn, failed, "again").await.unwrap();
    runs::reset(&mut conn, failed).await.unwrap();
    runs::cancel(&mut conn, failed).await.unwrap();
    let expected = [
        format!("{all} run.cancelled product_import"),
        format!("{all} run.completed product_import"),
        format!("{all} run.failed product_import"),
        format!("{import} run.failed product_import"),
    ];
    assert_eq!(deliveries(&rig).await, expected);
    let error = "SELECT args #>> '{data,run,error}' FROM ingestd.jobs
                 WHERE args ->> 'type' = 'run.failed' LIMIT 1";
    assert_eq!(rig.ask::<String>(error).await, "it broke");
}
