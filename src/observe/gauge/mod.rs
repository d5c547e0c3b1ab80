//! Gauges read from the database: depth, age, workers, schedules, connections.
//!
//! They are the same on every instance. A queue that is known, or was seen
//! before, is published with zeros when nothing is in it, because a gauge that
//! is no longer set keeps its last value for ever.

mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::exporter::Exporter;
use super::meter::GateMeters;
use super::metric;
use read::{Schedule, Workers};

pub(crate) use read::DEPTH;
pub use read::{GateDepth, MOST_COUNTED, QueueDepth, gates, gates_after, queues};

/// How often the gauges are read.
const INTERVAL: Duration = Duration::from_secs(5);

/// A read that took long, on a busy or bloated database, is followed by a rest of
/// this many times as long: it must not become the load.
const REST: u32 = 20;

/// The longest rest.
const MAX_REST: Duration = Duration::from_mins(1);

/// Reads and publishes all gauges once; returns the queues.
///
/// # Errors
///
/// Those of the database; what was read before the error is published.
pub async fn refresh(pool: &PgPool) -> sqlx::Result<Vec<QueueDepth>> {
    Gauges::default().refresh(pool).await
}

/// Refreshes the gauges every 5 s until `stop` fires; hands what it read to `refreshed`.
pub async fn run(
    pool: PgPool,
    stop: CancellationToken,
    refreshed: impl Fn(&sqlx::Result<Vec<QueueDepth>>),
) {
    let (gauges, mut failing) = (Gauges::default(), false);
    let rounds = async {
        loop {
            let began = Instant::now();
            let result = gauges.refresh(&pool).await;
            let rest = (began.elapsed() * REST).clamp(INTERVAL, MAX_REST);
            log_change(&result, &mut failing);
            refreshed(&result);
            tokio::time::sleep(rest).await;
        }
    };
    stop.run_until_cancelled(rounds).await;
}

/// Logs the first failure and the recovery, not every round in between.
fn log_change(result: &sqlx::Result<Vec<QueueDepth>>, failing: &mut bool) {
    match result {
        Err(error) if !*failing => warn!(%error, "gauges cannot be read, /metrics shows old ones"),
        Ok(_) if *failing => info!("gauges are read again"),
        _ => {}
    }
    *failing = result.is_err();
}

/// The label values published so far, so that those that are gone are set to nothing.
#[derive(Debug, Default)]
pub struct Gauges {
    queues: Seen,
    gates: Seen,
    workers: Seen,
    schedules: Seen,
}

impl Gauges {
    /// Reads and publishes all gauges once; returns the queues.
    ///
    /// # Errors
    ///
    /// Those of the database; what was read before the error is published.
    pub async fn refresh(&self, pool: &PgPool) -> sqlx::Result<Vec<QueueDepth>> {
        publish_pool(pool);
        let depths = queues(pool).await?;
        self.publish_queues(&depths);
        self.publish_gates(&gates(pool).await?);
        self.publish_workers(&read::workers(pool).await?);
        self.publish_schedules(&read::schedules(pool).await?);
        publish_search(&read::search(pool).await?);
        Ok(depths)
    }

    fn publish_queues(&self, depths: &[QueueDepth]) {
        for depth in depths {
            publish_queue(depth);
        }
        let now = depths.iter().map(|depth| depth.queue.as_str());
        for queue in self.queues.gone(now) {
            publish_queue(&QueueDepth::empty(queue));
        }
    }

    fn publish_gates(&self, gates: &[GateDepth]) {
        let mut held = BTreeMap::new();
        for gate in gates {
            let label = GateMeters::label(gate.pattern.as_deref());
            *held.entry(label).or_default() += gate.held;
        }
        for (gate, n) in &held {
            publish_gate(gate, *n);
        }
        for gate in self.gates.gone(held.keys().map(String::as_str)) {
            publish_gate(&gate, 0);
        }
    }

    fn publish_workers(&self, workers: &[Workers]) {
        for row in workers {
            publish_workers(&row.queue, row.live, row.stale);
        }
        let now = workers.iter().map(|row| row.queue.as_str());
        for queue in self.workers.gone(now) {
            publish_workers(&queue, 0, 0);
        }
    }

    /// A time that is unknown is NaN, for which every comparison in an alert is
    /// false; so are all times of a schedule that was paused or removed.
    fn publish_schedules(&self, schedules: &[Schedule]) {
        for row in schedules {
            publish_schedule(&row.name, [row.next_run, row.last_success, row.interval]);
        }
        let now = schedules.iter().map(|row| row.name.as_str());
        for schedule in self.schedules.gone(now) {
            publish_schedule(&schedule, [None; 3]);
        }
    }
}

