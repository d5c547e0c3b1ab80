//! A worker's life: its row, its heartbeat, and how long its leases may be trusted.
//!
//! The heartbeat has a thread, a runtime and a connection of its own, so that
//! busy handlers and an exhausted pool cannot stop it; batches of leases are
//! settled there, too. A worker that could not write its heartbeat within the
//! trust window stops its own work before others may take it, and begins a new
//! life under a new id when the database is back.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use serde_json::Value;
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{batch::Settler, lease::Leases, served::Served, skew::Skew};

/// One life of a worker.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) worker_id: i64,
    /// Fires when the leases of this life may no longer be trusted.
    pub(super) cancel: CancellationToken,
}

/// The worker's present life, as it changes; `None` while there is none.
pub(super) type Sessions = watch::Receiver<Option<Arc<Session>>>;

/// What the heartbeat thread needs to know.
#[derive(Debug, Clone)]
pub(super) struct Heart {
    pub(super) options: PgConnectOptions,
    pub(super) interval: Duration,
    /// How long after the last heartbeat the leases may be trusted.
    pub(super) trust_window: Duration,
    pub(super) queues: Vec<String>,
    pub(super) leases: Leases,
    pub(super) served: Served,
    /// Parent of every session's token.
    pub(super) hard_stop: CancellationToken,
    /// Fires when everything is finished or handed back: the heart may stop.
    pub(super) finished: CancellationToken,
}

impl Heart {
    /// Starts the thread; sessions come and go through the returned channel.
    ///
    /// # Errors
    ///
    /// The operating system has no thread left.
    pub(super) fn start(self) -> std::io::Result<(Sessions, std::thread::JoinHandle<()>)> {
        let (sender, receiver) = watch::channel(None);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let settler = Settler {
            options: self.options.clone(),
            limit: self.trust_window,
            leases: self.leases.clone(),
            session: receiver.clone(),
            finished: self.finished.clone(),
        };
        let live = async move {
            tokio::join!(self.beat_for_ever(&sender), settler.run());
        };
        let thread = std::thread::Builder::new()
            .name("heartbeat".into())
            .spawn(move || runtime.block_on(live))?;
        Ok((receiver, thread))
    }

    async fn beat_for_ever(self, sessions: &watch::Sender<Option<Arc<Session>>>) {
        while !self.finished.is_cancelled() {
            if let Err(error) = self.live(sessions).await {
                tracing::warn!(error = %error, "heartbeat: cannot reach the database");
            }
            sessions.send_replace(None);
            tokio::select! {
                () = self.finished.cancelled() => {}
                () = tokio::time::sleep(self.interval.min(Duration::from_secs(1))) => {}
            }
        }
    }

    /// Lives one life: registers, beats, and ends it when trust runs out or work is finished.
    async fn live(&self, sessions: &watch::Sender<Option<Arc<Session>>>) -> sqlx::Result<()> {
        let mut conn = self.connect().await?;
        let begin = async {
            give_up_dead_neighbours(&mut conn).await?;
            register(&mut conn, &self.queues).await
        };
        let worker_id = self.in_time(begin).await?;
        let cancel = self.hard_stop.child_token();
        let session = Arc::new(Session {
            worker_id,
            cancel: cancel.clone(),
        });
        sessions.send_replace(Some(session));
        tracing::info!(worker = worker_id, "worker registered");
        let ended = self.beat_while_trusted(&mut conn, worker_id).await;
        cancel.cancel();
        if self.finished.is_cancelled() {
            let end = sqlx::query(
                "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'stopped'
                 WHERE id = $1 AND ended_at IS NULL",
            );
            self.in_time(end.bind(worker_id).execute(&mut conn)).await?;
        } else {
            tracing::error!(
                worker = worker_id,
                "heartbeat lost; its jobs are left to others"
            );
        }
        ended
    }

