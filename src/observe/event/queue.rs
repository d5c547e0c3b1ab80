//! Events of the queue's own work: claims, leases, wake-ups, schedules.

use std::time::Duration;

use tracing::{debug, info, trace, warn};

use crate::observe::exporter::Exporter;
use crate::observe::label::{Rescue, TickResult, Wake};
use crate::observe::meter::{GateMeters, QueueMeters};
use crate::observe::metric;

/// One claim came back.
#[derive(Debug)]
pub struct JobClaimed<'a> {
    /// The queue it claimed from.
    pub queue: &'a str,
    /// Jobs it got; 0 where none was due.
    pub n: usize,
    /// The statement's round trip.
    pub duration: Duration,
}

impl JobClaimed<'_> {
    /// Records the claim's size and duration.
    pub fn emit(self) {
        let Self { queue, n, duration } = self;
        let meters = QueueMeters::of(queue);
        meters.claim_duration.record(duration.as_secs_f64());
        meters
            .claim_batch
            .record(u32::try_from(n).map_or(f64::MAX, f64::from));
        trace!(queue, n, duration_us = duration.as_micros(), "claimed");
    }
}

/// An outcome was refused, because the worker's lease was gone.
#[derive(Debug)]
pub struct LeaseFenced<'a> {
    /// The queue the job was claimed from.
    pub queue: &'a str,
    /// The job's kind.
    pub kind: &'a str,
    /// The job's id, for the log line.
    pub job: i64,
    /// The attempt's number, from 1.
    pub attempt: i16,
}

impl LeaseFenced<'_> {
    /// Counts and logs the refusal.
    pub fn emit(self) {
        let Self {
            queue,
            kind,
            job,
            attempt,
        } = self;
        QueueMeters::of(queue).lease_lost.increment(1);
        warn!(
            queue,
            kind, job, attempt, "lease lost, another worker owns the job"
        );
    }
}

/// Leases were taken back from workers that fell silent or overran.
#[derive(Debug)]
pub struct LeasesRescued<'a> {
    /// The queue of their jobs.
    pub queue: &'a str,
    /// What became of the jobs.
    pub action: Rescue,
    /// How many; 0 says nothing.
    pub n: u64,
}

impl LeasesRescued<'_> {
    /// Counts the leases, and logs them where there are any.
    pub fn emit(self) {
        let Self { queue, action, n } = self;
        QueueMeters::of(queue).rescued(action, n);
        if n > 0 {
            warn!(queue, action = action.as_str(), n, "leases rescued");
        }
    }
}

/// A worker looked for work.
#[derive(Debug)]
pub struct WorkerWoken<'a> {
    /// The queue it looked at.
    pub queue: &'a str,
    /// What woke it.
    pub reason: Wake,
}

impl WorkerWoken<'_> {
    /// Counts the wake-up by its reason.
    pub fn emit(self) {
        let Self { queue, reason } = self;
        QueueMeters::of(queue).woken(reason);
        trace!(queue, reason = reason.as_str(), "woken");
    }
}

/// The number of this process's slots of a queue, or of those in use, changed.
#[derive(Debug)]
pub struct WorkerSlots<'a> {
    /// The queue.
    pub queue: &'a str,
    /// Jobs that may run at once.
    pub slots: u32,
    /// Jobs that run now.
    pub busy: u32,
}

impl WorkerSlots<'_> {
    /// Publishes both numbers; cheap enough for every change.
    pub fn emit(self) {
        let Self { queue, slots, busy } = self;
        let meters = QueueMeters::of(queue);
        meters.slots.set(slots);
        meters.slots_busy.set(busy);
        trace!(queue, slots, busy, "slots");
    }
}

/// A gate let held jobs of one key go.
#[derive(Debug)]
pub struct GateAdmitted<'a> {
    /// The pattern that the key's limits come from; `None` where no pattern fits it.
    pub gate: Option<&'a str>,
    /// The queue of each job, and how long it waited from the time it was due; none says nothing.
    pub admitted: &'a [(String, Duration)],
}

impl GateAdmitted<'_> {
    /// Counts the jobs and records their waits.
    pub fn emit(self) {
        let Self { gate, admitted } = self;
        if admitted.is_empty() {
            return;
        }
        let meters = GateMeters::of(gate);
        meters.admitted.increment(admitted.len() as u64);
        for (_, waited) in admitted {
            meters.wait.record(waited.as_secs_f64());
        }
        trace!(gate, n = admitted.len(), "admitted");
    }
}

/// A schedule's tick was handled.
#[derive(Debug)]
pub struct ScheduleTicked<'a> {
    /// The schedule's name.
    pub schedule: &'a str,
    /// What became of the tick.
    pub result: TickResult,
    /// Why it failed, for the log line.
    pub error: Option<&'a str>,
}

impl ScheduleTicked<'_> {
    /// Counts the tick by its result.
    pub fn emit(self) {
        let Self {
            schedule,
            result,
            error,
        } = self;
        Exporter::get()
            .counter(&metric::SCHEDULE_RUNS, &[schedule, result.as_str()])
            .increment(1);
        match result {
            TickResult::Failed => warn!(schedule, error, "tick could not be enqueued"),
            TickResult::Enqueued => debug!(schedule, "tick enqueued"),
            TickResult::Missed | TickResult::Overlap => {
                info!(
                    schedule,
                    result = result.as_str(),
                    "tick passed without a job"
                );
            }
        }
    }
}
