//! Files too large for a row: a folder on this machine, with names the daemon makes itself.

mod folder;

pub use folder::{Blob, Store, Writer};
