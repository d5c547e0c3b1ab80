//! The queue against a model of it: random requests, and after each the tables must come to say
//! what the model says.
//!
//! The engine runs all the while. What makes its timing not matter is that a retry, a snooze and a
//! job for later are an hour away: once nothing due is left, nothing moves until the next request.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use ingestd::queue::{Done, JobError, JobId, NewJob, Running, control, dead, enqueue_raw};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, TestRunner},
};
use serde_json::json;

use crate::queue_rig::{Ctx, Outcome, PATIENCE, Rig, Setup, args, play, stop};

/// Attempts of every job.
const ATTEMPTS: i16 = 2;

/// What a job does whenever it is run.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Complete,
    Fail,
    FailOnce,
    Fatal,
    Panic,
    Snooze,
}

/// What somebody asks of the queue. Jobs are named by their place among all so far.
#[derive(Debug, Clone)]
enum Request {
    Enqueue {
        act: Act,
        key: Option<u8>,
        later: bool,
        priority: i16,
    },
    Cancel(prop::sample::Index),
    RunNow(prop::sample::Index),
    Replay(prop::sample::Index),
    Pause,
    Resume,
    /// Others give the worker up; it has to begin a new life.
    GiveUp,
    /// They do so while it runs a job, which says too late that it is done.
    GiveUpRunning,
}

fn request() -> impl Strategy<Value = Request> {
    let act = prop::sample::select(vec![
        Act::Complete,
        Act::Fail,
        Act::FailOnce,
        Act::Fatal,
        Act::Panic,
        Act::Snooze,
    ]);
    let key = prop::option::weighted(0.4, 0..3_u8);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (act, key, prop::bool::weighted(0.2), 0..4_i16).prop_map(|(act, key, later, priority)| {
            Request::Enqueue { act, key, later, priority }
        }),
        3 => index().prop_map(Request::Cancel),
        4 => index().prop_map(Request::RunNow),
        3 => index().prop_map(Request::Replay),
        1 => Just(Request::Pause),
        2 => Just(Request::Resume),
        1 => Just(Request::GiveUp),
        2 => Just(Request::GiveUpRunning),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Due,
    Later,
    Completed,
    Cancelled,
    Exhausted,
    Fatal,
}

/// One job as the model sees it.
#[derive(Debug, Clone)]
struct Known {
    id: i64,
    act: Act,
    key: Option<u8>,
    state: State,
    attempt: i16,
    n_failed: i16,
    replayed_to: Option<i64>,
}

impl Known {
    fn is_unfinished(&self) -> bool {
        matches!(self.state, State::Due | State::Later)
    }

    fn is_dead(&self) -> bool {
        matches!(self.state, State::Exhausted | State::Fatal)
    }

    /// Runs it once.
    fn run(&mut self) {
        let attempt = self.attempt + 1;
        let fails = match self.act {
            Act::Complete => false,
            Act::FailOnce => attempt == 1,
            _ => true,
        };
        if self.act == Act::Snooze {
            self.state = State::Later;
            return;
        }
        self.attempt = attempt;
        self.n_failed += i16::from(fails);
        self.state = match self.act {
            Act::Fatal => State::Fatal,
            _ if !fails => State::Completed,
            _ if attempt >= ATTEMPTS => State::Exhausted,
            _ => State::Later,
        };
    }

    fn describe(&self, into: &mut String) {
        let (id, attempt, n_failed) = (self.id, self.attempt, self.n_failed);
        let state = match self.state {
            State::Due => "due",
            State::Later => "later",
            State::Completed => "completed",
            State::Cancelled => "cancelled",
            State::Exhausted => "exhausted",
            State::Fatal => "fatal",
        };
        let to = self.replayed_to.unwrap_or(0);
        writeln!(into, "{id} {state} {attempt} {n_failed} {to}").unwrap();
    }
}

