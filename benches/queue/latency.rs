//! From the commit of one INSERT to the start of its handler, the daemon idle.

use std::time::{Duration, Instant};

use anyhow::Context;
use sqlx::{Connection, PgConnection, postgres::PgListener};

use super::{
    Arguments,
    engine::Daemon,
    report::{Figure, Report},
    rig::Rig,
};

/// Gaps between two jobs, in milliseconds: beyond the daemon's trailing look, and in no step with
/// anything.
const GAP_MS: std::ops::Range<u64> = 40..120;

const TELLING: &str =
    r#"INSERT INTO ingestd.jobs (kind, args) VALUES ('bench.noop', '{"tell": true}')"#;

/// Jobs that warm up connections, plans and caches.
const N_WARM: u32 = 20;

/// Measures both latencies in turn, so that what disturbs the machine disturbs both.
pub(crate) async fn measure(
    rig: &Rig,
    arguments: &Arguments,
    report: &mut Report,
) -> anyhow::Result<()> {
    let n_jobs = if arguments.quick { 50 } else { 500 };
    println!("\nlatency: {n_jobs} single INSERTs into an idle queue, in turn with bare NOTIFYs");
    rig.empty().await?;
    rig.resume().await?;
    let mut daemon = Daemon::start(rig, 10).await?;
    rig.run("VACUUM").await?;
    rig.run("CHECKPOINT").await?;
    tokio::time::sleep(Duration::from_secs(2)).await; // the start's own work
    let mut probe = Probe::new(rig).await?;
    let (mut starts, mut hints, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..n_jobs + N_WARM {
        let start = probe.job(&mut daemon).await?;
        let (hint, floor) = probe.notify().await?;
        if n >= N_WARM {
            starts.push(start);
            hints.push(hint);
            floors.push(floor);
        }
    }
    daemon.stop().await;
    let (starts, hints, floors) = (
        Quantiles::of(starts),
        Quantiles::of(hints),
        Quantiles::of(floors),
    );
    starts.print("commit of an INSERT to its handler's start");
    hints.print("commit of a NOTIFY to its arrival");
    floors.print("the same and one statement's round trip");
    report.add(Figure {
        name: "enqueue to start, idle: p50, p99".into(),
        goal: "under 1 and 3 ms, or 3 x NOTIFY and a statement".into(),
        measured: format!("{:.2}, {:.2} ms", starts.p50, starts.p99),
        is_met: Some(
            starts.p50 < f64::max(1.0, 3.0 * floors.p50)
                && starts.p99 < f64::max(3.0, 3.0 * floors.p99),
        ),
    });
    Ok(())
}

/// What is measured with, on connections of its own.
struct Probe {
    conn: PgConnection,
    listener: PgListener,
}

impl Probe {
    async fn new(rig: &Rig) -> anyhow::Result<Self> {
        let mut listener = PgListener::connect_with(&rig.pool).await?;
        listener.listen("bench").await?;
        let conn = PgConnection::connect_with(&ingestd::db::session(&rig.config)?).await?;
        Ok(Self { conn, listener })
    }

    /// Returns the time from an INSERT's commit to the start of its handler.
    async fn job(&mut self, daemon: &mut Daemon) -> anyhow::Result<Duration> {
        pause().await;
        sqlx::query(TELLING).execute(&mut self.conn).await?;
        let committed = Instant::now();
        let began = daemon.next_start().await.context("the daemon has ended")?;
        // The handler may have begun before the INSERT's answer was read.
        Ok(began.saturating_duration_since(committed))
    }

    /// Returns the time from a NOTIFY's commit to its arrival, and to the answer of a statement
    /// sent then.
    async fn notify(&mut self) -> anyhow::Result<(Duration, Duration)> {
        pause().await;
        sqlx::query("NOTIFY bench").execute(&mut self.conn).await?;
        let committed = Instant::now();
        self.listener.recv().await?;
        let hint = committed.elapsed();
        sqlx::query("SELECT 1").execute(&mut self.conn).await?;
        Ok((hint, committed.elapsed()))
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(GAP_MS))).await;
}

/// A distribution of latencies, in milliseconds.
struct Quantiles {
    p50: f64,
    p99: f64,
    most: f64,
}

impl Quantiles {
    fn of(mut latencies: Vec<Duration>) -> Self {
        latencies.sort_unstable();
        let at = |share: usize| {
            let place = latencies.len().saturating_sub(1) * share / 100;
            latencies
                .get(place)
                .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        };
        Self {
            p50: at(50),
            p99: at(99),
            most: at(100),
        }
    }

    fn print(&self, name: &str) {
        println!(
            "{name:<44} p50 {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
            self.p50, self.p99, self.most
        );
    }
}
