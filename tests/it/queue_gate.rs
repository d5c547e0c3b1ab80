//! Gates: how many jobs of a key run at once and how fast they start, whoever runs them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ingestd::{
    config,
    queue::{
        Done, JobError, JobId, control,
        gate::define::{self, Limits},
    },
};
use sqlx::Row;
use tokio::sync::Semaphore;

use crate::queue_rig::{Play, Rig, Setup, args, counter, done, play, stop, until_true};

/// How often a test looks at the rows while jobs run.
const LOOKS: usize = 200;

/// A kind whose jobs wait for a permit, and how many have started.
fn waiting(name: &'static str) -> (Play, Arc<Semaphore>, Arc<AtomicUsize>) {
    let (permits, n_started) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicUsize::new(0)));
    let (waits, started) = (Arc::clone(&permits), Arc::clone(&n_started));
    let play = play(name, move |_| {
        started.fetch_add(1, Ordering::SeqCst);
        let permits = Arc::clone(&waits);
        async move {
            permits.acquire().await?.forget();
            Ok(Done::new())
        }
    });
    (play, permits, n_started)
}

/// How many jobs of a key are inside their handlers, and the most that ever were.
#[derive(Default)]
struct Census(Mutex<HashMap<String, (usize, usize)>>);

impl Census {
    fn enter(&self, key: &str) {
        let mut keys = self.0.lock().unwrap();
        let (now, most) = keys.entry(key.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
    }

    fn leave(&self, key: &str) {
        self.0.lock().unwrap().get_mut(key).unwrap().0 -= 1;
    }

    fn most(&self, key: &str) -> usize {
        self.0.lock().unwrap().get(key).map_or(0, |(_, most)| *most)
    }
}

/// A kind whose jobs are counted under the key in their arguments.
fn counted(name: &'static str, census: &Arc<Census>) -> Play {
    let census = Arc::clone(census);
    play(name, move |ctx| {
        let census = Arc::clone(&census);
        async move {
            let key = args(&ctx)["key"].as_str().unwrap().to_owned();
            census.enter(&key);
            // Long enough that another of the key would be met here, were it let in.
            tokio::time::sleep(Duration::from_millis(3)).await;
            census.leave(&key);
            Ok(Done::new())
        }
    })
}

async fn set(rig: &Rig, pattern: &str, limits: Limits) {
    let mut conn = rig.pool().acquire().await.unwrap();
    define::set(&mut conn, pattern, &limits).await.unwrap();
}

fn running(n: i32) -> Limits {
    Limits {
        max_running: Some(n),
        ..Limits::default()
    }
}

fn rate(per_sec: f64, burst: i32) -> Limits {
    Limits {
        rate_per_sec: Some(per_sec),
        burst: Some(burst),
        ..Limits::default()
    }
}

/// Inserts `n` jobs of a kind under a key.
async fn insert(rig: &Rig, kind: &str, key: &str, n: i64, more: &str) {
    rig.sql(&format!(
        "INSERT INTO ingestd.jobs (kind, gate_key, args, priority)
         SELECT '{kind}', '{key}', jsonb_build_object('key', '{key}', 'n', n), {more}
         FROM generate_series(1, {n}) n"
    ))
    .await;
}

async fn register(rig: &Rig, plays: &[Play]) {
    stop(rig.play(plays).await).await;
}

#[tokio::test]
async fn no_more_than_the_limit_run_whoever_runs_them() {
    let rig = Rig::new().await;
    set(&rig, "host:*", running(3)).await;
    set(&rig, "host:slow", running(2)).await;
    let census = Arc::new(Census::default());
    let plays = [counted("t.counted", &census)];
    register(&rig, &plays).await;
    for key in ["host:a", "host:b", "host:slow", "lone"] {
        insert(&rig, "t.counted", key, 15, "n % 4").await;
    }
    let engines = [rig.play(plays.clone()).await, rig.play(plays).await];
    let over = "SELECT coalesce(string_agg(gate_key || ' ' || n, ', '), '') FROM (
              SELECT gate_key, count(*) n FROM ingestd.jobs WHERE state <> 'held' GROUP BY 1) k
            WHERE n > CASE gate_key WHEN 'lone' THEN 1 WHEN 'host:slow' THEN 2 ELSE 3 END";
    for _ in 0..LOOKS {
        assert_eq!(rig.ask::<String>(over).await, "");
    }
    rig.until_idle().await;
    for (key, most) in [("host:a", 3), ("host:b", 3), ("host:slow", 2), ("lone", 1)] {
        assert!((1..=most).contains(&census.most(key)), "{key}");
    }
    let n_done = "SELECT count(*) FROM ingestd.job_history WHERE state = 'completed'";
    assert_eq!(rig.ask::<i64>(n_done).await, 60);
    for engine in engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn all_slots_are_used_and_a_full_gate_holds_up_nobody_else() {
    let rig = Rig::new().await;
    set(&rig, "host:*", running(2)).await;
    let (waits, permits, n_started) = waiting("t.waits");
    let engine = rig.play([waits, done("t.other")]).await;
    insert(&rig, "t.waits", "host:a", 50, "0").await;
    until_true("both slots are taken", || {
        n_started.load(Ordering::SeqCst) == 2
    })
    .await;
    // Of lower priority, later, and past them all.
    insert(&rig, "t.other", "host:b", 5, "3").await;
    rig.sql("INSERT INTO ingestd.jobs (kind, priority) VALUES ('t.other', 3)")
        .await;
    rig.until("(SELECT count(*) = 6 FROM ingestd.job_history)")
        .await;
    assert_eq!(n_started.load(Ordering::SeqCst), 2);
    permits.add_permits(50);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn nothing_leaks_when_a_worker_dies_holding_slots() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.after")]).await;
    let worker: i64 = rig
        .ask(
            "INSERT INTO ingestd.workers (host, pid, version, queues, heartbeat_at)
             VALUES ('elsewhere', 1, '0', '{}', now() + interval '1 d') RETURNING id",
        )
        .await;
    rig.sql(&format!(
        "INSERT INTO ingestd.jobs (kind, gate_key, state, attempt, worker_id, lease_id, deadline_at)
         VALUES ('t.after', 'k', 'running', 1, {worker}, nextval('ingestd.lease_seq'), 'infinity')"
    ))
    .await;
    insert(&rig, "t.after", "k", 2, "1").await;
    let engine = rig.play([done("t.after"), done("t.bait")]).await;
    // The engine has looked at the gate and found it full.
    rig.sql("INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('t.bait', 'z')")
        .await;
    rig.until("EXISTS (SELECT FROM ingestd.job_history WHERE kind = 't.bait')")
        .await;
    let held = "SELECT count(*) FROM ingestd.jobs WHERE state = 'held'";
    assert_eq!(rig.ask::<i64>(held).await, 2);
    rig.sql(
        "UPDATE ingestd.workers SET heartbeat_at = now() - interval '1 h' WHERE host = 'elsewhere'",
    )
    .await;
    rig.until("(SELECT count(*) = 4 FROM ingestd.job_history)")
        .await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_gated_job_taken_back_is_held_and_keeps_its_turn() {
    let rig = Rig::new().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let moody = play("t.moody", move |ctx| {
        let (n, attempt) = (args(&ctx)["n"].as_i64().unwrap(), ctx.lease().attempt);
        noted.lock().unwrap().push((n, attempt));
        async move {
            match (n, attempt) {
                (1, 1) => Err(JobError::Retry {
                    error: anyhow::anyhow!("once more"),
                    after: Some(Duration::ZERO),
                }),
                _ => Ok(Done::new()),
            }
        }
    });
    register(&rig, &[done("t.moody")]).await;
    // Three wait since yesterday; the retry is due after them and before the fourth.
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, gate_key, args, run_at)
         SELECT 't.moody', 'k', jsonb_build_object('n', n),
                CASE WHEN n < 4 THEN now() - interval '1 d' ELSE now() + interval '1 h' END
         FROM generate_series(1, 4) n",
    )
    .await;
    let engine = rig.play([moody]).await;
    rig.until("(SELECT count(*) = 3 FROM ingestd.job_history)")
        .await;
    let order = order.lock().unwrap().clone();
    assert_eq!(order, [(1, 1), (2, 1), (3, 1), (1, 2)]);
    stop(engine).await;
}

