//! Telling others what happened: the search server, mail, webhooks.
//!
//! Not logs and metrics, which are `observe`'s: what is told here goes to other people's programs,
//! through jobs, so that it is tried again until they take it.

pub mod mail;
pub mod search;
pub mod webhook;
