//! The task that writes what attempts say: progress and log lines of all of them together.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::{
    Record, Records, lock,
    pad::{Line, Progress},
};
use crate::{
    db,
    observe::{LineLoss, LogLinesLost},
};

/// The longest that something said waits for being written while the database is there.
const EVERY: Duration = Duration::from_secs(1);
/// How long to wait after the database did not take it.
const PAUSE: Duration = Duration::from_secs(1);
/// How long after the stop the rest is tried to be written: the engine waits for a second more.
const LAST_TRIES: Duration = Duration::from_secs(4);
/// Most rows of one statement.
const BATCH: usize = 1000;

const NOTE_PROGRESS: &str = include_str!("note_progress.sql");
const WRITE_LINES: &str = include_str!("write_lines.sql");

/// What is on its way to the database.
#[derive(Default)]
struct Batch {
    progress: Vec<(Arc<Record>, Progress)>,
    lines: Vec<(Arc<Record>, Line)>,
    /// Whether the answer to the last try was lost, so that some may be there already.
    in_doubt: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.progress.is_empty() && self.lines.is_empty()
    }
}

impl Records {
    /// Writes what is said until `stop` fires and everything is written; gives the rest up where
    /// the database does not take it for [`LAST_TRIES`] after that.
    pub(in crate::queue) async fn write_for_ever(self, stop: CancellationToken) {
        let mut batch = Batch::default();
        let too_late = async {
            stop.cancelled().await;
            tokio::time::sleep(LAST_TRIES).await;
        };
        tokio::select! {
            () = self.write_until(&stop, &mut batch) => return,
            () = too_late => {}
        }
        self.gather(&mut batch);
        LogLinesLost {
            reason: LineLoss::Stopped,
            n: batch.lines.len(),
        }
        .emit();
    }

