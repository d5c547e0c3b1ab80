//! What is said before any work: help, usage, configuration, a database that is not there.

use super::{World, command, ran};

fn alone(line: &str) -> super::Ran {
    ran(&mut command(std::env::temp_dir().as_path(), line))
}

#[test]
fn mistakes_of_usage_exit_64() {
    for line in [
        "",
        "nonsense",
        "jobs show x",
        "enqueue",
        "run --no-such-flag",
        "dead retry",
    ] {
        let ran = alone(line).code(64);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{line}: {ran:?}");
    }
}

#[test]
fn help_and_version_exit_0() {
    assert!(alone("--help").ok().contains("Examples:"));
    assert!(alone("schedules add --help").ok().contains("Examples:"));
    assert!(alone("--version").ok().starts_with("ingestd "));
}

#[test]
fn completions_are_made_without_a_configuration() {
    for (shell, word) in [
        ("bash", "complete"),
        ("zsh", "#compdef"),
        ("fish", "complete"),
    ] {
        let script = alone(&format!("completions {shell}")).ok();
        assert!(
            script.contains(word) && script.contains("schedules"),
            "{shell}"
        );
    }
}

#[test]
fn a_wrong_configuration_exits_78() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ingestd.toml");
    std::fs::write(&file, "[queue]\nconcurency = 3\n").unwrap();
    let line = format!("jobs ls --config {}", file.display());
    alone(&line)
        .code(78)
        .says("error: ")
        .says("ingestd.toml:2:1")
        .says("concurrency");
    alone("jobs ls --config /nowhere/ingestd.toml")
        .code(78)
        .says("/nowhere/ingestd.toml");
    alone("jobs ls")
        .code(78)
        .says("no database is configured")
        .says("hint: set DATABASE_URL");
    alone("config check").ok();
    alone(&format!("config check --config {}", file.display()))
        .code(78)
        .says("2:1");
}

#[test]
fn config_show_is_json_where_asked_for() {
    let shown = alone("--json config show --database-url postgres://u:sesame@h/d").json();
    let url = shown
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["key"] == "database.url");
    let entry = url.unwrap().to_string();
    assert!(!entry.contains("sesame"), "{entry}");
}

#[test]
fn a_database_that_is_not_there_exits_69() {
    let url = "--database-url postgres://ingestd:sesame@127.0.0.1:1/none";
    for line in ["jobs ls", "migrate", "run --wait 0s"] {
        let ran = alone(&format!("{line} {url}")).code(69);
        let ran = ran
            .says("cannot reach the database at 127.0.0.1:1/none")
            .says("refused");
        assert!(!ran.err.contains("sesame"), "{ran:?}");
    }
}

#[test]
fn a_daemon_says_what_it_waits_for() {
    let url = "--database-url postgres://127.0.0.1:1/none";
    let ran = alone(&format!("run --wait 400ms {url}")).code(69);
    ran.says("waiting for the database")
        .says("127.0.0.1:1/none");
}

#[tokio::test]
async fn a_database_without_the_schema_says_what_to_do() {
    let world = World::without_kinds().await;
    let drop = "DROP SCHEMA ingestd CASCADE";
    sqlx::raw_sql(drop).execute(world.db.pool()).await.unwrap();
    world
        .run("jobs ls")
        .code(69)
        .says("hint: the schema is missing or older: run `ingestd migrate`");
}
