//! Clocks that jump, and clocks that are wrong: the database's decides, whatever it says.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use ingestd::testing::{Folder, PrivateCluster, PrivateOptions, private_cluster_with};
use tempfile::TempDir;

use crate::{
    process::{self, Daemon},
    proxy::Proxy,
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, done, run, stop, until, until_true},
};

/// Returns the library that tells a program another time.
fn libfaketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten();
    let folders = folders.map(|entry| entry.unwrap().path());
    let mut found = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    let Some(path) = found.find(|path| path.is_file()) else {
        panic!("libfaketime is missing: sudo apt-get install libfaketime");
    };
    path
}

/// What a program is started with, beside its offset, to be told another time: of the clocks on
/// the wall only, for no jump of them moves the steady one.
fn preload() -> Vec<(&'static str, String)> {
    vec![
        ("LD_PRELOAD", libfaketime().to_str().unwrap().to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
    ]
}

/// A server whose clock can be put forward and back while it runs.
struct Clockwork {
    cluster: PrivateCluster,
    folder: Folder,
}

impl Clockwork {
    async fn start() -> Self {
        let folder = Folder::make().unwrap();
        set(folder.path(), 0);
        let file = folder.path().join("offset").to_str().unwrap().to_owned();
        let variables = preload().into_iter();
        let variables = variables.chain([("FAKETIME_TIMESTAMP_FILE", file)]);
        let words = variables.map(|(name, value)| format!("{name}={value}").into());
        let launcher = ["env".into()].into_iter().chain(words).collect();
        let options = PrivateOptions {
            launcher,
            ..PrivateOptions::default()
        };
        Self {
            cluster: private_cluster_with(options).await,
            folder,
        }
    }

    /// Puts the clock so many seconds before the true time.
    fn set(&self, seconds: i32) {
        set(self.folder.path(), seconds);
    }
}

/// By a rename, so that nobody reads half of it.
fn set(folder: &Path, seconds: i32) {
    let fresh = folder.join("fresh");
    std::fs::write(&fresh, format!("{seconds:+}\n")).unwrap();
    std::fs::rename(fresh, folder.join("offset")).unwrap();
}

fn setup() -> Setup {
    Setup::of([ledger::job(), done("t.tick")])
        .slots("default", 8)
        .lost_after(Duration::from_secs(3))
        .with(|queue| queue.max_crashes = 1000)
}

/// Every other time as long as one may go on with a job that another has by now.
fn pause() -> Duration {
    let longest = if fastrand::bool() { 2_000 } else { 10 };
    Duration::from_millis(fastrand::u64(..longest))
}

#[tokio::test]
async fn a_clock_put_forward_an_hour_loses_and_doubles_nothing() {
    let server = Clockwork::start().await;
    let pool = server.cluster.connect().await.unwrap();
    let url = server.cluster.database_url();
    // Whoever looks for the lost does so before the next heartbeat: the clock takes every lease, and
    // those who held them go on until they hear of it. The first one hears late, and its jobs, which
    // are all there are, go to the second one while it is in the middle of them.
    let setup = setup()
        .slots("default", 48)
        .lost_after(Duration::from_secs(6));
    let beating = |interval| {
        let mut setup = setup.clone().with(|queue| {
            queue.heartbeat_interval = interval;
            queue.rescue_interval = Duration::from_millis(50);
        });
        setup.plays = vec![ledger::job_with(pause), done("t.tick")];
        setup
    };
    let first = beating(Duration::from_secs(2)).start(&url).await;
    run(
        &pool,
        "INSERT INTO ingestd.schedules (name, cron, kind, missed)
         VALUES ('every minute', '0 * * * * *', 't.tick', 'all')",
    )
    .await;
    let before: f64 = sqlx::query_scalar("SELECT extract(epoch FROM now())::float8")
        .fetch_one(&pool)
        .await
        .unwrap();
    ledger::enqueue(&pool, 40).await;
    until(&pool, "(SELECT count(*) >= 10 FROM ledger)").await;
    let second = beating(Duration::from_millis(200)).start(&url).await;
    server.set(3600);
    let jumped = format!("extract(epoch FROM now())::float8 > {before} + 3500");
    until(&pool, &jumped).await;
    let lost = "EXISTS (SELECT FROM ingestd.workers WHERE end_reason = 'lost')";
    until(&pool, lost).await;
    // What was missed meanwhile is made up for, each minute once.
    let minutes = "(SELECT count(*) >= 59 FROM ingestd.schedule_ticks WHERE job_id IS NOT NULL)";
    until(&pool, minutes).await;
    run(&pool, "UPDATE ingestd.schedules SET paused_at = now()").await;
    until(&pool, "NOT EXISTS (SELECT FROM ingestd.jobs)").await;
    let ticks: String = sqlx::query_scalar(
        "SELECT concat_ws(' ', (extract(epoch FROM max(tick_at) - min(tick_at)) / 60)::int + 1 - count(*),
           count(*) - count(DISTINCT job_id),
           (SELECT count(*) FROM ingestd.job_history WHERE kind = 't.tick') - count(*))
         FROM ingestd.schedule_ticks",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(
        ticks, "0 0 0",
        "left out, without a job of its own, jobs too many"
    );
    run(
        &pool,
        "DELETE FROM ingestd.job_history WHERE kind = 't.tick'",
    )
    .await;
    ledger::check(&pool, 40, "an hour forward").await;
    for engine in [first, second] {
        until_true("it lives", || engine.is_alive()).await;
        stop(engine).await;
    }
    pool.close().await;
}

