//! Whether claims cost the same on a long history and under a forgotten transaction.

use std::time::Instant;

use anyhow::Context;
use sqlx::{Connection, PgConnection, Row, postgres::PgRow};

use super::{
    Arguments,
    drain::{Drain, drain},
    measure::Cost,
    per_job::PerJob,
    report::{Figure, Report},
    rig::Rig,
};

/// Finished jobs with negative ids, all in today's partition: where the drain writes, too.
const FILL_HISTORY: &str = "
    INSERT INTO ingestd.job_history
      (shard, id, kind, queue, state, priority, attempt, args, worker_id, created_at, run_at,
       started_at, finished_at)
    SELECT 0, $1 + i, 'bench.noop', 'bench', 'completed', 1, 1, $3::jsonb, 1, now(), now(), now(),
           now()
    FROM generate_series(1, $2) AS i";

/// Rows of a statement that fills the history.
const FILL_ROWS: u32 = 1_000_000;

/// What the server did for the engine, most expensive first; the rest is the benchmark's own.
const STATEMENTS: &str = "
    SELECT query, calls, rows, shared_blks_hit + shared_blks_read AS n_buffers,
           total_exec_time * 1000 AS us
    FROM pg_stat_statements
    WHERE query LIKE '%ingestd.%'
      AND query !~ '^(TRUNCATE|ANALYZE)|generate_series|SELECT \\(SELECT count|id > [$]'
    ORDER BY total_exec_time DESC LIMIT 8";

/// How much more a job's claim may cost than on an empty system.
const MOST: f64 = 1.2;

/// Drains on an empty database, on a long history, and under a held snapshot.
pub(crate) async fn measure(
    rig: &Rig,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    println!(
        "\nconditions: {} jobs a drain, batches of 100",
        arguments.jobs
    );
    rig.run("TRUNCATE ingestd.job_history").await?;
    let empty = look(rig, arguments, "empty").await?;
    fill_history(rig, arguments.history).await?;
    let history = look(rig, arguments, "on the history").await?;
    let mut holder = PgConnection::connect_with(&ingestd::db::session(&rig.config)?).await?;
    sqlx::query("SET idle_in_transaction_session_timeout = 0")
        .execute(&mut holder)
        .await?;
    let mut snapshot = holder
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ")
        .await?;
    sqlx::query("SELECT count(*) FROM ingestd.queues")
        .execute(&mut *snapshot)
        .await?;
    let held = look(rig, arguments, "under a held snapshot").await?;
    snapshot.rollback().await?;
    for (name, here) in [
        ("claim cost on the history / on empty", &history),
        ("claim cost under a snapshot / on empty", &held),
    ] {
        let (buffers, us) = (here.buffers / empty.buffers, here.us / empty.us);
        report.add(Figure {
            name: name.into(),
            goal: format!("at most {MOST} x"),
            measured: format!("{buffers:.2} x buffers, {us:.2} x µs"),
            is_met: Some(buffers <= MOST && us <= MOST),
        });
    }
    Ok(())
}

async fn fill_history(rig: &Rig, n_rows: u32) -> anyhow::Result<()> {
    let began = Instant::now();
    let mut n_done = 0;
    while n_done < n_rows {
        let n = FILL_ROWS.min(n_rows - n_done);
        sqlx::query(FILL_HISTORY)
            .bind(-i64::from(n_done) - i64::from(n))
            .bind(i64::from(n))
            .bind(super::rig::ARGS)
            .execute(&rig.pool)
            .await?;
        n_done += n;
        println!(
            "history: {n_done} rows, {:.0} s",
            began.elapsed().as_secs_f64()
        );
    }
    rig.run("VACUUM ANALYZE ingestd.job_history").await?;
    rig.run("CHECKPOINT").await?;
    println!("history: vacuumed, {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// What claiming one job cost the server.
struct Claim {
    buffers: f64,
    us: f64,
}

/// Drains by hand and by the engine, and prints both with the engine's statements.
async fn look(rig: &Rig, arguments: &Arguments, name: &str) -> anyhow::Result<Claim> {
    let n_jobs = arguments.jobs;
    let by_hand = drain(rig, Drain::Rows, n_jobs, 100).await?;
    let engine = drain(rig, Drain::Engine, n_jobs, 100).await?;
    println!("\n{name}");
    print("by hand, a lease a job", &by_hand, n_jobs);
    print("ingestd's engine", &engine, n_jobs);
    // Once more with the server counting, which costs a little.
    rig.count_statements(true).await?;
    rig.run("SELECT pg_stat_statements_reset()").await?;
    drain(rig, Drain::Engine, n_jobs, 100).await?;
    let rows = sqlx::query(STATEMENTS).fetch_all(&rig.pool).await?;
    rig.count_statements(false).await?;
    println!(
        "{:>8} {:>10} {:>10} {:>12} {:>12}  statement",
        "calls", "rows/call", "µs/call", "buffers/call", "buffers/row"
    );
    let mut claim = None;
    for row in rows {
        let statement = Statement::of(&row);
        statement.print();
        if statement.text.contains("SKIP LOCKED") && claim.is_none() {
            claim = Some(Claim {
                buffers: statement.buffers / statement.rows,
                us: statement.us / statement.rows,
            });
        }
    }
    claim.context("no claim among the engine's statements")
}

fn print(name: &str, cost: &Cost, n_jobs: u32) {
    let cost = PerJob::of(cost, n_jobs);
    println!(
        "{name:<26} {:>8.0} jobs/s, {:>5.1} + {:>5.1} µs CPU, {:>5.0} B WAL",
        cost.jobs_per_s, cost.client_us, cost.server_us, cost.wal_bytes
    );
}

/// One line of `pg_stat_statements`, in sums over its calls.
struct Statement {
    text: String,
    calls: f64,
    rows: f64,
    buffers: f64,
    us: f64,
}

impl Statement {
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn of(row: &PgRow) -> Self {
        let number = |name| row.get::<i64, _>(name) as f64;
        let query: String = row.get("query");
        let code = query
            .lines()
            .filter(|line| !line.trim_start().starts_with("--"));
        let words = code.flat_map(str::split_whitespace);
        Self {
            text: words.collect::<Vec<_>>().join(" "),
            calls: number("calls"),
            rows: number("rows"),
            buffers: number("n_buffers"),
            us: row.get("us"),
        }
    }

    fn print(&self) {
        let text: String = self.text.chars().take(70).collect();
        println!(
            "{:>8.0} {:>10.1} {:>10.0} {:>12.1} {:>12.2}  {text}",
            self.calls,
            self.rows / self.calls,
            self.us / self.calls,
            self.buffers / self.calls,
            self.buffers / self.rows.max(1.0),
        );
    }
}
