//! Why a job does not run: facts from the database, and what follows from them.
//!
//! [`explain`] reads, [`reasons`] judges; the latter is pure.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection};

use super::{
    job::JobId,
    read::{self, JobDetail, JobState},
};

/// Why a job does not run, or what it does instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// At least one, the most decisive first. Where one goes away, the next is in the way.
    pub reasons: Vec<Reason>,
}

/// One thing that keeps a job from running.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// For programs.
    pub code: Code,
    /// A sentence for people.
    pub text: String,
    /// What to do about it, where anything can be done.
    pub advice: Option<String>,
}

/// What keeps a job from running. The words never change once released.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// It ended well.
    Completed,
    /// Somebody stopped it.
    Cancelled,
    /// It was given up.
    Dead,
    /// It does run.
    Running,
    /// Its worker fell silent, or it is past its deadline; it will be rescued.
    Lost,
    /// Somebody wants it to stop.
    CancelRequested,
    /// Its last attempt failed, and the next is later.
    Retrying,
    /// It is for later.
    Scheduled,
    /// Its queue is paused.
    QueuePaused,
    /// Its gate is paused.
    GatePaused,
    /// As many jobs of its gate run as may.
    GateFull,
    /// The rate of its gate is used up for now.
    GateRate,
    /// Its gate admits it in its turn.
    GateTurn,
    /// It was there when workers died, and waits to run without others of the kind.
    Suspect,
    /// As many jobs of its queue run as may across all daemons.
    QueueFull,
    /// No daemon is alive.
    NoWorker,
    /// No live daemon knows its kind.
    KindUnknown,
    /// No live daemon serves its queue, or, of older versions, named it when it started.
    QueueUnnamed,
    /// Others are before it.
    Behind,
    /// All slots of its queue are taken; of older daemons: perhaps they are.
    Busy,
    /// Nothing: it is due now.
    Due,
}

/// Most jobs that are counted; one more stands for *more than*.
const MOST_COUNTED: i64 = 1_001;

/// A worker without a heartbeat for this long is not counted on.
const SILENT: TimeDelta = TimeDelta::seconds(30);

/// A job that has been due for this long should have been taken.
const PROMPT: TimeDelta = TimeDelta::seconds(10);

/// What is known of an unfinished job and of what decides about it.
#[derive(Debug, Clone, FromRow)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact by itself, as the database tells it"
)]
struct Facts {
    now: DateTime<Utc>,
    state: JobState,
    kind: String,
    queue: String,
    attempt: i16,
    max_attempts: Option<i16>,
    crashes: i16,
    run_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    cancel_requested: bool,
    gate_key: Option<String>,
    last_error: Option<String>,
    worker_id: Option<i64>,
    worker_host: Option<String>,
    worker_pid: Option<i32>,
    worker_heartbeat_at: Option<DateTime<Utc>>,
    worker_ended: bool,
    queue_paused_at: Option<DateTime<Utc>>,
    queue_max_running: Option<i32>,
    n_running: i64,
    n_workers: i64,
    n_workers_of_queue: i64,
    /// Every live worker told what it serves; then these are no guess.
    is_told: bool,
    n_slots: i64,
    n_taken: i64,
    told_at: Option<DateTime<Utc>>,
    is_kind_known: bool,
    is_suspect_out: bool,
    n_ahead: i64,
}

impl Facts {
    /// Says whether all slots of the job's queue were taken when the workers last told.
    fn is_full(&self) -> bool {
        self.is_told && self.n_slots > 0 && self.n_taken >= self.n_slots
    }
}

/// What is known of a job's gate.
#[derive(Debug, Clone, FromRow)]
struct Gate {
    /// Null where nobody set limits: one at a time.
    pattern: Option<String>,
    max_running: Option<i32>,
    rate_per_sec: Option<f64>,
    paused: bool,
    n_used: i64,
    tokens: Option<f64>,
}

/// Explains why a job does not run; `None` where there is no such job, or no longer.
///
/// # Errors
///
/// What Postgres says.
pub async fn explain(conn: &mut PgConnection, id: JobId) -> sqlx::Result<Option<Why>> {
    let facts: Option<Facts> = sqlx::query_as(include_str!("why.sql"))
        .bind(id)
        .bind(MOST_COUNTED)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(facts) = facts else {
        let job = read::find(conn, id).await?;
        return Ok(job.map(|job| ended(&job)));
    };
    let gate = match &facts.gate_key {
        Some(key) if facts.state == JobState::Held => {
            sqlx::query_as(include_str!("why_gate.sql"))
                .bind(key)
                .bind(MOST_COUNTED)
                .fetch_optional(conn)
                .await?
        }
        _ => None,
    };
    Ok(Some(Why {
        id,
        state: facts.state,
        reasons: reasons(id, &facts, gate.as_ref()),
    }))
}

