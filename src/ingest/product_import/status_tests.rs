//! Progress and words, without a database.

use serde_json::json;

use super::*;
use crate::runs::RunId;

fn run(state: RunState, items: [i64; 3], items_total: Option<i64>) -> Run {
    let at = DateTime::UNIX_EPOCH;
    let [items_ok, items_failed, items_skipped] = items;
    Run {
        id: RunId(123),
        system: "product_import".into(),
        state,
        stage: None,
        tenant: "default".into(),
        triggered_by: "api".into(),
        params: json!({}),
        cursor: None,
        items_total,
        items_ok,
        items_failed,
        items_skipped,
        details: json!({}),
        error: None,
        retry_count: 0,
        created_at: at,
        started_at: Some(at),
        heartbeat_at: Some(at),
        finished_at: state.is_final().then_some(at),
    }
}

#[test]
fn progress_is_never_ahead_of_the_rows() {
    for (state, items, total, expected) in [
        (RunState::Pending, [0, 0, 0], Some(700_000), (0, 700_000, 0)),
        (RunState::Pending, [0, 0, 0], None, (0, 0, 0)),
        (
            RunState::Running,
            [49_000, 500, 500],
            Some(700_000),
            (50_000, 700_000, 7),
        ),
        (RunState::Running, [10, 0, 0], None, (10, 0, 0)),
        (
            RunState::Running,
            [700_000, 0, 0],
            Some(700_000),
            (700_000, 700_000, 99),
        ),
        (RunState::Running, [12, 0, 0], Some(10), (12, 12, 99)),
        (
            RunState::Completed,
            [699_000, 500, 500],
            Some(700_000),
            (700_000, 700_000, 100),
        ),
        (RunState::Completed, [0, 0, 0], Some(0), (0, 0, 100)),
        (
            RunState::Failed,
            [10_000, 0, 0],
            Some(700_000),
            (10_000, 700_000, 1),
        ),
    ] {
        let Progress {
            current,
            total,
            percentage,
        } = Progress::of(&run(state, items, total));
        assert_eq!(
            (current, total, percentage),
            expected,
            "{state:?} {items:?}"
        );
    }
}

#[test]
fn six_states_are_four_words() {
    for (state, word) in [
        (RunState::Pending, "pending"),
        (RunState::Running, "processing"),
        (RunState::Paused, "processing"),
        (RunState::Completed, "completed"),
        (RunState::Failed, "failed"),
        (RunState::Cancelled, "failed"),
    ] {
        assert_eq!(json!(Status::from(state)), word);
    }
}

#[test]
fn times_are_utc_with_a_z() {
    let time = "2024-01-28T12:00:00.987+02:00".parse().unwrap();
    assert_eq!(utc(time), "2024-01-28T10:00:00Z");
}
