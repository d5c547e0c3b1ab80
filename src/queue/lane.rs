//! The queues this daemon serves: a claimer and an apalis worker each, and how new ones turn up.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use apalis_core::worker::{Worker, context::WorkerContext};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::layer::util::Identity;

use super::{
    backend::ClaimedJobs,
    claim::KnownKinds,
    claimer::Claimer,
    execute::{Claimed, Execution, Executor},
    floor::Floor,
    lease::Leases,
    progress::Claims,
    rule::Rule,
    served::Served,
    session::Sessions,
    slot::Slots,
    wake::Sleepers,
};
use crate::{config, db::Bounded};

/// How often the table is searched for queues that nobody serves yet.
const DISCOVER_EVERY: Duration = Duration::from_secs(5);
/// Most queues one daemon serves; the rest wait for another daemon or a configuration.
const MOST_QUEUES: usize = 256;

/// Claims on their way to apalis; seats are what bounds their jobs.
const CLAIMED: usize = 4;

/// Queues that have jobs due, by a loose scan of `jobs_ready`: one probe per queue, not per row.
pub(super) const DISCOVER: &str = "
    WITH RECURSIVE q (queue) AS (
      (SELECT queue FROM ingestd.jobs WHERE shard = 0 AND state = 'queued' ORDER BY queue LIMIT 1)
      UNION ALL
      SELECT (SELECT j.queue FROM ingestd.jobs j
              WHERE j.shard = 0 AND j.state = 'queued' AND j.queue > q.queue
              ORDER BY j.queue LIMIT 1)
      FROM q WHERE q.queue IS NOT NULL)
    SELECT queue FROM q WHERE queue IS NOT NULL";

/// The queues this daemon serves, each with a claimer and an apalis worker.
pub(super) struct Lanes<C: 'static> {
    pub(super) executor: Arc<Executor<C>>,
    pub(super) sleepers: Sleepers,
    pub(super) served: HashSet<String>,
    pub(super) db: Bounded,
    pub(super) known: Arc<KnownKinds>,
    pub(super) session: Sessions,
    pub(super) leases: Leases,
    /// Told of each queue, for the heartbeat.
    pub(super) told: Served,
    pub(super) stop: CancellationToken,
    pub(super) claimers: TaskTracker,
    pub(super) workers: TaskTracker,
    pub(super) settings: config::Queue,
    pub(super) concurrency: BTreeMap<String, usize>,
    pub(super) claims: Claims,
}

impl<C: Send + Sync + 'static> Lanes<C> {
    pub(super) fn serve(&mut self, queue: &str) {
        if self.served.contains(queue) {
            return;
        }
        if self.served.len() >= MOST_QUEUES {
            tracing::warn!(
                queue,
                most = MOST_QUEUES,
                "too many queues; this one is not served here"
            );
            return;
        }
        let named = self.concurrency.get(queue).copied();
        let n_slots = named.unwrap_or(self.settings.concurrency.into());
        self.served.insert(queue.to_owned());
        let slots = Slots::new(n_slots);
        self.told.add(queue, &slots);
        let (sender, jobs) = mpsc::channel(CLAIMED);
        let name: Arc<str> = queue.into();
        let claimer = Claimer {
            steps: self.claims.begin(&name, &slots),
            queue: name,
            db: self.db.clone(),
            kinds: Arc::clone(&self.known),
            slots,
            floor: Floor::default(),
            rule: Rule::default(),
            rule_read: Instant::now(),
            last_tenant: String::new(),
            turn: 0,
            unheard: Vec::new(),
            bell: self.sleepers.bell(queue),
            session: self.session.clone(),
            leases: self.leases.clone(),
            claimed: sender,
            stop: self.stop.clone(),
            poll_interval: self.settings.poll_interval,
            trailing_poll: self.settings.trailing_poll,
        };
        self.claimers.spawn(claimer.run());
        let context = WorkerContext::from(queue);
        let (jobs, execution) = (
            ClaimedJobs::new(jobs),
            Execution(Arc::clone(&self.executor)),
        );
        let worker: Worker<Claimed, _, _, _> =
            Worker::new(context, jobs, execution, Identity::new());
        let queue = queue.to_owned();
        self.workers.spawn(async move {
            if let Err(error) = worker.run().await {
                tracing::error!(queue, error = %error, "worker ended");
            }
        });
    }

    /// Serves queues as they turn up: by notification at once, else by a regular look.
    pub(super) async fn discover(mut self, mut new_queues: mpsc::Receiver<String>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(async {
            loop {
                tokio::select! {
                    Some(queue) = new_queues.recv() => self.serve(&queue),
                    () = tokio::time::sleep(DISCOVER_EVERY) => {
                        let look = sqlx::query_scalar(DISCOVER);
                        let found: sqlx::Result<Vec<String>> =
                            self.db.run(async |conn| look.fetch_all(conn).await).await;
                        found.unwrap_or_default().iter().for_each(|queue| self.serve(queue));
                    }
                }
            }
        })
        .await;
    }
}
