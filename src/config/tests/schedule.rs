//! `[schedules.NAME]`: what it becomes, and what is wrong with it.

use std::time::Duration;

use serde_json::json;

use super::World;
use crate::queue::schedule::{Definition, Missed, Overlap};

fn world(text: &str) -> World {
    let mut world = World::empty().file("ingestd.toml", text);
    world.kinds = vec!["system.noop", "product_import.run"];
    world
}

#[test]
fn a_schedule_becomes_a_definition() {
    let text = r#"
[schedules."every night"]
kind = "system.noop"
cron = "30 2 * * *"
timezone = "Europe/Prague"
args = { sleep_ms = 5, deep = { list = [1, 2] } }
missed = "all"
missed_max = 7
overlap = "queue"
jitter = "1m 30s"

[schedules.often]
kind = "system.noop"
cron = "*/5 * * * * *"
paused = true
"#;
    let world = world(text).env("INGESTD_SCHEDULES__OFTEN__PRIORITY", "3");
    let wanted = world.loaded().config.schedules.wanted();
    let args = json!({ "sleep_ms": 5, "deep": { "list": [1, 2] } });
    let night = Definition {
        timezone: "Europe/Prague".to_owned(),
        args: args.as_object().unwrap().clone(),
        missed: Missed::All,
        missed_max: 7,
        overlap: Overlap::Queue,
        jitter_ms: 90_000,
        priority: Some(1),
        ..Definition::new("30 2 * * *", "system.noop")
    };
    let often = Definition {
        priority: Some(3),
        ..Definition::new("*/5 * * * * *", "system.noop")
    };
    let expected = [
        ("every night".to_owned(), night, false),
        ("often".to_owned(), often, true),
    ];
    assert_eq!(wanted, expected);
}

#[test]
fn a_later_file_changes_one_key_of_a_schedule() {
    let night = "[schedules.night]\nkind = 'system.noop'\ncron = '30 2 * * *'\n";
    let world = world(night).file("conf.d/x.toml", "[schedules.night]\njitter = '5s'\n");
    let config = world.loaded().config;
    let (_, entry) = config.schedules.iter().next().unwrap();
    assert_eq!(entry.jitter, Duration::from_secs(5));
    assert_eq!(entry.cron.as_deref(), Some("30 2 * * *"));
}

#[track_caller]
fn tells(text: &str, expected: &str) {
    let error = world(text).error();
    assert_eq!(error, expected.strip_prefix('\n').unwrap(), "{error}");
}

#[test]
fn mistakes_are_told_where_they_are() {
    tells(
        "[schedules.night]\nkind = 'system.nop'\ncron = '30 25 * * *'\ntimezone = 'Mars/Base'\n",
        r#"
ingestd.toml:2:8: schedules.night.kind is "system.nop", which this binary has not; did you mean "system.noop"?
  |
2 | kind = 'system.nop'
  |        ^^^^^^^^^^^^

ingestd.toml:3:8: schedules.night.cron is no good: cron line "30 25 * * *": Component error: Number out of bounds; five fields, or six with seconds first
  |
3 | cron = '30 25 * * *'
  |        ^^^^^^^^^^^^^"#,
    );
    tells(
        "[schedules.night]\nkind = 'system.noop'\ncron = '30 2 * * *'\ntimezone = 'Europe/Prag'\n",
        r#"
ingestd.toml:4:12: schedules.night.timezone is no good: time zone "Europe/Prag" is no IANA name such as Europe/Prague
  |
4 | timezone = 'Europe/Prag'
  |            ^^^^^^^^^^^^^"#,
    );
    tells(
        "[schedules.night]\njitter = '2d'\nqueue = ''\n",
        r"
ingestd.toml:3:9: schedules.night.kind is missing
  |
3 | queue = ''
  |         ^^

ingestd.toml:3:9: schedules.night.cron is missing
  |
3 | queue = ''
  |         ^^

ingestd.toml:3:9: schedules.night.queue must be 1 to 63 characters
  |
3 | queue = ''
  |         ^^

ingestd.toml:2:10: schedules.night.jitter must be at most a day
  |
2 | jitter = '2d'
  |          ^^^^",
    );
}

#[test]
fn keys_and_words_of_a_schedule_are_checked() {
    tells(
        "[schedules.night]\ncrom = '* * * * *'\noverlap = 'skipp'\n",
        r"
ingestd.toml:2:1: unknown key `crom` in [schedules.night]
  |
2 | crom = …
  | ^^^^
hint: did you mean `cron`?

ingestd.toml:3:11: schedules.night.overlap: unknown variant `skipp`, expected one of `allow`, `skip`, `queue`
  |
3 | overlap = 'skipp'
  |           ^^^^^^^",
    );
    tells(
        "[schedules.night]\nargs = 'x'\n",
        r#"
ingestd.toml:2:8: schedules.night.args: expected a table, found string "x"
  |
2 | args = 'x'
  |        ^^^"#,
    );
}
