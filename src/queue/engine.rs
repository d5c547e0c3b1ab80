//! The engine: builds the parts of the queue for one daemon, starts them, drains them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use sqlx::{PgConnection, PgPool, postgres::PgConnectOptions};
use tokio::{
    sync::{Mutex, Notify, mpsc},
    time::MissedTickBehavior,
};
use tokio_cron_scheduler::{Job as Tick, JobScheduler};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    claim::KnownKinds,
    complete::{Completer, Writer},
    execute::{Conclusion, Executor},
    gate::Keeper,
    kind::Kind,
    lane::Lanes,
    lease::Leases,
    maintain,
    progress::Claims,
    record::{self, Records},
    rescue::{self, Rescuer},
    schedule,
    served::Served,
    session::{Heart, Sessions},
    stats::{self, Stats},
    stuck::LastResort,
    wake::{self, Sleepers},
    watch,
};
use crate::{
    config,
    db::{self, Bounded},
    observe::Exporter,
};

/// Registers kinds and their schedules, so that the database accepts jobs of them.
///
/// # Errors
///
/// What Postgres says.
pub async fn register<C: 'static>(conn: &mut PgConnection, kinds: &[Kind<C>]) -> sqlx::Result<()> {
    for kind in kinds {
        sqlx::query(
            "INSERT INTO ingestd.job_kinds (kind, queue, max_attempts, timeout_secs)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (kind) DO UPDATE SET queue = excluded.queue,
               max_attempts = excluded.max_attempts, timeout_secs = excluded.timeout_secs,
               seen_at = now()",
        )
        .bind(kind.name)
        .bind(kind.queue)
        .bind(i16::try_from(kind.retry.max_attempts).unwrap_or(i16::MAX))
        .bind(i32::try_from(kind.timeout.as_secs().max(1)).unwrap_or(i32::MAX))
        .execute(&mut *conn)
        .await?;
    }
    schedule::sync_built_in(conn, kinds).await
}

/// What an engine is built from.
#[derive(Debug)]
pub struct Engine<C: 'static> {
    /// The queue's own connections; jobs have others.
    pub pool: PgPool,
    /// Where the heartbeat connects, on a connection of its own.
    pub options: PgConnectOptions,
    /// The kinds to run, with the configuration's overrides applied.
    pub kinds: Vec<Kind<C>>,
    /// What every job is lent.
    pub state: C,
    /// Timings and limits.
    pub settings: config::Queue,
    /// Slots of the queues that have a number of their own.
    pub concurrency: BTreeMap<String, usize>,
}

/// A running engine.
pub struct Running {
    stop: CancellationToken,
    hard_stop: CancellationToken,
    finished: CancellationToken,
    claimers: TaskTracker,
    workers: TaskTracker,
    handlers: TaskTracker,
    completer: TaskTracker,
    writer: TaskTracker,
    housekeeping: JobScheduler,
    heart: std::thread::JoinHandle<()>,
    session: Sessions,
    pool: PgPool,
    settings: config::Queue,
    leases: Leases,
    claims: Claims,
    options: PgConnectOptions,
}

impl<C: Send + Sync + 'static> Engine<C> {
    /// Registers the kinds and starts everything; returns once the worker has its first session.
    ///
    /// # Errors
    ///
    /// The database cannot be reached or refuses the registration, or the
    /// operating system has no thread left.
    pub async fn start(self) -> anyhow::Result<Running> {
        register(&mut *self.pool.acquire().await?, &self.kinds).await?;
        let options = self.options.clone();
        let parts = Parts::new(self)?;
        let housekeeping = parts.start_housekeeping().await?;
        let (conclusions, concluded) = mpsc::channel(4096);
        let writer = parts.records.clone().write_for_ever(parts.finished.clone());
        parts.writer.spawn(writer);
        let (unknown, new_queues) = mpsc::channel(64);
        let sleepers = Sleepers::new(unknown);
        parts.start_completer(concluded, sleepers.clone());
        parts.start_keeper(sleepers.clone());
        parts.start_claimers(sleepers.clone(), new_queues, conclusions);
        // A pooler in transaction mode takes a LISTEN and passes nothing on.
        let is_pooled = db::relayed_to(&parts.db.pool.connect_options()).is_some();
        if parts.settings.wake == config::Wake::Notify && !is_pooled {
            let (pool, leases) = (parts.db.pool.clone(), parts.leases.clone());
            parts
                .claimers
                .spawn(wake::listen(pool, sleepers, leases, parts.stop.clone()));
        }
        parts.claimers.spawn(schedule::pump(
            parts.db.clone(),
            Arc::clone(&parts.known),
            parts.stop.clone(),
        ));
        parts.start_rescue();
        let watched = watch::run(parts.db.pool.clone(), options.clone(), parts.stop.clone());
        parts.claimers.spawn(watched);
        // Here and not in the daemon, for whoever runs an engine of their own and is never scraped.
        let upkeep = Exporter::get().run_upkeep(parts.stop.clone());
        parts.claimers.spawn(upkeep);
        let mut session = parts.session.clone();
        session.wait_for(Option::is_some).await?;
        Ok(parts.running(housekeeping, options))
    }
}

