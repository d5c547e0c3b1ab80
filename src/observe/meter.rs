//! Handles of the hot path, looked up once per queue and kind instead of once per job.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use metrics::{Counter, Gauge, Histogram};

use super::exporter::Exporter;
use super::label::{EnqueueSource, ErrorKind, Outcome, Rescue, Wake};
use super::metric;

/// Most pairs of queue and kind that get series of their own; past it they
/// share those of the queue `other`. Kinds are registered, but anyone may
/// insert into a queue of any name.
const MAX_PAIRS: usize = 1000;

/// Most patterns of gates that get series of their own: people may define one for every key.
const MAX_GATES: usize = 200;

/// The counters and histograms of one queue and kind.
///
/// All counters exist from the first lookup on, so that a first failure is an
/// increase from 0, which `increase()` in an alert needs to see it.
#[derive(Debug)]
pub struct JobMeters {
    queue: String,
    kind: String,
    attempts: Vec<Counter>,
    errors: Vec<Counter>,
    enqueued: Vec<Counter>,
    durations: Vec<OnceLock<Histogram>>,
    pub(super) deduplicated: Counter,
    pub(super) wait: Histogram,
    pub(super) end_to_end: Histogram,
    pub(super) attempts_at_finish: Histogram,
}

impl JobMeters {
    /// Returns the meters of a queue and kind, making them at the first call.
    ///
    /// A daemon calls it at start for each of its kinds, so that their counters
    /// are exported from then on.
    pub fn of(queue: &str, kind: &str) -> Arc<Self> {
        static ALL: LazyLock<Pairs> = LazyLock::new(Pairs::default);
        ALL.get(queue, kind)
    }

    fn new(queue: &str, kind: &str) -> Self {
        let exporter = Exporter::get();
        let counters = |metric, words: &[&'static str]| -> Vec<Counter> {
            let series = words.iter();
            series
                .map(|word| exporter.counter(metric, &[queue, kind, word]))
                .collect()
        };
        Self {
            queue: queue.to_owned(),
            kind: kind.to_owned(),
            attempts: counters(&metric::JOB_ATTEMPTS, Outcome::WORDS),
            errors: counters(&metric::JOB_ERRORS, ErrorKind::WORDS),
            enqueued: counters(&metric::JOBS_ENQUEUED, EnqueueSource::WORDS),
            durations: Outcome::ALL.iter().map(|_| OnceLock::new()).collect(),
            deduplicated: exporter.counter(&metric::JOBS_DEDUPLICATED, &[queue, kind]),
            wait: exporter.histogram(&metric::JOB_WAIT, &[queue]),
            end_to_end: exporter.histogram(&metric::JOB_END_TO_END, &[queue, kind]),
            attempts_at_finish: exporter.histogram(&metric::JOB_ATTEMPTS_AT_FINISH, &[queue, kind]),
        }
    }

    pub(super) fn attempt_ended(&self, outcome: Outcome, seconds: f64) {
        add(&self.attempts, outcome as usize, 1);
        if let Some(cell) = self.durations.get(outcome as usize) {
            cell.get_or_init(|| self.duration(outcome)).record(seconds);
        }
    }

    pub(super) fn errored(&self, error_kind: ErrorKind) {
        add(&self.errors, error_kind as usize, 1);
    }

    pub(super) fn enqueued(&self, source: EnqueueSource, n: u64) {
        add(&self.enqueued, source as usize, n);
    }

    fn duration(&self, outcome: Outcome) -> Histogram {
        let values = [self.queue.as_str(), self.kind.as_str(), outcome.as_str()];
        Exporter::get().histogram(&metric::JOB_DURATION, &values)
    }
}

fn add(counters: &[Counter], index: usize, n: u64) {
    if let Some(counter) = counters.get(index) {
        counter.increment(n);
    }
}

/// The series of one queue, whatever the kind.
#[derive(Debug)]
pub(super) struct QueueMeters {
    pub(super) claim_duration: Histogram,
    pub(super) claim_batch: Histogram,
    pub(super) lease_lost: Counter,
    pub(super) slots: Gauge,
    pub(super) slots_busy: Gauge,
    wakeups: Vec<Counter>,
    rescued: Vec<Counter>,
}

impl QueueMeters {
    /// Returns the meters of a queue, making them at the first call.
    pub(super) fn of(queue: &str) -> Arc<Self> {
        static ALL: LazyLock<RwLock<HashMap<String, Arc<QueueMeters>>>> =
            LazyLock::new(RwLock::default);
        let found = read(&ALL).get(queue).map(Arc::clone);
        found.unwrap_or_else(|| {
            let mut all = write(&ALL);
            let meters = all.entry(queue.to_owned());
            Arc::clone(meters.or_insert_with(|| Arc::new(Self::new(queue))))
        })
    }

