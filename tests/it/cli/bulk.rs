//! Dead letters by the group, and one action on many.

use serde_json::json;

use super::World;

async fn letters(world: &World) {
    sqlx::query(
        "INSERT INTO ingestd.dead_jobs (id, kind, args, queue, priority, attempt, crashes, reason,
           error, fingerprint, created_at)
         SELECT 900 + n, 'system.noop', '{\"sleep_ms\": 600000}', 'default', 1, 3, 0, 'exhausted',
           'error ' || n, CASE n WHEN 4 THEN 255 ELSE 10 END, now()
         FROM generate_series(1, 4) n",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
}

#[tokio::test]
async fn letters_are_grouped_and_replayed_with_other_arguments() {
    let world = World::create().await;
    letters(&world).await;
    let groups = world.run("dead groups --json").json();
    assert_eq!(groups.as_array().unwrap().len(), 2);
    assert_eq!(
        (&groups[0]["fingerprint"], &groups[0]["n_letters"]),
        (&json!("000000000000000a"), &json!(3))
    );
    assert!(world.run("dead groups").ok().contains("00000000000000ff"));
    let listed = world
        .run("dead ls --fingerprint 00000000000000ff --json")
        .json();
    assert_eq!(
        (&listed[0]["id"], listed.as_array().unwrap().len()),
        (&json!(904), 1)
    );

    let replayed = world
        .run_with("dead retry 904 --json --args", r#"{"sleep_ms": 1}"#)
        .json();
    let shown = world
        .run(&format!("jobs show {} --json", replayed[0]["new_id"]))
        .json();
    assert_eq!(
        (&shown["args"], &shown["replayed_from"]),
        (&json!({ "sleep_ms": 1 }), &json!(904))
    );
    world
        .run_with("dead retry 903 --args", "[1]")
        .code(65)
        .says("no object");
    world
        .run_with("dead retry 902 903 --args", "{}")
        .code(64)
        .says("one job");
    world
        .run("dead retry 903 --rate 5")
        .code(64)
        .says("go with --all");
    world.run("dead retry").code(64);
}

#[tokio::test]
async fn many_letters_are_replayed_by_the_daemon() {
    let world = World::create().await;
    letters(&world).await;
    let daemon = world.daemon().await;
    let group = "--all --kind system.noop --fingerprint 000000000000000a";
    let dry = world.run(&format!("dead retry {group} --dry-run")).ok();
    assert!(
        dry.contains("would replay 3 dead letters") && dry.contains("error 1"),
        "{dry}"
    );
    assert_eq!(world.count("ingestd.runs").await, 0);
    let lines = world
        .run(&format!("dead retry {group} --rate 50 --wait --json"))
        .ok();
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["state"], &last["items_ok"]),
        (&json!("completed"), &json!(3))
    );
    assert_eq!(
        world
            .count("ingestd.dead_jobs WHERE replayed_at IS NULL")
            .await,
        1
    );

    // The three sleep for ten minutes, running or not.
    world.run("jobs cancel").code(64).says("which jobs?");
    world
        .run("jobs cancel 7 --kind system.noop")
        .code(64)
        .says("not both");
    world
        .run("jobs cancel --kind system.noop")
        .code(64)
        .says("cancel 3 jobs");
    let ordered = world
        .run("jobs cancel --kind system.noop --yes --json")
        .json();
    let id = ordered["run_id"].as_i64().unwrap();
    world.run(&format!("runs watch {id}")).ok();
    assert!(world.audited("bulk.cancel", &format!("run/{id}")).await);

    world
        .run("dead purge --all --replayed")
        .code(64)
        .says("purge 4 dead letters");
    world.run("dead purge --all --replayed --yes --wait").ok();
    assert_eq!(world.count("ingestd.dead_jobs").await, 0);
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn a_run_is_paused_and_resumed() {
    let world = World::create().await;
    letters(&world).await;
    let ordered = world
        .run("dead retry --all --json")
        .code(0)
        .says("no daemon is running")
        .json();
    let id = ordered["run_id"].as_i64().unwrap();
    world.run(&format!("runs pause {id}")).ok();
    world
        .run(&format!("runs pause {id}"))
        .code(1)
        .says("is paused already");
    assert!(world.audited("run.pause", &format!("run/{id}")).await);
    let resumed = world.run(&format!("runs resume {id} --json")).json();
    assert_eq!(resumed["paused"], false);
    assert!(world.audited("run.resume", &format!("run/{id}")).await);
    world
        .run(&format!("runs resume {id}"))
        .code(1)
        .says("is not paused");
    assert_eq!(
        world
            .count(&format!("ingestd.jobs WHERE run_id = {id}"))
            .await,
        1
    );
}