#[tokio::test]
async fn a_retry_gives_its_slot_to_the_next() {
    let rig = Rig::new().await;
    let failing = play("t.fails", |ctx| async move {
        match args(&ctx)["n"].as_i64() {
            Some(1) => Err(JobError::Snooze(Duration::from_hours(1))),
            _ => Ok(Done::new()),
        }
    });
    let engine = rig.play([failing]).await;
    insert(&rig, "t.fails", "k", 3, "1").await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.job_history)")
        .await;
    let left = "SELECT concat_ws(' ', state, attempt, run_at > now()) FROM ingestd.jobs";
    assert_eq!(rig.ask::<String>(left).await, "held 0 t");
    // Due now, it goes through the gate again.
    let id: i64 = rig.ask("SELECT id FROM ingestd.jobs").await;
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(control::run_now(&mut conn, JobId(id)).await.unwrap());
    rig.until("(SELECT started_at > created_at AND run_at > now() FROM ingestd.jobs)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn urgent_jobs_go_first() {
    let rig = Rig::new().await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&order);
    let noting = play("t.notes", move |ctx| {
        noted.lock().unwrap().push(ctx.lease().priority);
        async { Ok(Done::new()) }
    });
    register(&rig, &[done("t.notes")]).await;
    insert(&rig, "t.notes", "k", 8, "3 - n % 4").await;
    let engine = rig.play([noting]).await;
    rig.until_idle().await;
    assert_eq!(*order.lock().unwrap(), [0, 0, 1, 1, 2, 2, 3, 3]);
    stop(engine).await;
}

