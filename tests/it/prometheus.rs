//! The alerts: their names against the table of metrics, their behaviour by promtool.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ingestd::observe::metric;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/prometheus")
        .join(name)
}

#[test]
fn alerts_name_only_what_exists() {
    let rules = std::fs::read_to_string(file("alerts.yml")).unwrap();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words: BTreeSet<&str> = rules.split(|c| !is_part(c)).collect();
    let named = words
        .iter()
        .filter(|w| w.starts_with("ingestd_") || w.starts_with("process_"));
    let parts = ["_bucket", "_sum", "_count"];
    let unknown: Vec<_> = named
        .filter(|word| {
            let family = parts.iter().find_map(|part| word.strip_suffix(part));
            !metric::ALL
                .iter()
                .any(|m| m.name == **word || Some(m.name) == family)
        })
        .collect();
    assert!(
        unknown.is_empty(),
        "not in the table of metrics: {unknown:?}"
    );

    let recorded = |word: &&&str| rules.contains(&format!("record: {word}\n"));
    let series = words
        .iter()
        .filter(|w| w.contains(':') && !w.ends_with(':'));
    let unknown: Vec<_> = series.filter(|word| !recorded(word)).collect();
    assert!(unknown.is_empty(), "not recorded: {unknown:?}");
}

/// Also where there is no promtool: an alert that nobody saw fire may never do.
#[test]
fn every_alert_has_a_test_in_which_it_fires() {
    let rules = std::fs::read_to_string(file("alerts.yml")).unwrap();
    let tests = std::fs::read_to_string(file("alerts_test.yml")).unwrap();
    let alerts = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "));
    let mut n_alerts = 0;
    for alert in alerts {
        let named = format!("alertname: {alert}\n");
        let fires = |rest: &str| rest.trim_start().starts_with("exp_alerts:\n");
        let is_seen = tests.split(&named).skip(1).any(fires);
        assert!(is_seen, "no test sees {alert} fire");
        n_alerts += 1;
    }
    assert!(n_alerts > 20, "{n_alerts}");
}

#[test]
fn alerts_fire_when_they_should() {
    let rules = file("alerts.yml");
    promtool(&["check", "rules", &rules.to_string_lossy()], "");
    let tests = file("alerts_test.yml");
    promtool(&["test", "rules", &tests.to_string_lossy()], "");
    let scrape = file("prometheus.yml");
    promtool(&["check", "config", &scrape.to_string_lossy()], "");
}

/// Runs promtool where it is installed (`apt-get install prometheus`, or its path in
/// `INGESTD_PROMTOOL`); elsewhere it says so and checks nothing.
#[expect(clippy::print_stderr, reason = "says what was not checked")]
pub(crate) fn promtool(args: &[&str], input: &str) {
    let program = std::env::var_os("INGESTD_PROMTOOL").unwrap_or_else(|| "promtool".into());
    let mut command = Command::new(program);
    let piped = command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = match piped.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprintln!("promtool {args:?} left out: {error}");
            return;
        }
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(
        output.status.success(),
        "promtool {args:?}: {}",
        String::from_utf8_lossy(&said)
    );
}
