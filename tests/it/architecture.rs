//! The invariants of ARCHITECTURE.md that `use` lines and lengths show.

use std::path::{Path, PathBuf};

/// A source file, with its path from `src/` on and its code before any test module.
struct Source {
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    assert!(
        paths.len() > 40,
        "the walk found only {} files",
        paths.len()
    );
    paths
        .into_iter()
        .map(|path| Source {
            text: std::fs::read_to_string(&path).unwrap(),
            path: path
                .strip_prefix(&root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
        })
        .collect()
}

impl Source {
    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Lines of code that name a path; comments do not count.
    fn lines_naming<'a>(&'a self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let code = self
            .text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        code.filter(move |line| line.contains(path))
    }
}

/// Asserts that only files in `places` name `path`.
fn only(places: &[&str], path: &str) {
    for source in sources().iter().filter(|source| !source.is_in(places)) {
        if let Some(line) = source.lines_naming(path).next() {
            panic!(
                "src/{} names {path}, which only {places:?} may: {line}",
                source.path
            );
        }
    }
}

/// Asserts that no file in `place` names `path`.
fn never(place: &str, path: &str) {
    for source in sources().iter().filter(|source| source.is_in(&[place])) {
        if let Some(line) = source.lines_naming(path).next() {
            panic!(
                "src/{} names {path}, which {place} may not: {line}",
                source.path
            );
        }
    }
}

#[test]
fn the_queue_knows_nothing_of_what_jobs_do() {
    for path in ["crate::ingest", "crate::runs", "crate::http", "crate::blob"] {
        never("queue/", path);
    }
    never("runs/", "crate::ingest");
    for path in [
        "crate::http",
        "crate::queue",
        "crate::ingest",
        "crate::runs",
    ] {
        never("access/", path);
    }
}

#[test]
fn crates_stay_in_their_rooms() {
    only(&["queue/"], "apalis_core::");
    only(&["queue/"], "croner");
    only(&["queue/"], "tokio_cron_scheduler");
    only(&["observe/"], "metrics::");
    only(&["observe/"], "metrics_exporter_prometheus");
    only(&["http/", "ingest/product_import/routes"], "axum");
    only(&["ingest/product_import/sheet/"], "calamine");
    only(&["http/page/"], "askama");
    only(&["fetch/"], "reqwest");
    only(&["fetch/"], "tokio_rustls");
    only(&["fetch/"], "rustls_platform_verifier");
    only(&["access/"], "use ring::");
    only(&["notify/mail/"], "lettre");
    only(&["cli/"], "clap");
    only(&["cli/"], "indicatif");
}

#[test]
fn a_system_never_names_another() {
    never("ingest/product_import/", "ingest::system");
    never("ingest/system/", "ingest::product_import");
}

#[test]
fn a_jobs_state_is_written_in_few_files() {
    let allowed = [
        "batch",
        "claim",
        "complete",
        "control",
        "dead",
        "gate/admit",
        "gate/define",
        "rescue",
    ];
    for source in sources() {
        let writes = source
            .lines_naming("UPDATE ingestd.jobs")
            .chain(source.lines_naming("DELETE FROM ingestd.jobs"));
        let name = source
            .path
            .strip_prefix("queue/")
            .and_then(|name| name.strip_suffix(".rs"));
        let may = name.is_some_and(|name| allowed.contains(&name) || name.ends_with("_tests"));
        assert!(
            may || writes.count() == 0,
            "src/{} writes jobs",
            source.path
        );
    }
}

#[test]
fn files_and_functions_stay_readable() {
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        assert!(
            lines.len() <= 600,
            "src/{} has {} lines",
            source.path,
            lines.len()
        );
        for (start, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            let is_fn = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(super) fn ",
            ]
            .iter()
            .any(|start| head.starts_with(start));
            if !is_fn || line.ends_with(';') {
                continue;
            }
            let close = format!("{}}}", " ".repeat(indent));
            let n_lines = lines[start..]
                .iter()
                .take_while(|line| **line != close)
                .count();
            assert!(
                n_lines <= 100,
                "src/{}:{}: {n_lines} lines: {head}",
                source.path,
                start + 1
            );
        }
    }
}
