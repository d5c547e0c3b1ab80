//! `[queue]`: claiming, leases, rescue, stopping.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::check::Check;
use super::unit;

/// How many jobs of a queue one daemon may run at once.
pub(super) const CONCURRENCY: RangeInclusive<u16> = 1..=10_000;

/// How this daemon works the queue.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// `queue.poll_interval`: how often due jobs are looked for without a notification. Default 1 s.
    #[serde(with = "unit::duration")]
    pub poll_interval: Duration,
    /// `queue.trailing_poll`: how soon after a claim that found jobs the next one follows. Default
    /// 30 ms.
    #[serde(with = "unit::duration")]
    pub trailing_poll: Duration,
    /// `queue.concurrency`: jobs of one queue that this daemon runs at once, 1 to 10000, where
    /// `[queues.NAME]` says nothing else. Default 10.
    pub concurrency: u16,
    /// `queue.heartbeat_interval`: how often a worker renews its leases. Default 5 s.
    #[serde(with = "unit::duration")]
    pub heartbeat_interval: Duration,
    /// `queue.lost_after`: a lease without a heartbeat for this long is lost. Default 30 s.
    #[serde(with = "unit::duration")]
    pub lost_after: Duration,
    /// `queue.trust_window`: how long a worker that cannot renew still trusts its leases; above two
    /// heartbeats and below `lost_after`. Default 20 s.
    #[serde(with = "unit::duration")]
    pub trust_window: Duration,
    /// `queue.rescue_interval`: how often lost leases are looked for. Default 5 s.
    #[serde(with = "unit::duration")]
    pub rescue_interval: Duration,
    /// `queue.max_crashes`: crashes in a row before a job is dead, 1 to 1000. Default 3.
    pub max_crashes: u16,
    /// `queue.deadline_grace`: how long after its timeout an attempt may still report. Default 30 s.
    #[serde(with = "unit::duration")]
    pub deadline_grace: Duration,
    /// `queue.stuck_limit`: how many handlers may block their threads past deadline and grace before
    /// the process stops, exit code 75, to be started anew; 0 to 1000, 0 never stops. Default 1.
    pub stuck_limit: u16,
    /// `queue.soft_stop`: how long running jobs may go on once the daemon stops. Default 20 s.
    #[serde(with = "unit::duration")]
    pub soft_stop: Duration,
    /// `queue.hard_stop`: how long cancelled jobs may take to give up, after `soft_stop`. Default
    /// 10 s.
    #[serde(with = "unit::duration")]
    pub hard_stop: Duration,
    /// `queue.completion_batch`: outcomes written by one statement at most, 1 to 10000. Default 1000.
    pub completion_batch: u16,
    /// `queue.batch_lease_from`: from how many jobs on a claim under a backlog is one lease in one row,
    /// 0 to 1000; such jobs show as running only once they have run for 0.2 s. 0 never, 1 always.
    /// Default 32.
    pub batch_lease_from: u16,
    /// `queue.retention_days`: days that finished jobs stay in the history, 1 to 3650. Default 30.
    pub retention_days: u16,
    /// `queue.schedule_set`: which daemons' `[schedules]` this one's belong to, 1 to 63 characters.
    /// Daemons with different ones on one database need different sets. Default `default`.
    pub schedule_set: String,
    /// `queue.wake`: how a worker learns of new jobs. Default `notify`.
    pub wake: Wake,
}

impl Queue {
    pub(super) fn validate(&self, check: &mut Check<'_>) {
        let above_zero = [
            ("poll_interval", self.poll_interval),
            ("trailing_poll", self.trailing_poll),
            ("heartbeat_interval", self.heartbeat_interval),
            ("rescue_interval", self.rescue_interval),
        ];
        for (key, value) in above_zero {
            check.positive(key, value);
        }
        check.range("concurrency", self.concurrency, CONCURRENCY);
        check.range("max_crashes", self.max_crashes, 1..=1000);
        check.range("stuck_limit", self.stuck_limit, 0..=1000);
        check.range("completion_batch", self.completion_batch, 1..=10_000);
        check.range("batch_lease_from", self.batch_lease_from, 0..=1000);
        check.range("retention_days", self.retention_days, 1..=3650);
        if !(1..=63).contains(&self.schedule_set.chars().count()) {
            check.fail(&["schedule_set"], "must be 1 to 63 characters");
        }
        self.validate_lease(check);
    }

    /// A worker must have two chances to renew before it gives its leases up, and must give them up
    /// before others take them.
    fn validate_lease(&self, check: &mut Check<'_>) {
        let trust = humantime::format_duration(self.trust_window);
        if self.trust_window >= self.lost_after {
            let lost = humantime::format_duration(self.lost_after);
            let why = format!("is {trust}, must be shorter than queue.lost_after, {lost}");
            check.fail(&["trust_window", "lost_after"], &why);
        }
        if self.heartbeat_interval.saturating_mul(2) > self.trust_window {
            let heartbeat = humantime::format_duration(self.heartbeat_interval);
            let why =
                format!("is {heartbeat}, must be at most half of queue.trust_window, {trust}");
            check.fail(&["heartbeat_interval", "trust_window"], &why);
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_secs(1),
            trailing_poll: Duration::from_millis(30),
            concurrency: 10,
            heartbeat_interval: Duration::from_secs(5),
            lost_after: Duration::from_secs(30),
            trust_window: Duration::from_secs(20),
            rescue_interval: Duration::from_secs(5),
            max_crashes: 3,
            deadline_grace: Duration::from_secs(30),
            stuck_limit: 1,
            soft_stop: Duration::from_secs(20),
            hard_stop: Duration::from_secs(10),
            completion_batch: 1000,
            batch_lease_from: 32,
            retention_days: 30,
            schedule_set: "default".to_owned(),
            wake: Wake::Notify,
        }
    }
}

/// How a worker learns of new jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wake {
    /// By LISTEN, with polling as the net below it; needs a connection of its own.
    Notify,
    /// By polling only, where something between passes no notifications.
    Poll,
}