#[tokio::test]
async fn a_clock_put_back_an_hour_hides_no_lost_worker() {
    let server = Clockwork::start().await;
    let pool = server.cluster.connect().await.unwrap();
    let proxy = Proxy::start(&server.cluster.database_url()).await;
    run(&pool, ledger::TABLES).await;
    let vanishes = setup().start(&proxy.url()).await;
    ledger::more(&pool, 1, r#"{"stop": "after commit"}"#).await;
    until(&pool, "EXISTS (SELECT FROM stops)").await;
    proxy.turn_to("postgres:///none?host=/nowhere");
    proxy.freeze();
    // Its last heartbeat is an hour in the future now, where no clock finds it old.
    server.set(-3600);
    until(
        &pool,
        "EXISTS (SELECT FROM ingestd.workers WHERE heartbeat_at > now() + interval '50 min')",
    )
    .await;
    let other = setup().start(&server.cluster.database_url()).await;
    ledger::check(&pool, 1, "an hour back").await;
    let lost: i64 =
        sqlx::query_scalar("SELECT count(*) FROM ingestd.workers WHERE end_reason = 'lost'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(lost, 1, "the one that vanished, not the one that beats");
    stop(other).await;
    proxy.turn_to(&server.cluster.database_url());
    stop(vanishes).await;
    pool.close().await;
}

/// Reads a gauge of `/metrics`.
async fn gauge(daemon: &Daemon, name: &str) -> Option<f64> {
    let answer = reqwest::get(daemon.url("/metrics")).await.unwrap();
    let text = answer.text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.map(|value| value.trim().parse().unwrap())
}

#[tokio::test]
async fn daemons_whose_clocks_are_wrong_decide_as_others_do() {
    let (rig, storage) = (Rig::new().await, TempDir::new().unwrap());
    let mut daemons = Vec::new();
    for offset in ["+3600", "-3600"] {
        let mut variables = preload();
        variables.push(("FAKETIME", offset.to_owned()));
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(n, v)| (*n, v.as_str())).collect();
        daemons.push(Daemon::start(rig.url(), storage.path(), &variables).await);
    }
    rig.sql(
        "INSERT INTO ingestd.schedules (name, cron, kind, missed)
         VALUES ('every second', '* * * * * *', 'system.noop', 'all');
         INSERT INTO ingestd.jobs (kind, run_at, args)
         VALUES ('system.noop', now() + interval '30 min', '{\"payload\": \"later\"}'),
                ('system.noop', now(), '{\"payload\": \"now\"}')",
    )
    .await;
    rig.until("(SELECT count(*) >= 4 FROM ingestd.schedule_ticks WHERE schedule = 'every second')")
        .await;
    rig.sql("UPDATE ingestd.schedules SET paused_at = now()")
        .await;
    rig.until("(SELECT count(*) = 1 FROM ingestd.jobs)").await;
    let verdict: String = rig
        .ask(
            "SELECT concat_ws(' ', extract(epoch FROM max(tick_at) - min(tick_at))::int + 1 - count(*),
               count(*) - count(DISTINCT job_id), count(*) FILTER (WHERE tick_at > now()
                 OR tick_at < (SELECT min(created_at) FROM ingestd.schedules) - interval '1 s'),
               (SELECT count(*) FROM ingestd.workers WHERE ended_at IS NULL),
               (SELECT args ->> 'payload' FROM ingestd.jobs))
             FROM ingestd.schedule_ticks WHERE schedule = 'every second'",
        )
        .await;
    assert_eq!(
        verdict, "0 0 0 2 later",
        "ticks left out, doubled, out of time; workers alive; what is not due yet"
    );
    for (daemon, skew) in daemons.iter().zip([3600.0, -3600.0]) {
        process::until("the skew is exported", async || {
            let found = gauge(daemon, "ingestd_clock_skew_seconds").await;
            found.is_some_and(|found| (found - skew).abs() < 60.0)
        })
        .await;
        let warning = "this machine's clock and the database's differ";
        assert_eq!(daemon.log().matches(warning).count(), 1, "said once");
    }
    for mut daemon in daemons {
        assert!(daemon.terminate().success());
    }
}
