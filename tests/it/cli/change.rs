//! What people change: queues, schedules, dead letters, runs.

use serde_json::json;

use super::World;

#[tokio::test]
async fn a_queue_is_paused_and_resumed() {
    let world = World::create().await;
    world.run("queues pause default").ok();
    assert!(world.audited("queue.pause", "queue/default").await);
    let queues = world.run("queues ls --json").json();
    let of = |name: &str| {
        queues
            .as_array()
            .unwrap()
            .iter()
            .find(|q| q["queue"] == name)
            .cloned()
    };
    assert_eq!(of("default").unwrap()["paused"], true);
    assert!(world.run("queues ls").ok().contains("paused"));

    let said = world.run("queues resume default").ok();
    assert!(said.contains("goes on"), "{said}");
    assert!(world.audited("queue.resume", "queue/default").await);
    let said = world.run("queues resume default").ok();
    assert!(said.contains("was not paused"), "{said}");
    world
        .run("queues pause defualt")
        .code(0)
        .says("no job or kind names queue \"defualt\"");
}

#[tokio::test]
async fn a_queue_is_limited_and_made_fair() {
    let world = World::create().await;
    let said = world.run("queues limit default 3").ok();
    assert!(said.contains("at most 3 jobs"), "{said}");
    assert!(world.audited("queue.limit", "queue/default").await);
    world.run("queues fair default on").ok();
    assert!(world.audited("queue.fair", "queue/default").await);
    let rules = "ingestd.queues WHERE queue = 'default' AND max_running = 3 AND fair";
    assert_eq!(world.count(rules).await, 1);
    assert!(world.run("queues ls").ok().contains("by tenant"));
    world.run("queues limit default --none").ok();
    world.run("queues fair default off").ok();
    let none = "ingestd.queues WHERE max_running IS NULL AND NOT fair";
    assert_eq!(world.count(none).await, 1);
    world.run("queues limit default").code(64);
    world.run("queues limit default 0").code(64);
}

#[tokio::test]
async fn a_schedule_is_added_explained_run_and_removed() {
    let world = World::create().await;
    let add = |name: &str, cron: &str, rest: &str| {
        let mut command = world.command("schedules add");
        command.args([name, cron]).args(rest.split_whitespace());
        super::ran(&mut command)
    };
    let said = add(
        "nightly",
        "30 2 * * *",
        "system.noop --timezone Europe/Prague",
    )
    .ok();
    assert!(said.contains("Europe/Prague"), "{said}");
    assert!(world.audited("schedule.add", "schedule/nightly").await);
    add("nightly", "0 3 * * *", "system.noop")
        .code(65)
        .says("there is a schedule");
    add("bad", "61 * * * *", "system.noop")
        .code(65)
        .says("61 * * * *");
    add("bad", "0 3 * * *", "system.noop --timezone Mars/Base")
        .code(65)
        .says("Mars/Base");
    add("bad", "0 3 * * *", "system.nop")
        .code(65)
        .says("Near ones: 'system.noop'");
    assert_eq!(world.count("ingestd.schedules WHERE name = 'bad'").await, 0);

    let next = world.run("schedules next nightly -n 3 --json").json();
    assert_eq!(next.as_array().unwrap().len(), 3);
    assert!(
        next[0]["local"].as_str().unwrap().contains(" 02:30:00 CE"),
        "{next}"
    );
    let words = world.run("schedules explain nightly").ok();
    assert!(
        words.contains("02:30") && words.contains("made up for by one job"),
        "{words}"
    );

    let ran = world.run("schedules run nightly --json").json();
    let job = ran["job_id"].as_i64().unwrap();
    let shown = world.run(&format!("jobs show {job} --json")).json();
    assert_eq!(shown["meta"]["schedule"], "nightly");
    assert!(world.audited("schedule.run", "schedule/nightly").await);

    world
        .run("schedules rm nightly")
        .code(64)
        .says("hint: say --yes");
    world.run("schedules rm nightly --yes").ok();
    assert!(world.audited("schedule.remove", "schedule/nightly").await);
    let listed = world.run("schedules ls").ok();
    assert!(
        !listed.contains("nightly") && listed.contains("built_in"),
        "{listed}"
    );
}

#[tokio::test]
async fn a_schedule_that_comes_with_ingestd_can_be_paused_only() {
    let world = World::create().await;
    let name = "system.recover_runs";
    world
        .run(&format!("schedules rm {name} --yes"))
        .code(65)
        .says("hint: pause it instead");
    world.run(&format!("schedules pause {name}")).ok();
    let paused = "ingestd.schedules WHERE name = 'system.recover_runs' AND paused_at IS NOT NULL";
    assert_eq!(world.count(paused).await, 1);
    assert!(world.run("schedules ls").ok().contains("paused"));
    world
        .run(&format!("schedules next {name}"))
        .code(0)
        .says("it is paused");
    world.run(&format!("schedules resume {name}")).ok();
    assert_eq!(world.count(paused).await, 0);
    assert!(
        world
            .audited("schedule.resume", "schedule/system.recover_runs")
            .await
    );
}

