//! The integration tests: one binary, one file per subject.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking; the lint knows test functions, not those they share"
)]

mod architecture;
mod bulk;
mod cli;
mod cluster;
mod copy;
mod example;
mod fault_load;
mod fault_network;
mod fault_pooled;
mod fault_pooler;
mod fault_postgres;
mod fault_process;
mod fault_step;
mod grafana;
mod http;
mod import;
mod load;
mod load_plan;
mod load_race;
mod load_refusal;
mod load_rig;
mod load_view;
mod observe;
mod partition;
mod pooler;
mod process;
mod prometheus;
mod queue_ahead;
mod queue_cancel;
mod queue_change;
mod queue_dead;
mod queue_enqueue;
mod queue_fence;
mod queue_gate;
mod queue_ledger;
mod queue_model;
mod queue_outcome;
mod queue_output;
mod queue_record;
mod queue_rescue;
mod queue_rig;
mod queue_rule;
mod queue_schedule;
mod queue_step;
mod queue_stop;
mod queue_unique;
mod queue_wake;
mod queue_why;
mod readme;
mod runs;
mod schedule_fault;
mod schedule_people;
mod schedule_sync;
mod schema;
mod sql;
mod stats;
mod systemd;
mod walsender;
mod watch;
mod webhook_delivery;
mod webhook_event;
mod webhook_rig;
