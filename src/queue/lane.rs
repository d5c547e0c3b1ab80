//! The queues this daemon serves: a claimer and an apalis worker each, how new ones turn up, and
//! which make room where they are too many.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use apalis_core::worker::{Worker, context::WorkerContext};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::layer::util::Identity;

use super::{
    backend::ClaimedJobs,
    claim::KnownKinds,
    claimer::Claimer,
    execute::{Claimed, Execution, Executor},
    floor::Floor,
    lease::Leases,
    nobody::Nobody,
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
/// Most queues one daemon serves at once; of more than that, idle ones make room for others.
const MOST_QUEUES: usize = 256;
/// Most that make room in one look.
const MOST_MOVES: usize = 64;

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

/// A queue that is served.
pub(super) struct Lane {
    slots: Arc<Slots>,
    /// Ends its claimer, and with that its worker.
    stop: CancellationToken,
    claimer: JoinHandle<()>,
    /// A kind's or configured: it makes room for nobody.
    is_fixed: bool,
    since: Instant,
}

/// The queues this daemon serves, each with a claimer and an apalis worker.
pub(super) struct Lanes<C: 'static> {
    pub(super) executor: Arc<Executor<C>>,
    pub(super) sleepers: Sleepers,
    pub(super) served: HashMap<String, Lane>,
    /// The one of those that turned up that was taken in last.
    pub(super) newest: String,
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
    /// Serves a queue for good: a kind's, or one that is configured.
    pub(super) fn serve(&mut self, queue: &str) {
        self.take_in(queue, true);
    }

    fn take_in(&mut self, queue: &str, is_fixed: bool) {
        if self.served.contains_key(queue) {
            return;
        }
        let stop = self.stop.child_token();
        let named = self.concurrency.get(queue).copied();
        let n_slots = named.unwrap_or(self.settings.concurrency.into());
        let slots = Slots::new(n_slots);
        self.told.add(queue, &slots);
        let (sender, jobs) = mpsc::channel(CLAIMED);
        let name: Arc<str> = queue.into();
        let claimer = Claimer {
            steps: self.claims.begin(&name, &slots),
            queue: name,
            db: self.db.clone(),
            kinds: Arc::clone(&self.known),
            slots: Arc::clone(&slots),
            floor: Floor::default(),
            rule: Rule::default(),
            rule_read: Instant::now(),
            last_tenant: String::new(),
            nobody: Nobody::default(),
            worth_a_batch: self.settings.batch_lease_from.into(),
            turn: 0,
            unheard: Vec::new(),
            bell: self.sleepers.bell(queue),
            session: self.session.clone(),
            leases: self.leases.clone(),
            claimed: sender,
            stop: stop.clone(),
            poll_interval: self.settings.poll_interval,
            trailing_poll: self.settings.trailing_poll,
        };
        let lane = Lane {
            slots,
            stop,
            claimer: self.claimers.spawn(claimer.run()),
            is_fixed,
            since: Instant::now(),
        };
        self.served.insert(queue.to_owned(), lane);
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
                    Some(queue) = new_queues.recv() => self.welcome(vec![queue]).await,
                    () = tokio::time::sleep(DISCOVER_EVERY) => {
                        let look = sqlx::query_scalar(DISCOVER);
                        let found: sqlx::Result<Vec<String>> =
                            self.db.run(async |conn| look.fetch_all(conn).await).await;
                        self.welcome(found.unwrap_or_default()).await;
                    }
                }
            }
        })
        .await;
    }

    /// Serves those of the queues that nobody serves yet, in the order of their names from the one
    /// on that was the last at the last look: where all are too many, each has its turn.
    async fn welcome(&mut self, mut queues: Vec<String>) {
        queues.retain(|queue| !self.served.contains_key(queue));
        queues.sort_unstable();
        let n_before = queues.partition_point(|queue| *queue <= self.newest);
        queues.rotate_left(n_before);
        let mut n_moves = 0;
        for (n, queue) in queues.iter().enumerate() {
            if self.served.len() >= MOST_QUEUES {
                if n_moves >= MOST_MOVES {
                    return;
                }
                if !self.make_room().await {
                    let n_waiting = queues.len() - n;
                    tracing::warn!(
                        n_waiting,
                        most = MOST_QUEUES,
                        "too many queues that have something to do; the others wait"
                    );
                    return;
                }
                n_moves += 1;
            }
            self.take_in(queue, false);
            self.newest.clone_from(queue);
        }
    }

    /// Ends the service of the queue that was taken in the longest ago and has nothing to do;
    /// `false` where each has something, or was taken in too recently to tell. It is found again
    /// once it has jobs.
    async fn make_room(&mut self) -> bool {
        let may_go = |lane: &Lane| {
            !lane.is_fixed && lane.slots.is_idle() && lane.since.elapsed() >= DISCOVER_EVERY
        };
        let idle = self.served.iter().filter(|(_, lane)| may_go(lane));
        let Some((queue, _)) = idle.min_by_key(|(_, lane)| lane.since) else {
            return false;
        };
        let queue = queue.clone();
        let Some(lane) = self.served.remove(&queue) else {
            return false;
        };
        lane.stop.cancel();
        // A claim that it sent meanwhile is landed and run. Nobody else claims for the queue before
        // that: whoever hands back what was lost must know of all claims on their way.
        if let Err(error) = lane.claimer.await {
            tracing::error!(queue, error = %error, "claimer broke off");
        }
        self.sleepers.forget(&queue);
        self.told.remove(&queue);
        self.claims.end(&queue);
        true
    }
}
