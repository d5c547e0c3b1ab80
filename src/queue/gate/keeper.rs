//! The task that admits: it is told of freed slots and new jobs, knows when the next token or due
//! time comes, and looks at everything that is held at the poll interval, because whatever it is
//! told is only a hint.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use sqlx::{Connection, FromRow};
use tokio_util::sync::CancellationToken;

use super::{
    admit::{Admission, BEGIN, MOST_JOBS, admit},
    bell::{GateBell, Wanted},
};
use crate::{
    db::Bounded,
    observe::GateAdmitted,
    queue::{claim::KnownKinds, wake::Sleepers},
};

const LOOK: &str = include_str!("look.sql");

/// Keys that one statement looks at or admits for.
const PAGE: usize = 100;
/// Keys of which nothing can be admitted that one look passes over before it rests; the next goes
/// on after them.
const MOST_CLOSED: usize = 2_000;
/// Keys whose next time is remembered; the rest are found by the regular look.
const MOST_TIMERS: usize = 10_000;
/// A look that took long is followed by a rest of this many times as long, so that it does not
/// become the load, but never of more than [`LONGEST_REST`] poll intervals.
const REST: u32 = 20;
const LONGEST_REST: u32 = 10;
/// How soon to try again where another daemon was at the key.
const BUSY: Duration = Duration::from_millis(20);
/// Shortest wait for a token: what comes faster is admitted by the handful.
const SHORTEST_WAIT: Duration = Duration::from_millis(5);

/// Admits held jobs for one daemon. Any number of daemons do, each for all.
pub(in crate::queue) struct Keeper {
    pub(in crate::queue) db: Bounded,
    pub(in crate::queue) kinds: Arc<KnownKinds>,
    pub(in crate::queue) sleepers: Sleepers,
    pub(in crate::queue) stop: CancellationToken,
    pub(in crate::queue) poll_interval: Duration,
    pub(in crate::queue) trailing_poll: Duration,
}

/// What the keeper knows between two rounds.
struct Agenda {
    /// When to look at a key again.
    timers: HashMap<String, Instant>,
    /// When to look at everything again.
    next_look: Instant,
    /// The key after which the next look begins.
    cursor: String,
}

#[derive(FromRow)]
struct Held {
    key: String,
    is_open: bool,
    due_ms: Option<i64>,
}

impl Keeper {
    /// Keeps the gates until told to stop. Stopped in the middle, what was not committed is left to
    /// the other daemons or the next start.
    pub(in crate::queue) async fn run(self) {
        let mut agenda = Agenda {
            timers: HashMap::new(),
            next_look: Instant::now(),
            cursor: String::new(),
        };
        let stop = self.stop.clone();
        let keep = async {
            loop {
                if let Err(error) = self.round(&mut agenda).await {
                    tracing::warn!(error = %error, "gates wait for the database");
                    agenda.next_look = Instant::now() + self.poll_interval;
                    agenda.cursor.clear();
                }
                let nap = agenda.nap(Instant::now());
                tokio::select! {
                    () = self.bell().rung() => {}
                    () = tokio::time::sleep(nap) => {}
                }
            }
        };
        let _: Option<()> = stop.run_until_cancelled(keep).await;
    }

    fn bell(&self) -> &GateBell {
        &self.sleepers.gates
    }

    /// Looks at what it was told of, at what is due, and at everything where it is time.
    async fn round(&self, agenda: &mut Agenda) -> sqlx::Result<()> {
        let Wanted { mut keys, all } = self.bell().take();
        for key in agenda.due(Instant::now()) {
            keys.entry(key).or_default();
        }
        let (names, again): (Vec<String>, Vec<bool>) = keys.into_iter().unzip();
        for (page, again) in names.chunks(PAGE).zip(again.chunks(PAGE)) {
            let again = page.iter().zip(again).filter(|(_, again)| **again);
            let again: HashSet<&str> = again.map(|(key, _)| key.as_str()).collect();
            self.admit(page, &again, agenda).await?;
        }
        if all || agenda.next_look <= Instant::now() {
            let began = Instant::now();
            self.look(agenda).await?;
            let longest = self.poll_interval * LONGEST_REST;
            let rest = (began.elapsed() * REST).clamp(self.poll_interval, longest);
            agenda.next_look = Instant::now() + rest;
        }
        Ok(())
    }

