//! A daemon in a process of its own, worked with by commands.

use std::{
    io::{BufRead as _, BufReader},
    process::Stdio,
};

use ingestd::testing;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{World, ran};

#[tokio::test]
async fn a_job_goes_all_the_way() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    let done = world.run("enqueue system.noop --wait").code(0);
    let id = done.out.trim();
    let shown = world.run(&format!("jobs show {id} --json")).json();
    assert_eq!(
        (&shown["state"], &shown["attempt"]),
        (&json!("completed"), &json!(1))
    );
    assert!(world.run("jobs ls --state completed").ok().contains(id));

    let mut fatal = world.command("enqueue system.noop --wait");
    let ran = ran(fatal.arg(r#"{"outcome": "fatal"}"#)).code(1);
    let id = ran.out.trim().to_owned();
    ran.says("asked to fail for good")
        .says(&format!("ingestd dead retry {id}"));
    let shown = world.run(&format!("jobs show {id} --json")).json();
    assert_eq!(shown["attempts"][0]["outcome"], "dead");
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn a_stopped_daemon_leaves_no_lease_and_no_live_worker() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    world
        .run_with("enqueue system.noop", r#"{"sleep_ms": 60000}"#)
        .ok();
    world.run("enqueue system.noop --wait").ok(); // the first one is running by now, or soon
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.stop(), 0);
    assert_eq!(world.count("ingestd.jobs WHERE state = 'running'").await, 0);
    assert_eq!(
        world.count("ingestd.workers WHERE ended_at IS NULL").await,
        0
    );
}

#[tokio::test]
async fn the_daemon_says_ready_and_stopping_to_the_service_manager() {
    let world = World::create().await;
    let path = world.dir.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let mut command = world.command("run");
    let child = command
        .env("NOTIFY_SOCKET", &path)
        .stderr(Stdio::null())
        .spawn();
    let daemon = super::Daemon(child.unwrap());
    hear(&socket, "READY=1").await;
    daemon.signal(Signal::SIGHUP);
    hear(&socket, "RELOADING=1").await;
    hear(&socket, "READY=1").await;
    daemon.signal(Signal::SIGTERM);
    hear(&socket, "STOPPING=1").await;
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn a_daemon_waits_for_a_database_that_comes_late() {
    let mut cluster = testing::private_cluster().await;
    cluster.kill9().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let url = cluster.url("postgres");
    let mut command = super::command(dir.path(), "run --wait 60s");
    command
        .env("DATABASE_URL", &url)
        .env("INGESTD_HTTP__LISTEN", "127.0.0.1:0");
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut daemon = super::Daemon(child);
    let said = BufReader::new(daemon.0.stderr.take().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("waiting for the database")));
    cluster.restart().await.unwrap();
    assert!(lines.any(|line| line.contains("\"ready\"")));
    assert_eq!(daemon.stop(), 0);
}

/// Waits for a message that holds a line.
async fn hear(socket: &tokio::net::UnixDatagram, line: &str) {
    let mut buffer = [0; 1024];
    let heard = async {
        loop {
            let n_bytes = socket.recv(&mut buffer).await.unwrap();
            if String::from_utf8_lossy(buffer.get(..n_bytes).unwrap()).contains(line) {
                return;
            }
        }
    };
    let heard = tokio::time::timeout(super::PATIENCE, heard).await;
    assert!(heard.is_ok(), "{line} was not said");
}

#[tokio::test]
async fn a_panic_of_a_job_is_a_log_line_and_no_backtrace() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    let mut command = world.command("enqueue system.noop --max-attempts 1 --wait");
    ran(command.arg(r#"{"outcome": "panic"}"#))
        .code(1)
        .says("asked to panic");
    assert_eq!(daemon.stop(), 0);
    let log = std::fs::read_to_string(world.dir.path().join("daemon.log")).unwrap();
    assert!(
        !log.contains("backtrace") && !log.contains("thread '"),
        "{log}"
    );
    assert!(log.contains("asked to panic"), "{log}");
}

#[tokio::test]
async fn the_doctor_is_content_with_a_daemon() {
    let world = World::create().await;
    let daemon = world.daemon().await;
    let said = world.run("doctor").ok();
    assert!(said.contains("ok    workers: 1 alive"), "{said}");
    assert!(said.contains("/readyz says ready"), "{said}");
    assert!(!said.contains("fail"), "{said}");
    assert_eq!(daemon.stop(), 0);
}

#[tokio::test]
async fn an_address_that_is_taken_exits_69() {
    let world = World::create().await;
    let taken = std::net::TcpListener::bind(world.place.address).unwrap();
    let ran = world.run("run").code(69).says("hint: choose another");
    ran.says(&world.place.address.to_string());
    drop(taken);
    assert_eq!(world.count("ingestd.workers").await, 0);
}
