//! The unit: what systemd itself says about it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Highest exposure by `systemd-analyze security`, times ten.
const MOST_EXPOSURE: u32 = 15;

fn unit() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/ingestd.service")
}

fn systemd_analyze(args: &[&str], unit: &Path) -> Output {
    let run = Command::new("systemd-analyze")
        .args(args)
        .arg(unit)
        .output();
    run.unwrap_or_else(|error| panic!("systemd-analyze: {error}; apt-get install systemd"))
}

fn text(output: &Output) -> String {
    let streams = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8_lossy(&streams).into_owned()
}

#[test]
fn exposure_is_low() {
    let threshold = format!("--threshold={MOST_EXPOSURE}");
    let args = ["security", "--offline=true", "--no-pager", &threshold];
    let output = systemd_analyze(&args, &unit());
    let text = text(&output);
    assert!(text.contains("Overall exposure level"), "{text}");
    assert!(output.status.success(), "{text}");
}

#[test]
fn the_threshold_is_one_that_can_fail() {
    let args = ["security", "--offline=true", "--no-pager", "--threshold=1"];
    assert!(!systemd_analyze(&args, &unit()).status.success());
}

/// Writes the unit with an existing program in place of ours, and `change` applied.
fn installed(dir: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let unit = std::fs::read_to_string(unit()).unwrap();
    let ours = env!("CARGO_BIN_EXE_ingestd");
    let rewritten = unit.replace("ExecStart=/usr/bin/ingestd", &format!("ExecStart={ours}"));
    assert_ne!(
        unit, rewritten,
        "ExecStart is where packages put the program"
    );
    let path = dir.join("ingestd.service");
    std::fs::write(&path, change(rewritten)).unwrap();
    path
}

#[test]
fn the_unit_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    let output = systemd_analyze(&["verify", "--man=no"], &installed(dir.path(), |unit| unit));
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(text(&output), "", "no warnings either");
}

#[test]
fn a_mistake_in_the_unit_would_be_seen() {
    let dir = tempfile::tempdir().unwrap();
    let mistaken = installed(dir.path(), |unit| {
        unit.replace("WatchdogSec=", "WatchdogSeconds=")
    });
    let output = systemd_analyze(&["verify", "--man=no"], &mistaken);
    assert!(
        text(&output).contains("WatchdogSeconds"),
        "{}",
        text(&output)
    );
}