    /// Looks at everything that is held, page by page, as long as there is something to admit and
    /// not too many keys have no room.
    async fn look(&self, agenda: &mut Agenda) -> sqlx::Result<()> {
        let mut n_closed = 0;
        loop {
            let look = sqlx::query_as(LOOK)
                .bind(&agenda.cursor)
                .bind(i64::try_from(PAGE).unwrap_or(i64::MAX));
            let page: Vec<Held> = self.db.run(async |conn| look.fetch_all(conn).await).await?;
            let open: Vec<String> = page
                .iter()
                .filter(|held| held.is_open)
                .map(|held| held.key.clone())
                .collect();
            let n_served = self.admit(&open, &HashSet::new(), agenda).await?;
            let now = Instant::now();
            for held in &page {
                let wait = held.due_ms.and_then(|ms| u64::try_from(ms).ok());
                if let Some(wait) = wait.filter(|ms| *ms > 0 && !held.is_open) {
                    agenda.remind(&held.key, now + Duration::from_millis(wait));
                }
            }
            n_closed += page.len() - n_served;
            let last = page.last().filter(|_| page.len() == PAGE);
            agenda.cursor = last.map(|held| held.key.clone()).unwrap_or_default();
            if agenda.cursor.is_empty() || n_closed >= MOST_CLOSED {
                return Ok(());
            }
        }
    }

    /// Admits for one page of keys and notes when to look at each again; returns of how many it
    /// admitted something.
    async fn admit(
        &self,
        keys: &[String],
        again: &HashSet<&str>,
        agenda: &mut Agenda,
    ) -> sqlx::Result<usize> {
        if keys.is_empty() {
            return Ok(0);
        }
        let kinds = &self.kinds.names;
        let found = self
            .db
            .run(async |conn| {
                let mut tx = conn.begin_with(BEGIN).await?;
                let found = admit(&mut tx, kinds, keys, MOST_JOBS, false).await?;
                tx.commit().await?;
                Ok(found)
            })
            .await?;
        let now = Instant::now();
        let mut queues = HashSet::new();
        for (key, admission) in &found {
            let wait = self.wait(admission, again.contains(key.as_str()));
            if let Some(wait) = wait {
                agenda.remind(key, now + wait);
            }
            queues.extend(admission.admitted.iter().map(|(queue, _)| queue.as_str()));
            GateAdmitted {
                gate: admission.pattern.as_deref(),
                admitted: &admission.admitted,
            }
            .emit();
        }
        for queue in queues {
            self.sleepers.wake(queue, true);
        }
        let served = found.values().filter(|found| !found.admitted.is_empty());
        Ok(served.count())
    }

    /// Returns how soon to look at a key again of which nothing may be heard.
    fn wait(&self, admission: &Admission, again: bool) -> Option<Duration> {
        if admission.has_more {
            return Some(Duration::ZERO);
        }
        if admission.is_busy {
            return Some(BUSY);
        }
        let token = admission.next_token.map(|wait| wait.max(SHORTEST_WAIT));
        token.or((again && admission.has_room).then_some(self.trailing_poll))
    }
}

impl Agenda {
    /// Takes out the keys whose time has come.
    fn due(&mut self, now: Instant) -> Vec<String> {
        let due = self.timers.extract_if(|_, at| *at <= now);
        due.map(|(key, _)| key).collect()
    }

    /// Notes when to look at a key again, unless that is noted for an earlier time.
    fn remind(&mut self, key: &str, at: Instant) {
        if let Some(known) = self.timers.get_mut(key) {
            *known = at.min(*known);
        } else if self.timers.len() < MOST_TIMERS {
            self.timers.insert(key.to_owned(), at);
        }
    }

    fn nap(&self, now: Instant) -> Duration {
        let next = self.timers.values().copied().chain([self.next_look]).min();
        next.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}
