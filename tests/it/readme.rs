//! Runs the commands of the README, as they stand there, against `ingestd dev`.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use ingestd::{dev::Binaries, testing::Folder};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::process::Place;

/// `ingestd dev` in a folder of its own, with what it tells a newcomer to export.
struct Dev {
    child: Child,
    exports: Vec<(String, String)>,
}

impl Dev {
    /// Starts it and reads what it prints up to the lines to try.
    fn start(folder: &Path, address: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_ingestd"))
            .args(["dev", "--listen", address, "--data-dir"])
            .arg(folder)
            .env_remove("DATABASE_URL")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said: Vec<String> = lines
            .by_ref()
            .map(Result::unwrap)
            .take_while(|line| !line.contains("curl "))
            .collect();
        // What it says later must not block it.
        std::thread::spawn(move || lines.for_each(drop));
        let text = said.join("\n");
        assert!(
            text.contains("inserted   4960"),
            "the sample was not imported:\n{text}"
        );
        assert!(text.contains("bad        40"), "{text}");
        let exports = said
            .iter()
            .filter_map(|line| line.trim().strip_prefix("export "))
            .flat_map(str::split_whitespace)
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('\'').to_owned()))
            .collect();
        Self { child, exports }
    }

    /// Runs one line of the README and asserts that it succeeds.
    fn run(&self, line: &str) {
        let binaries = Binaries::find().unwrap();
        let ours = Path::new(env!("CARGO_BIN_EXE_ingestd")).parent().unwrap();
        let postgres = binaries.postgres();
        let path = [ours, postgres.parent().unwrap()]
            .map(|dir| dir.to_str().unwrap())
            .join(":");
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", line])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .envs(self.exports.iter().map(|(name, value)| (name, value)))
            .env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap()))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{line}\nended with {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The lines of the README's shell blocks, but for cargo's: this test runs under one of them, and
/// the other builds what this test runs.
fn commands() -> Vec<String> {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```sh\n").skip(1);
    let lines = blocks.flat_map(|block| block.split("```").next().unwrap().lines());
    lines
        .filter(|line| !line.starts_with("cargo "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_command_does_what_it_says() {
    let (folder, place) = (Folder::make().unwrap(), Place::reserve());
    let address = place.address.to_string();
    let mut dev = Dev::start(folder.path(), &address);
    assert!(
        dev.exports.iter().any(|(name, _)| name == "DATABASE_URL"),
        "{:?}",
        dev.exports
    );
    let commands = commands();
    assert!(
        commands.len() > 15,
        "only {} commands found",
        commands.len()
    );
    for line in commands {
        dev.run(&line.replace("127.0.0.1:8477", &address));
    }
    kill(Pid::from_raw(dev.child.id().cast_signed()), Signal::SIGINT).unwrap();
    let ended = dev.child.wait().unwrap();
    assert!(
        ended.code().is_some_and(|code| code == 0 || code == 130),
        "Ctrl-C: {ended}"
    );
}
