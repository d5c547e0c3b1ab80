//! The connection to Postgres: the pool and its sessions, the migrations, which errors pass.

mod bounded;
mod error;
mod migrate;
mod pool;
mod relay;

pub mod copy;

pub use bounded::Bounded;
pub use error::{AWAY_PAUSE, FULL_PAUSE, is_refusal, is_transient, outage};
pub use migrate::{migrate, migrate_in_one, migrate_or_follow, migrator, migrator_of};
pub use pool::{connect, connect_queue, one_plan, records, session};
pub use relay::relayed_to;
