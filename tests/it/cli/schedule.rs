//! Schedules from the command line and from the configuration of a daemon.

use super::World;

/// Runs a command whose last arguments have blanks in them.
fn run(world: &World, line: &str, rest: &[&str]) -> super::Ran {
    let mut command = world.command(line);
    super::ran(command.args(rest))
}

#[tokio::test]
async fn a_schedule_is_set_made_up_for_and_run_beside() {
    let world = World::create().await;
    run(
        &world,
        "schedules add n",
        &["0 * * * *", "system.noop", "--overlap", "skip", "--paused"],
    )
    .ok();
    run(
        &world,
        "schedules set n --jitter 5m --missed all --cron",
        &["5 * * * *"],
    )
    .ok();
    assert!(world.audited("schedule.change", "schedule/n").await);
    let explained = world.run("schedules explain n -n 2 --json").json();
    assert_eq!(explained["cron"], "5 * * * *");
    assert_eq!(explained["jitter_ms"], 300_000);
    assert_eq!(
        (&explained["overlap"], &explained["missed"]),
        (&"skip".into(), &"all".into())
    );
    assert_eq!(explained["upcoming"].as_array().unwrap().len(), 2);
    let words = world.run("schedules explain n").ok();
    assert!(
        words.contains("by a person since") && words.contains("up to 5m"),
        "{words}"
    );

    run(
        &world,
        "schedules add acmes",
        &["0 * * * *", "system.noop", "--tenant", "acme"],
    )
    .ok();
    let names = |query: &str| {
        let listed = world.run(&format!("schedules ls {query} --json")).json();
        let names = listed.as_array().unwrap().iter();
        names.map(|row| row["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("--tenant acme"), ["acmes"]);
    assert_eq!(names("--tenant other"), [""; 0]);
    assert!(names("").len() >= 2);
    run(&world, "schedules set acmes --tenant", &["other"]).ok();
    assert_eq!(names("--tenant other"), ["acmes"]);
    run(&world, "schedules set acmes --tenant", &[""]).ok();
    let nobodys = world.run("schedules explain acmes --json").json();
    assert_eq!(nobodys["tenant"], serde_json::Value::Null);
    run(&world, "schedules rm acmes --yes", &[]).ok();

    let from = "2026-01-01T00:00:00Z --to 2026-01-01T03:00:00Z";
    let backfill = format!("schedules backfill n --from {from}");
    world
        .run(&backfill)
        .code(65)
        .says("must not overlap")
        .says("hint: --spacing");
    let said = world
        .run(&format!("{backfill} --spacing 1s --dry-run"))
        .ok();
    assert!(said.contains("3 ticks would be made up for"), "{said}");
    assert_eq!(world.count("ingestd.jobs").await, 0);
    let said = world.run(&format!("{backfill} --spacing 1s")).ok();
    assert!(said.contains("3 ticks are made up for, 0 have"), "{said}");
    let again = world.run(&format!("{backfill} --spacing 1s"));
    assert!(
        again.out.contains("0 ticks are") && again.err.contains("already"),
        "{again:?}"
    );
    assert_eq!(
        world
            .count("ingestd.jobs WHERE meta->>'backfill' = 'true'")
            .await,
        3
    );
    assert!(world.audited("schedule.backfill", "schedule/n").await);

    world
        .run("schedules run n")
        .code(75)
        .says("must not overlap")
        .says("hint: --force");
    world.run("schedules run n --force").ok();
    for line in [
        "set none --jitter 1s",
        "run none",
        "explain none",
        "resume none",
    ] {
        world
            .run(&format!("schedules {line}"))
            .code(66)
            .says("there is no schedule");
    }
    world
        .run("schedules backfill none --from 2026-01-01")
        .code(66);
    world
        .run("schedules backfill n --from yesterday")
        .code(64)
        .says("no time");
    run(
        &world,
        "schedules set system.recover_runs --cron",
        &["* * * * *"],
    )
    .code(65)
    .says("comes with ingestd itself");
}

#[tokio::test]
async fn a_daemon_brings_its_schedules_and_a_users_stands_before_them() {
    let world = World::create().await;
    run(&world, "schedules add mine", &["0 4 * * *", "system.noop"]).ok();
    let file = world.dir.path().join("ingestd.toml");
    std::fs::write(
        &file,
        "[schedules.mine]\nkind = 'system.noop'\ncron = '0 5 * * *'\n\
         [schedules.theirs]\nkind = 'system.noop'\ncron = '0 6 * * *'\nargs = { sleep_ms = 1 }\n\
         [schedules.'system.recover_runs']\nkind = 'system.recover_runs'\ncron = '*/9 * * * *'\n",
    )
    .unwrap();
    let with = format!("--config {}", file.display());
    let checked = world.run(&format!("config check {with}")).ok();
    assert!(checked.contains("schedule theirs: "), "{checked}");
    let doctor = world.run(&format!("doctor {with}"));
    assert!(
        doctor
            .out
            .contains("\"theirs\" is in the configuration only"),
        "{doctor:?}"
    );

    let mut command = world.command(&format!("run {with}"));
    let log = std::fs::File::create(world.dir.path().join("daemon.log")).unwrap();
    command.stdout(std::process::Stdio::null()).stderr(log);
    let daemon = super::Daemon(command.spawn().unwrap());
    world.until_worker().await;
    let listed = world.run("schedules ls --json");
    let rows = listed.json();
    let of = |name: &str| {
        let rows = rows.as_array().unwrap().iter();
        let row = rows.clone().find(|row| row["name"] == name).unwrap();
        format!(
            "{} {}",
            row["cron"].as_str().unwrap(),
            row["origin"].as_str().unwrap()
        )
    };
    assert_eq!(of("mine"), "0 4 * * * user");
    assert_eq!(of("theirs"), "0 6 * * * config");
    assert_eq!(of("system.recover_runs"), "*/9 * * * * config");
    world.run("schedules ls").says("it is not in force");
    assert_eq!(daemon.stop(), 0);
    let log = std::fs::read_to_string(world.dir.path().join("daemon.log")).unwrap();
    assert!(log.contains("is not in force"), "{log}");
    let doctor = world.run(&format!("doctor {with}"));
    assert!(doctor.out.contains("is not in force"), "{doctor:?}");
    world
        .run("schedules rm theirs --yes")
        .code(65)
        .says("comes with the configuration");
    let doctor = world.run("doctor");
    assert!(
        doctor
            .out
            .contains("\"theirs\" is no longer in the configuration"),
        "{doctor:?}"
    );

    std::fs::write(
        &file,
        "[schedules.n]\nkind = 'system.nop'\ncron = '0 5 * * *'\n",
    )
    .unwrap();
    world
        .run(&format!("config check {with}"))
        .code(78)
        .says("did you mean \"system.noop\"");
}