#[tokio::test]
async fn a_paused_gate_starts_nothing_and_takes_back_what_has_not_started() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.job")]).await;
    let mut conn = rig.pool().acquire().await.unwrap();
    set(&rig, "host:*", running(5)).await;
    insert(&rig, "t.job", "host:a", 3, "1").await;
    insert(&rig, "t.job", "host:b", 3, "1").await;
    rig.sql("UPDATE ingestd.jobs SET state = 'queued' WHERE gate_key = 'host:a'")
        .await;
    assert_eq!(define::pause(&mut conn, "host:a").await.unwrap(), 3);
    let limits = "SELECT max_running FROM ingestd.gates WHERE pattern = 'host:a'";
    assert_eq!(rig.ask::<i32>(limits).await, 5);
    let engine = rig.play([done("t.job")]).await;
    rig.until("(SELECT count(*) = 3 FROM ingestd.job_history)")
        .await;
    let left = "SELECT string_agg(gate_key || ' ' || state, ', ') FROM ingestd.jobs";
    assert_eq!(
        rig.ask::<String>(left).await,
        "host:a held, host:a held, host:a held"
    );
    assert!(define::resume(&mut conn, "host:a").await.unwrap());
    assert!(!define::resume(&mut conn, "host:a").await.unwrap());
    rig.until_idle().await;
    stop(engine).await;
}

/// Starts per key of kind `t.job`, and the time from the first to the last, in seconds.
const STARTS: &str = "
    SELECT count(*) AS n,
           extract(epoch FROM max(started_at) - min(started_at))::float8 AS secs
    FROM ingestd.job_history";

