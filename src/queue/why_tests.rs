//! What follows from which facts.

use super::*;

const ID: JobId = JobId(7);

fn now() -> DateTime<Utc> {
    "2026-11-27T12:00:00Z".parse().unwrap()
}

fn secs(n: i64) -> DateTime<Utc> {
    now() + TimeDelta::seconds(n)
}

/// A job that was due a second ago, with a daemon that could take it.
fn due() -> Facts {
    Facts {
        now: now(),
        state: JobState::Queued,
        kind: "a.b".into(),
        queue: "q".into(),
        attempt: 0,
        max_attempts: Some(12),
        crashes: 0,
        run_at: secs(-1),
        started_at: None,
        deadline_at: None,
        cancel_requested: false,
        gate_key: None,
        last_error: None,
        worker_id: None,
        worker_host: None,
        worker_pid: None,
        worker_heartbeat_at: None,
        worker_ended: false,
        queue_paused_at: None,
        queue_max_running: None,
        n_running: 0,
        n_workers: 1,
        n_workers_of_queue: 1,
        is_told: false,
        n_slots: 0,
        n_taken: 0,
        told_at: None,
        is_kind_known: true,
        is_suspect_out: false,
        n_ahead: 0,
    }
}

fn running() -> Facts {
    Facts {
        state: JobState::Running,
        attempt: 1,
        started_at: Some(secs(-90)),
        deadline_at: Some(secs(60)),
        worker_id: Some(3),
        worker_host: Some("box".into()),
        worker_pid: Some(42),
        worker_heartbeat_at: Some(secs(-2)),
        ..due()
    }
}

fn held() -> Facts {
    Facts {
        state: JobState::Held,
        gate_key: Some("host:a".into()),
        ..due()
    }
}

fn gate() -> Gate {
    Gate {
        pattern: Some("host:*".into()),
        max_running: Some(2),
        rate_per_sec: None,
        paused: false,
        n_used: 0,
        tokens: None,
    }
}

fn codes(facts: &Facts, gate: Option<&Gate>) -> Vec<Code> {
    reasons(ID, facts, gate)
        .iter()
        .map(|reason| reason.code)
        .collect()
}

/// A waiting job that differs from [`due`].
fn waiting(change: impl FnOnce(&mut Facts)) -> Vec<Code> {
    let mut facts = due();
    change(&mut facts);
    codes(&facts, None)
}

#[test]
fn what_waits_has_its_reason() {
    use Code as C;
    assert_eq!(waiting(|_| {}), [C::Due]);
    assert_eq!(waiting(|f| f.run_at = secs(90)), [C::Scheduled]);
    assert_eq!(
        waiting(|f| (f.run_at, f.attempt) = (secs(90), 2)),
        [C::Retrying]
    );
    assert_eq!(
        waiting(|f| (f.run_at, f.crashes) = (secs(90), 1)),
        [C::Retrying]
    );
    assert_eq!(
        waiting(|f| f.queue_paused_at = Some(secs(-9))),
        [C::QueuePaused]
    );
    let limited = |n| waiting(|f| (f.queue_max_running, f.n_running) = (Some(3), n));
    assert_eq!((limited(3), limited(2)), (vec![C::QueueFull], vec![C::Due]));
    assert_eq!(
        waiting(|f| (f.state, f.crashes) = (JobState::Held, 2)),
        [C::Suspect]
    );
}

#[test]
fn what_nobody_takes_has_its_reason() {
    use Code as C;
    assert_eq!(
        waiting(|f| (f.n_workers, f.is_kind_known) = (0, false)),
        [C::NoWorker]
    );
    assert_eq!(waiting(|f| f.is_kind_known = false), [C::KindUnknown]);
    // A queue that nobody named is found within seconds.
    assert_eq!(waiting(|f| f.n_workers_of_queue = 0), [C::Due]);
    let unnamed =
        |n| waiting(|f| (f.n_workers_of_queue, f.run_at, f.n_running) = (0, secs(-60), n));
    assert_eq!(
        (unnamed(0), unnamed(1)),
        (vec![C::QueueUnnamed], vec![C::Busy])
    );
    assert_eq!(waiting(|f| (f.n_ahead, f.n_running) = (4, 5)), [C::Behind]);
    assert_eq!(
        waiting(|f| (f.run_at, f.n_running) = (secs(-60), 5)),
        [C::Busy]
    );
}

