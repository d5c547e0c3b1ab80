//! `ingestd import` and what it says while a daemon works.

use std::{fmt::Write as _, path::PathBuf};

use serde_json::Value;

use super::{World, ran};

impl World {
    /// Writes a file of `n` rows, of which every tenth has no name.
    fn file(&self, n: u32) -> PathBuf {
        let mut text = "code;name;price\n".to_owned();
        for i in 1..=n {
            let name = if i % 10 == 0 { "" } else { "Bolt" };
            writeln!(text, "{i:05};{name};1.5").unwrap();
        }
        let path = self.dir.path().join("bolts.csv");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn import(&self, path: &std::path::Path, more: &str) -> super::Ran {
        ran(self
            .command("import")
            .arg(path)
            .args(more.split_whitespace()))
    }
}

#[tokio::test]
async fn a_file_is_imported_with_progress_and_a_summary() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    let path = world.file(25_000);
    let ran = world.import(&path, "--tenant acme").code(0);
    let ran = ran
        .says("run 1 imports bolts.csv")
        .says("completed: 25000 of 25000 rows, 2500 bad");
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert!(
        words.windows(2).any(|pair| pair == ["inserted", "22500"]),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("name is empty"), "{}", ran.out);
    assert_eq!(
        world.count("catalog.products WHERE tenant = 'acme'").await,
        22_500
    );
    assert!(world.audited("import.submit", "run/1").await);
    assert_eq!(
        files_in_store(&world),
        1,
        "the file is kept for its results"
    );

    let again = world.import(&path, "--tenant acme --json").ok();
    let lines: Vec<Value> = again
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [.., finished, summary] = lines.as_slice() else {
        panic!("{again}")
    };
    assert_eq!(
        (&finished["event"], &finished["items_done"]),
        (&"finished".into(), &25_000.into())
    );
    assert_eq!(summary["import"]["unchanged_count"], 22_500);
    assert_eq!(
        summary["import"]["first_errors"].as_array().unwrap().len(),
        10
    );
    assert_eq!(daemon.stop(), 0);
}

fn files_in_store(world: &World) -> usize {
    std::fs::read_dir(world.dir.path().join("storage/blobs"))
        .unwrap()
        .count()
}

#[tokio::test]
async fn a_file_waits_for_a_daemon_and_is_watched_later() {
    let world = World::create().await;
    let path = world.file(100);
    let ran = world
        .import(&path, "--no-wait")
        .code(0)
        .says("hint: no daemon is running");
    assert!(ran.out.contains("`ingestd runs watch 1`"), "{}", ran.out);
    let daemon = world.daemon().await;
    let watched = world.run("runs watch 1").code(0);
    assert_eq!(watched.out, "run 1 is completed: 100 items, 10 failed\n");
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn a_file_that_is_none_is_refused() {
    let world = World::create().await;
    let path = world.dir.path().join("photo.xlsx");
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n and more").unwrap();
    world.import(&path, "").code(65).says("photo.xlsx");
    world
        .import(&world.dir.path().join("none.xlsx"), "")
        .code(66)
        .says("none.xlsx");
    let mut small = world.command("import");
    small
        .arg(world.file(100))
        .env("INGESTD_HTTP__MAX_UPLOAD_BYTES", "100");
    ran(&mut small).code(65).says("max_upload_bytes");
    assert_eq!(world.count("ingestd.runs").await, 0);
    assert_eq!(files_in_store(&world), 0);
}

#[tokio::test]
async fn a_daemon_with_another_storage_folder_is_suspected() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    let mut command = world.command("import");
    command
        .arg(world.file(10))
        .env("INGESTD_STORAGE__DIR", world.dir.path().join("elsewhere"));
    ran(&mut command)
        .code(1)
        .says("is gone")
        .says("hint: does the daemon have another storage.dir?");
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn ctrl_c_leaves_the_run_to_itself() {
    let world = World::create().await;
    let mut command = world.command("import");
    let child = command
        .arg(world.file(10))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    while world
        .count("ingestd.audit_log WHERE action = 'import.submit'")
        .await
        == 0
    {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let mut watching = super::Daemon(child);
    // Pending for want of a daemon, the run is watched until the signal comes.
    let begun = std::time::Instant::now();
    let code = loop {
        watching.signal(nix::sys::signal::Signal::SIGINT);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(begun.elapsed() < super::PATIENCE, "it does not end");
        if let Some(code) = watching.ended() {
            break code;
        }
    };
    assert_eq!(code, 130);
    assert_eq!(world.count("ingestd.runs WHERE state = 'pending'").await, 1);
}

#[tokio::test]
async fn an_import_is_rehearsed_listed_exported_and_undone() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    let path = world.file(100);
    let ran = world.import(&path, "--dry-run").code(0);
    assert!(ran.out.contains("nothing was written"), "{}", ran.out);
    assert_eq!(world.count("catalog.products").await, 0);
    world
        .import(&path, "--mode merge")
        .code(64)
        .says("replace_all");
    world.import(&path, "--mode insert-only").code(0);
    world
        .import(&path, "--on-duplicate-file reject --mode insert-only")
        .code(65)
        .says("import 2");

    let failed: Value =
        serde_json::from_str(&world.run("imports ls --state failed --json").ok()).unwrap();
    assert_eq!(failed.as_array().map(Vec::len), Some(0));
    let listed: Value =
        serde_json::from_str(&world.run("imports ls --state completed --json").ok()).unwrap();
    assert_eq!(listed[0]["mode"], "insert_only");
    assert_eq!(listed[0]["created_count"], 90);
    assert_eq!(listed[1]["dry_run"], true);
    world.run("imports show 2").code(0);
    world.run("imports show 9").code(66).says("no import 9");

    let errors = world.dir.path().join("errors.xlsx");
    let command = format!("imports errors 2 --output {}", errors.display());
    let ran = world.run(&command).code(0);
    assert!(ran.out.contains("10 rows in"), "{}", ran.out);
    assert!(std::fs::read(&errors).unwrap().starts_with(b"PK"));
    let results = world.run("imports results 2").code(0);
    assert_eq!(results.out.lines().count(), 91, "{}", results.out);

    let preview = world.run("imports rollback 2 --preview --json").ok();
    let preview: Value = serde_json::from_str(&preview).unwrap();
    assert_eq!(preview["outcome"]["n_archived"], 90);
    let ran = world.run("imports rollback 2").code(0);
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert!(
        words.windows(2).any(|pair| pair == ["archived", "90"]),
        "{}",
        ran.out
    );
    assert_eq!(
        world
            .count("catalog.products WHERE archived_at IS NULL")
            .await,
        0
    );
    assert!(world.audited("import.rollback", "run/2").await);
    world
        .run("imports rollback 2")
        .code(1)
        .says("is undone by run");
    world
        .run("imports rollback 1 --preview")
        .code(1)
        .says("dry run");
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn dealers_are_imported_without_a_daemon() {
    let world = World::create().await;
    let path = world.dir.path().join("dealers.csv");
    std::fs::write(&path, "code,name,city\nD1,Acme,Brno\nD2,,\n").unwrap();
    let ran = world.import(&path, "--dealers --tenant acme").code(0);
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert!(
        words.windows(2).any(|pair| pair == ["inserted", "1"]),
        "{}",
        ran.out
    );
    assert_eq!(
        world
            .count("catalog.dealers WHERE tenant = 'acme' AND city = 'Brno'")
            .await,
        1
    );
    assert!(world.audited("import.dealers", "run/1").await);
    world.import(&path, "--dealers --dry-run").code(64);
}