/// The same lines, from the tables. A job that runs has a state the model does not know.
const TABLES: &str = "
    SELECT coalesce(string_agg(concat_ws(' ', id, state, attempt,
             (SELECT count(*) FROM ingestd.job_attempts a WHERE a.job_id = every.id), \"to\")
             || E'\\n', '' ORDER BY id), '')
    FROM (
      SELECT id, CASE WHEN state <> 'queued' THEN state
                      WHEN run_at <= now() THEN 'due' ELSE 'later' END AS state, attempt, 0 AS \"to\"
      FROM ingestd.jobs WHERE kind = 't.model'
      UNION ALL SELECT id, state, attempt, 0 FROM ingestd.job_history WHERE kind = 't.model'
      UNION ALL SELECT id, reason, attempt, coalesce(replayed_to, 0) FROM ingestd.dead_jobs
    ) AS every";

/// The model: every job there ever was, in the order of their ids.
#[derive(Default)]
struct Model {
    jobs: Vec<Known>,
    paused: bool,
}

impl Model {
    fn key_is_taken(&self, key: Option<u8>) -> bool {
        let holds = |job: &Known| job.key == key && job.is_unfinished();
        key.is_some() && self.jobs.iter().any(holds)
    }

    fn add(&mut self, id: i64, act: Act, key: Option<u8>, state: State) {
        self.jobs.push(Known {
            id,
            act,
            key,
            state,
            attempt: 0,
            n_failed: 0,
            replayed_to: None,
        });
    }

    /// Runs what is due until nothing is.
    fn settle(&mut self) {
        if !self.paused {
            let due = self.jobs.iter_mut().filter(|job| job.state == State::Due);
            due.for_each(Known::run);
        }
    }

    fn pick(&mut self, index: prop::sample::Index) -> Option<&mut Known> {
        (!self.jobs.is_empty()).then(|| index.get_mut(&mut self.jobs))
    }

    fn describe(&self) -> String {
        let mut lines = String::new();
        self.jobs.iter().for_each(|job| job.describe(&mut lines));
        lines
    }
}

const GIVE_UP: &str =
    "UPDATE ingestd.workers SET ended_at = now(), end_reason = 'lost' WHERE ended_at IS NULL";

/// Asks the queue and the model the same, and compares what they answer.
async fn ask(rig: &Rig, model: &mut Model, request: &Request) {
    let mut conn = rig.pool().acquire().await.unwrap();
    match request.clone() {
        Request::Enqueue {
            act,
            key,
            later,
            priority,
        } => {
            let job = NewJob {
                kind: "t.model".into(),
                args: json!({ "act": format!("{act:?}") }),
                priority: Some(priority),
                unique_key: key.map(|key| key.to_string()),
                run_at: later.then(|| "2100-01-01T00:00:00Z".parse().unwrap()),
                ..NewJob::default()
            };
            let enqueued = enqueue_raw(&mut conn, &job).await.unwrap();
            assert_eq!(enqueued.inserted, !model.key_is_taken(key), "{request:?}");
            if enqueued.inserted {
                let state = if later { State::Later } else { State::Due };
                model.add(enqueued.id.unwrap().0, act, key, state);
            }
        }
        Request::Cancel(index) => {
            let Some(job) = model.pick(index) else { return };
            let became = control::cancel(&mut conn, JobId(job.id)).await.unwrap();
            let waits = job.is_unfinished();
            assert_eq!(became == control::Cancelled::Done, waits, "{job:?}");
            if waits {
                job.state = State::Cancelled;
            }
        }
        Request::RunNow(index) => {
            let Some(job) = model.pick(index) else { return };
            let found = control::run_now(&mut conn, JobId(job.id)).await.unwrap();
            assert_eq!(found, job.is_unfinished(), "{job:?}");
            if found {
                job.state = State::Due;
            }
        }
        Request::Replay(index) => {
            let Some(job) = model.pick(index).cloned() else {
                return;
            };
            let to = dead::replay(&mut conn, JobId(job.id)).await.unwrap();
            let may = job.is_dead() && job.replayed_to.is_none() && !model.key_is_taken(job.key);
            assert_eq!(to.is_some(), may, "{job:?}");
            if let Some(to) = to {
                let letter = model.jobs.iter_mut().find(|known| known.id == job.id);
                letter.unwrap().replayed_to = Some(to.0);
                model.add(to.0, job.act, job.key, State::Due);
            }
        }
        Request::Pause => {
            control::pause(&mut conn, "model").await.unwrap();
            model.paused = true;
        }
        Request::Resume => {
            let was = control::resume(&mut conn, "model").await.unwrap();
            assert_eq!(was, model.paused);
            model.paused = false;
        }
        Request::GiveUp => rig.sql(GIVE_UP).await,
        // Paused, it would not run.
        Request::GiveUpRunning if model.paused => {}
        Request::GiveUpRunning => {
            let job = NewJob {
                kind: "t.model".into(),
                args: json!({ "act": "Late" }),
                ..NewJob::default()
            };
            let enqueued = enqueue_raw(&mut conn, &job).await.unwrap();
            let id = enqueued.id.unwrap().0;
            rig.until(&format!(
                "EXISTS (SELECT FROM ingestd.jobs WHERE id = {id} AND state = 'running')"
            ))
            .await;
            rig.sql(GIVE_UP).await;
            // A crash beside the one attempt that counts.
            model.add(id, Act::Complete, None, State::Due);
            model.jobs.last_mut().unwrap().n_failed = 1;
        }
    }
}

/// Waits until the tables say what the model says.
async fn until_alike(rig: &Rig, model: &Model, after: &str) {
    let (begun, expected) = (Instant::now(), model.describe());
    loop {
        let found: String = rig.ask(TABLES).await;
        if found == expected {
            return;
        }
        let is_late = begun.elapsed() > PATIENCE;
        assert!(
            !is_late,
            "after {after}\nthe tables:\n{found}the model:\n{expected}"
        );
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

/// Says that it is done once somebody else has the job, or it was cancelled for long.
async fn until_taken(ctx: &Ctx) -> Outcome {
    let held = "SELECT EXISTS (SELECT FROM ingestd.jobs WHERE id = $1 AND lease_id = $2)
                    OR EXISTS (SELECT FROM ingestd.batch_leased WHERE job_id = $1 AND lease_id = $2)";
    loop {
        let held = sqlx::query_scalar(held)
            .bind(ctx.lease().id)
            .bind(ctx.lease().lease_id);
        if !held.fetch_one(&ctx.state().db).await? {
            return Ok(Done::new());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts an engine that leases in batches, or never does.
async fn start(rig: &Rig, in_batches: bool) -> Running {
    let model = play("t.model", |ctx| async move {
        let act = args(&ctx)["act"].as_str().unwrap().to_owned();
        match (act.as_str(), ctx.lease().attempt) {
            ("Late", _) if ctx.lease().crashes == 0 => until_taken(&ctx).await,
            ("Complete" | "Late", _) | ("FailOnce", 2..) => Ok(Done::new()),
            ("Fatal", _) => Err(JobError::fatal(anyhow::anyhow!("told to"))),
            ("Panic", _) => panic!("told to"),
            ("Snooze", _) => Err(JobError::Snooze(Duration::from_hours(1))),
            _ => Err(anyhow::anyhow!("told to").into()),
        }
    });
    let model = model.queue("model").attempts(ATTEMPTS.unsigned_abs());
    let setup = Setup::of([model.first_wait(Duration::from_hours(1))])
        .with(|queue| queue.batch_lease_from = in_batches.into());
    setup.start(rig.url()).await
}

async fn live_through(requests: &[Request], in_batches: bool) {
    let rig = Rig::new().await;
    let engine = start(&rig, in_batches).await;
    let mut model = Model::default();
    for request in requests {
        ask(&rig, &mut model, request).await;
        model.settle();
        until_alike(&rig, &model, &format!("{request:?}")).await;
    }
    stop(engine).await;
    until_alike(&rig, &model, "the end").await;
}

fn compare(cases: u32, length: usize) {
    let config = Config {
        cases,
        max_shrink_iters: 30,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/it/queue_model.seeds",
        ))),
        ..Config::default()
    };
    let requests = prop::collection::vec(request(), 1..length);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    TestRunner::new(config)
        .run(&(requests, any::<bool>()), |(requests, in_batches)| {
            runtime.block_on(live_through(&requests, in_batches));
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_tables_say_what_the_model_says() {
    compare(8, 24);
}

/// The rarest of them, in every run.
#[tokio::test]
async fn a_job_that_ends_too_late_has_one_end() {
    let enqueue = |act| Request::Enqueue {
        act,
        key: None,
        later: false,
        priority: 1,
    };
    let requests = [
        enqueue(Act::Complete),
        Request::GiveUpRunning,
        enqueue(Act::FailOnce),
        Request::GiveUpRunning,
        Request::GiveUp,
        Request::GiveUpRunning,
    ];
    for in_batches in [true, false] {
        live_through(&requests, in_batches).await;
    }
}

#[test]
#[ignore = "nightly: some minutes"]
fn nightly_the_tables_say_what_the_model_says_at_length() {
    compare(300, 80);
}
