//! The life of the process: tasks that shutdown waits for, signals, and what
//! the service manager is told.
//!
//! A stop is *soft* first: nothing new is begun, what runs may end. It becomes
//! *hard* at a second signal or when the time for the soft stop is over: what
//! still runs is dropped. Jobs that are dropped go back to the queue by their
//! lease, so a hard stop loses time and no work.

mod notify;
mod recycle;
mod shutdown;
mod signal;
mod watchdog;

pub use notify::Notifier;
pub use recycle::Recycler;
pub use shutdown::{Cause, Drained, Shutdown};
pub use signal::watch_signals;
pub use watchdog::Watchdog;
