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
mod live;
mod once;
mod openapi;
mod page;
mod probe;
mod problem;
mod record;
mod run;
mod schedule;
mod search;
mod server;
mod session;
mod source;
mod stats;
mod tenant;
mod token;
mod webhook;
