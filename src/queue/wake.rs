//! Notifications: hints that there is work, or that a running job was cancelled.
//!
//! One listening connection per daemon. A notification is never the truth: the
//! poll finds what a lost one announced, so all this buys is time.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{PgPool, postgres::PgListener};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{
    gate::{self, GateBell},
    job::Lease,
    lease::Leases,
};
use crate::observe::ListenerChanged;

/// Channel of wake-ups; the payload is the queue's name.
pub(super) const WAKE: &str = "ingestd_wake";
/// Channel of wake-ups for jobs that may be due since long; the payload is the queue's name.
///
/// Whatever makes a job claimable without a fresh `run_at` rings here: on [`WAKE`] a claim does
/// not look below its floor.
pub(super) const LOOK: &str = "ingestd_look";
/// Channel of cancellations; the payload is the lease.
pub(super) const CANCEL: &str = "ingestd_cancel";

/// Wait before the first try to listen again.
const SHORTEST_WAIT: Duration = Duration::from_millis(100);

/// What wakes the claimer of one queue.
#[derive(Debug, Default)]
pub(super) struct Bell {
    pub(super) rung: Notify,
    /// The next claim is to look at everything that is due, also below its floor.
    pub(super) look: AtomicBool,
    /// The queue has a limit across daemons: what ends may let another begin.
    pub(super) limited: AtomicBool,
}

/// Who sleeps for which queue, and where to announce a queue nobody serves yet.
#[derive(Debug, Clone)]
pub(super) struct Sleepers {
    queues: Arc<Mutex<HashMap<String, Arc<Bell>>>>,
    unknown: mpsc::Sender<String>,
    /// Wakes the keeper of gates.
    pub(super) gates: GateBell,
}

impl Sleepers {
    pub(super) fn new(unknown: mpsc::Sender<String>) -> Self {
        Self {
            queues: Arc::default(),
            unknown,
            gates: GateBell::default(),
        }
    }

    /// Returns the bell of a queue, hanging it up if need be.
    pub(super) fn bell(&self, queue: &str) -> Arc<Bell> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(queues.entry(queue.to_owned()).or_default())
    }

    /// Takes the bell of a queue down: who rings for it next announces it anew.
    pub(super) fn forget(&self, queue: &str) {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.remove(queue);
    }

    /// Wakes the claimer of a queue; with `look` its next claim looks at everything that is due.
    pub(super) fn wake(&self, queue: &str, look: bool) {
        let bell = {
            let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.get(queue).cloned()
        };
        match bell {
            Some(bell) => {
                bell.look.fetch_or(look, Ordering::AcqRel);
                bell.rung.notify_one();
            }
            // Full: the regular look for new queues finds it.
            None => drop(self.unknown.try_send(queue.to_owned())),
        }
    }

    /// Tells of jobs whose outcome is written: their gates may have room now, and their queues
    /// where those have a limit.
    pub(super) fn ended<'a>(&self, leases: impl Iterator<Item = &'a Lease> + Clone) {
        self.gates
            .freed(leases.clone().filter_map(|lease| lease.gate_key.clone()));
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        if !queues
            .values()
            .any(|bell| bell.limited.load(Ordering::Acquire))
        {
            return;
        }
        for bell in leases.filter_map(|lease| queues.get(&*lease.queue)) {
            if bell.limited.load(Ordering::Acquire) {
                bell.rung.notify_one();
            }
        }
    }

    fn wake_all(&self) {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in queues.values() {
            bell.look.store(true, Ordering::Release);
            bell.rung.notify_one();
        }
        self.gates.ring_all();
    }
}

/// Listens until told to stop; after every reconnect everybody takes a full look.
pub(super) async fn listen(
    pool: PgPool,
    sleepers: Sleepers,
    leases: Leases,
    stop: CancellationToken,
) {
    let mut wait = SHORTEST_WAIT;
    let mut was_up = false;
    while !stop.is_cancelled() {
        let mut is_up = false;
        tokio::select! {
            () = stop.cancelled() => return,
            result = listen_once(&pool, &sleepers, &leases, was_up, &mut is_up) => {
                ListenerChanged { connected: false, again: was_up || is_up }.emit();
                if let Err(error) = result {
                    tracing::warn!(error = %error, "listener lost; polling until it is back");
                }
            }
        }
        if is_up {
            (was_up, wait) = (true, SHORTEST_WAIT);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(Duration::from_secs(5)),
        }
    }
}

async fn listen_once(
    pool: &PgPool,
    sleepers: &Sleepers,
    leases: &Leases,
    was_up: bool,
    is_up: &mut bool,
) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    // A lost connection is for `listen` to replace: everybody must look after that.
    listener.eager_reconnect(false);
    listener
        .listen_all([WAKE, LOOK, CANCEL, gate::CHANNEL])
        .await?;
    ListenerChanged {
        connected: true,
        again: was_up,
    }
    .emit();
    *is_up = true;
    sleepers.wake_all();
    // `None`: the connection was lost, and notifications with it.
    while let Some(notification) = listener.try_recv().await? {
        let payload = notification.payload();
        match notification.channel() {
            WAKE => sleepers.wake(payload, false),
            LOOK => sleepers.wake(payload, true),
            gate::CHANNEL => sleepers.gates.notified(payload),
            _ => {
                if let Ok(lease) = payload.parse() {
                    leases.cancel(&[lease]);
                }
            }
        }
    }
    Ok(())
}