#[tokio::test]
async fn a_rate_holds_over_every_window_whoever_admits() {
    let rig = Rig::new().await;
    set(&rig, "api:*", rate(50.0, 5)).await;
    register(&rig, &[done("t.job")]).await;
    insert(&rig, "t.job", "api:x", 40, "1").await;
    let engines = [
        rig.play([done("t.job")]).await,
        rig.play([done("t.job")]).await,
    ];
    rig.until_idle().await;
    let row = sqlx::query(STARTS).fetch_one(rig.pool()).await.unwrap();
    let (n, secs): (i64, f64) = (row.get("n"), row.get("secs"));
    assert_eq!(n, 40);
    // What is admitted keeps to the rate; a start may come late, but no more than the burst wait
    // for theirs at any time.
    assert!(5.0 + 50.0 * secs + 6.0 >= 40.0, "40 within {secs} s");
    let worst: f64 = rig
        .ask(
            "SELECT max(n - 5 - 50 * secs)::float8 FROM (
               SELECT (SELECT count(*) FROM ingestd.job_history w
                       WHERE w.started_at BETWEEN a.started_at AND b.started_at) AS n,
                      extract(epoch FROM b.started_at - a.started_at) AS secs
               FROM ingestd.job_history a JOIN ingestd.job_history b ON b.started_at >= a.started_at) s",
        )
        .await;
    assert!(worst <= 6.0, "{worst} more than burst and rate allow");
    for engine in engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn what_has_not_started_keeps_its_token() {
    let rig = Rig::new().await;
    set(&rig, "api:*", rate(1000.0, 4)).await;
    let (waits, permits, n_started) = waiting("t.waits");
    let setup = Setup::of([waits]).slots("default", 1);
    let engine = setup.start(rig.url()).await;
    insert(&rig, "t.waits", "api:x", 30, "1").await;
    until_true("one runs", || n_started.load(Ordering::SeqCst) == 1).await;
    rig.until("(SELECT count(*) = 4 FROM ingestd.jobs WHERE state = 'queued')")
        .await;
    // No more than the burst wait to start, however many tokens time brings.
    for _ in 0..LOOKS {
        let n = "SELECT count(*) FROM ingestd.jobs WHERE state = 'queued'";
        assert!(rig.ask::<i64>(n).await <= 4);
    }
    permits.add_permits(30);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn a_clock_set_back_does_not_freeze_a_gate() {
    let rig = Rig::new().await;
    set(&rig, "api:*", rate(20.0, 2)).await;
    // As a day ago, on a clock that was a day ahead.
    rig.sql("INSERT INTO ingestd.gate_tokens VALUES ('api:x', now() + interval '1 d')")
        .await;
    let engine = rig.play([done("t.job")]).await;
    insert(&rig, "t.job", "api:x", 3, "1").await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn what_was_admitted_and_may_not_run_frees_its_slot() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.job")]).await;
    insert(&rig, "t.job", "later", 2, "1").await;
    insert(&rig, "t.job", "paused", 2, "1").await;
    insert(&rig, "t.job", "cancelled", 2, "1").await;
    // The first of each was admitted; then somebody moved it, paused its queue, cancelled it.
    rig.sql(
        "UPDATE ingestd.jobs SET state = 'queued' WHERE args ->> 'n' = '1';
         UPDATE ingestd.jobs SET run_at = now() + interval '1 h'
         WHERE gate_key = 'later' AND state = 'queued';
         UPDATE ingestd.jobs SET queue = 'stopped' WHERE gate_key = 'paused' AND state = 'queued';
         INSERT INTO ingestd.queues (queue, paused_at) VALUES ('stopped', now())",
    )
    .await;
    let first = "SELECT id FROM ingestd.jobs WHERE gate_key = 'cancelled' AND state = 'queued'";
    let mut conn = rig.pool().acquire().await.unwrap();
    let id = JobId(rig.ask(first).await);
    let cancelled = control::cancel(&mut conn, id).await.unwrap();
    assert_eq!(cancelled, control::Cancelled::Done);
    let engine = rig.play([done("t.job")]).await;
    rig.until("(SELECT count(*) = 3 FROM ingestd.job_history WHERE state = 'completed')")
        .await;
    let left = "SELECT string_agg(gate_key || ' ' || state, ', ' ORDER BY gate_key)
                FROM ingestd.jobs";
    assert_eq!(rig.ask::<String>(left).await, "later held, paused held");
    stop(engine).await;
}

#[tokio::test]
async fn held_jobs_are_cancelled_like_queued_ones() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.job")]).await;
    insert(&rig, "t.job", "k", 1, "1").await;
    let id = JobId(
        rig.ask("SELECT id FROM ingestd.jobs WHERE state = 'held'")
            .await,
    );
    let mut conn = rig.pool().acquire().await.unwrap();
    let cancelled = control::cancel(&mut conn, id).await.unwrap();
    assert_eq!(cancelled, control::Cancelled::Done);
    let state = "SELECT state FROM ingestd.job_history";
    assert_eq!(rig.ask::<String>(state).await, "cancelled");
}

