//! ingestd: a durable job queue on Postgres, and the ingestion that runs on it.
//!
//! A job is a row in `ingestd.jobs`. It passes through five steps, each a file
//! of [`queue`], in this order: *enqueue*, *claim*, *execute*, *complete*; the
//! fifth, *observe*, is [`observe`]'s events, the history and the dead letters.
//!
//! # To use it
//!
//! As a daemon: the README. As a library: `examples/worker.rs` is a program with a kind of its own
//! that enqueues in its own transaction, and [`queue::Engine::connect`] where it begins. By SQL
//! alone: `examples/session.sql`. A test runs both.
//!
//! # The map, in reading order
//!
//! | module | what it is |
//! |---|---|
//! | [`queue`] | the durable queue; knows nothing of what jobs do |
//! | [`runs`] | progress of work with many items: batches and fan-outs |
//! | [`ingest`] | what jobs do: one folder per system, one line per kind in [`ingest::ALL`] |
//! | [`source`] | product files that are fetched: paths, URLs, S3, watched folders |
//! | [`notify`] | telling others what happened: webhooks |
//! | [`daemon`] | builds the parts, starts them in order, drains them in reverse |
//! | [`lifecycle`] | signals, soft and hard stop, the service manager |
//! | [`observe`] | events that write log line and metric together; gauges |
//! | [`access`] | who may do what: roles, tenants, tokens |
//! | [`config`] | one file per section: struct, defaults, checks |
//! | [`db`] | the pool and its sessions, the migrations, binary COPY |
//! | [`blob`] | uploaded files |
//! | [`fetch`] | the one way out over HTTP: what may be asked for, how much is read |
//! | [`dev`] | the private Postgres behind `ingestd dev` |
//! | [`cli`] | one file per command |
//!
//! # Invariants
//!
//! 1. `queue` never names `ingest` or `runs`: it is handed a slice of kinds. `runs` never names `ingest`.
//! 2. A crate with a room of its own stays in it: apalis and cron in `queue`, the metrics crates in
//!    `observe`, axum in `http` and the systems' `routes`, reqwest in `fetch`, clap in `cli`.
//! 3. A system never names another; the next step is enqueued.
//! 4. A job's state is written only in `queue`, a run's only in `runs`, always with the expected
//!    state in the WHERE.
//! 5. No transaction stays open while a handler waits for anything but the database.
//! 6. Decisions about time are the database's; chance comes in as an argument where it is judged.
//!
//! The tests check what `use` lines can show of it.
pub mod access;
pub mod blob;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod db;
pub mod dev;
pub mod fetch;
pub mod http;
pub mod ingest;
pub mod lifecycle;
pub mod notify;
pub mod observe;
pub mod queue;
pub mod runs;
pub mod source;
#[doc(hidden)]
pub mod testing;