fn publish_queue(depth: &QueueDepth) {
    let exporter = Exporter::get();
    let queue = depth.queue.as_str();
    for (state, n) in [
        ("queued", depth.queued),
        ("scheduled", depth.scheduled),
        ("retrying", depth.retrying),
        ("held", depth.held),
        ("running", depth.running),
        ("dead", depth.dead),
    ] {
        let gauge = exporter.gauge(&metric::QUEUE_JOBS, &[queue, state]);
        gauge.set(float(n));
    }
    for (metric, value) in [
        (
            metric::QUEUE_OLDEST_READY_AGE,
            depth.oldest_ready_age_seconds,
        ),
        (
            metric::QUEUE_OLDEST_RUNNING_AGE,
            depth.oldest_running_age_seconds,
        ),
        (
            metric::QUEUE_PAUSED,
            Some(f64::from(u8::from(depth.paused))),
        ),
    ] {
        exporter.gauge(&metric, &[queue]).set(value.unwrap_or(0.0));
    }
}

fn publish_gate(gate: &str, n_held: i64) {
    let gauge = Exporter::get().gauge(&metric::GATE_HELD_JOBS, &[gate]);
    gauge.set(float(n_held));
}

fn publish_workers(queue: &str, live: i64, stale: i64) {
    for (state, n) in [("live", live), ("stale", stale)] {
        let gauge = Exporter::get().gauge(&metric::WORKERS, &[queue, state]);
        gauge.set(float(n));
    }
}

fn publish_schedule(schedule: &str, times: [Option<f64>; 3]) {
    let metrics = [
        metric::SCHEDULE_NEXT_RUN,
        metric::SCHEDULE_LAST_SUCCESS,
        metric::SCHEDULE_INTERVAL,
    ];
    for (metric, time) in metrics.iter().zip(times) {
        let gauge = Exporter::get().gauge(metric, &[schedule]);
        gauge.set(time.unwrap_or(f64::NAN));
    }
}

fn publish_search(search: &read::Search) {
    let exporter = Exporter::get();
    let outbox = exporter.gauge(&metric::SEARCH_OUTBOX, &[]);
    outbox.set(float(search.noted));
    exporter
        .gauge(&metric::SEARCH_LAG, &[])
        .set(search.lag_seconds);
    for (state, n) in [("retrying", search.retrying), ("kept", search.kept)] {
        let gauge = exporter.gauge(&metric::SEARCH_FAILURES, &[state]);
        gauge.set(float(n));
    }
}

fn publish_pool(pool: &PgPool) {
    let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
    let max = pool.options().get_max_connections();
    let used = pool.size().saturating_sub(idle);
    for (state, n) in [("idle", idle), ("used", used), ("max", max)] {
        let gauge = Exporter::get().gauge(&metric::DB_POOL_CONNECTIONS, &[state]);
        gauge.set(n);
    }
}

/// The values of one label.
#[derive(Debug, Default)]
struct Seen(Mutex<BTreeSet<String>>);

impl Seen {
    /// Remembers the values of this round; returns the others.
    fn gone<'a>(&self, now: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now: BTreeSet<&str> = now.collect();
        let gone = seen.iter().filter(|value| !now.contains(value.as_str()));
        let gone = gone.cloned().collect();
        seen.extend(now.into_iter().map(str::to_owned));
        gone
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a double; counts past 2^53 do not occur"
)]
fn float(n: i64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_gone_is_named_until_it_is_back() {
        let seen = Seen::default();
        assert!(seen.gone(["a", "b"].into_iter()).is_empty());
        assert_eq!(seen.gone(["b"].into_iter()), ["a"]);
        assert_eq!(seen.gone([].into_iter()), ["a", "b"]);
        assert!(seen.gone(["a", "b", "c"].into_iter()).is_empty());
    }

    #[test]
    fn a_drained_queue_goes_to_0() {
        let full = QueueDepth {
            queued: 3,
            oldest_ready_age_seconds: Some(7.5),
            ..QueueDepth::empty("gauge_drained".into())
        };
        let gauges = Gauges::default();
        gauges.publish_queues(&[full]);
        let line = |text: &str, line| text.lines().any(|l| l == line);
        let text = Exporter::get().render();
        assert!(line(
            &text,
            r#"ingestd_queue_jobs{queue="gauge_drained",state="queued"} 3"#
        ));
        gauges.publish_queues(&[]);
        let text = Exporter::get().render();
        for gone in [
            r#"ingestd_queue_jobs{queue="gauge_drained",state="queued"} 0"#,
            r#"ingestd_queue_oldest_ready_age_seconds{queue="gauge_drained"} 0"#,
        ] {
            assert!(line(&text, gone), "{gone}");
        }
    }

    #[test]
    fn a_paused_or_removed_schedule_can_no_longer_be_late() {
        let gauges = Gauges::default();
        gauges.publish_schedules(&[Schedule {
            name: "gauge_removed".into(),
            next_run: Some(1.0),
            last_success: Some(2.0),
            interval: Some(3.0),
        }]);
        gauges.publish_schedules(&[]);
        let text = Exporter::get().render();
        let line = r#"ingestd_schedule_next_run_timestamp_seconds{schedule="gauge_removed"} NaN"#;
        assert!(text.contains(line), "{text}");
    }
}