    fn new(queue: &str) -> Self {
        let exporter = Exporter::get();
        let counters = |metric, words: &[&'static str]| -> Vec<Counter> {
            let series = words.iter();
            series
                .map(|word| exporter.counter(metric, &[queue, word]))
                .collect()
        };
        Self {
            claim_duration: exporter.histogram(&metric::CLAIM_DURATION, &[queue]),
            claim_batch: exporter.histogram(&metric::CLAIM_BATCH, &[queue]),
            lease_lost: exporter.counter(&metric::LEASE_LOST, &[queue]),
            slots: exporter.gauge(&metric::WORKER_SLOTS, &[queue]),
            slots_busy: exporter.gauge(&metric::WORKER_SLOTS_BUSY, &[queue]),
            wakeups: counters(&metric::WAKEUPS, Wake::WORDS),
            rescued: counters(&metric::LEASES_RESCUED, Rescue::WORDS),
        }
    }

    pub(super) fn woken(&self, reason: Wake) {
        add(&self.wakeups, reason as usize, 1);
    }

    pub(super) fn rescued(&self, action: Rescue, n: u64) {
        add(&self.rescued, action as usize, n);
    }
}

/// The series of one gate's pattern.
#[derive(Debug)]
pub(super) struct GateMeters {
    pub(super) admitted: Counter,
    pub(super) wait: Histogram,
}

impl GateMeters {
    /// The label of keys that no pattern fits.
    const NONE: &str = "none";

    /// Returns the meters of a pattern, making them at the first call.
    pub(super) fn of(pattern: Option<&str>) -> Arc<Self> {
        Self::find(pattern).1
    }

    /// Returns the label of a pattern: past [`MAX_GATES`] of them the rest share `other`.
    pub(super) fn label(pattern: Option<&str>) -> String {
        Self::find(pattern).0
    }

    fn find(pattern: Option<&str>) -> (String, Arc<Self>) {
        static ALL: LazyLock<RwLock<HashMap<String, Arc<GateMeters>>>> =
            LazyLock::new(RwLock::default);
        let mut label = pattern.unwrap_or(Self::NONE);
        if let Some(meters) = read(&ALL).get(label) {
            return (label.to_owned(), Arc::clone(meters));
        }
        let mut all = write(&ALL);
        if all.len() >= MAX_GATES {
            label = "other";
        }
        let meters = all.entry(label.to_owned());
        let meters = meters.or_insert_with(|| Arc::new(Self::new(label)));
        (label.to_owned(), Arc::clone(meters))
    }

    fn new(pattern: &str) -> Self {
        let exporter = Exporter::get();
        Self {
            admitted: exporter.counter(&metric::GATE_ADMITTED, &[pattern]),
            wait: exporter.histogram(&metric::GATE_WAIT, &[pattern]),
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// Meters by queue, then kind: two lookups by `&str`, no allocation.
#[derive(Debug, Default)]
struct Pairs {
    by_queue: RwLock<HashMap<String, HashMap<String, Arc<JobMeters>>>>,
}

impl Pairs {
    fn get(&self, queue: &str, kind: &str) -> Arc<JobMeters> {
        self.find(queue, kind)
            .unwrap_or_else(|| self.make(queue, kind))
    }

    fn find(&self, queue: &str, kind: &str) -> Option<Arc<JobMeters>> {
        let pairs = read(&self.by_queue);
        pairs.get(queue)?.get(kind).map(Arc::clone)
    }

    fn make(&self, queue: &str, kind: &str) -> Arc<JobMeters> {
        let mut pairs = write(&self.by_queue);
        let n_pairs: usize = pairs.values().map(HashMap::len).sum();
        let queue = if n_pairs < MAX_PAIRS { queue } else { "other" };
        let kinds = pairs.entry(queue.to_owned()).or_default();
        let meters = kinds
            .entry(kind.to_owned())
            .or_insert_with(|| Arc::new(JobMeters::new(queue, kind)));
        Arc::clone(meters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_is_exported_at_0_before_it_happens() {
        JobMeters::of("meter_zero", "t.zero");
        let text = Exporter::get().render();
        for word in Outcome::WORDS {
            let series = format!(
                "ingestd_job_attempts_total{{queue=\"meter_zero\",kind=\"t.zero\",outcome=\"{word}\"}} 0"
            );
            assert!(text.contains(&series), "{series}");
        }
    }

    #[test]
    fn a_pair_is_made_once() {
        let pairs = Pairs::default();
        let first = pairs.get("meter_once", "t.once");
        assert!(Arc::ptr_eq(&first, &pairs.get("meter_once", "t.once")));
    }

    #[test]
    fn too_many_queues_share_one() {
        let pairs = Pairs::default();
        {
            // Stand-ins: a thousand pairs of real series would slow every other test's scrape.
            let meters = Arc::new(JobMeters::new("meter_full", "t.full"));
            let kinds = (0..MAX_PAIRS).map(|n| (n.to_string(), Arc::clone(&meters)));
            let mut full = pairs.by_queue.write().unwrap();
            full.insert("meter_full".into(), kinds.collect());
        }
        assert_eq!(pairs.get("meter_past_it", "t.full").queue, "other");
    }
}
