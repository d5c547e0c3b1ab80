//! `ingestd dev` from an empty folder to an empty process table.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;

use super::{Daemon, World, command, ran};

/// Makes a command that has no database given.
fn dev(dir: &std::path::Path, line: &str) -> Command {
    // The user that Postgres runs as must be able to pass the folder.
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut dev = command(dir, &format!("dev {line}"));
    dev.env_remove("INGESTD_STORAGE__DIR")
        .arg("--data-dir")
        .arg(dir.join("data"));
    dev
}

#[test]
fn one_command_shows_everything_and_leaves_only_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let ran = ran(&mut dev(
        dir.path(),
        "--listen 127.0.0.1:0 --exit-after-import",
    ))
    .code(0);
    let ran = ran.says("completed: ").says("Postgres is stopped");
    for part in [
        "[1/5] Postgres  private, in ",
        "psql 'postgres://",
        "[2/5] schema ",
        "migrations applied",
        "/metrics",
        "/readyz",
        "/api/v1/queues",
        "[4/5] sample ",
        "inserted",
        "[5/5] jobs ",
        "What to look at next",
        "INSERT INTO ingestd.jobs",
        "export DATABASE_URL='postgres://",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let url = ran
        .out
        .split("export DATABASE_URL='")
        .nth(1)
        .unwrap()
        .split('\'')
        .next()
        .unwrap();
    let socket = url.rsplit_once("?host=").unwrap().1;
    assert!(
        !std::path::Path::new(socket).exists(),
        "{socket} is left behind"
    );
    let left: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["data"]);
    assert!(!dir.path().join("data/pg/postmaster.pid").exists());
}

#[test]
fn it_stays_until_ctrl_c_and_stops_everything() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = dev(dir.path(), "--listen 127.0.0.1:0");
    let mut staying = Daemon(
        dev.stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let said = BufReader::new(staying.0.stderr.take().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    assert!(lines.any(|line| line == "Ctrl-C stops everything"));
    assert!(dir.path().join("data/pg/postmaster.pid").exists());
    staying.signal(Signal::SIGINT);
    assert!(lines.any(|line| line.starts_with("Postgres is stopped")));
    assert_eq!(staying.0.wait().unwrap().code(), Some(0));
    assert!(!dir.path().join("data/pg/postmaster.pid").exists());
}

#[tokio::test]
async fn a_given_database_is_used() {
    let world = World::create().await;
    let mut given = dev(world.dir.path(), "--listen 127.0.0.1:0 --exit-after-import");
    let ran = ran(given.env("DATABASE_URL", world.db.url())).code(0);
    assert!(ran.out.contains("the database given"), "{}", ran.out);
    assert!(!world.dir.path().join("data/pg").exists());
    assert!(world.count("catalog.products WHERE tenant = 'demo'").await > 0);
    assert_eq!(
        world.count("ingestd.workers WHERE ended_at IS NULL").await,
        0
    );
    assert_eq!(world.count("ingestd.jobs WHERE state = 'running'").await, 0);
}

#[test]
fn without_postgres_it_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let ran = ran(dev(dir.path(), "").env("INGESTD_PG_BIN", "/nowhere")).code(69);
    ran.says("apt-get install postgresql")
        .says("INGESTD_PG_BIN");
}

#[tokio::test]
async fn a_port_that_is_taken_is_told_with_the_flag() {
    let world = World::create().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut second = dev(world.dir.path(), &format!("--listen {address}"));
    let ran = ran(second.env("DATABASE_URL", world.db.url())).code(69);
    ran.says(&address.to_string())
        .says("--listen")
        .says("INGESTD_HTTP__LISTEN");
}
