//! Commands that need no daemon: migrate, enqueue, doctor, lists.

use super::{World, ran};

#[tokio::test]
async fn migrate_says_what_it_did_and_changes_nothing_twice() {
    let world = World::without_kinds().await;
    let drop = "DROP SCHEMA ingestd CASCADE; DROP SCHEMA catalog CASCADE";
    sqlx::raw_sql(drop).execute(world.db.pool()).await.unwrap();

    let planned = world.run("migrate --dry-run --json").json();
    assert_eq!(planned["migrations"][0]["version"], 1);
    assert_eq!(
        world.count("pg_namespace WHERE nspname = 'ingestd'").await,
        0
    );

    let said = world.run("migrate").ok();
    assert!(said.contains("applied: 0001 queue"), "{said}");
    assert!(said.contains("registered: kind system.noop"), "{said}");
    let again = world.run("migrate").ok();
    assert!(again.starts_with("the database is current"), "{again}");
    let nothing = world.run("migrate --dry-run --json").json();
    assert_eq!(nothing["migrations"], serde_json::json!([]));
    assert_eq!(nothing["new_kinds"], serde_json::json!([]));
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_left_alone() {
    let world = World::create().await;
    sqlx::query(
        "INSERT INTO ingestd._migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, '', 0)",
    )
    .execute(world.db.pool())
    .await
    .unwrap();
    world
        .run("migrate")
        .code(78)
        .says("hint: a newer ingestd migrated this database");
}

#[tokio::test]
async fn enqueue_prints_the_id_and_says_where_a_key_is_taken() {
    let world = World::create().await;
    let id = world
        .run("enqueue system.noop --unique-key k --priority 0 -q")
        .ok();
    let id = id.trim();
    assert!(id.parse::<i64>().is_ok(), "{id}");
    assert!(world.audited("job.enqueue", &format!("job/{id}")).await);

    let again = world.run("enqueue system.noop --unique-key k").code(0);
    assert_eq!(again.out.trim(), id);
    again.says("not inserted").says("unique key \"k\"");

    let later = world.run("enqueue system.noop --in 5m --json").json();
    assert_eq!(later["inserted"], true);
    let due =
        "ingestd.jobs WHERE run_at BETWEEN now() + interval '4 min' AND now() + interval '5 min'";
    assert_eq!(world.count(due).await, 1);
    world
        .run("enqueue system.noop --in 5m --run-at 2030-01-01T00:00:00Z")
        .code(64);
}

#[tokio::test]
async fn data_that_is_wrong_exits_65() {
    let world = World::create().await;
    let unknown = world
        .run("enqueue system.nop")
        .code(65)
        .says("unknown job kind \"system.nop\"");
    unknown.says("hint: Near ones: 'system.noop'");
    world
        .run_with("enqueue system.noop", "{a: 1}")
        .code(65)
        .says("no JSON");
    world
        .run_with("enqueue system.noop", "[1]")
        .code(65)
        .says("no object");
    assert_eq!(world.count("ingestd.jobs").await, 0);
    assert_eq!(world.count("ingestd.audit_log").await, 0);
}

#[tokio::test]
async fn what_does_not_exist_exits_66() {
    let world = World::create().await;
    for line in [
        "jobs show 4711",
        "jobs cancel 4711",
        "jobs retry 4711",
        "dead show 4711",
        "dead purge 4711 --yes",
        "runs show 4711",
        "runs watch 4711",
        "runs cancel 4711",
        "runs reset 4711",
        "schedules next none",
        "schedules pause none",
        "schedules rm none --yes",
    ] {
        let ran = world.run(line).code(66);
        assert!(
            ran.err.starts_with("error: there is no "),
            "{line}: {}",
            ran.err
        );
    }
}

#[tokio::test]
async fn a_job_is_listed_shown_and_cancelled() {
    let world = World::create().await;
    let id = world.run("enqueue system.noop --in 1h --tenant acme").ok();
    let id = id.trim();
    let table = world.run("jobs ls --state queued").ok();
    assert!(
        table.contains("system.noop") && table.contains("queued"),
        "{table}"
    );
    assert!(!table.contains('│'), "no borders in a pipe: {table}");
    assert_eq!(
        world.run("jobs ls --state dead --json").json(),
        serde_json::json!([])
    );
    world.run("jobs ls --state nonsense").code(64);
    let shown = world.run(&format!("jobs show {id} --json")).json();
    assert_eq!(shown["tenant"], "acme");
    assert_eq!(shown["state"], "queued");

    world.run(&format!("jobs cancel {id}")).ok();
    assert!(world.audited("job.cancel", &format!("job/{id}")).await);
    let shown = world.run(&format!("jobs show {id}")).ok();
    assert!(shown.contains("cancelled"), "{shown}");
    world
        .run(&format!("jobs cancel {id}"))
        .code(1)
        .says("is cancelled");
}

#[tokio::test]
async fn doctor_fails_without_a_daemon_and_says_what_to_do() {
    let world = World::create().await;
    let ran = world.run("doctor").code(1);
    for line in [
        "ok    database: ",
        "ok    schema: ",
        "fail  workers: no daemon",
        "hint: start one",
    ] {
        assert!(ran.out.contains(line), "{line}: {}", ran.out);
    }
    let found = serde_json::from_str::<serde_json::Value>(&world.run("doctor --json").out).unwrap();
    let checks: Vec<&str> = found
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["check"].as_str().unwrap())
        .collect();
    for check in [
        "configuration",
        "server version",
        "clock",
        "vacuum horizon",
        "storage",
        "http",
    ] {
        assert!(checks.contains(&check), "{check} is not among {checks:?}");
    }
    let ran = ran_without_database(&world);
    assert!(
        ran.out.contains("fail  database: cannot reach"),
        "{}",
        ran.out
    );
}

fn ran_without_database(world: &World) -> super::Ran {
    ran(world
        .command("doctor")
        .env("DATABASE_URL", "postgres://127.0.0.1:1/none"))
    .code(1)
}

#[tokio::test]
async fn doctor_tells_a_wrong_configuration_and_an_old_schema() {
    let world = World::without_kinds().await;
    let ran = world.run("doctor").code(1);
    assert!(
        ran.out.contains("fail  schema: kinds not registered: "),
        "{}",
        ran.out
    );
    let ran = super::ran(world.command("doctor").env("INGESTD_QUEUE__NO_SUCH", "1")).code(1);
    assert!(
        ran.out
            .contains("fail  configuration: INGESTD_QUEUE__NO_SUCH"),
        "{}",
        ran.out
    );
}
