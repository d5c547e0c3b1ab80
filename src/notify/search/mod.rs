//! Search: a search server (Typesense) is told of the products that imports change.
//!
//! | file | what it does |
//! |---|---|
//! | `outbox` | notes what changed, in the change's own transaction |
//! | `document` | makes a document of a product |
//! | `server` | the requests, and what their answers mean |
//! | `send` | one batch: read, send, settle |
//! | `index` | which collection is behind the alias, and how far its rebuild is |
//! | `sync`, `rebuild` | the jobs |
//! | `people` | what people ask and do |
//!
//! **What holds.** A note says only that a product changed; what is sent is the product as it is
//! then. A note goes once the server has taken the product's line, so that a crash in between sends
//! the same document again, which changes nothing. Jobs that send take turns at the gate
//! [`GATE`], so that no older document follows a newer one. A worker that was paused past its lease
//! in the middle of a request may still break that order: where it finds its lease gone it notes
//! its products again, and the next batch mends them.

mod document;
mod index;
mod outbox;
mod people;
mod rebuild;
mod send;
mod server;
mod sync;

pub use outbox::note;
pub use people::{Failure, Status, failures, retry, status};
pub use rebuild::Rebuild;
pub use sync::{Look, SyncSearch, after_import};

/// The key at which all jobs that speak to the search server take turns, one at a time.
const GATE: &str = "search";