    /// Beats until finished (`Ok`), or until the worker is given up or out of trust.
    async fn beat_while_trusted(&self, conn: &mut PgConnection, id: i64) -> sqlx::Result<()> {
        let mut trusted_until = Instant::now() + self.trust_window;
        let mut wait = self.interval;
        let mut skew = Skew::default();
        loop {
            tokio::select! {
                () = self.finished.cancelled() => return Ok(()),
                () = tokio::time::sleep(wait) => {}
            }
            let sent = Instant::now();
            let left = trusted_until.saturating_duration_since(sent);
            let (running, slots) = (self.leases.running(), self.served.told());
            let beat = beat(conn, id, &running, &slots);
            match tokio::time::timeout(self.interval.min(left), beat).await {
                Ok(Ok(Some((to_stop, their_time)))) => {
                    skew.look(their_time, sent.elapsed());
                    trusted_until = sent + self.trust_window;
                    wait = self.interval;
                    self.leases.cancel(&to_stop);
                }
                Ok(Ok(None)) => return Err(sqlx::Error::RowNotFound), // given up by others
                failed => {
                    if Instant::now() >= trusted_until {
                        return failed.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|_| ());
                    }
                    wait = Duration::from_millis(250).min(self.interval);
                    let left = trusted_until.saturating_duration_since(Instant::now());
                    if let Ok(Ok(fresh)) = tokio::time::timeout(left, self.connect()).await {
                        *conn = fresh;
                    }
                }
            }
        }
    }

    async fn connect(&self) -> sqlx::Result<PgConnection> {
        tokio::time::timeout(self.interval, PgConnection::connect_with(&self.options))
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    /// Waits for an answer for as long as leases would be trusted without one.
    async fn in_time<T>(&self, answer: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        tokio::time::timeout(self.trust_window, answer)
            .await
            .unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

async fn register(conn: &mut PgConnection, queues: &[String]) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "INSERT INTO ingestd.workers (host, place, pid, version, queues, knows_batches)
         VALUES ($1, $2, $3, $4, $5, true) RETURNING id",
    )
    .bind(host())
    .bind(place())
    .bind(i32::try_from(std::process::id()).unwrap_or(0))
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(queues)
    .fetch_one(conn)
    .await
}

/// Ends the lives of workers that ran beside this process and whose process is gone.
///
/// After a crash and a restart their jobs are rescued at once, instead of when
/// the heartbeat has been silent long enough. A pid that somebody else has by
/// now tells nothing; then the heartbeat decides.
async fn give_up_dead_neighbours(conn: &mut PgConnection) -> sqlx::Result<()> {
    let Some(place) = place() else { return Ok(()) };
    let neighbours: Vec<(i64, i32)> =
        sqlx::query_as("SELECT id, pid FROM ingestd.workers WHERE place = $1 AND ended_at IS NULL")
            .bind(&place)
            .fetch_all(&mut *conn)
            .await?;
    let is_gone = |pid: i32| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH);
    let gone: Vec<i64> = neighbours
        .into_iter()
        .filter(|(_, pid)| is_gone(*pid))
        .map(|(id, _)| id)
        .collect();
    if !gone.is_empty() {
        sqlx::query(
            "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'lost'
             WHERE id = ANY ($1) AND ended_at IS NULL",
        )
        .bind(&gone)
        .execute(conn)
        .await?;
        tracing::warn!(workers = ?gone, "workers lost: their processes are gone");
    }
    Ok(())
}

/// Returns what tells this machine and process namespace from all others, if the system says.
fn place() -> Option<String> {
    let machine = std::fs::read_to_string("/etc/machine-id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!(
        "{} {} {}",
        host(),
        machine.trim(),
        namespace.display()
    ))
}

/// Beats once, and tells what slots there are; returns which of the `running` leases somebody
/// cancelled or took away, and the database's time, or `None` when the worker was given up.
pub(super) async fn beat(
    conn: &mut PgConnection,
    id: i64,
    running: &[i64],
    slots: &Value,
) -> sqlx::Result<Option<(Vec<i64>, DateTime<Utc>)>> {
    sqlx::query_as(
        "UPDATE ingestd.workers w SET heartbeat_at = clock_timestamp(), beat = beat + 1, slots = $3
         WHERE w.id = $1 AND w.ended_at IS NULL
         RETURNING ARRAY(SELECT unnest($2::bigint[]) EXCEPT (
                         SELECT j.lease_id FROM ingestd.jobs j
                         WHERE j.shard = 0 AND j.worker_id = w.id AND j.state = 'running'
                           AND NOT j.cancel_requested
                         UNION ALL
                         SELECT l.lease_id FROM ingestd.batch_leased l
                         WHERE l.worker_id = w.id)), w.heartbeat_at",
    )
    .bind(id)
    .bind(running)
    .bind(slots)
    .fetch_optional(conn)
    .await
}

fn host() -> String {
    nix::unistd::gethostname()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "unknown".to_owned())
}
