//! The HTTP server as its clients see it: a real listener, a real database.

mod access;
mod change;
mod connection;
mod dead;
mod enqueue;
mod gate;
mod health;
mod import;
mod job;
mod probe;
mod problem;
mod record;
mod run;
mod schedule;
mod server;
mod source;
mod stats;
mod webhook;
