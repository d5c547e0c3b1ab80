//! ingestd: a durable job queue on Postgres and the ingestion that runs on it.

pub mod blob;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod db;
pub mod dev;
pub mod ingest;
pub mod lifecycle;
pub mod observe;
pub mod queue;
pub mod runs;
#[doc(hidden)]
pub mod testing;