#[tokio::test]
async fn suspects_with_a_gate_wait_for_both() {
    let rig = Rig::new().await;
    let (waits, permits, n_started) = waiting("t.waits");
    let plays = [waits, done("t.suspect")];
    register(&rig, &plays).await;
    let engine = rig.play(plays).await;
    insert(&rig, "t.waits", "k", 1, "1").await;
    until_true("the slot is taken", || {
        n_started.load(Ordering::SeqCst) == 1
    })
    .await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, gate_key, crashes) VALUES ('t.suspect', 'k', 2);
         INSERT INTO ingestd.jobs (kind, state, crashes) VALUES ('t.suspect', 'held', 2)",
    )
    .await;
    // Behind a full gate, it does not keep the other suspect from its turn.
    rig.until("(SELECT count(*) = 1 FROM ingestd.job_history WHERE kind = 't.suspect')")
        .await;
    let left = "SELECT concat_ws(' ', state, gate_key) FROM ingestd.jobs WHERE kind = 't.suspect'";
    assert_eq!(rig.ask::<String>(left).await, "held k");
    permits.add_permits(1);
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn an_insert_wakes_the_keeper_and_only_a_gated_one() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.job")]).await;
    let mut listener = sqlx::postgres::PgListener::connect_with(rig.pool())
        .await
        .unwrap();
    listener.listen_all(["ingestd_gate", "bait"]).await.unwrap();
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.job')")
        .await;
    insert(&rig, "t.job", "none", 0, "1").await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, gate_key, run_at)
         VALUES ('t.job', 'late', now() + interval '1 h');
         NOTIFY bait",
    )
    .await;
    assert_eq!(listener.recv().await.unwrap().channel(), "bait");
    insert(&rig, "t.job", "one", 3, "1").await;
    assert_eq!(listener.recv().await.unwrap().payload(), "one");
    rig.sql("INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('t.job', 'x'), ('t.job', 'y')")
        .await;
    assert_eq!(listener.recv().await.unwrap().payload(), "");
}