#[test]
fn where_workers_tell_of_their_slots_nothing_is_guessed() {
    let told = |n_taken, run_at| {
        let facts = Facts {
            run_at,
            n_running: 5,
            is_told: true,
            n_slots: 12,
            n_taken,
            told_at: Some(secs(-4)),
            ..due()
        };
        reasons(ID, &facts, None).remove(0)
    };
    let full = told(12, secs(-1));
    assert_eq!(full.code, Code::Busy);
    assert!(
        full.text.contains("4s ago all 12 slots of queue q"),
        "{}",
        full.text
    );
    assert_eq!(told(11, secs(-60)).code, Code::Due);
}

#[test]
fn what_runs_or_seems_to_says_so() {
    use Code as C;
    let told = |change: fn(&mut Facts)| {
        let mut facts = running();
        change(&mut facts);
        codes(&facts, None)
    };
    assert_eq!(told(|_| {}), [C::Running]);
    assert_eq!(
        told(|f| f.cancel_requested = true),
        [C::Running, C::CancelRequested]
    );
    for lost in [
        told(|f| f.worker_ended = true),
        told(|f| f.worker_heartbeat_at = None),
        told(|f| f.worker_heartbeat_at = Some(secs(-31))),
        told(|f| f.deadline_at = Some(secs(-1))),
    ] {
        assert_eq!(lost, [C::Lost, C::Running]);
    }
}

#[test]
fn each_state_of_a_gate_has_its_reason() {
    use Code as C;
    for (gate, expected) in [
        (gate(), vec![C::GateTurn]),
        (
            Gate {
                paused: true,
                n_used: 2,
                ..gate()
            },
            vec![C::GatePaused],
        ),
        (
            Gate {
                n_used: 2,
                ..gate()
            },
            vec![C::GateFull],
        ),
        (
            Gate {
                max_running: None,
                n_used: 9,
                ..gate()
            },
            vec![C::GateTurn],
        ),
        (
            Gate {
                rate_per_sec: Some(0.5),
                tokens: Some(0.9),
                ..gate()
            },
            vec![C::GateRate],
        ),
        (
            Gate {
                rate_per_sec: Some(0.5),
                tokens: Some(1.0),
                ..gate()
            },
            vec![C::GateTurn],
        ),
    ] {
        assert_eq!(codes(&held(), Some(&gate)), expected, "{gate:?}");
    }
    // One for later is not in its turn yet, and a suspect has another turn.
    assert_eq!(
        codes(
            &Facts {
                run_at: secs(9),
                ..held()
            },
            Some(&gate())
        ),
        [C::Scheduled]
    );
    assert_eq!(
        codes(
            &Facts {
                crashes: 2,
                ..held()
            },
            Some(&gate())
        ),
        [C::Suspect]
    );
}

#[test]
fn what_is_in_the_way_is_told_in_order() {
    use Code as C;
    let facts = Facts {
        run_at: secs(90),
        attempt: 1,
        queue_paused_at: Some(secs(-5)),
        queue_max_running: Some(1),
        n_running: 1,
        n_workers: 0,
        n_ahead: 3,
        ..held()
    };
    let gate = Gate {
        n_used: 2,
        ..gate()
    };
    assert_eq!(
        codes(&facts, Some(&gate)),
        [
            C::Retrying,
            C::QueuePaused,
            C::GateFull,
            C::QueueFull,
            C::NoWorker
        ]
    );
}

#[test]
fn people_are_told_in_sentences() {
    let facts = Facts {
        run_at: secs(90),
        attempt: 2,
        last_error: Some("no route\nto host".into()),
        ..due()
    };
    let told = reasons(ID, &facts, None).remove(0);
    assert_eq!(
        told.text,
        "Attempt 2 of 12 failed; the next is due at 2026-11-27 12:01:30 UTC, in 1m 30s. It said: \
         no route"
    );
    assert_eq!(
        told.advice.as_deref(),
        Some("run it now: ingestd jobs retry 7")
    );
    let told = reasons(ID, &running(), None).remove(0);
    assert_eq!(
        told.text,
        "It runs for 1m 30s, by worker 3 (box, pid 42), last heard of 2s ago."
    );
    let facts = Facts {
        n_ahead: MOST_COUNTED,
        ..due()
    };
    assert_eq!(
        reasons(ID, &facts, None)[0].text,
        "more than 1000 due jobs of queue q are before it."
    );
}

#[test]
fn codes_are_words_for_programs() {
    let json = serde_json::to_value(reasons(ID, &due(), None)).unwrap();
    assert_eq!(json[0]["code"], "due");
    assert_eq!(json[0]["advice"], serde_json::Value::Null);
}
