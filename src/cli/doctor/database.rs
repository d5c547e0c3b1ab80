//! What the database can tell.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};

use super::{Finding, health, schedule};
use crate::{
    cli::{migrate, output::seconds, queues::count},
    config::Config,
    observe::{QueueDepth, gauge},
};

/// The oldest Postgres that the schema works on.
const OLDEST_VERSION: i32 = 140_000;
/// A job that waits longer than this is worth a look.
const LONG_WAIT_SECS: f64 = 300.0;
/// Clocks that differ by more than this confuse whoever compares logs.
const MOST_SKEW: Duration = Duration::from_secs(5);

/// Looks at everything; a check that cannot be made is a finding, too.
pub(super) async fn examine(conn: &mut PgConnection, config: &Config) -> Vec<Finding> {
    let mut findings = vec![
        or_fail("database", latency(conn).await),
        or_fail("server version", version(conn).await),
        or_fail("clock", clock(conn).await),
        or_fail("vacuum horizon", health::horizon(conn).await),
    ];
    let schema = schema(conn).await;
    let is_current = matches!(&schema, Ok(None));
    findings.push(or_fail(
        "schema",
        schema.map(|found| {
            found.unwrap_or_else(|| {
                Finding::ok("schema", "migrations are current, kinds registered")
            })
        }),
    ));
    if is_current {
        findings.push(or_fail("workers", workers(conn).await));
        match schedule::examine(conn, config).await {
            Ok(found) => findings.extend(found),
            Err(error) => findings.push(or_fail("schedules", Err(error))),
        }
        findings.push(or_fail("live table", health::live_table(conn).await));
        findings.push(or_fail("partitions", health::partitions(conn).await));
        findings.push(or_fail("plans", health::plans(conn).await));
        match gauge::queues(&mut *conn).await {
            Ok(queues) => findings.extend(examine_queues(&queues)),
            Err(error) => findings.push(or_fail("queues", Err(error))),
        }
    }
    findings
}

fn or_fail(check: &'static str, found: sqlx::Result<Finding>) -> Finding {
    found.unwrap_or_else(|error| {
        Finding::fail(check, error.to_string(), "the database's log may say more")
    })
}

async fn latency(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let began = Instant::now();
    conn.ping().await?;
    let ms = began.elapsed().as_secs_f64() * 1000.0;
    let text = format!("answers in {ms:.1} ms");
    if ms < 50.0 {
        return Ok(Finding::ok("database", text));
    }
    let hint = "every claim and every chunk waits that long; put daemon and database closer";
    Ok(Finding::warn("database", text, hint))
}

async fn version(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let (number, name): (i32, String) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version')",
    )
    .fetch_one(conn)
    .await?;
    if number >= OLDEST_VERSION {
        return Ok(Finding::ok("server version", name));
    }
    Ok(Finding::fail(
        "server version",
        name,
        "Postgres 14 or later is needed",
    ))
}

/// Compares this machine's clock with the database's, the middle of the round trip with its answer.
async fn clock(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let began = Instant::now();
    let theirs: DateTime<Utc> = sqlx::query_scalar("SELECT clock_timestamp()")
        .fetch_one(conn)
        .await?;
    #[expect(
        clippy::disallowed_methods,
        reason = "this machine's clock is what is examined"
    )]
    let ours = Utc::now() - began.elapsed() / 2;
    let skew = (ours - theirs).abs().to_std().unwrap_or_default();
    let text = format!("{:.1} s from the database's", skew.as_secs_f64());
    if skew <= MOST_SKEW {
        return Ok(Finding::ok("clock", text));
    }
    let hint = "jobs are due by the database's clock, logs have this machine's; set both by NTP";
    Ok(Finding::warn("clock", text, hint))
}

/// Returns what is missing of this version's schema; `None` where nothing is.
async fn schema(conn: &mut PgConnection) -> sqlx::Result<Option<Finding>> {
    let pending = migrate::pending(conn).await?;
    if !pending.is_empty() {
        let text = format!("{} migrations are not applied", pending.len());
        let hint = "run `ingestd migrate`, or start the daemon once";
        return Ok(Some(Finding::fail("schema", text, hint)));
    }
    let missing = migrate::new_kinds(conn).await?;
    if missing.is_empty() {
        return Ok(None);
    }
    let text = format!("kinds not registered: {}", missing.join(", "));
    let hint = "run `ingestd migrate`: until then jobs of them are refused";
    Ok(Some(Finding::fail("schema", text, hint)))
}

async fn workers(conn: &mut PgConnection) -> sqlx::Result<Finding> {
    let (live, stale): (i64, i64) = sqlx::query_as(
        "SELECT count(*) FILTER (WHERE heartbeat_at >= now() - interval '30 s'),
                count(*) FILTER (WHERE heartbeat_at <  now() - interval '30 s')
         FROM ingestd.workers WHERE ended_at IS NULL",
    )
    .fetch_one(conn)
    .await?;
    Ok(match (live, stale) {
        (0, _) => Finding::fail(
            "workers",
            "no daemon is alive on this database",
            "start one: `ingestd run`, or systemctl start ingestd",
        ),
        (live, 0) => Finding::ok("workers", format!("{live} alive")),
        (live, stale) => Finding::warn(
            "workers",
            format!("{live} alive, {stale} without a heartbeat for 30 s"),
            "their jobs are taken over; look at their hosts",
        ),
    })
}

/// Says whether a daemon with a fresh heartbeat runs on this machine.
pub(super) async fn has_daemon_here(conn: &mut PgConnection) -> sqlx::Result<bool> {
    let host = nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok());
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM ingestd.workers WHERE ended_at IS NULL AND host = $1
                          AND heartbeat_at >= now() - interval '30 s')",
    )
    .bind(host)
    .fetch_one(conn)
    .await
}

/// Judges each queue by how long its oldest due job waits, and by its dead letters.
fn examine_queues(queues: &[QueueDepth]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for depth in queues {
        let (name, waits) = (&depth.queue, depth.oldest_ready_age_seconds.unwrap_or(0.0));
        if waits > LONG_WAIT_SECS {
            let (why, hint) = if depth.paused {
                (
                    " and the queue is paused",
                    format!("let it go on: ingestd queues resume {name}"),
                )
            } else {
                (
                    "",
                    format!("raise queues.{name}.concurrency, or start another daemon"),
                )
            };
            let text = format!("the oldest due job of {name} waits {}{why}", seconds(waits));
            findings.push(Finding::warn("queues", text, hint));
        }
        if depth.dead > 0 {
            let text = format!("{} dead letters in {name}", count(depth.dead));
            findings.push(Finding::warn("dead letters", text, "ingestd dead ls"));
        }
    }
    if !findings.iter().any(|finding| finding.check == "queues") {
        let n_jobs: i64 = queues.iter().map(|depth| depth.queued).sum();
        let many = queues
            .iter()
            .any(|depth| depth.queued >= gauge::MOST_COUNTED);
        let more = if many { " or more" } else { "" };
        let text = format!("{n_jobs} jobs due{more}, none for long");
        findings.insert(0, Finding::ok("queues", text));
    }
    if !findings
        .iter()
        .any(|finding| finding.check == "dead letters")
    {
        findings.push(Finding::ok("dead letters", "none"));
    }
    findings
}
