//! Sources by the command line, and `ingestd import URL`.

use serde_json::Value;

use super::{World, ran};
use crate::source_rig::{Door, Store, file};

const URL: &str = "https://example.com/products.csv";

#[tokio::test]
async fn a_source_is_made_run_paused_and_removed() {
    let world = World::create().await;
    world.run("source ls").says("no sources");
    let made = world
        .run(&format!(
            "source add supplier {URL} --every 15m --tenant acme --secret ops --json"
        ))
        .json();
    assert_eq!(
        (&made["cron"], &made["kind"]),
        (&"*/15 * * * *".into(), &"url".into())
    );
    assert!(world.run("sources ls").ok().contains(URL));
    assert!(
        world
            .run("source show supplier")
            .ok()
            .contains("*/15 * * * *")
    );
    let again = world.run(&format!("source add supplier {URL}"));
    again.code(1).says("already");
    for (verb, says) in [
        ("pause", "is paused"),
        ("pause", "already"),
        ("resume", "goes on"),
        ("resume", "was not paused"),
    ] {
        let said = world.run(&format!("source {verb} supplier")).ok();
        assert!(said.contains(says), "{said}");
    }
    let ran = world.run("source run supplier --json").json();
    let counted = format!(
        "ingestd.jobs WHERE id = {} AND kind = 'catalog.fetch_source'",
        ran["job_id"]
    );
    assert_eq!(world.count(&counted).await, 1);
    let again = world.run("source run supplier --json").json();
    assert_eq!(
        (&again["job_id"], &again["new"]),
        (&ran["job_id"], &false.into())
    );
    world.run("source rm supplier").code(64).says("--yes");
    world.run("source rm supplier --yes").ok();
    for verb in ["add", "pause", "resume", "run", "remove"] {
        let action = format!("source.{verb}");
        assert!(world.audited(&action, "source/supplier").await, "{verb}");
    }
    for line in [
        "show supplier",
        "pause supplier",
        "resume supplier",
        "run supplier",
        "rm supplier --yes",
    ] {
        world
            .run(&format!("source {line}"))
            .code(66)
            .says("there is no source");
    }
}

#[tokio::test]
async fn what_is_no_source_is_refused() {
    let world = World::create().await;
    let add = |rest: &str| world.run(&format!("source add {rest}"));
    add("s http://10.0.0.1/a.csv").code(65).says("private");
    add("s /etc/passwd").code(65).says("sources.allowed_dirs");
    add(&format!("a/b {URL} --pattern *.csv"))
        .code(65)
        .says("name must")
        .says("pattern is");
    add(&format!("s {URL} --every 7m")).code(64).says("--cron");
    add(&format!("s {URL} --ready soon"))
        .code(64)
        .says("at-once");
    assert_eq!(world.count("catalog.sources").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_is_fetched_by_the_daemon_once() {
    let store = Store::start(Door::Open).await;
    store.serve(file("A1", 5));
    let world = World::create().await;
    let settings = format!(
        "[fetch]\nallow_private = [\"127.0.0.1\"]\nports = [{}]\n[sources]\nmin_free_bytes = \"1MiB\"\n",
        store.address.port()
    );
    let file = world.dir.path().join("ingestd.toml");
    std::fs::write(&file, settings).unwrap();
    let config = format!("--config {}", file.display());
    let daemon = {
        let log = std::fs::File::create(world.dir.path().join("daemon.log")).unwrap();
        let mut command = world.command(&format!("run {config}"));
        let child = command.stderr(log).spawn().unwrap();
        world.until_worker().await;
        super::Daemon(child)
    };
    let url = format!("http://{}/lamps.csv", store.address);
    let import = |more: &str| {
        let command = format!("import {url} {config} --tenant acme --json {more}");
        ran(&mut world.command(&command))
    };
    // the flags of a file hold for a URL, too: a rehearsal writes nothing
    let out = import("--dry-run").ok();
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["import"]["dry_run"], true, "{out}");
    assert_eq!(world.count("catalog.products").await, 0);
    import("--mode merge").code(64).says("replace_all");
    let out = import("").ok();
    let last: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    assert_eq!(last["import"]["created_count"], 1, "{out}");
    assert_eq!(
        world.count("catalog.products WHERE tenant = 'acme'").await,
        1
    );
    store.change(|served| served.status = 404);
    ran(&mut world.command(&format!("import {url} {config}")))
        .code(1)
        .says("404, not there");
    world
        .run("import sftp://example.com/a.csv")
        .code(65)
        .says("http, https, ftp, ftps and s3");
    world
        .run("source add s ftp://me:sesame@example.com/a.csv")
        .code(65)
        .says("sources.secrets_dir");
    assert_eq!(daemon.stop(), 0);
}