#[tokio::test]
async fn a_transaction_that_goes_on_silences_no_gate() {
    let rig = Rig::new().await;
    let setup = Setup::of([done("t.gated").queue("gated")]);
    let setup = setup.with(|q| q.poll_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    let woken = "ingestd_wakeups_total{queue=\"gated\",reason=\"notify\"}";
    until_true("it listens", || counter(woken) >= 1.0).await;
    let insert = "INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('t.gated', 'k')";
    let mut long = rig.pool().begin().await.unwrap();
    sqlx::query(insert).execute(&mut *long).await.unwrap();
    for n in 1..=3 {
        rig.sql(insert).await;
        rig.until(&format!("(SELECT count(*) = {n} FROM ingestd.job_history)"))
            .await;
    }
    // Its own job is announced when it is there.
    long.commit().await.unwrap();
    rig.until("(SELECT count(*) = 4 FROM ingestd.job_history)")
        .await;
    stop(engine).await;
}

#[tokio::test]
async fn what_was_claimed_and_did_not_begin_keeps_its_token() {
    let rig = Rig::new().await;
    let (slow, permits, _) = waiting("t.slow");
    let setup = Setup::of([slow, done("t.short"), done("t.bait")])
        .slots("default", 1)
        .in_rows();
    let engine = setup.start(rig.url()).await;
    // It learns that its jobs are short, and claims ahead.
    rig.sql("INSERT INTO ingestd.jobs (kind) SELECT 't.short' FROM generate_series(1, 40)")
        .await;
    rig.until_idle().await;
    // The bucket has one token, and the next comes in a day.
    set(&rig, "api", rate(0.000_01, 1)).await;
    rig.sql("INSERT INTO ingestd.jobs (kind) VALUES ('t.slow')")
        .await;
    rig.until("(SELECT state = 'running' FROM ingestd.jobs)")
        .await;
    insert(&rig, "t.short", "api", 1, "1").await;
    rig.until("(SELECT count(*) = 2 FROM ingestd.jobs WHERE state = 'running')")
        .await;
    let lease = "SELECT lease_id FROM ingestd.jobs WHERE gate_key = 'api'";
    let lease: i64 = rig.ask(lease).await;
    rig.until(&format!(
        "(SELECT lease_id IS DISTINCT FROM {lease} FROM ingestd.jobs WHERE gate_key = 'api')"
    ))
    .await;
    permits.add_permits(1);
    rig.until_idle().await;
    // Neither does one pay twice whose claim was not answered.
    rig.sql(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
           $$BEGIN RAISE EXCEPTION 'no'; END$$;
         CREATE TRIGGER refuse BEFORE UPDATE ON ingestd.jobs
           FOR EACH ROW WHEN (NEW.kind = 't.bait') EXECUTE FUNCTION refuse();
         INSERT INTO ingestd.jobs (kind, gate_key) VALUES ('t.short', 'api');
         UPDATE ingestd.jobs SET state = 'running', lease_id = nextval('ingestd.lease_seq'),
           attempt = 1, worker_id = (SELECT id FROM ingestd.workers WHERE ended_at IS NULL),
           deadline_at = now() + interval '1 h';
         INSERT INTO ingestd.jobs (kind) VALUES ('t.bait')",
    )
    .await;
    rig.until("NOT EXISTS (SELECT FROM ingestd.jobs WHERE gate_key = 'api' AND state = 'running')")
        .await;
    rig.sql("DROP TRIGGER refuse ON ingestd.jobs").await;
    rig.until_idle().await;
    stop(engine).await;
}

#[tokio::test]
async fn the_most_specific_pattern_counts() {
    let rig = Rig::new().await;
    for (pattern, n) in [("*", 9), ("a*", 8), ("a:b*", 7), ("a:b", 6), ("z", 5)] {
        set(&rig, pattern, running(n)).await;
    }
    for (key, pattern) in [
        ("a:b", "a:b"),
        ("a:bc", "a:b*"),
        ("a:", "a*"),
        ("a", "a*"),
        ("zz", "*"),
        ("z", "z"),
    ] {
        let of = format!("SELECT pattern FROM ingestd.gate_of('{key}')");
        assert_eq!(rig.ask::<String>(&of).await, pattern, "{key}");
    }
    let mut conn = rig.pool().acquire().await.unwrap();
    assert!(define::remove(&mut conn, "*").await.unwrap());
    assert!(!define::remove(&mut conn, "*").await.unwrap());
    let none = "SELECT concat(pattern, max_running) FROM ingestd.gate_of('zz')";
    assert_eq!(rig.ask::<String>(none).await, "1");
}

#[tokio::test]
async fn people_win_over_the_configuration() {
    let rig = Rig::new().await;
    let mut conn = rig.pool().acquire().await.unwrap();
    let gates = |text: &str| toml::from_str::<config::Config>(text).unwrap().gates;
    let all = "SELECT coalesce(string_agg(concat_ws(' ', pattern, max_running, origin,
                 CASE WHEN paused_at IS NOT NULL THEN 'paused' END), ', ' ORDER BY pattern), '')
               FROM ingestd.gates";
    set(&rig, "mine", running(7)).await;
    let first = gates("[gates]\n\"a*\" = {max_running = 1}\nb = {}\nmine = {max_running = 2}");
    define::sync(&mut conn, &first).await.unwrap();
    assert_eq!(
        rig.ask::<String>(all).await,
        "a* 1 config, b config, mine 7 user"
    );
    define::pause(&mut conn, "b").await.unwrap();
    let second = gates("[gates]\n\"a*\" = {max_running = 3}\nmine = {max_running = 2}");
    define::sync(&mut conn, &second).await.unwrap();
    assert_eq!(
        rig.ask::<String>(all).await,
        "a* 3 config, b config paused, mine 7 user"
    );
    define::resume(&mut conn, "b").await.unwrap();
    set(&rig, "a*", running(4)).await;
    define::sync(&mut conn, &config::Gates::default())
        .await
        .unwrap();
    assert_eq!(rig.ask::<String>(all).await, "a* 4 user, mine 7 user");
}

