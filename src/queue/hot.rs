//! The hot statements, in one list: what a plan must look like for the queue to stay fast.

use super::{claim, claimer, complete, lane, rescue};
use crate::observe::gauge;

/// A statement that runs all the time, and the plan it is written for.
#[derive(Debug, Clone, Copy)]
pub(super) struct HotStatement {
    /// Its name, in metrics and alerts.
    pub(super) name: &'static str,
    /// Its text.
    pub(super) sql: &'static str,
    /// The types of its parameters, in SQL.
    pub(super) types: &'static [&'static str],
    /// The indexes of `ingestd.jobs` that it must use, and no others, each with the columns that
    /// must limit what is read of it.
    pub(super) indexes: &'static [(&'static str, &'static [&'static str])],
    /// Whether it may sort or hash what it found, because that never is much.
    pub(super) may_gather: bool,
}

const READY: (&str, &[&str]) = ("jobs_ready", &["queue", "priority", "run_at"]);
const BY_ID: (&str, &[&str]) = ("jobs_pkey", &["id"]);
/// Read from queue to queue, or whole: few rows run.
const READY_BY_STEPS: (&str, &[&str]) = ("jobs_ready", &["shard"]);
const RUNNING: (&str, &[&str]) = ("jobs_running", &["shard"]);
const HELD_BY_STEPS: (&str, &[&str]) = ("jobs_held_queue", &["shard"]);

/// The hot statements.
pub(super) const HOT: &[HotStatement] = &[
    HotStatement {
        name: "claim",
        sql: claim::CLAIM,
        types: &[
            "text",
            "bigint",
            "smallint[]",
            "timestamptz[]",
            "bigint",
            "text[]",
            "interval[]",
            "boolean",
            "bigint",
        ],
        indexes: &[READY, BY_ID, RUNNING],
        may_gather: false,
    },
    HotStatement {
        name: "claim_batch",
        sql: claim::CLAIM_BATCH,
        types: &[
            "text",
            "bigint",
            "smallint[]",
            "timestamptz[]",
            "bigint",
            "text[]",
            "interval[]",
            "boolean",
            "bigint",
        ],
        indexes: &[READY, BY_ID, RUNNING],
        may_gather: false,
    },
    HotStatement {
        name: "next_due",
        sql: claimer::NEXT_DUE,
        types: &["text"],
        indexes: &[READY],
        may_gather: false,
    },
    HotStatement {
        name: "finish",
        sql: complete::FINISH,
        types: &[
            "bigint[]", "bigint[]", "text", "jsonb[]", "bigint[]", "bigint[]", "bigint",
        ],
        indexes: &[BY_ID],
        may_gather: false,
    },
    HotStatement {
        name: "postpone",
        sql: complete::POSTPONE,
        types: &[
            "bigint[]", "bigint[]", "bigint[]", "text[]", "text[]", "bigint",
        ],
        indexes: &[BY_ID],
        may_gather: false,
    },
    HotStatement {
        name: "discover",
        sql: lane::DISCOVER,
        types: &[],
        indexes: &[READY_BY_STEPS],
        may_gather: false,
    },
    HotStatement {
        name: "lost",
        sql: rescue::LOST,
        types: &["bigint", "bigint"],
        indexes: &[RUNNING],
        may_gather: true,
    },
    HotStatement {
        name: "depth",
        sql: gauge::DEPTH,
        types: &["bigint"],
        indexes: &[READY_BY_STEPS, RUNNING, HELD_BY_STEPS],
        may_gather: true,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_parameter_has_a_type() {
        for (place, hot) in HOT.iter().enumerate() {
            assert!(HOT[..place].iter().all(|other| other.name != hot.name));
            let n_parameters = (1..20)
                .filter(|n| hot.sql.contains(&format!("${n}")))
                .count();
            assert_eq!(n_parameters, hot.types.len(), "{}", hot.name);
        }
    }
}

#[cfg(test)]
#[path = "hot_tests.rs"]
mod buffers;
