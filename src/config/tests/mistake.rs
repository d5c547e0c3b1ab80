//! What each mistake is told like, to the letter.

use super::World;

#[track_caller]
fn tells(text: &str, expected: &str) {
    let error = World::empty().file("ingestd.toml", text).error();
    assert_eq!(error, expected.strip_prefix('\n').unwrap(), "{error}");
}

#[test]
fn wrong_keys_are_underlined_and_the_near_one_named() {
    tells(
        "[queue]\nconcurency = 3\n",
        r"
ingestd.toml:2:1: unknown key `concurency` in [queue]
  |
2 | concurency = 3
  | ^^^^^^^^^^
hint: did you mean `concurrency`?",
    );
    tells(
        "listen = '1'\n",
        r"
ingestd.toml:1:1: unknown key `listen`
  |
1 | listen = …
  | ^^^^^^
hint: did you mean `http.listen`?",
    );
    tells(
        "[htp]\nlisten = '1'\n",
        r"
ingestd.toml:1:2: unknown key `htp`
  |
1 | [htp]
  |  ^^^
hint: did you mean `http`?",
    );
    tells(
        "[product_import.aliases]\ncod = ['sku']\n code = 3\nname = [\n 1,\n 2]",
        r"
ingestd.toml:2:1: unknown key `cod` in [product_import.aliases]
  |
2 | cod = …
  | ^^^
hint: did you mean `code`?

ingestd.toml:3:9: product_import.aliases.code: expected a list of strings, found integer 3
  |
3 |  code = 3
  |         ^

ingestd.toml:4:8: product_import.aliases.name: expected a string, found integer 1
  |
4 | name = [
  |        ^",
    );
}

#[test]
fn sections_and_kinds_are_not_keys() {
    tells(
        "queue = 3",
        r"
ingestd.toml:1:1: queue is a section, not a key
  |
1 | queue = 3
  | ^^^^^
hint: write [queue] above its keys",
    );
    tells(
        "[queue.concurrency]\n x = 3",
        r"
ingestd.toml:1:1: queue.concurrency: expected a whole number, found a table
  |
1 | [queue.concurrency]
  | ^^^^^^^^^^^^^^^^^^^",
    );
    tells(
        "[kinds.reindex]\ntimeout = '1s'\n",
        r"
ingestd.toml:2:1: `reindex` is not a kind
  |
2 | timeout = …
  | ^^^^^^^
hint: a kind is named by system and verb: [kinds.product_import.run]",
    );
    tells(
        "[kinds.a.b]\ntimeouts = '1s'\n",
        r"
ingestd.toml:2:1: unknown key `timeouts` in [kinds.a.b]
  |
2 | timeouts = …
  | ^^^^^^^^
hint: did you mean `timeout`?",
    );
}

#[test]
fn text_that_is_no_toml_is_told_where() {
    tells(
        "[queue]\nconcurrency = 1s\n",
        r"
ingestd.toml:2:15: string values must be quoted, expected literal string
  |
2 | concurrency = 1s
  |               ^^",
    );
    tells(
        "[queue\nconcurrency = 1s\n",
        r"
ingestd.toml:1:7: unclosed table, expected `]`
  |
1 | [queue
  |       ^",
    );
    tells(
        "[queue]\nconcurrency = 1\nconcurrency = 2",
        r"
ingestd.toml:3:1: duplicate key
  |
3 | concurrency = 2
  | ^^^^^^^^^^^",
    );
    tells(
        "a = \"\u{1b}[31m\"",
        r"
ingestd.toml:1:6: invalid basic string, expected non-double-quote visible characters, `\`
  |
1 | a = …
  |     ^",
    );
}

#[test]
fn wrong_types_name_the_key_and_what_it_takes() {
    tells(
        "[queue]\nconcurrency = \"ten\"\n",
        r#"
ingestd.toml:2:15: queue.concurrency: expected a whole number, found string "ten"
  |
2 | concurrency = "ten"
  |               ^^^^^"#,
    );
    tells(
        "[queue]\n\tlost_after = 30 # seconds\n",
        r#"
ingestd.toml:2:15: queue.lost_after: expected a duration such as "30s" or "15m", found integer 30
  |
2 |  lost_after = 30 # seconds
  |               ^^"#,
    );
    tells(
        "queue.lost_after = '30 x'\n",
        r#"
ingestd.toml:1:20: queue.lost_after: "30 x" is not a duration such as "30s" or "15m": unknown time unit "x", supported units: ns, us/µs, ms, sec, min, hours, days, weeks, months, years (and few variations)
  |
1 | queue.lost_after = '30 x'
  |                    ^^^^^^"#,
    );
    tells(
        "[log]\nformat = 'xml'",
        r"
ingestd.toml:2:10: log.format: unknown variant `xml`, expected one of `auto`, `text`, `json`, `journald`
  |
2 | format = 'xml'
  |          ^^^^^",
    );
    tells(
        "runs.max_retries = inf",
        r#"
ingestd.toml:1:20: runs.max_retries: expected a whole number, found string "inf"
  |
1 | runs.max_retries = inf
  |                    ^^^"#,
    );
}

#[test]
fn secrets_are_cut_off_the_line() {
    tells(
        "http.tokn = 'sesame'",
        r"
ingestd.toml:1:6: unknown key `tokn` in [http]
  |
1 | http.tokn = …
  |      ^^^^
hint: did you mean `token`?",
    );
    tells(
        "http.token = 3",
        r"
ingestd.toml:1:14: http.token: expected a string
  |
1 | http.token = …
  |              ^",
    );
    tells(
        "database.url = 'mysql://sesame@h'",
        r"
ingestd.toml:1:16: database.url must begin with postgres://
  |
1 | database.url = …
  |                ^",
    );
}

#[test]
fn values_out_of_their_limits_are_refused() {
    tells(
        "[queue]\nconcurrency = 0",
        r"
ingestd.toml:2:15: queue.concurrency must be from 1 to 10000, is 0
  |
2 | concurrency = 0
  |               ^",
    );
    tells(
        "[queues.\"a b\"]\nconcurrency = 0",
        r#"
ingestd.toml:2:15: queues."a b".concurrency must be from 1 to 10000, is 0
  |
2 | concurrency = 0
  |               ^"#,
    );
    tells(
        "runs.stale_after = '0s'\nruns.max_retries = 101",
        r"
ingestd.toml:1:20: runs.stale_after must be longer than 0s
  |
1 | runs.stale_after = '0s'
  |                    ^^^^

ingestd.toml:2:20: runs.max_retries must be from 0 to 100, is 101
  |
2 | runs.max_retries = 101
  |                    ^^^",
    );
    tells(
        "kinds.a.b = { retry_first = '2s', retry_cap = '1s' }",
        r"
ingestd.toml:1:29: kinds.a.b.retry_first must not be longer than retry_cap
  |
1 | kinds.a.b = { retry_first = '2s', retry_cap = '1s' }
  |                             ^^^^",
    );
    tells(
        "[log]\nfilter = 'a=b=c'",
        r#"
ingestd.toml:2:10: log.filter is not a filter: error parsing level filter: expected one of "off", "error", "warn", "info", "debug", "trace", or a number 0-5
  |
2 | filter = 'a=b=c'
  |          ^^^^^^^"#,
    );
}

#[test]
fn values_that_contradict_each_other_blame_the_one_that_was_set() {
    tells(
        "[queue]\ntrust_window = '40s'",
        r"
ingestd.toml:2:16: queue.trust_window is 40s, must be shorter than queue.lost_after, 30s
  |
2 | trust_window = '40s'
  |                ^^^^^",
    );
    tells(
        "[queue]\nlost_after = '10s'",
        r"
ingestd.toml:2:14: queue.trust_window is 20s, must be shorter than queue.lost_after, 10s
  |
2 | lost_after = '10s'
  |              ^^^^^",
    );
    tells(
        "[queue]\nheartbeat_interval = '15s'",
        r"
ingestd.toml:2:22: queue.heartbeat_interval is 15s, must be at most half of queue.trust_window, 20s
  |
2 | heartbeat_interval = '15s'
  |                      ^^^^^",
    );
    tells(
        "auth.jwt_secret = 'too short'",
        r"
ingestd.toml:1:19: auth.jwt_secret must have 32 bytes at least
  |
1 | auth.jwt_secret = …
  |                   ^",
    );
}

#[test]
fn secrets_that_cannot_be_read_are_told() {
    tells(
        "database.url_file = '/does/not/exist'",
        r"
ingestd.toml:1:21: database.url_file: cannot read /does/not/exist: No such file or directory (os error 2)
  |
1 | database.url_file = '/does/not/exist'
  |                     ^^^^^^^^^^^^^^^^^",
    );
    tells(
        "database.url_file = '/does/not/exist'\ndatabase.url = 'credential:x'",
        r"
ingestd.toml:1:21: database.url and database.url_file are both set
  |
1 | database.url_file = '/does/not/exist'
  |                     ^^^^^^^^^^^^^^^^^
hint: remove one of them",
    );
    tells(
        "database.url = 'credential:x'",
        r"
ingestd.toml:1:16: database.url names a credential, but CREDENTIALS_DIRECTORY is not set
  |
1 | database.url = …
  |                ^
hint: add LoadCredential= to the unit, or use the key's _file form",
    );
    tells(
        "database.url = 'credential:../x'",
        r"
ingestd.toml:1:16: database.url: a credential has a plain name, as in credential:NAME
  |
1 | database.url = …
  |                ^",
    );
    tells(
        "http.token = ''",
        r"
ingestd.toml:1:14: http.token is empty
  |
1 | http.token = …
  |              ^",
    );
}

#[test]
fn mistakes_of_all_layers_are_told_at_once() {
    let error = World::empty()
        .file("ingestd.toml", "[queue]\nwack = 1\n")
        .file("conf.d/a.toml", "[log]\nfromat = 'json'\n")
        .env("INGESTD_HTTP__LISTEN", "x")
        .error();
    let starts = [
        "ingestd.toml:2:1: ",
        "conf.d/a.toml:2:1: ",
        "INGESTD_HTTP__LISTEN: ",
    ];
    let told: Vec<&str> = error.split("\n\n").collect();
    assert_eq!(told.len(), starts.len(), "{error}");
    for (mistake, start) in told.iter().zip(starts) {
        assert!(mistake.starts_with(start), "{mistake}");
    }
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let world = World::empty();
    let mut sources = crate::config::Sources::new([]);
    sources.file = Some(world.path("other.toml"));
    let error = crate::config::Config::load(&sources)
        .unwrap_err()
        .to_string();
    let path = world.path("other.toml");
    let expected = "No such file or directory (os error 2)";
    assert_eq!(error, format!("cannot read {}: {expected}", path.display()));
}
