//! Sources of imports: product files that are fetched, not uploaded.
//!
//! A **source** is a row of `catalog.sources`: a path, a URL or an object of an S3-compatible
//! store that is looked at by its schedule and imported whenever it has changed, or a watched
//! **folder** whose new files are imported once each. A *look* is one job `catalog.fetch_source`.
//!
//! * [`Definition`] is what a source says, `store` its row, `sync` brings in the configuration's;
//! * `take` gets the file into the blob store: from `place`, the file system below the folders
//!   that `sources.allowed_dirs` lists; from a URL through [`crate::fetch`], over HTTP or
//!   by `ftp`; from `s3` likewise, with a signature; `credential` is how it logs in;
//! * `options` hands on what the import is asked for;
//! * `job` looks at a source; `folder`, with `file`, at a watched one; `once` fetches a file
//!   without a source.
//!
//! # Once, whatever happens
//!
//! What is remembered of a version is written in the transaction that submits its import: a crash
//! before the commit leaves nothing but a blob that is swept, one after it leaves both. Looks that
//! overlap (a tick and a person, a lost lease) read the same `seen_no`; the first commit raises
//! it, and the other look writes nothing. A file of a watched folder has a row of its own, and the
//! row is the truth: submitted, it is not imported again, moved away or not.
//!
//! # Who wins
//!
//! As with schedules: a user's source before one of the configuration, and only its owner changes
//! it. A source's schedule is `source:NAME`; pausing the one pauses the other.

mod credential;
mod definition;
mod file;
mod folder;
mod ftp;
mod job;
mod once;
mod options;
mod pattern;
mod place;
mod s3;
mod store;
mod sync;
mod take;

pub use credential::is_secret_of;
pub use definition::{Definition, Kind, Ready, check_name, schedule_name};
pub(crate) use definition::{default_tenant, utc};
pub use file::{SourceFile, files};
pub use job::FetchSource;
pub use once::FetchFile;
pub use options::Options;
pub use store::{
    Added, LookResult, MOST_SOURCES, Removed, Source, add, get, list, remove, run_now,
};
pub use sync::{Synced, sync};