/// Explains a job that has ended, or that was live a moment ago.
fn ended(job: &JobDetail) -> Why {
    let id = job.row.id;
    let at = job.row.finished_at.map(clock).unwrap_or_default();
    let reason = match job.row.state {
        JobState::Completed => say(Code::Completed, format!("It completed at {at}.")),
        JobState::Cancelled => say(Code::Cancelled, format!("It was cancelled at {at}.")),
        JobState::Dead => {
            let word = job.reason.as_deref().unwrap_or("dead");
            let error = first_line(job.row.error.as_deref());
            let reason = say(
                Code::Dead,
                format!("It was given up at {at} ({word}): {error}"),
            );
            match job.replayed_to {
                Some(new) => reason.advise(format!(
                    "it was replayed as job {new}: ingestd jobs why {new}"
                )),
                None => reason.advise(format!("try it again: ingestd dead retry {id}")),
            }
        }
        _ => say(
            Code::Due,
            "It has changed a moment ago; ask again.".to_owned(),
        ),
    };
    Why {
        id,
        state: job.row.state,
        reasons: vec![reason],
    }
}

/// Judges the facts of an unfinished job: what keeps it from running, the most decisive first.
fn reasons(id: JobId, facts: &Facts, gate: Option<&Gate>) -> Vec<Reason> {
    if facts.state == JobState::Running {
        return running(id, facts);
    }
    let mut found: Vec<Reason> = [
        later(id, facts),
        queue_paused(facts),
        gate.and_then(|gate| at_gate(facts, gate)),
        suspect(facts),
        queue_full(facts),
        no_worker(facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    if found.is_empty() {
        found.push(in_line(facts));
    }
    found
}

fn running(id: JobId, facts: &Facts) -> Vec<Reason> {
    let since = facts
        .started_at
        .map_or_else(String::new, |at| format!(" for {}", ago(facts, at)));
    let worker = facts.worker_id.unwrap_or_default();
    let place = match (&facts.worker_host, facts.worker_pid) {
        (Some(host), Some(pid)) => format!(" ({host}, pid {pid})"),
        _ => String::new(),
    };
    let beat = facts.worker_heartbeat_at;
    let heard = beat.map_or_else(String::new, |at| {
        format!(", last heard of {} ago", ago(facts, at))
    });
    let is_silent = facts.worker_ended || beat.is_none_or(|at| facts.now - at > SILENT);
    let is_late = facts.deadline_at.is_some_and(|at| at < facts.now);
    let text = format!("It runs{since}, by worker {worker}{place}{heard}.");
    let mut found =
        vec![say(Code::Running, text).advise(format!("stop it: ingestd jobs cancel {id}"))];
    let lost = |text: &str| {
        say(Code::Lost, text.to_owned())
            .advise("nothing: any live daemon takes it back within seconds; see that one runs")
    };
    if is_silent {
        found.insert(
            0,
            lost("Its worker fell silent or ended; the attempt is lost."),
        );
    } else if is_late {
        found.insert(
            0,
            lost("It is past its deadline, and its worker did not stop it."),
        );
    }
    if facts.cancel_requested {
        found.push(say(
            Code::CancelRequested,
            "Somebody cancelled it; its handler was told to stop.".to_owned(),
        ));
    }
    found
}

fn later(id: JobId, facts: &Facts) -> Option<Reason> {
    if facts.run_at <= facts.now {
        return None;
    }
    let (when, wait) = (clock(facts.run_at), span(facts.run_at - facts.now));
    let now = format!("run it now: ingestd jobs retry {id}");
    if facts.attempt == 0 && facts.crashes == 0 {
        let text = format!("It is scheduled for {when}, in {wait}.");
        return Some(say(Code::Scheduled, text).advise(now));
    }
    let of = facts
        .max_attempts
        .map_or_else(String::new, |n| format!(" of {n}"));
    let text = format!(
        "Attempt {}{of} failed; the next is due at {when}, in {wait}. It said: {}",
        facts.attempt,
        first_line(facts.last_error.as_deref())
    );
    Some(say(Code::Retrying, text).advise(now))
}

fn queue_paused(facts: &Facts) -> Option<Reason> {
    let queue = &facts.queue;
    let at = facts.queue_paused_at?;
    let text = format!("Queue {queue} has been paused for {}.", ago(facts, at));
    Some(
        say(Code::QueuePaused, text).advise(format!("let it go on: ingestd queues resume {queue}")),
    )
}

fn at_gate(facts: &Facts, gate: &Gate) -> Option<Reason> {
    let key = facts.gate_key.as_deref()?;
    let of = gate.pattern.as_deref().unwrap_or(key);
    let used = gate.n_used;
    if gate.paused {
        let text = format!("Gate {key} is paused.");
        return Some(
            say(Code::GatePaused, text)
                .advise(format!("let it go on: ingestd gates resume '{of}'")),
        );
    }
    if gate.max_running.is_some_and(|max| used >= i64::from(max)) {
        let max = gate.max_running.unwrap_or_default();
        let text = format!("Gate {key} is full: {used} of {max} at once.");
        return Some(say(Code::GateFull, text).advise(format!(
            "change its limits: ingestd gates set '{of}' --max-running N --rate R"
        )));
    }
    if let (Some(rate), Some(tokens)) = (gate.rate_per_sec, gate.tokens)
        && tokens < 1.0
    {
        let text = format!("Gate {key} lets {rate} jobs a second start, and those are used up.");
        return Some(say(Code::GateRate, text).advise(format!(
            "change its limits: ingestd gates set '{of}' --max-running N --rate R"
        )));
    }
    (facts.run_at <= facts.now && facts.crashes < 2).then(|| {
        say(
            Code::GateTurn,
            format!("Gate {key} lets it through in its turn."),
        )
    })
}

fn suspect(facts: &Facts) -> Option<Reason> {
    if facts.state != JobState::Held || facts.crashes < 2 {
        return None;
    }
    let others = if facts.is_suspect_out {
        "another such job is out now"
    } else {
        "it is next"
    };
    let text = format!(
        "It was there when {} workers died, so it runs when no other suspect does; {others}.",
        facts.crashes
    );
    Some(say(Code::Suspect, text))
}

fn queue_full(facts: &Facts) -> Option<Reason> {
    let (max, queue) = (facts.queue_max_running?, &facts.queue);
    (facts.n_running >= i64::from(max)).then(|| {
        let text = format!("Queue {queue} is at its limit: {max} running across all daemons.");
        say(Code::QueueFull, text)
    })
}

fn no_worker(facts: &Facts) -> Option<Reason> {
    let Facts { kind, queue, .. } = facts;
    if facts.n_workers == 0 {
        let text = "No daemon has been heard of for 30 s.".to_owned();
        return Some(say(Code::NoWorker, text).advise("start one: ingestd run"));
    }
    if !facts.is_kind_known {
        let text =
            format!("No live daemon knows kind {kind}: none that started since registered it.");
        return Some(
            say(Code::KindUnknown, text).advise("start a daemon of a version that knows it"),
        );
    }
    // Daemons find queues by themselves, so it is only worth a word where none has.
    let is_overdue = facts.now - facts.run_at > PROMPT;
    (facts.n_workers_of_queue == 0 && facts.n_running == 0 && is_overdue).then(|| {
        let text = if facts.is_told {
            format!("No live daemon serves queue {queue} yet.")
        } else {
            format!("No live daemon named queue {queue} when it started, and none serves it yet.")
        };
        say(Code::QueueUnnamed, text)
            .advise("daemons find queues within seconds, 256 at most; name it under [queues]")
    })
}

fn in_line(facts: &Facts) -> Reason {
    let Facts {
        queue,
        n_ahead,
        n_running,
        ..
    } = facts;
    let more = |n: i64| {
        if n >= MOST_COUNTED {
            format!("more than {}", MOST_COUNTED - 1)
        } else {
            n.to_string()
        }
    };
    if *n_ahead > 0 {
        let text = format!(
            "{} due jobs of queue {queue} are before it.",
            more(*n_ahead)
        );
        return say(Code::Behind, text).advise("more slots under [queues], or more daemons");
    }
    let is_guessed = !facts.is_told && *n_running > 0 && facts.now - facts.run_at > PROMPT;
    if facts.is_full() || is_guessed {
        let text = if facts.is_told {
            let age = facts.told_at.map(|at| ago(facts, at)).unwrap_or_default();
            let n_slots = facts.n_slots;
            format!("It is next; {age} ago all {n_slots} slots of queue {queue} were taken.")
        } else {
            let n = more(*n_running);
            format!("It is next; {n} jobs of queue {queue} run, perhaps in all slots.")
        };
        return say(Code::Busy, text).advise("more slots under [queues], or more daemons");
    }
    say(
        Code::Due,
        "Nothing is in its way: it is due now and will be taken up.".to_owned(),
    )
}

fn say(code: Code, text: String) -> Reason {
    Reason {
        code,
        text,
        advice: None,
    }
}

impl Reason {
    fn advise(self, advice: impl Into<String>) -> Self {
        Self {
            advice: Some(advice.into()),
            ..self
        }
    }
}

fn first_line(text: Option<&str>) -> &str {
    text.and_then(|text| text.lines().next())
        .unwrap_or("nothing")
}

fn clock(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%d %H:%M:%S UTC").to_string()
}

fn ago(facts: &Facts, at: DateTime<Utc>) -> String {
    span(facts.now - at)
}

/// Says a time span in whole seconds, rounded up; one that the clock made negative is none.
fn span(delta: TimeDelta) -> String {
    let secs = u64::try_from((delta.num_milliseconds() + 999) / 1000).unwrap_or(0);
    humantime::format_duration(Duration::from_secs(secs)).to_string()
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