#[tokio::test]
async fn a_dead_letter_is_replayed_once_and_purged() {
    let world = World::create().await;
    sqlx::query(
        "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at)
         VALUES (900, 'system.noop', '{}', 'default', 1, 3, 0, 'exhausted',
           E'it was \x1b[31mred\nand long', 42, now())",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    let listed = world.run("dead ls").ok();
    assert!(
        listed.contains("exhausted") && !listed.contains('\x1b'),
        "{listed}"
    );
    let shown = world.run("dead show 900 --json").json();
    assert_eq!(
        (&shown["reason"], &shown["id"]),
        (&json!("exhausted"), &json!(900))
    );

    let replayed = world
        .run("dead retry 900 --json")
        .code(0)
        .says("hint: no daemon is running");
    let new = replayed.json()[0]["new_id"].as_i64().unwrap();
    assert!(world.audited("dead.retry", "job/900").await);
    assert_eq!(
        world.run(&format!("jobs show {new} --json")).json()["state"],
        "queued"
    );
    world
        .run("dead retry 900")
        .code(1)
        .says("not replayed: 900");
    assert_eq!(world.run("dead ls --json").json(), json!([]));
    assert_eq!(
        world.run("dead ls --all --json").json()[0]["replayed_to"],
        new
    );

    world
        .run("dead purge 900")
        .code(64)
        .says("delete dead letter 900 for good");
    assert_eq!(world.count("ingestd.dead_jobs").await, 1);
    world.run("dead purge 900 --yes").ok();
    assert_eq!(world.count("ingestd.dead_jobs").await, 0);
    assert!(world.audited("dead.purge", "job/900").await);
}

#[tokio::test]
async fn a_dead_letter_may_begin_afresh() {
    let world = World::create().await;
    sqlx::query(
        "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at)
         SELECT n, 'system.noop', '{}', 'default', 1, 3, 0, 'exhausted', 'no', 42, now()
         FROM generate_series(900, 902) n",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    world.run("dead retry 900 --afresh").ok();
    world.run("dead retry 901").ok();
    let all = world.run("dead retry --all --kind system.noop --afresh --json");
    let run = all.json()["run_id"].clone();
    let action: String =
        sqlx::query_scalar("SELECT params->>'action' FROM ingestd.runs WHERE id = $1")
            .bind(run.as_i64())
            .fetch_one(world.db.pool())
            .await
            .unwrap();
    assert_eq!(action, "replay_afresh");
    let origins: Vec<Option<i64>> = sqlx::query_scalar(
        "SELECT origin_id FROM ingestd.jobs WHERE kind = 'system.noop' ORDER BY id",
    )
    .fetch_all(world.db.pool())
    .await
    .unwrap();
    assert_eq!(origins, [None, Some(901)]);
    let noted: Vec<bool> = sqlx::query_scalar(
        "SELECT (detail -> 'afresh')::boolean FROM ingestd.audit_log
         WHERE action <> 'bulk.replay_afresh' ORDER BY object",
    )
    .fetch_all(world.db.pool())
    .await
    .unwrap();
    assert_eq!(noted, [true, false]);
}

#[tokio::test]
async fn a_run_is_shown_cancelled_and_reset() {
    let world = World::create().await;
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO ingestd.runs (system, job_kind, triggered_by, items_total)
         VALUES ('product_import', 'system.noop', 'cli', 10) RETURNING id",
    )
    .fetch_one(world.db.pool())
    .await
    .unwrap();
    let listed = world.run("runs ls --system product_import").ok();
    assert!(
        listed.contains("pending") && listed.contains("0/10"),
        "{listed}"
    );
    assert_eq!(
        world.run(&format!("runs show {id} --json")).json()["items_total"],
        10
    );

    world.run(&format!("runs cancel {id}")).ok();
    assert!(world.audited("run.cancel", &format!("run/{id}")).await);
    world
        .run(&format!("runs cancel {id}"))
        .code(1)
        .says("is cancelled already");
    world
        .run(&format!("runs watch {id}"))
        .code(1)
        .says("was cancelled");

    world.run(&format!("runs reset {id}")).ok();
    assert!(world.audited("run.reset", &format!("run/{id}")).await);
    assert_eq!(
        world
            .count(&format!("ingestd.jobs WHERE run_id = {id}"))
            .await,
        1
    );
}