#[tokio::test]
async fn many_keys_pass_at_once_without_a_notification() {
    let rig = Rig::new().await;
    register(&rig, &[done("t.job")]).await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, gate_key)
         SELECT 't.job', 'key ' || n % 350 FROM generate_series(1, 700) n",
    )
    .await;
    let before = counter("ingestd_gate_admitted_total{gate=\"none\"}");
    let engine = Setup::of([done("t.job")])
        .polling()
        .slots("default", 100)
        .start(rig.url())
        .await;
    rig.until_idle().await;
    assert!(counter("ingestd_gate_admitted_total{gate=\"none\"}") >= before + 700.0);
    stop(engine).await;
}

#[tokio::test]
async fn two_that_admit_at_once_admit_no_more_than_one_would() {
    let rig = Rig::new().await;
    let plays = [done("t.job")];
    register(&rig, &plays).await;
    set(&rig, "k", running(3)).await;
    insert(&rig, "t.job", "k", 100, "1").await;
    let engines = [
        Setup::of(plays.clone()).start(rig.url()).await,
        Setup::of(plays.clone()).polling().start(rig.url()).await,
        Setup::of(plays).start(rig.url()).await,
    ];
    for _ in 0..LOOKS {
        let n = "SELECT count(*) FROM ingestd.jobs WHERE state <> 'held'";
        assert!(rig.ask::<i64>(n).await <= 3);
    }
    rig.until_idle().await;
    for engine in engines {
        stop(engine).await;
    }
}

#[tokio::test]
async fn a_gate_without_a_rate_fills_all_its_slots_in_one_look() {
    let rig = Rig::new().await;
    let (play, permits, started) = waiting("t.wide");
    let setup = Setup::of([play])
        .slots("default", 20)
        .with(|q| q.poll_interval = Duration::from_hours(1));
    let engine = setup.start(rig.url()).await;
    rig.sql("INSERT INTO ingestd.gates (pattern, max_running) VALUES ('wide:*', 10)")
        .await;
    rig.sql(
        "INSERT INTO ingestd.jobs (kind, gate_key)
         SELECT 't.wide', 'wide:a' FROM generate_series(1, 12)",
    )
    .await;
    // Nobody looks again by the clock, and no job ends: what was let go was let go at once.
    until_true("ten run", || started.load(Ordering::SeqCst) == 10).await;
    permits.add_permits(12);
    rig.until_idle().await;
    stop(engine).await;
}