/// The engine's insides while they are being started.
struct Parts<C: 'static> {
    db: Bounded,
    kinds: Arc<[Kind<C>]>,
    known: Arc<KnownKinds>,
    state: Arc<C>,
    settings: config::Queue,
    concurrency: BTreeMap<String, usize>,
    leases: Leases,
    served: Served,
    records: Records,
    session: Sessions,
    heart: std::thread::JoinHandle<()>,
    stop: CancellationToken,
    hard_stop: CancellationToken,
    finished: CancellationToken,
    claimers: TaskTracker,
    workers: TaskTracker,
    handlers: TaskTracker,
    completer: TaskTracker,
    writer: TaskTracker,
    claims: Claims,
    suspects: Arc<Notify>,
}

impl<C: Send + Sync + 'static> Parts<C> {
    fn new(engine: Engine<C>) -> std::io::Result<Self> {
        let Engine {
            pool,
            options,
            kinds,
            state,
            settings,
            concurrency,
        } = engine;
        let known = KnownKinds::of(&kinds);
        let (hard_stop, finished) = (CancellationToken::new(), CancellationToken::new());
        let (leases, served) = (Leases::default(), Served::default());
        let records = Records::new(options.clone(), settings.lost_after);
        let heart = Heart {
            options,
            interval: settings.heartbeat_interval,
            trust_window: settings.trust_window,
            queues: kinds.iter().map(|kind| kind.queue.to_owned()).collect(),
            leases: leases.clone(),
            served: served.clone(),
            hard_stop: hard_stop.clone(),
            finished: finished.clone(),
        };
        let (session, heart) = heart.start()?;
        // A claim is two statements at most, and a nap is one and the longest poll.
        let statement = pool.options().get_acquire_timeout() + settings.lost_after;
        let claims = Claims::new(statement * 2 + settings.poll_interval);
        let db = Bounded {
            pool,
            limit: settings.lost_after,
        };
        Ok(Self {
            db,
            kinds: kinds.into(),
            known: Arc::new(known),
            state: Arc::new(state),
            settings,
            concurrency,
            leases,
            served,
            records,
            session,
            heart,
            stop: CancellationToken::new(),
            hard_stop,
            finished,
            claimers: TaskTracker::new(),
            workers: TaskTracker::new(),
            handlers: TaskTracker::new(),
            completer: TaskTracker::new(),
            writer: TaskTracker::new(),
            claims,
            suspects: Arc::default(),
        })
    }

    /// Starts the completer and whoever writes its figures, a last time once it has ended.
    fn start_completer(&self, conclusions: mpsc::Receiver<Conclusion>, sleepers: Sleepers) {
        let (stats, ended) = (Stats::default(), CancellationToken::new());
        let writer = Writer {
            db: self.db.clone(),
            kinds: Arc::clone(&self.kinds),
            leases: self.leases.clone(),
            stats: stats.clone(),
            sleepers,
            suspects: Arc::clone(&self.suspects),
        };
        let completer = Completer {
            conclusions,
            writer: Arc::new(writer),
            batch: self.settings.completion_batch.into(),
        };
        let keeping = stats::keep(stats, self.db.clone(), ended.clone());
        self.completer.spawn(keeping);
        let end = ended.drop_guard();
        self.completer.spawn(async move {
            completer.run().await;
            drop(end);
        });
    }

    fn start_keeper(&self, sleepers: Sleepers) {
        let keeper = Keeper {
            db: self.db.clone(),
            kinds: Arc::clone(&self.known),
            sleepers,
            stop: self.stop.clone(),
            poll_interval: self.settings.poll_interval,
            trailing_poll: self.settings.trailing_poll,
        };
        self.claimers.spawn(keeper.run());
    }

    /// Serves the queues of the kinds and the configuration now, and others as they turn up.
    fn start_claimers(
        &self,
        sleepers: Sleepers,
        new_queues: mpsc::Receiver<String>,
        conclusions: mpsc::Sender<Conclusion>,
    ) {
        let executor = Executor {
            kinds: Arc::clone(&self.kinds),
            state: Arc::clone(&self.state),
            tracker: self.handlers.clone(),
            leases: self.leases.clone(),
            records: self.records.clone(),
            conclusions,
            stop: self.stop.clone(),
            hard_stop: self.hard_stop.clone(),
        };
        let mut lanes = Lanes {
            executor: Arc::new(executor),
            sleepers,
            served: HashMap::new(),
            newest: String::new(),
            db: self.db.clone(),
            known: Arc::clone(&self.known),
            session: self.session.clone(),
            leases: self.leases.clone(),
            told: self.served.clone(),
            stop: self.stop.clone(),
            claimers: self.claimers.clone(),
            workers: self.workers.clone(),
            settings: self.settings.clone(),
            concurrency: self.concurrency.clone(),
            claims: self.claims.clone(),
        };
        for queue in self.kinds.iter().map(|kind| kind.queue).chain(["default"]) {
            lanes.serve(queue);
        }
        for queue in self.concurrency.keys() {
            lanes.serve(queue);
        }
        self.claimers.spawn(lanes.discover(new_queues));
    }

    /// Looks for lost leases, and for those of its own that nobody here holds, at its interval, one
    /// look after the other, on a clock that nobody sets back. Suspects that end here have the next
    /// one go at once: there may be hundreds.
    fn start_rescue(&self) {
        let rescuer = Rescuer {
            db: self.db.clone(),
            kinds: Arc::clone(&self.kinds),
            lost_after: self.settings.lost_after,
            deadline_grace: self.settings.deadline_grace,
            max_crashes: i16::try_from(self.settings.max_crashes).unwrap_or(i16::MAX),
            seen: Mutex::default(),
        };
        let (stop, every) = (self.stop.clone(), self.settings.rescue_interval);
        let (session, leases) = (self.session.clone(), self.leases.clone());
        let suspects = Arc::clone(&self.suspects);
        self.claimers.spawn(async move {
            let mut ticks = tokio::time::interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let rescue = async {
                loop {
                    tokio::select! {
                        biased;
                        _ = ticks.tick() => {}
                        () = suspects.notified() => {
                            if let Err(error) = rescuer.release().await {
                                tracing::warn!(error = %error, "suspects wait for the database");
                            }
                            continue;
                        }
                    }
                    if let Err(error) = rescuer.rescue().await {
                        tracing::warn!(error = %error, "rescue waits for the database");
                    }
                    let worker = session.borrow().as_ref().map(|life| life.worker_id);
                    if let Some(worker) = worker {
                        rescuer.rescue_strays(worker, &leases).await;
                    }
                }
            };
            let _: Option<()> = stop.run_until_cancelled(rescue).await;
        });
    }

    /// Starts the hourly maintenance, after one round now: history needs today's partition.
    async fn start_housekeeping(&self) -> anyhow::Result<JobScheduler> {
        if let Err(error) =
            maintain::maintain(&self.db.pool, self.settings.retention_days.into()).await
        {
            tracing::warn!(error = %error, "maintenance waits for its next round");
        }
        let scheduler = JobScheduler::new().await?;
        let (pool, days) = (
            self.db.pool.clone(),
            i32::from(self.settings.retention_days),
        );
        let maintenance = Tick::new_async("17 3 * * * *", move |_, _| {
            let pool = pool.clone();
            Box::pin(async move {
                match maintain::maintain(&pool, days).await {
                    Ok(Some(done)) => tracing::info!(?done, "maintenance done"),
                    Ok(None) => {}
                    Err(error) => tracing::error!(error = %error, "maintenance failed"),
                }
            })
        })?;
        scheduler.add(maintenance).await?;
        let pool = self.db.pool.clone();
        let sweeping = Tick::new_async("41 33 * * * *", move |_, _| {
            let pool = pool.clone();
            Box::pin(async move {
                match record::sweep(&pool).await {
                    Ok(n_rows) => tracing::info!(n_rows, "steps and progress swept"),
                    Err(error) => tracing::error!(error = %error, "sweep failed"),
                }
            })
        })?;
        scheduler.add(sweeping).await?;
        scheduler.start().await?;
        Ok(scheduler)
    }

    fn running(self, housekeeping: JobScheduler, options: PgConnectOptions) -> Running {
        Running {
            stop: self.stop,
            hard_stop: self.hard_stop,
            finished: self.finished,
            claimers: self.claimers,
            workers: self.workers,
            handlers: self.handlers,
            completer: self.completer,
            writer: self.writer,
            housekeeping,
            heart: self.heart,
            session: self.session,
            pool: self.db.pool,
            settings: self.settings,
            leases: self.leases,
            claims: self.claims,
            options,
        }
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("n_running", &self.n_running())
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Returns how many attempts are running in this process.
    #[must_use]
    pub fn n_running(&self) -> usize {
        self.leases.count()
    }

    /// Returns whether the worker has a heartbeat and may claim.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.session.borrow().is_some()
    }

    /// Returns a way to ask [`Self::is_alive`] that outlives this value.
    pub fn liveness(&self) -> impl Fn() -> bool + Send + Sync + 'static + use<> {
        let session = self.session.clone();
        move || session.borrow().is_some()
    }

    /// Returns a way to ask which queues are not claimed from any more though they could be; none
    /// as a rule, while the database is away, and once the engine stops.
    pub fn stalled(&self) -> impl Fn() -> Vec<Arc<str>> + Send + Sync + 'static + use<> {
        let (claims, session, stop) =
            (self.claims.clone(), self.session.clone(), self.stop.clone());
        move || {
            if stop.is_cancelled() {
                return Vec::new();
            }
            claims.stalled(session.borrow().is_some())
        }
    }

    /// Returns what is left to do where no thread turns any more.
    #[must_use]
    pub fn last_resort(&self) -> LastResort {
        LastResort {
            options: self.options.clone(),
            session: self.session.clone(),
        }
    }

    /// Stops cleanly: claims nothing more, lets running jobs finish for `queue.soft_stop`,
    /// tells the rest to end for `queue.hard_stop`, and hands back what is left, unburnt.
    ///
    /// `hurry` skips the first wait.
    pub async fn stop(mut self, hurry: CancellationToken) {
        self.stop.cancel();
        if let Err(error) = self.housekeeping.shutdown().await {
            tracing::debug!(error = %error, "housekeeping was not running");
        }
        self.claimers.close();
        self.claimers.wait().await; // their channels close; apalis lets running jobs finish
        self.workers.close();
        tokio::select! {
            () = self.workers.wait() => {}
            () = hurry.cancelled() => {}
            () = tokio::time::sleep(self.settings.soft_stop) => {}
        }
        let n_left = self.leases.count();
        if n_left > 0 {
            tracing::warn!(
                n_jobs = n_left,
                "grace period over; telling running jobs to end"
            );
        }
        let worker_id = self
            .session
            .borrow()
            .as_ref()
            .map(|session| session.worker_id);
        self.hard_stop.cancel();
        let ended = tokio::time::timeout(self.settings.hard_stop, self.workers.wait()).await;
        if ended.is_err() {
            tracing::error!(
                n_jobs = self.leases.count(),
                "jobs did not end; handing them back"
            );
        }
        self.handlers.close();
        self.completer.close();
        let flushed = tokio::time::timeout(Duration::from_secs(5), self.completer.wait()).await;
        if flushed.is_err() {
            tracing::error!("completions could not be written; their jobs will be rescued");
        }
        self.hand_back(worker_id).await;
        self.finished.cancel();
        self.writer.close();
        let written = tokio::time::timeout(Duration::from_secs(5), self.writer.wait()).await;
        if written.is_err() {
            tracing::error!("progress and log lines could not be written");
        }
        let heart = self.heart;
        if tokio::task::spawn_blocking(move || heart.join())
            .await
            .is_err()
        {
            tracing::error!("heartbeat thread did not end");
        }
    }

    async fn hand_back(&self, worker_id: Option<i64>) {
        let Some(worker_id) = worker_id else { return };
        let back = tokio::time::timeout(
            Duration::from_secs(5),
            rescue::hand_back(&self.pool, worker_id),
        );
        match back.await {
            Ok(Ok(0)) => {}
            Ok(Ok(n_jobs)) => tracing::info!(n_jobs, "handed back, unburnt"),
            _ => tracing::error!("could not hand jobs back; they will be rescued"),
        }
    }
}