    /// Writes what is said, at most every second and at once when an attempt ended that said
    /// something, until `stop` fires and everything is written.
    async fn write_until(&self, stop: &CancellationToken, batch: &mut Batch) {
        loop {
            tokio::select! {
                () = self.0.said.notified() => {}
                () = stop.cancelled() => {}
            }
            tokio::select! {
                () = self.0.hurry.notified() => {}
                () = stop.cancelled() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
            self.gather(batch);
            while let Err(error) = self.write(batch).await {
                tracing::warn!(error = %error, "progress and log lines wait for the database");
                tokio::time::sleep(PAUSE).await;
            }
            if stop.is_cancelled() && self.is_idle() {
                return;
            }
        }
    }

    /// Takes what the attempts have said since the last time, in the order of their jobs.
    fn gather(&self, batch: &mut Batch) {
        let mut records = self.queued();
        records.sort_unstable_by_key(|record| record.id);
        for record in records {
            let (progress, lines, grown) = {
                let mut pad = lock(&record.pad);
                pad.take()
            };
            self.0.n_bytes.fetch_add(grown, Ordering::Relaxed);
            batch
                .progress
                .extend(progress.map(|progress| (Arc::clone(&record), progress)));
            let lines = lines.into_iter();
            batch
                .lines
                .extend(lines.map(|line| (Arc::clone(&record), line)));
        }
    }

    /// Writes a batch; what is written is taken out of it, so that it can be called again.
    ///
    /// What the database refuses for good is dropped: the rest must not wait for it for ever.
    async fn write(&self, batch: &mut Batch) -> sqlx::Result<()> {
        while !batch.is_empty() {
            let (n_notes, n_lines) = (
                batch.progress.len().min(BATCH),
                batch.lines.len().min(BATCH),
            );
            let notes = batch.progress.get(..n_notes).unwrap_or_default();
            let lines = batch.lines.get(..n_lines).unwrap_or_default();
            let in_doubt = batch.in_doubt;
            let written = self
                .0
                .db
                .run(async |conn| {
                    note_progress(conn, notes).await?;
                    write_lines(conn, lines, in_doubt).await
                })
                .await;
            match written {
                Ok(()) => {}
                Err(error) if db::is_refusal(&error) => {
                    tracing::error!(error = %error, n_notes, n_lines, "progress and log lines dropped");
                    let reason = LineLoss::Refused;
                    LogLinesLost { reason, n: n_lines }.emit();
                }
                Err(error) => {
                    batch.in_doubt = true;
                    return Err(error);
                }
            }
            batch.progress.drain(..n_notes);
            let n_bytes = batch
                .lines
                .drain(..n_lines)
                .map(|(_, l)| l.message.len())
                .sum();
            self.0.n_bytes.fetch_sub(n_bytes, Ordering::Relaxed);
        }
        batch.in_doubt = false;
        Ok(())
    }
}

async fn note_progress(
    conn: &mut PgConnection,
    notes: &[(Arc<Record>, Progress)],
) -> sqlx::Result<()> {
    if notes.is_empty() {
        return Ok(());
    }
    let of = |get: fn(&Record) -> i64| notes.iter().map(|(r, _)| get(r)).collect::<Vec<_>>();
    let attempts: Vec<i16> = notes.iter().map(|(r, _)| r.attempt).collect();
    let done: Vec<i64> = notes.iter().map(|(_, p)| p.n_done).collect();
    let total: Vec<Option<i64>> = notes.iter().map(|(_, p)| p.n_total).collect();
    let texts: Vec<Option<&str>> = notes.iter().map(|(_, p)| p.note.as_deref()).collect();
    sqlx::query(NOTE_PROGRESS)
        .bind(of(|r| r.id.0))
        .bind(of(|r| r.lease_id.0))
        .bind(attempts)
        .bind(done)
        .bind(total)
        .bind(texts)
        .execute(conn)
        .await?;
    Ok(())
}

async fn write_lines(
    conn: &mut PgConnection,
    lines: &[(Arc<Record>, Line)],
    in_doubt: bool,
) -> sqlx::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let now = Instant::now();
    let age = |line: &Line| {
        let age = now.saturating_duration_since(line.said_at).as_millis();
        i64::try_from(age).unwrap_or(0)
    };
    let of = |get: fn(&Record) -> i64| lines.iter().map(|(r, _)| get(r)).collect::<Vec<_>>();
    let numbers: Vec<i16> = lines.iter().map(|(_, l)| l.number).collect();
    let attempts: Vec<i16> = lines.iter().map(|(r, _)| r.attempt).collect();
    let levels: Vec<&str> = lines.iter().map(|(_, l)| l.level.as_str()).collect();
    let messages: Vec<&str> = lines.iter().map(|(_, l)| l.message.as_str()).collect();
    let ages: Vec<i64> = lines.iter().map(|(_, l)| age(l)).collect();
    sqlx::query(WRITE_LINES)
        .bind(of(|r| r.id.0))
        .bind(of(|r| r.lease_id.0))
        .bind(numbers)
        .bind(attempts)
        .bind(levels)
        .bind(messages)
        .bind(ages)
        .bind(in_doubt)
        .execute(conn)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        queue::{JobId, LeaseId, record::pad::LogLevel},
        testing::Database,
    };

    fn record(db: &Database) -> Arc<Record> {
        let options = (*db.pool().connect_options()).clone();
        Arc::new(Record {
            records: Records::new(options, Duration::from_mins(1)),
            id: JobId(1),
            lease_id: LeaseId(7),
            attempt: 1,
            keeps_output: false,
            steps: super::super::Steps::default(),
            pad: std::sync::Mutex::default(),
        })
    }

    #[tokio::test]
    async fn lines_that_may_be_there_already_are_there_once() {
        let db = Database::create().await;
        let record = record(&db);
        let line = |number| Line {
            number,
            level: LogLevel::Info,
            message: number.to_string(),
            said_at: Instant::now(),
        };
        let mut conn = db.pool().acquire().await.unwrap();
        for (n_lines, in_doubt) in [(2, false), (4, true), (4, true)] {
            let lines: Vec<_> = (1..=n_lines)
                .map(|n| (Arc::clone(&record), line(n)))
                .collect();
            write_lines(&mut conn, &lines, in_doubt).await.unwrap();
        }
        let said = "SELECT string_agg(message, ' ' ORDER BY line_no) FROM ingestd.job_logs";
        let said: String = sqlx::query_scalar(said).fetch_one(db.pool()).await.unwrap();
        assert_eq!(said, "1 2 3 4");
    }
}
